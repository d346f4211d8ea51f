"""`mae judge-calibrate`: are the recipe's judges to be trusted with its rewards?

Planted answers of known worth stand among real rollouts whose worth a program or a person has told. The judges are
asked as `mae judge` asks them; their replies are rows like all others, so they are stored and resumed. The figures
say what the judges are worth, and the recipe's bars whether that is enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli import calibration, calibration_report, contracts, planting, pools, registry
from mae_cli.calibration import Compared, Judged
from mae_cli.config import Recipe
from mae_cli.contracts import Reading
from mae_cli.errors import ConfigError, GateError
from mae_cli.labels import Label, read_labels
from mae_cli.reading import STDIO, read_problems, summary_path
from mae_cli.records import Problem, Row, digest, mean_of_known, mean_score, seed_from, verdicts_on
from mae_cli.stages import Session, StageSummary, generate, limit_rows
from mae_cli.stages.grading import Candidate, Panel, combined_score
from mae_cli.stages.judge import gate_unparsed, reading_details
from mae_cli.store import write_json


class Item(msgspec.Struct, frozen=True):
    """One answer of known worth."""

    candidate: Candidate
    problem: Problem
    kind: str
    is_right: bool
    source: str
    """Who knows: `planted`, `verifier` or `human`."""


def run_calibrate(
    session: Session,
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
    section = session.recipe.calibrate
    panel = Panel(session)
    targets = {target for judge in panel.judges for target in judge.targets}
    _check_targets(targets)
    calibration_report.check_bars(section.bars, targets)
    items, skipped = _items(session, panel, problems_path, rollouts_path, labels_path)
    if not items:
        raise ConfigError("nothing to calibrate on; give problems with reference answers, --rollouts or --labels")
    pairs = _pairs(session, items)
    planned = _plan(session, panel, items, pairs)
    limited = None
    if session.limit is not None:
        within = {item.candidate.id for item in limit_rows(session, items)}
        limited = [row for row in planned if within.issuperset(row.parents)]
    options = {
        **session.policy_fingerprint(panel.policy, "judge"),
        "sampling": session.recipe.judge.sampling(),
        "judges": panel.fingerprint(),
        "answer_votes": session.recipe.judge.answer_votes,
        "aggregate": session.recipe.judge.aggregate,
        "verifier": registry.resolved("verifiers", section.verifier) if section.verifier else None,
    }
    inputs = [path for path in (problems_path, rollouts_path, labels_path) if path is not None]
    told = {row.id: row.extra for row in planned}
    with session.output("judge-calibrate", output_path, options, *inputs) as output:
        for notice in output.notices:
            session.progress.say(notice)
        files = (("--rollouts", rollouts_path), ("--labels", labels_path))
        made = generate(
            session,
            output,
            planned,
            finish=panel.finish,
            role="judge",
            limited=limited,
            answer=panel,
            command=[
                "judge-calibrate",
                *([problems_path] if problems_path else []),
                *(part for flag, path in files if path is not None for part in (flag, path)),
            ],
        )
        # A label given since then may say otherwise than the stored row, which is compared with the new one below.
        made.rows = [msgspec.structs.replace(row, extra=told[row.id]) for row in made.rows]
        if not output.is_current(made.rows):
            output.finish(made.rows)
    summary = made.summary("judge-calibrate", output_path, read=len(items), written=len(made.rows))
    if session.shard is not None:
        return summary  # a part of the judgements says nothing yet
    summary.details = _report(session, panel, items, pairs, made.rows, skipped)
    if output_path != STDIO:
        write_json(summary_path(output_path), summary.details)
    session.progress.say(report_text(summary.details))
    _gate(summary)
    if section.bars:
        # Bars are about what could be read: a judge that seldom says anything could pass them all.
        gate_unparsed(session, summary)
    return summary


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
    calibration_report.check_bars(bars, targets)
    if not recipe.calibrate.problems:
        raise ConfigError("calibrate.bars need calibrate.problems: a file of problems with reference answers")


def _check_targets(targets: set[str]) -> None:
    if not targets & {"answer", "pair"}:
        raise ConfigError("judge.judge: no judge of answers or pairs to calibrate")


def _gate(summary: StageSummary) -> None:
    results = msgspec.convert(summary.details["bars"], list[calibration_report.BarResult])
    missed = [calibration_report.failure(result) for result in results if not result.passed]
    if missed:
        raise GateError(f"{summary.path}: the judge is below its bars: {'; '.join(missed)}")


# ---- what is asked about


def _items(
    session: Session, panel: Panel, problems_path: Path | None, rollouts_path: Path | None, labels_path: Path | None
) -> tuple[list[Item], Counter[str]]:
    """Planted and real answers of known worth in a seeded order, and what was left out why."""
    section = session.recipe.calibrate
    verifier: contracts.Verifier | None = registry.build("verifiers", section.verifier) if section.verifier else None
    skipped: Counter[str] = Counter()
    labels = {label.id: label for label in read_labels(labels_path)} if labels_path else {}
    items: list[Item] = []
    if problems_path is not None:
        items += _planted(session, panel, read_problems(problems_path), verifier, skipped)
    if rollouts_path is not None:
        rows = [row for row in session.read(rollouts_path).rows if row.role == "solver" and row.completion]
        for row in pools.draw(rows, section.num_rollouts or len(rows), session.recipe.seed, "calibrate"):
            item = _real(row, labels.pop(row.id, None), verifier)
            items += [item] if item else []
            skipped["real answers that nobody could tell right from wrong"] += item is None
    items += [_labelled(label) for label in labels.values() if label.label is not None]
    unique = {item.candidate.id: item for item in items}
    ordered = sorted(unique.values(), key=lambda item: seed_from(session.recipe.seed, "calibrate", item.candidate.id))
    return ordered, +skipped


def _planted(
    session: Session,
    panel: Panel,
    problems: Sequence[Problem],
    verifier: contracts.Verifier | None,
    skipped: Counter[str],
) -> list[Item]:
    seed, section = session.recipe.seed, session.recipe.calibrate
    usable = []
    for problem in problems:
        if problem.reference_answer is None:
            skipped["problems without a reference answer"] += 1
        elif verifier is not None and verifier.check(problem, problem.reference_answer).score == 0.0:
            skipped["reference answers that the verifier refuses"] += 1
        else:
            usable.append(problem)
    best = _best_verdict(panel)
    items = []
    for problem in pools.draw(usable, section.num_problems or len(usable), seed, "calibrate"):
        wrong = planting.wrong_answer(problem, usable, seed, verifier)
        if wrong is None:
            skipped["problems without a plausible wrong answer"] += 1
            continue
        for planted in planting.plant(problem, wrong, best):
            identity = digest("planted", problem.id, planted.kind, planted.text)
            candidate = Candidate(identity, planted.text, planted.text)
            items.append(Item(candidate, problem, planted.kind, planted.is_right, "planted"))
    return items


def _best_verdict(panel: Panel) -> str:
    """What stands in the first judge's tags where it is most pleased."""
    judge = panel.judges[(panel.of("answer") or panel.of("pair"))[0]]
    example = Problem(id="example", question="1 + 1?")
    candidates = ["2"] if "answer" in judge.targets else ["2", "3"]
    return max(judge.ask(example, candidates, "0000").options, key=lambda option: option.score).text


