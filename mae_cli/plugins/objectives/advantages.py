"""Rewards to advantages: what a row earned beyond the rows it is compared with.

A baseline whose rewards hardly differ says nothing about which row was better: dividing by such a spread would turn
rounding noise into full-size updates, so its rows are left out and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from mae_cli.plugins.contracts import Plan, Unit
from mae_cli.records.rewarded import Rewarded, known
from mae_cli.reports.statistics.spread import population_spread

Advantages = Callable[[Sequence[float]], list[float]]
"""The rewards of one baseline, at least two, to their advantages."""


def whitened(rewards: Sequence[float], eps: float) -> list[float]:
    """(r - mean) / sqrt(population variance + eps)."""
    mean = math.fsum(rewards) / len(rewards)
    scale = math.sqrt(population_spread(rewards) ** 2 + eps)
    return [(reward - mean) / scale for reward in rewards]


def over_group(
    rewards: Sequence[float], *, divide: bool, spread: Literal["population", "sample"], eps: float
) -> list[float]:
    """Rewards minus their mean, divided by (spread + eps) where asked for."""
    mean = math.fsum(rewards) / len(rewards)
    scale = 1.0
    if divide:
        count = len(rewards)
        scale = population_spread(rewards) * (math.sqrt(count / (count - 1)) if spread == "sample" else 1.0) + eps
    return [(reward - mean) / scale for reward in rewards]


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Each reward minus the mean of the other ones."""
    total, others = math.fsum(rewards), len(rewards) - 1
    return [reward - (total - reward) / others for reward in rewards]


def plan_rows(
    rows: Sequence[Rewarded], keys: Sequence[tuple[str, ...]], advantages: Advantages, *, min_spread: float
) -> Plan:
    """One unit per row of every baseline whose rewards differ; `keys` name the baseline of each row.

    A role is skipped when none of its baselines is left.
    """
    members: dict[tuple[str, ...], list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    values: dict[int, float] = {}
    dropped: Counter[str] = Counter()
    for indices in members.values():
        rewards = [known(rows[index].reward) for index in indices]
        spread = population_spread(rewards)
        if len(indices) == 1 or spread < min_spread or spread == 0.0:
            dropped["alone" if len(indices) == 1 else "no_spread"] += len(indices)
            continue
        values.update(zip(indices, advantages(rewards), strict=True))
    trained = {rows[index].role for index in values}
    return Plan(
        units=tuple(Unit((index,), values[index]) for index in sorted(values)),
        skipped=tuple(sorted({row.role for row in rows} - trained)),
        dropped=dict(sorted(dropped.items())),
    )
