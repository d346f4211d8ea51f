"""Rows to preference pairs: which of two answers to one prompt is better, and by how much.

A pair has one prompt and two different completions. What makes one better is its reward, or what a pairwise judge said
of both. A row whose value is unknown takes part in no pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from mae_cli.registry import Rewarded

Source = Literal["best_vs_worst", "all", "verdicts"]


class Pair(msgspec.Struct, frozen=True):
    """Indices of two rows, and how much better the chosen one is."""

    chosen: int
    rejected: int
    gap: float


def make_pairs(
    rows: Sequence[Rewarded], source: Source, *, min_gap: float, verdict: str
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs within each group of equal prompts, and the rows that are in none, by reason.

    Args:
        rows: rewarded rows; `prompt` and `completion` digests tell equal texts apart from others.
        source: best_vs_worst: one pair per group, highest against lowest reward; all: every two rows whose rewards
            differ; verdicts: best against worst by the mean score of one verdict instead of the reward.
        min_gap: smallest difference that counts; a tie never does.
        verdict: name of the verdicts that `verdicts` reads.
    """
    groups: dict[tuple[str, str, str], list[int]] = {}
    values: list[float | None] = [row.scores.get(verdict) if source == "verdicts" else row.reward for row in rows]
    dropped: Counter[str] = Counter()
    for index, row in enumerate(rows):
        if values[index] is None:
            dropped["no_verdict" if source == "verdicts" else "no_reward"] += 1
        else:
            groups.setdefault((row.role, row.group, row.prompt), []).append(index)
    pairs: list[Pair] = []
    for members in groups.values():
        found, reason = _of_group(rows, members, values, every=source == "all", min_gap=min_gap)
        pairs += found
        paired = {index for pair in found for index in (pair.chosen, pair.rejected)}
        if len(paired) < len(members):
            dropped[reason] += len(members) - len(paired)
    return pairs, dict(sorted(dropped.items()))


def _of_group(
    rows: Sequence[Rewarded], members: Sequence[int], values: Sequence[float | None], *, every: bool, min_gap: float
) -> tuple[list[Pair], str]:
    """The pairs of one group, and why its other rows are in none."""

    def value(index: int) -> float:
        return values[index] or 0.0

    if len(members) == 1:
        return [], "alone"
    # Equal values are ordered by text, so that the order of a file decides nothing.
    ordered = sorted(members, key=lambda index: (-value(index), rows[index].completion))
    candidates = (
        [(first, second) for place, first in enumerate(ordered) for second in ordered[place + 1 :]]
        if every
        else [(ordered[0], ordered[-1])]
    )
    wide = [pair for pair in candidates if value(pair[0]) - value(pair[1]) > min_gap]
    if not wide:
        return [], "no_spread"
    pairs = [
        Pair(chosen, rejected, value(chosen) - value(rejected))
        for chosen, rejected in wide
        if rows[chosen].completion != rows[rejected].completion
    ]
    return pairs, "not_paired" if pairs else "equal_sides"
