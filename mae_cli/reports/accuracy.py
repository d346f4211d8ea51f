"""Accuracy of one policy on its items: shares with intervals, pass@k, majority answers, groups of items.

Place in the flow: `eval`, `diff` and `mae run` turn eval rows into these figures; `eval_report` prints them. Contract:
pure functions over rows. The unit is the item: samples of one item are averaged before any interval. A missing or
cut-off answer is wrong; where the checker failed the score is unknown and stays out, and the worst and best case bound
what it could have been.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from mae_cli.answers.numbers import read_number
from mae_cli.records import Problem, Row
from mae_cli.reports.statistics.at_k import majority_is_correct, pass_at_k
from mae_cli.reports.statistics.intervals import clustered_interval


class Item(msgspec.Struct):
    """One item under one reading: its samples in order."""

    problem: Problem
    scores: list[float | None]
    """1.0 is correct; null where the checker failed."""
    answers: list[str | None]
    """In a normal form, for majority votes; null where there is none."""

    @property
    def is_known(self) -> bool:
        """Whether every sample has a verdict."""
        return None not in self.scores

    @property
    def correct(self) -> int:
        """Number of correct samples."""
        return sum(score == 1.0 for score in self.scores)


class AtK(msgspec.Struct, frozen=True):
    """A figure for k samples per item."""

    k: int
    value: float


class Accuracy(msgspec.Struct):
    """Figures of one policy under one reading of the answers."""

    policy: str
    reading: str
    correct: int
    """Correct rollouts among the known items."""
    items: int
    """Items whose every verdict is known."""
    unknown: int
    """Items with a verdict the checker could not give; they are in no share but the next two."""
    share: float | None
    low: float | None
    high: float | None
    """Interval of the share: Wilson's; samples of one item count for less than as many items. Null, as the share,
    where no item is known."""
    worst: float | None
    best: float | None
    """The share if every unknown verdict were wrong, or right; null without items."""
    samples: int = 1
    """Most samples of an item."""
    benchmark: str | None = None
    """Null: all benchmarks together."""
    group: str | None = None
    """`field=value` of the items' meta; null: all."""
    pass_at: list[AtK] = []
    """Chance that one of k samples is correct, where items have several."""
    majority_at: list[AtK] = []
    """Share of items whose commonest answer among the first k samples is correct; of the flexible reading only."""


def readings_in(rows: Iterable[Row]) -> list[str]:
    """The readings that rows carry verdicts of, in order of appearance."""
    found = (verdict.reading for row in rows for verdict in row.verdicts)
    return list(dict.fromkeys(reading for reading in found if reading is not None))


def benchmark_of(problem: Problem) -> str | None:
    """The benchmark an item was read from."""
    name = problem.meta.get("benchmark")
    return name if isinstance(name, str) else None


def benchmarks_in(rows: Iterable[Row]) -> list[str]:
    """The benchmarks of rows, in order."""
    return list(dict.fromkeys(name for row in rows if row.problem and (name := benchmark_of(row.problem))))


def items_of(rows: Sequence[Row], reading: str, benchmark: str | None = None) -> dict[str, Item]:
    """Problem id to item, in the rows' order; samples in theirs. Rows that were not read this way are none."""
    found: dict[str, Item] = {}
    for row in sorted(rows, key=lambda row: row.sample_index):
        if row.problem is None or (benchmark is not None and benchmark_of(row.problem) != benchmark):
            continue
        verdict = next((v for v in row.verdicts if v.reading == reading), None)
        if verdict is None:
            continue
        item = found.setdefault(row.problem.id, Item(row.problem, [], []))
        item.scores.append(verdict.score)
        answer = None if row.status == "truncated" else row.answer
        item.answers.append(None if answer is None else normal_form(answer))
    order = dict.fromkeys(row.problem.id for row in rows if row.problem is not None)
    return {identity: found[identity] for identity in order if identity in found}


def normal_form(answer: str) -> str:
    """One spelling for answers that are the same number or the same text."""
    number = read_number(answer)
    return " ".join(answer.casefold().split()).rstrip(".,;:!?") if number is None else str(number)


def accuracy(
    label: str, rows: Sequence[Row], reading: str, confidence: float, *, benchmark: str | None = None
) -> Accuracy:
    """A policy's figures on its rows, or on those of one benchmark."""
    figure = _figure(label, list(items_of(rows, reading, benchmark).values()), reading, confidence)
    figure.benchmark = benchmark
    return figure


def group_accuracies(
    label: str, rows: Sequence[Row], reading: str, confidence: float, fields: Sequence[str]
) -> list[Accuracy]:
    """A policy's figures for every value of the named meta fields, in the order of the values."""
    items = list(items_of(rows, reading).values())
    figures = []
    for field in fields:
        groups: dict[str, list[Item]] = {}
        for item in items:
            if field in item.problem.meta:
                groups.setdefault(f"{field}={item.problem.meta[field]}", []).append(item)
        for name in sorted(groups):
            figure = _figure(label, groups[name], reading, confidence)
            figure.group = name
            figures.append(figure)
    return figures


def _figure(label: str, items: Sequence[Item], reading: str, confidence: float) -> Accuracy:
    known = [item for item in items if item.is_known]
    shares = [item.correct / len(item.scores) for item in known]
    samples = max((len(item.scores) for item in items), default=1)
    low, high = clustered_interval(shares, samples, confidence) if shares else (None, None)
    lowest = [item.correct / len(item.scores) for item in items]
    highest = [(item.correct + item.scores.count(None)) / len(item.scores) for item in items]
    return Accuracy(
        policy=label,
        reading=reading,
        correct=sum(item.correct for item in known),
        items=len(known),
        unknown=len(items) - len(known),
        share=sum(shares) / len(shares) if shares else None,
        low=low,
        high=high,
        worst=sum(lowest) / len(items) if items else None,
        best=sum(highest) / len(items) if items else None,
        samples=samples,
        pass_at=_pass_at(known) if samples > 1 else [],
        # The rows hold the flexible answer; what another reading took for the answer is not known here.
        majority_at=_majority_at(known) if samples > 1 and reading == "flexible" else [],
    )


def _ks(items: Sequence[Item]) -> list[int]:
    """1, 2, 4 ... and the number of samples that every item has."""
    least = min((len(item.scores) for item in items), default=0)
    powers = [1 << power for power in range(least.bit_length()) if 1 << power <= least]
    return sorted({*powers, *([least] if least else [])})


def _pass_at(items: Sequence[Item]) -> list[AtK]:
    return [
        AtK(k, sum(pass_at_k(len(item.scores), item.correct, k) for item in items) / len(items)) for k in _ks(items)
    ]


def _majority_at(items: Sequence[Item]) -> list[AtK]:
    figures = []
    for k in _ks(items):
        votes = [majority_is_correct(list(zip(item.answers, item.scores, strict=True)), k) for item in items]
        known = [vote for vote in votes if vote is not None]
        if known:
            figures.append(AtK(k, sum(known) / len(known)))
    return figures


MAIN_READING = "flexible"
"""The reading that the final line and the promotion gate use."""