def _real(row: Row, label: Label | None, verifier: contracts.Verifier | None) -> Item | None:
    """A real rollout whose worth a person or else a program has told."""
    assert row.problem is not None
    candidate = Candidate(row.id, pools.candidate_text(row), row.completion or "")
    if label is not None and label.label is not None:
        return Item(candidate, row.problem, calibration.REAL, label.label == "right", "human")
    score = mean_score([v for v in verdicts_on(row, "answer") if v.kind == "verifier"])
    if score is None and verifier is not None and row.problem.reference_answer is not None:
        score = verifier.check(row.problem, row.answer).score
    if score is None:
        return None
    return Item(candidate, row.problem, calibration.REAL, calibration.is_right(score), "verifier")


def _labelled(label: Label) -> Item:
    candidate = Candidate(label.id, label.answer, label.completion)
    return Item(candidate, label.as_problem(), calibration.REAL, label.label == "right", "human")


_COMPARED = (
    (planting.RIGHT, planting.WRONG),
    (planting.PADDED_RIGHT, planting.PADDED_WRONG),
    *calibration.LENGTH,
    *((planting.RIGHT, kind) for kind in (planting.REMARKED, *planting.INJECTED, planting.TRUNCATED)),
)


def _pairs(session: Session, items: Sequence[Item]) -> list[tuple[Item, Item]]:
    """The planted answers of each problem that are compared, and one right and one wrong real answer to it."""
    found = []
    groups: dict[str, dict[str, Item]] = {}
    real: dict[str, dict[bool, Item]] = {}
    for item in items:
        if item.kind == calibration.REAL:
            real.setdefault(item.problem.id, {}).setdefault(item.is_right, item)
        else:
            groups.setdefault(item.problem.id, {})[item.kind] = item
    for kinds in groups.values():
        found += [(kinds[one], kinds[other]) for one, other in _COMPARED]
    found += [(worth[True], worth[False]) for worth in real.values() if len(worth) == 2]
    return found


