"""Exact paired tests, corrections for many tests, and an error rate spread over rounds.

Place in the flow: `reports.comparison` compares two policies with these functions, and the gate of `mae run`
(`runs.promotion`) spends its error rate with them. Contract: pure and exact for the data given (nothing is sampled).
Left out: intervals (`intervals`), and what a p-value decides (`runs.promotion`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Alternative = Literal["two-sided", "greater"]


def sign_flip_test(differences: Sequence[int], side: Alternative = "two-sided") -> float:
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
