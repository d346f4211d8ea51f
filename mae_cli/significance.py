"""Tests and levels that decisions rest on: exact paired tests, many tests at once, and how small an effect shows.

Place in the flow: `comparison.py` compares two policies with these functions, `promotion.py` spends a level over
rounds. Contract: pure; the tests are exact for the data they get (no asymptotics, no random numbers). Left out:
intervals (`metrics.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

LARGEST_EXACT = 2000
"""Items up to which the minimum detectable effect sums the exact test's power; beyond, the normal form is as good."""

Side = Literal["two-sided", "greater"]


def sign_flip_test(differences: Sequence[int], side: Side = "two-sided") -> float:
    """Return the exact p-value of a paired randomisation test on whole-number differences.

    Under the null hypothesis every difference is as likely as its negative. The distribution of the sum over all 2^n
    sign patterns is built by convolution, so nothing is sampled. With differences of -1, 0 and 1 this is the exact
    McNemar (sign) test.

    Args:
        differences: per item, correct samples after minus before; zeros change nothing.
        side: `two-sided` doubles the smaller tail (at most 1); `greater` is P(sum >= observed).

    Source: R. A. Fisher, The Design of Experiments (1935), 21; by convolution as in M. Pagano and D. Tritchler,
    JASA 78 (1983) 435-440.
    """
    sizes = [abs(difference) for difference in differences if difference]
    total = sum(differences)
    if set(sizes) <= {1}:
        wins = (len(sizes) + total) // 2
        tail = binomial_tail(len(sizes), wins)
        if side == "greater":
            return tail
        return min(1.0, 2 * min(tail, binomial_tail(len(sizes), len(sizes) - wins)))
    import numpy as np

    # probability[s] of the sum of the flipped-to-positive sizes; the signed sum is 2s - sum(sizes).
    probability = np.zeros(sum(sizes) + 1)
    probability[0] = 1.0
    for size in sizes:
        probability *= 0.5
        probability[size:] += probability[:-size].copy()
    position = (sum(sizes) + total) // 2
    upper, lower = float(probability[position:].sum()), float(probability[: position + 1].sum())
    return min(1.0, upper if side == "greater" else 2 * min(upper, lower))


def binomial_tail(n: int, successes: int) -> float:
    """Return P(X >= successes) for X ~ Binomial(n, 1/2), in whole numbers until the last division.

    Args:
        n: trials, >= 0.
        successes: <= n; 0 or less gives 1.0.
    """
    # The shorter of the two sums: P(X >= s) = P(X <= n - s).
    coefficient, tail = 1, 1 if n >= successes else 0
    for k in range(n - max(successes, 0)):
        coefficient = coefficient * (n - k) // (k + 1)
        tail += coefficient
    return tail / (1 << n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, order kept; none is smaller than it was.

    Reject where the adjusted value is at most alpha: then the chance of any false rejection is at most alpha, however
    the tests depend on each other.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def spent_level(alpha: float, round_number: int) -> float:
    """Return the part of the error rate that one round may spend: alpha * 6 / (pi r)^2.

    The parts of all rounds, however many, sum to alpha (sum of 1/r^2 = pi^2/6), so the chance that any round's claim
    is false is at most alpha (Bonferroni's inequality), and a run may be given more rounds later.

    Args:
        alpha: in (0, 1), for the whole run.
        round_number: r >= 1.

    Source: alpha spending after K. Lan and D. DeMets, Biometrika 70 (1983) 659-663, with weights 1/r^2 as in D. Foster
    and R. Stine, JRSS B 70 (2008) 429-444.
    """
    if round_number < 1 or not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha}, round {round_number}: expected alpha in (0, 1) and a round >= 1")
    return alpha * 6 / (math.pi * round_number) ** 2


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
