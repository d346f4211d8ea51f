"""Statistical power of the paired test: the smallest difference that a set of items can show.

Place in the flow: `eval` prints it before anything is generated. Contract: pure; exact up to `LARGEST_EXACT` items, an
approximation beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

LARGEST_EXACT = 2000
"""Items up to which the minimum detectable effect sums the exact test's power; beyond, the normal form is as good."""


def minimum_detectable_effect(
    items: int, *, discordant_share: float, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Return the smallest true difference that a two-sided exact McNemar test finds with the given power.

    Args:
        items: paired items, >= 1.
        discordant_share: share of the items on which the two policies differ, in (0, 1]; it bounds the difference.
        alpha: level of the test.
        power: chance to find it, in (0, 1).

    Returns: a difference of two shares, in (0, discordant_share]; null when even that is missed too often.

    Source: the power of the exact conditional test, summed over the number of discordant pairs; beyond
    `LARGEST_EXACT` items R. Connor, Biometrics 43 (1987) 207-211.
    """
    if items < 1 or not 0 < discordant_share <= 1:
        raise ValueError(f"{items} items, discordant share {discordant_share}: expected >= 1 and in (0, 1]")
    found = _exact_power if items <= LARGEST_EXACT else _normal_power
    critical = _critical_wins(items, alpha) if items <= LARGEST_EXACT else []
    if found(items, discordant_share, discordant_share, alpha, critical) < power:
        return None
    low, high = 0.0, discordant_share
    for _ in range(20):
        middle = (low + high) / 2
        if found(items, discordant_share, middle, alpha, critical) < power:
            low = middle
        else:
            high = middle
    return high


def _critical_wins(items: int, alpha: float) -> list[int]:
    """The fewest wins among m discordant pairs that a two-sided exact test rejects for, m = 0 .. items."""
    critical: list[int] = []
    wins = 1
    for pairs in range(items + 1):
        # One more pair needs at most one more win, so the search never goes back by more than a step.
        while 2 * _upper_tail(pairs, wins, 0.5) > alpha and wins <= pairs:
            wins += 1
        critical.append(wins)
    return critical


def _exact_power(items: int, discordant: float, effect: float, alpha: float, critical: Sequence[int]) -> float:
    win_share = (discordant + effect) / (2 * discordant)
    spread = 6 * math.sqrt(items * discordant * (1 - discordant)) + 1
    first = max(0, math.floor(items * discordant - spread))
    last = min(items, math.ceil(items * discordant + spread))
    return sum(
        _binomial(items, pairs, discordant) * _upper_tail(pairs, critical[pairs], win_share)
        for pairs in range(first, last + 1)
        if critical[pairs] <= pairs
    )


def _normal_power(items: int, discordant: float, effect: float, alpha: float, critical: Sequence[int]) -> float:
    if effect == 0:
        return alpha / 2
    normal = NormalDist()
    spread = math.sqrt(max(discordant - effect * effect, 1e-12))
    return normal.cdf((effect * math.sqrt(items) - normal.inv_cdf(1 - alpha / 2) * math.sqrt(discordant)) / spread)


def _binomial(n: int, k: int, share: float) -> float:
    if share in (0.0, 1.0):
        return float(k == (n if share else 0))
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + k * math.log(share) + (n - k) * math.log1p(-share))


def _upper_tail(n: int, successes: int, share: float) -> float:
    """P(X >= successes), X ~ Binomial(n, share), from the largest X down; stops where nothing more adds up."""
    if share >= 1.0:
        return float(successes <= n)
    term = total = _binomial(n, max(successes, 0), share) if successes <= n else 0.0
    for k in range(max(successes, 0), n):
        term *= (n - k) / (k + 1) * share / (1 - share)
        total += term
        if term < 1e-18 * total and k > n * share:
            break
    return min(1.0, total)
