"""`mae calibrate`: are the recipe's judges to be trusted with its rewards?

Planted answers of known worth stand among real rollouts whose worth a program or a person has told. The judges are
asked as `mae judge` asks them; their replies are rows like all others, so they are stored and resumed. The figures
say what the judges are worth, and the recipe's bars whether that is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import ConfigError, GateError
from mae_cli.plugins import registry
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Row
from mae_cli.records.atomic import write_json
from mae_cli.records.file_names import STDIO, summary_path
from mae_cli.records.resumable_file import Output
from mae_cli.stages.calibration.bars import check_bars, failure
from mae_cli.stages.calibration.known_answers import KnownAnswer, collect_answers, pairs_to_compare
from mae_cli.stages.calibration.report import make_report
from mae_cli.stages.generation.generate import Generated, generate, limit_rows
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary
from mae_cli.stages.judging.details import gate_unparsed
from mae_cli.stages.judging.panel import Panel


def run_calibrate(
    job: Job,
    problems_path: Path | None,
    output_path: Path,
    *,
    rollouts_path: Path | None = None,
    labels_path: Path | None = None,
) -> StageSummary:
    """Ask the recipe's judges about answers of known worth and report what they are worth; see `CalibrateSection`.

    Raises:
        GateError: a figure misses a bar of `calibrate.bars`, or more judgements are unparsed than
            `judge.max_unparsed` allows a judge with bars; the file and the figures are written all the same.
        ConfigError: nothing to ask about, no judge, or a bar that these judges have no figure for.
    """
    section = job.recipe.calibrate
    panel = Panel(job)
    targets = {target for judge in panel.judges for target in judge.targets}
    _check_targets(targets)
    check_bars(section.bars, targets)
    items, skipped = collect_answers(job, panel, problems_path, rollouts_path, labels_path)
    if not items:
        raise ConfigError("nothing to calibrate on; give problems with reference answers, --rollouts or --labels")
    pairs = pairs_to_compare(items)
    files = [("--rollouts", rollouts_path), ("--labels", labels_path)]
    command = [
        "judge-calibrate",
        *([problems_path] if problems_path else []),
        *(part for flag, path in files if path is not None for part in (flag, path)),
    ]
    inputs = [path for path in (problems_path, rollouts_path, labels_path) if path is not None]
    with job.output("judge-calibrate", output_path, _fingerprint(job, panel), *inputs) as output:
        for notice in output.notices:
            job.progress.say(notice)
        made = _ask(job, panel, output, items, pairs, command)
        if not output.is_current(made.rows):
            output.finish(made.rows)
    summary = made.summary("judge-calibrate", output_path, read=len(items), written=len(made.rows))
    if job.shard is not None:
        return summary  # a part of the judgements says nothing yet
    report = make_report(job, panel, items, pairs, made.rows, skipped)
    summary.details = report.as_json()
    if output_path != STDIO:
        write_json(summary_path(output_path), summary.details)
    job.progress.say(report.text())
    if missed := report.missed():
        raise GateError(f"{summary.path}: the judge is below its bars: {'; '.join(map(failure, missed))}")
    if section.bars:
        # Bars are about what could be read: a judge that seldom says anything could pass them all.
        gate_unparsed(job, summary)
    return summary


def _fingerprint(job: Job, panel: Panel) -> dict[str, Any]:
    verifier = job.recipe.calibrate.verifier
    return {
        **job.engines.fingerprint(panel.policy, job.recipe.judge.role),
        "sampling": job.recipe.judge.sampling(),
        "judges": panel.fingerprint(),
        "answer_votes": job.recipe.judge.answer_votes,
        "aggregate": job.recipe.judge.aggregate,
        "verifier": registry.resolved("verifiers", verifier) if verifier else None,
    }


def _ask(
    job: Job,
    panel: Panel,
    output: Output,
    items: list[KnownAnswer],
    pairs: Sequence[tuple[KnownAnswer, KnownAnswer]],
    command: Sequence[object],
) -> Generated:
    """The judgements of all answers and pairs, those within `--limit` finished."""
    planned = _plan(job, panel, items, pairs)
    limited = None
    if job.limit is not None:
        within = {item.candidate.id for item in limit_rows(job, items)}
        limited = [row for row in planned if within.issuperset(row.parents)]
    made = generate(
        job, output, planned, finish=panel.finish, role="judge", limited=limited, answer=panel, command=command
    )
    # A label given since then may say otherwise than the stored row, which the caller compares with the new one.
    told = {row.id: row.extra for row in planned}
    made.rows = [msgspec.structs.replace(row, extra=told[row.id]) for row in made.rows]
    return made


def check_calibration(recipe: Recipe) -> None:
    """Refuse a recipe whose bars cannot be checked, before its first stage.

    Raises:
        ConfigError: an unknown bar, one that the judges have no figure for, or no problems to plant answers with.
    """
    bars = recipe.calibrate.bars
    if not bars:
        return
    specs = recipe.judge.judge if isinstance(recipe.judge.judge, list) else [recipe.judge.judge]
    targets = {target for spec in specs if spec is not None for target in registry.build("judges", spec).targets}
    _check_targets(targets)
    check_bars(bars, targets)
    if not recipe.calibrate.problems:
        raise ConfigError("calibrate.bars need calibrate.problems: a file of problems with reference answers")


def _check_targets(targets: set[str]) -> None:
    if not targets & {"answer", "pair"}:
        raise ConfigError("judge.judge: no judge of answers or pairs to calibrate")


def _plan(
    job: Job, panel: Panel, items: Sequence[KnownAnswer], pairs: Sequence[tuple[KnownAnswer, KnownAnswer]]
) -> list[Row]:
    votes = max(1, job.recipe.judge.answer_votes)
    planned = []
    for item in items:
        for index in panel.of("answer"):
            for _ in range(panel.votes(index, votes)):
                row = panel.question(index, item.problem, [item.candidate], target=item.candidate.id, purpose="grade")
                row.extra = {"calibration": {"kind": item.kind, "is_right": item.is_right, "known_by": item.source}}
                planned.append(row)
    for pair in pairs:
        for index in panel.of("pair"):
            for one, other in (pair, pair[::-1]):
                for _ in range(panel.votes(index, votes)):
                    shown = [one.candidate, other.candidate]
                    row = panel.question(index, one.problem, shown, target=one.candidate.id, purpose="grade")
                    row.extra = {
                        "calibration": {"kinds": [one.kind, other.kind], "are_right": [one.is_right, other.is_right]}
                    }
                    planned.append(row)
    return planned
