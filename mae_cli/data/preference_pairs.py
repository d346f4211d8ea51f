"""Preference pairs: two completions of one prompt, of which one is better.

A pair is decided by the rewards of the two, or by a pairwise judge's verdict on them. A row whose reward is unknown is
in no pair by reward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from mae_cli.records.rewarded import Rewarded, known

PairSource = Literal["best_vs_worst", "all", "verdicts"]


class PreferencePair(msgspec.Struct, frozen=True):
    """Indices of two rows, and how much better the chosen one is."""

    chosen: int
    rejected: int
    gap: float


def make_pairs(
    rows: Sequence[Rewarded], source: PairSource, *, min_gap: float
) -> tuple[list[PreferencePair], dict[str, int]]:
    """The pairs within each group of equal prompts, and the rows that are in none, by reason.

    Args:
        rows: rewarded rows; `prompt` and `completion` digests tell equal texts apart from others.
        source: best_vs_worst: one pair per group, highest against lowest reward; all: every two rows whose rewards
            differ; verdicts: every two rows that a judge has compared, with a gap of 2 |score - 0.5|.
        min_gap: smallest difference that counts; a tie never does.
    """
    groups: dict[tuple[str, str, str], list[int]] = {}
    dropped: Counter[str] = Counter()
    for index, row in enumerate(rows):
        if source != "verdicts" and row.reward is None:
            dropped["no_reward"] += 1
        else:
            groups.setdefault((row.role, row.group, row.prompt), []).append(index)
    pairs: list[PreferencePair] = []
    for members in groups.values():
        # Equal rewards are ordered by text, so that the order of a file decides nothing.
        ordered = sorted(members, key=lambda index: (-(rows[index].reward or 0.0), rows[index].completion))
        found, reason = _of_group(rows, ordered, source, min_gap)
        pairs += found
        paired = {index for pair in found for index in (pair.chosen, pair.rejected)}
        if len(paired) < len(members):
            dropped[reason] += len(members) - len(paired)
    return pairs, dict(sorted(dropped.items()))


def _of_group(
    rows: Sequence[Rewarded], ordered: Sequence[int], source: PairSource, min_gap: float
) -> tuple[list[PreferencePair], str]:
    """The pairs of one group, and why its other rows are in none."""
    if len(ordered) == 1:
        return [], "alone"
    if source == "best_vs_worst":
        candidates = [_by_reward(rows, ordered[0], ordered[-1])]
    else:
        compare = _by_verdict if source == "verdicts" else _by_reward
        both = [(one, other) for place, one in enumerate(ordered) for other in ordered[place + 1 :]]
        candidates = [pair for one, other in both if (pair := compare(rows, one, other)) is not None]
    if not candidates:
        return [], "no_verdict"
    wide = [pair for pair in candidates if pair is not None and pair.gap > 0 and pair.gap >= min_gap]
    if not wide:
        return [], "no_spread"
    pairs = [pair for pair in wide if rows[pair.chosen].completion != rows[pair.rejected].completion]
    return pairs, "not_paired" if pairs else "equal_sides"


def _by_reward(rows: Sequence[Rewarded], better: int, worse: int) -> PreferencePair | None:
    return PreferencePair(better, worse, known(rows[better].reward) - known(rows[worse].reward))


def _by_verdict(rows: Sequence[Rewarded], one: int, other: int) -> PreferencePair | None:
    """Whichever the judge preferred; the verdict may stand on either row or on both."""
    scores = []
    if rows[other].id in rows[one].against:
        scores.append(rows[one].against[rows[other].id])
    if rows[one].id in rows[other].against:
        scores.append(1.0 - rows[other].against[rows[one].id])
    if not scores:
        return None
    gap = 2.0 * sum(scores) / len(scores) - 1.0
    return PreferencePair(one, other, gap) if gap >= 0.0 else PreferencePair(other, one, -gap)
