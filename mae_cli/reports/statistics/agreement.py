"""Agreement of scores with a known truth: AUC, Cohen's kappa, and a bootstrap over problems.

Place in the flow: `stages.calibration.figures` measures judges with it. Contract: pure, and independent of the order of
the arguments. Left out: which answers are compared.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TypeVar

from mae_cli.reports.statistics.intervals import Interval

MIN_CLUSTERS = 5
"""Fewer problems than this say nothing about how a figure varies from problem to problem."""
_T = TypeVar("_T")


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """Chance that a right answer scores above a wrong one, ties counting half, in [0, 1]; null where one is missing.

    Source: the Mann-Whitney statistic U / (n m); J. A. Hanley and B. J. McNeil, Radiology 143 (1982) 29-36.
    """
    if not right or not wrong:
        return None
    scored = sorted([(score, True) for score in right] + [(score, False) for score in wrong])
    twice_won = below = position = 0
    while position < len(scored):
        end = position
        while end < len(scored) and scored[end][0] == scored[position][0]:
            end += 1
        equal_right = sum(is_right for _, is_right in scored[position:end])
        equal_wrong = end - position - equal_right
        twice_won += equal_right * (2 * below + equal_wrong)
        below += equal_wrong
        position = end
    return twice_won / (2 * len(right) * len(wrong))


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Agreement beyond chance of (judged, true) labels, in [-1, 1]; null without pairs or where chance is certain.

    kappa = (p_o - p_e) / (1 - p_e), p_o the share of equal labels, p_e the sum over labels of the product of both
    shares. Source: J. Cohen, Educational and Psychological Measurement 20 (1960) 37-46.
    """
    n = len(pairs)
    labels = {label for pair in pairs for label in pair}
    # Whole numbers until the last division: n^2 p_o and n^2 p_e.
    observed = n * sum(judged == true for judged, true in pairs)
    expected = sum(sum(j == label for j, _ in pairs) * sum(t == label for _, t in pairs) for label in labels)
    return (observed - expected) / (n * n - expected) if n and expected < n * n else None


def cluster_bootstrap(
    clusters: Sequence[_T],
    statistic: Callable[[Sequence[_T]], float | None],
    *,
    seed: int,
    resamples: int,
    confidence: float,
) -> Interval | None:
    """Percentile interval of a statistic over whole clusters drawn with replacement; null for too few of them.

    All answers to one problem are one cluster, since they are right or hard together. Resamples in which the
    statistic is null are passed over; null where that is more than half of them. The percentiles lie further out than
    the confidence says, as Student's t lies further out than z: with a dozen clusters the plain ones cover too seldom.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), 13.3, applied to clusters; the expanded
    percentiles of T. Hesterberg, The American Statistician 69 (2015) 371-386, 4.3.
    """
    if len(clusters) < MIN_CLUSTERS:
        return None
    draw = random.Random(seed).random
    size = len(clusters)
    values = []
    for _ in range(resamples):
        value = statistic([clusters[int(draw() * size)] for _ in range(size)])
        if value is not None:
            values.append(value)
    if 2 * len(values) < resamples:
        return None
    values.sort()
    tail = expanded_tail(size, confidence)
    return Interval(_quantile(values, tail), _quantile(values, 1 - tail))


def expanded_tail(n: int, confidence: float) -> float:
    """Return the share of resamples beyond each end: P(Z > sqrt(n / (n - 1)) t), t Student's quantile of n - 1.

    Args:
        n: number of things that were drawn from, >= `MIN_CLUSTERS`.
        confidence: in (0, 1).

    Source: see `cluster_bootstrap`; t by its expansion in 1 / (n - 1), Abramowitz and Stegun 26.7.5, which is within
    0.3 % of the table for 4 degrees and 95 %.
    """
    z, v = NormalDist().inv_cdf(0.5 + confidence / 2), n - 1
    t = (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
    return NormalDist().cdf(-math.sqrt(n / v) * t)


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
