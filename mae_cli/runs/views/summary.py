"""Summary of a run: its figures as one struct, in `summary.json`, on the page and in the cards of its adapters.

Place in the flow: `mae run` finishes with it; `export` reads the scores for the card of a model. Contract: `RunResult`
is what `mae run --json` prints and `summary.json` holds; a card that is up to date is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from mae_cli.models.cards import Score, write_card
from mae_cli.models.lineage import read_lineage
from mae_cli.recipe.steps import Step, recipe_of_step
from mae_cli.records.atomic import write_atomically, write_json
from mae_cli.records.contamination import Contamination
from mae_cli.records.read import read_json
from mae_cli.reports import eval_figures, eval_report, page, role_figures
from mae_cli.reports.comparison import Side
from mae_cli.runs.layout import PAGE, RESOLVED_RECIPE, SUMMARY, Round, adapters_in, rounds_of
from mae_cli.runs.promotion import Promotion, promotion_line
from mae_cli.stages.eval import load_eval
from mae_cli.stages.generation.job import Job


class RunResult(msgspec.Struct, kw_only=True):
    """Result of a run; what was not measured is left out."""

    rounds: int
    run_dir: str
    accepted: str | None
    """The last accepted round; null: the base."""
    best: str | None
    promotion: list[Promotion]
    held_out_among_seeds: dict[str, int]
    """By source of held-out items: how many of them are among the seeds."""
    seconds: float
    tokens: int
    contamination: Contamination | UnsetType = UNSET
    """Of the last adapter: items among what it was trained on, and rows left out for it."""
    table: str | UnsetType = UNSET
    """Held-out accuracy by round."""
    final: str | UnsetType = UNSET
    """The last accepted round against the base, in one line."""
    comparisons: list[Any] | UnsetType = UNSET
    accuracy: list[Any] | UnsetType = UNSET
    gate: str | UnsetType = UNSET
    """The decisions about promotion, a line each."""

    @property
    def trained_on(self) -> str | UnsetType:
        """What of the held-out items was trained on, in one line."""
        return UNSET if isinstance(self.contamination, UnsetType) else f"trained on: {self.contamination.line}"

    @property
    def shown_table(self) -> str:
        """The table, or nothing where nothing was measured."""
        return self.table if isinstance(self.table, str) else ""


def finish(
    job: Job, run_dir: Path, rounds: Sequence[Round], result: RunResult, deciding: Step | None, *, has_gate: bool
) -> RunResult:
    """Measure, write `summary.json`, the cards and the page.

    Args:
        job: of the run.
        run_dir: its folder.
        rounds: all rounds, the base first.
        result: what is known without the evaluated items.
        deciding: the eval step whose items are compared; null: none.
        has_gate: whether a gate decided.
    """
    paths = [(one.name, one.output(deciding)) for one in rounds] if deciding is not None else []
    policies: list[Side] = [(name, load_eval(path)) for name, path in paths if path.exists()]
    if policies and deciding is not None:
        accepted = [decision.round for decision in result.promotion if decision.accepted]
        _measure(result, policies, accepted, recipe_of_step(job.recipe, deciding).eval.confidence)
        if has_gate:
            result.gate = "\n".join(promotion_line(decision) for decision in result.promotion)
    else:
        job.progress.say("no eval.benchmarks: nothing was measured")
    write_json(run_dir / SUMMARY, result)
    refresh_cards(run_dir)
    _write_page(run_dir, rounds, result)
    return result


def _measure(result: RunResult, policies: Sequence[Side], accepted: Sequence[str], confidence: float) -> None:
    """The figures of the reported set; the final line is about the last accepted round that was evaluated."""
    figures = eval_figures.plain(eval_figures.figures_of(policies, confidence))
    last = [side for side in policies if side[0] in accepted]
    result.table = eval_report.progress_table(policies, confidence)
    result.final = eval_report.final_line([policies[0], last[-1]]) if last else eval_report.unchanged_line(policies[0])
    result.comparisons, result.accuracy = figures["comparisons"], figures["accuracy"]


def _write_page(run_dir: Path, rounds: Sequence[Round], result: RunResult) -> None:
    sections = [("Held-out items", f"{result.table}\n\n{result.final}")] if result.shown_table else []
    if isinstance(result.gate, str):
        sections.append(("Promotion", result.gate))
    for current in rounds:
        if current.roles.exists():
            roles = msgspec.convert(read_json(current.roles), list[role_figures.RoleFigures])
            sections.append((f"{current.label}: train rows by role", role_figures.role_table(roles)))
    sections.append(("Recipe", (run_dir / RESOLVED_RECIPE).read_text("utf-8")))
    html = page.html_page(f"mae run: {run_dir.name}", sections)
    write_atomically(run_dir / PAGE, html.encode())


def scores_in(run_dir: Path, label: str) -> list[Score]:
    """A round's figures in the run's summary; none where nothing was measured, or the run has not ended."""
    path = run_dir / SUMMARY
    if not path.is_file():
        return []
    summary: dict[str, Any] = read_json(path)
    found = []
    for pair in summary.get("comparisons", []):
        if pair["second"] != label or pair.get("benchmark") is not None or not pair["items"]:
            continue
        own = next((a for a in summary["accuracy"] if _is_whole(a, label, pair["reading"])), None)
        if own is not None:
            found.append(
                Score(
                    reading=pair["reading"],
                    items=pair["items"],
                    base=pair["first_share"],
                    adapter=pair["second_share"],
                    low=own["low"],
                    high=own["high"],
                    p_value=pair["p_value"],
                )
            )
    return found


def _is_whole(accuracy: Mapping[str, Any], label: str, reading: str) -> bool:
    """Whether a figure is this policy's over all items, not of one benchmark or group."""
    parts = (accuracy.get("benchmark"), accuracy.get("group"))
    return accuracy["policy"] == label and accuracy["reading"] == reading and parts == (None, None)


def refresh_cards(run_dir: Path) -> None:
    """Put the run's figures into the cards of its adapters; a card that says them already is left alone."""
    for current in rounds_of(run_dir):
        for adapter in adapters_in(current):
            lineage = read_lineage(adapter)
            if lineage is not None:
                write_card(adapter, lineage, scores_in(run_dir, current.name))
