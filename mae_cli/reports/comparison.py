"""Comparison of two policies on the same items: items won and lost, the difference with its interval, a paired test.

Place in the flow: `eval`, `diff` and the gate of `mae run` compare with these functions. Contract: pure; the test is
exact. The unit is the item; items whose checker failed on either side leave both, and the worst and best case bound
what they could have changed. Policies are paired by problem id, and by all samples of an item together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from mae_cli.records import Row, seed_from
from mae_cli.reports.accuracy import Item, benchmarks_in, items_of, readings_in
from mae_cli.reports.statistics.intervals import DifferenceEstimate, paired_bootstrap_difference, wilson_interval
from mae_cli.reports.statistics.paired_tests import holm, sign_flip_test

Side = tuple[str, Sequence[Row]]
"""A policy's label and its rows."""


class Comparison(msgspec.Struct):
    """Two policies on the same items: the second wins an item when more of its samples are correct."""

    reading: str
    first: str
    second: str
    items: int
    """Pairs with every verdict known on both sides."""
    wins: int
    losses: int
    both: int
    """Items without a difference that both have right at least once."""
    neither: int
    unknown: int
    """Pairs left out because a checker failed."""
    first_share: float | None
    second_share: float | None
    """Mean share of correct samples among the paired items alone; null, as all that follows from it, without any."""
    difference: float | None
    low: float | None
    high: float | None
    """Paired bootstrap interval of the difference; Wilson's bound on the changed items where none changed."""
    worst: float | None
    best: float | None
    """The difference if every unknown verdict spoke against the second policy, or for it; null without items."""
    p_value: float | None
    """Exact and two-sided: McNemar's test for one sample per item, the randomisation test for several."""
    test: str
    p_holm: float | None = None
    """Adjusted for the number of benchmarks in the same table; null where there is one."""
    benchmark: str | None = None


class PairedItem(NamedTuple):
    """One item on both sides, every verdict known."""

    first: Item
    second: Item

    @property
    def difference(self) -> int:
        """Correct samples after minus before, both scaled to a common number of samples."""
        return self.second.correct * len(self.first.scores) - self.first.correct * len(self.second.scores)


def paired_items(
    first: Sequence[Row], second: Sequence[Row], reading: str, benchmark: str | None = None
) -> list[PairedItem]:
    """The items that both sides have, in the first's order, also those with unknown verdicts."""
    before, after = items_of(first, reading, benchmark), items_of(second, reading, benchmark)
    return [PairedItem(item, after[identity]) for identity, item in before.items() if identity in after]


def known_pairs(pairs: Sequence[PairedItem]) -> list[PairedItem]:
    """The pairs of which every verdict is known on both sides."""
    return [pair for pair in pairs if pair.first.is_known and pair.second.is_known]


def compare(
    first: Side, second: Side, reading: str, *, benchmark: str | None = None, confidence: float = 0.95
) -> Comparison:
    """The second policy against the first on the items that both have, of one benchmark or of all."""
    everything = paired_items(first[1], second[1], reading, benchmark)
    pairs = known_pairs(everything)
    differences = common_differences(pairs)
    before = [pair.first.correct / len(pair.first.scores) for pair in pairs]
    after = [pair.second.correct / len(pair.second.scores) for pair in pairs]
    effect = _effect(before, after, reading, confidence)
    one_sample = all(len(item.scores) == 1 for pair in pairs for item in pair)
    worst, best = _extremes(everything)
    return Comparison(
        reading=reading,
        first=first[0],
        second=second[0],
        items=len(pairs),
        wins=sum(d > 0 for d in differences),
        losses=sum(d < 0 for d in differences),
        both=sum(d == 0 and pair.first.correct > 0 for d, pair in zip(differences, pairs, strict=True)),
        neither=sum(d == 0 and pair.first.correct == 0 for d, pair in zip(differences, pairs, strict=True)),
        unknown=len(everything) - len(pairs),
        first_share=math.fsum(before) / len(pairs) if pairs else None,
        second_share=math.fsum(after) / len(pairs) if pairs else None,
        difference=effect.difference if effect else None,
        low=effect.low if effect else None,
        high=effect.high if effect else None,
        worst=worst,
        best=best,
        p_value=sign_flip_test(differences) if pairs else None,
        test="exact McNemar" if one_sample else "exact paired randomisation",
        benchmark=benchmark,
    )


def _effect(
    before: Sequence[float], after: Sequence[float], reading: str, confidence: float
) -> DifferenceEstimate | None:
    if not before:
        return None
    if list(before) == list(after):
        # A bootstrap of no change has no width; the share of items that change is bounded all the same.
        bound = wilson_interval(0, len(before), confidence).high
        return DifferenceEstimate(0.0, -bound, bound)
    return paired_bootstrap_difference(before, after, seed=seed_from("difference", reading), confidence=confidence)


def common_differences(pairs: Sequence[PairedItem]) -> list[int]:
    """Per pair the difference in correct samples, as whole numbers of one unit for all pairs."""
    # Every pair's difference counts 1 / (samples before x samples after); scaled where these numbers differ.
    units = [len(pair.first.scores) * len(pair.second.scores) for pair in pairs]
    common = math.lcm(*units) if units else 1
    return [pair.difference * (common // unit) for pair, unit in zip(pairs, units, strict=True)]


def compare_all(first: Side, second: Side, *, confidence: float = 0.95) -> list[Comparison]:
    """Every reading on all items and, where there are several benchmarks, on each; Holm over these, per reading."""
    found = []
    names = benchmarks_in(first[1])
    for reading in readings_in(first[1]):
        found.append(compare(first, second, reading, confidence=confidence))
        if len(names) < 2:
            continue
        parts = [
            part
            for name in names
            if (part := compare(first, second, reading, benchmark=name, confidence=confidence)).items or part.unknown
        ]
        tested = [part for part in parts if part.p_value is not None]
        for part, adjusted in zip(tested, holm([part.p_value or 0.0 for part in tested]), strict=True):
            part.p_holm = adjusted
        found += parts
    return found


def _extremes(pairs: Sequence[PairedItem]) -> tuple[float | None, float | None]:
    """Mean difference over all pairs with every unknown verdict against the second side, and for it."""
    if not pairs:
        return None, None

    def lowest(item: Item) -> float:
        return item.correct / len(item.scores)

    def highest(item: Item) -> float:
        return (item.correct + item.scores.count(None)) / len(item.scores)

    worst = math.fsum(lowest(pair.second) - highest(pair.first) for pair in pairs) / len(pairs)
    best = math.fsum(highest(pair.second) - lowest(pair.first) for pair in pairs) / len(pairs)
    return worst, best
