"""The report of `mae calibrate`: figures of the judges, the bars they pass or miss, and the answers by kind.

Place in the flow: `calibrate` calls it when all replies are read. Contract: pure given the rows. Left out: the formulas
of the figures (`calibration.figures`) and of the bars (`calibration.bars`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from mae_cli.plugins.contracts import Reading
from mae_cli.records import Policy, Row, mean_of_known
from mae_cli.stages.calibration.bars import (
    BarResult,
    KindFigures,
    against_bars,
    by_kind,
    figure_table,
    findings,
    kind_table,
)
from mae_cli.stages.calibration.figures import Compared, Figure, Judged, Level, answer_figures, pair_figures
from mae_cli.stages.calibration.known_answers import KnownAnswer
from mae_cli.stages.generation.job import Job
from mae_cli.stages.judging.details import reading_details
from mae_cli.stages.judging.panel import Panel
from mae_cli.stages.judging.votes import combined_score


class CalibrationReport(msgspec.Struct, frozen=True):
    """Everything one calibration says about the judges; its fields, in this order, are the JSON file."""

    judges: list[str]
    policy: Policy
    items: dict[str, int]
    """Answers by who knows their worth."""
    skipped: dict[str, int]
    """What was left out, by reason."""
    confidence: float
    figures: list[Figure]
    kinds: list[KindFigures]
    judgements: int | UnsetType
    """Unset, and absent from the file, where nothing was asked."""
    unparsed_share: float | UnsetType
    findings: list[str]
    bars: list[BarResult]

    def missed(self) -> list[BarResult]:
        """The bars that are not passed."""
        return [result for result in self.bars if not result.passed]

    def as_json(self) -> dict[str, Any]:
        """For the summary and the file."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return told

    def text(self) -> str:
        """For people: figures with bars, kinds of answers, and what is wrong in words."""
        parts = [figure_table(self.figures, self.bars, self.confidence)]
        if self.kinds:
            parts.append(kind_table(self.kinds))
        parts += [f"left out: {count} {why}" for why, count in self.skipped.items()]
        judges = ", ".join(self.judges)
        parts += [f"judge {judges}: {finding}" for finding in self.findings or ["no bias shown"]]
        return "\n\n".join(parts[:2]) + "".join(f"\n{line}" for line in parts[2:])


def make_report(
    job: Job,
    panel: Panel,
    items: Sequence[KnownAnswer],
    pairs: Sequence[tuple[KnownAnswer, KnownAnswer]],
    rows: Sequence[Row],
    skipped: Counter[str],
) -> CalibrationReport:
    """The figures of the finished judgements, and the recipe's bars against them."""
    section = job.recipe.calibrate
    by_parents: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_parents.setdefault(tuple(row.parents), []).append(row)
    judged = [_judged(job, panel, item, by_parents.get((item.candidate.id,), [])) for item in items]
    judged = [item for item in judged if item.votes]
    compared = [_compared(panel, index, pair, by_parents) for pair in pairs for index in panel.of("pair")]
    compared = [pair for pair in compared if pair.votes]
    level = Level(section.confidence, section.resamples, job.recipe.seed)
    figures = [*answer_figures(judged, level), *pair_figures(compared, level)]
    readings = reading_details([panel.reading(row) for row in rows])
    return CalibrationReport(
        judges=panel.names,
        policy=panel.policy,
        items={"planted": 0, **Counter(item.source for item in items)},
        skipped=dict(skipped),
        confidence=section.confidence,
        figures=figures,
        kinds=by_kind(judged),
        judgements=readings.get("judgements", UNSET),
        unparsed_share=readings.get("unparsed_share", UNSET),
        findings=findings(figures),
        bars=against_bars(figures, section.bars, section.compare),
    )


def _judged(job: Job, panel: Panel, item: KnownAnswer, rows: Sequence[Row]) -> Judged:
    votes = [panel.verdict(row, "answer") for row in rows]
    return Judged(
        problem=item.problem.id,
        kind=item.kind,
        is_right=item.is_right,
        score=combined_score(votes, job.recipe.judge.aggregate, "answer"),
        votes=len(votes),
        unread=sum(vote.status in ("unparsed", "error") for vote in votes),
    )


def _compared(
    panel: Panel, index: int, pair: tuple[KnownAnswer, KnownAnswer], by_parents: dict[tuple[str, ...], list[Row]]
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