def _plan(session: Session, panel: Panel, items: Sequence[Item], pairs: Sequence[tuple[Item, Item]]) -> list[Row]:
    votes = max(1, session.recipe.judge.answer_votes)
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


# ---- what they said


def _report(
    session: Session,
    panel: Panel,
    items: Sequence[Item],
    pairs: Sequence[tuple[Item, Item]],
    rows: Sequence[Row],
    skipped: Counter[str],
) -> dict[str, Any]:
    section = session.recipe.calibrate
    by_parents: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_parents.setdefault(tuple(row.parents), []).append(row)
    judged = [_judged(session, panel, item, by_parents.get((item.candidate.id,), [])) for item in items]
    judged = [item for item in judged if item.votes]
    compared = [_compared(panel, index, pair, by_parents) for pair in pairs for index in panel.of("pair")]
    compared = [pair for pair in compared if pair.votes]
    level = calibration.Level(section.confidence, section.resamples, session.recipe.seed)
    figures = [*calibration.answer_figures(judged, level), *calibration.pair_figures(compared, level)]
    return {
        "judges": panel.names,
        "policy": msgspec.to_builtins(panel.policy),
        "items": {"planted": 0, **Counter(item.source for item in items)},
        "skipped": dict(skipped),
        "confidence": section.confidence,
        "figures": msgspec.to_builtins(figures),
        "kinds": msgspec.to_builtins(calibration_report.by_kind(judged)),
        **reading_details([panel.reading(row) for row in rows]),
        "findings": calibration_report.findings(figures),
        "bars": msgspec.to_builtins(calibration_report.against_bars(figures, section.bars, section.compare)),
    }


def _judged(session: Session, panel: Panel, item: Item, rows: Sequence[Row]) -> Judged:
    votes = [panel.verdict(row, "answer") for row in rows]
    return Judged(
        problem=item.problem.id,
        kind=item.kind,
        is_right=item.is_right,
        score=combined_score(votes, session.recipe.judge.aggregate, "answer"),
        votes=len(votes),
        unread=sum(vote.status in ("unparsed", "error") for vote in votes),
    )


def _compared(
    panel: Panel, index: int, pair: tuple[Item, Item], by_parents: dict[tuple[str, ...], list[Row]]
) -> Compared:
    one, other = (item.candidate.id for item in pair)
    rows = [
        [row for row in by_parents.get(parents, []) if panel.judge_of(row) == index]
        for parents in ((one, other), (other, one))
    ]
    first, second = ([panel.reading(row) for row in order] for order in rows)
    return Compared(
        problem=pair[0].problem.id,
        first=pair[0].kind,
        second=pair[1].kind,
        first_is_right=pair[0].is_right,
        second_is_right=pair[1].is_right,
        score=panel.pair_verdict(index, [*rows[0], *rows[1]], one, other).score,
        shown_first=mean_of_known(reading.score for reading in first),
        shown_second=mean_of_known(_mirrored(reading) for reading in second),
        votes=len(first) + len(second),
        unread=sum(reading.status in ("unparsed", "error") for reading in (*first, *second)),
    )


def _mirrored(reading: Reading) -> float | None:
    return None if reading.score is None else 1.0 - reading.score


def report_text(details: dict[str, Any]) -> str:
    """The report for people: figures with bars, kinds of answers, and what is wrong in words."""
    figures = msgspec.convert(details["figures"], list[calibration.Figure])
    results = msgspec.convert(details["bars"], list[calibration_report.BarResult])
    kinds = msgspec.convert(details["kinds"], list[calibration_report.KindFigures])
    parts = [calibration_report.figure_table(figures, results, details["confidence"])]
    if kinds:
        parts.append(calibration_report.kind_table(kinds))
    parts += [f"left out: {count} {why}" for why, count in details["skipped"].items()]
    parts += [f"judge {', '.join(details['judges'])}: {text}" for text in details["findings"]]
    if not details["findings"]:
        parts.append(f"judge {', '.join(details['judges'])}: no bias shown")
    return "\n\n".join(parts[:2]) + "".join(f"\n{line}" for line in parts[2:])
