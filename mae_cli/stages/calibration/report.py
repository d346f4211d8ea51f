"""The report of `mae calibrate`: figures of the judges, the bars they pass or miss, and the answers by kind.

Place in the flow: `calibrate` calls it when all replies are read. Contract: pure given the rows. Left out: the formulas
of the figures (`calibration.figures`) and of the bars (`calibration.bars`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from mae_cli.plugins.contracts import Reading
from mae_cli.records import Row, mean_of_known
from mae_cli.stages.calibration import bars as calibration_report
from mae_cli.stages.calibration import figures as calibration
from mae_cli.stages.calibration.figures import Compared, Judged
from mae_cli.stages.calibration.known_answers import Item
from mae_cli.stages.generation.session import Session
from mae_cli.stages.judging.details import reading_details
from mae_cli.stages.judging.panel import Panel
from mae_cli.stages.judging.votes import combined_score


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
        score=panel.comparison(index, [*rows[0], *rows[1]], one, other).score,
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
