"""Confidence intervals: Wilson's for shares, effective sample sizes for clustered samples, and bootstraps.

Place in the flow: `reports` turns counts and scores into shares with intervals here. Contract: pure; exact where a
closed form exists, and the same result for the same arguments on every machine. It also holds the exact McNemar test.
Left out: other tests (`paired_tests`), pass@k (`at_k`), power (`power`).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """A confidence interval, low <= high."""

    low: float
    high: float


class DifferenceEstimate(NamedTuple):
    """A mean difference, after minus before, with its confidence interval."""

    difference: float
    low: float
    high: float


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of a share, within [0, 1]; (0, 1) when n is 0.

    centre = (p + z^2/2n) / (1 + z^2/n), half = z / (1 + z^2/n) * sqrt(p(1-p)/n + z^2/4n^2).
    The low end is exactly 0 for no success, the high end exactly 1 for no failure.

    Args:
        successes: 0 <= successes <= n; not whole where n is an effective number.
        n: number of trials, >= 0.
        confidence: in (0, 1), two-sided, without continuity correction.

    Raises:
        ValueError: if an argument is out of its range.

    Source: E. B. Wilson, JASA 22 (1927) 209-212; recommended by Brown, Cai and DasGupta,
    Statistical Science 16 (2001) 101-133.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials: expected 0 <= successes <= n")
    z = NormalDist().inv_cdf(0.5 + _checked_confidence(confidence) / 2)
    if n == 0:
        return Interval(0.0, 1.0)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def clustered_interval(shares: Sequence[float], samples: int, confidence: float = 0.95) -> Interval:
    """Return an interval of the mean share of correct samples, where several samples belong to one item.

    Samples of one item resemble each other, so they count for less than as many items: n is the number of independent
    trials that would vary as the item means do, n = p(1-p) / (s^2 / N), at least the N items and at most N * samples.
    Where the items do not vary at all it is N. The interval is Wilson's for that n.

    Args:
        shares: N >= 1, per item the share of correct samples, in [0, 1].
        samples: of an item, >= 1.
        confidence: in (0, 1).

    Raises:
        ValueError: if nothing is given or an argument is out of its range.

    Source: the effective sample size of E. Korn and B. Graubard, Survey Methodology 24 (1998) 193-201.
    """
    if not shares or samples < 1:
        raise ValueError(f"{len(shares)} items, {samples} samples: expected at least one of each")
    return clustered_ratio_interval([(share * samples, samples) for share in shares], confidence)


def clustered_ratio_interval(clusters: Sequence[tuple[float, int]], confidence: float = 0.95) -> Interval:
    """Return an interval of a share of outcomes that come in clusters of any size, such as the answers to one problem.

    As `clustered_interval`, with the variance of a ratio: s^2 / N becomes N / (N-1) * sum (y - p m)^2 / (sum m)^2 over
    the N clusters with y of m outcomes, p = sum y / sum m.

    Args:
        clusters: N >= 1, each (successes, outcomes) with 0 <= successes <= outcomes and outcomes >= 1.
        confidence: in (0, 1).

    Raises:
        ValueError: if nothing is given or an argument is out of its range.

    Source: the linearised variance of a ratio, W. Cochran, Sampling Techniques (1977), 6.3, in `clustered_interval`'s
    effective sample size.
    """
    if not clusters or any(not 0 <= y <= m or m < 1 for y, m in clusters):
        raise ValueError(f"{len(clusters)} clusters: expected at least one, each with successes of outcomes >= 1")
    count, total = len(clusters), sum(m for _, m in clusters)
    share = math.fsum(y for y, _ in clusters) / total
    squares = math.fsum((y - share * m) ** 2 for y, m in clusters)
    variance = squares * count / (count - 1) / total**2 if count > 1 else 0.0
    trials = share * (1 - share) / variance if variance > 0 else count
    trials = min(max(trials, count), total)
    return wilson_interval(min(share * trials, trials), trials, confidence)


def bootstrap_interval(
    values: Sequence[float], *, seed: int, resamples: int = 10_000, confidence: float = 0.95
) -> Interval:
    """Return a percentile bootstrap interval of the mean.

    The values are drawn with replacement; the ends are the (1 - confidence) / 2 quantiles on both sides of the
    resampled means, linearly interpolated. How often each distinct value is drawn is one multinomial draw, which has
    the same distribution as drawing one by one and costs little when scores take few values.

    Args:
        values: N >= 1 finite numbers, one per item: samples of one item must be averaged first, they are not
            independent.
        seed: of numpy's `RandomState`, whose streams numpy keeps for ever.
        resamples: >= 1.
        confidence: in (0, 1).

    Raises:
        ValueError: if nothing is given or an argument is out of its range.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), 13.3.
    """
    import numpy as np

    if not values:
        raise ValueError("no scores: expected at least one")
    if resamples < 1:
        raise ValueError(f"{resamples} resamples: expected at least 1")
    tail = (1 - _checked_confidence(confidence)) / 2
    if not all(map(math.isfinite, values)):
        raise ValueError("scores are not all finite")
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    n = len(values)
    if len(distinct) == 1:
        return Interval(float(distinct[0]), float(distinct[0]))
    random = np.random.RandomState(seed % 2**32)
    step = max(1, 2_000_000 // len(distinct))  # at most 16 MB of counts at a time
    means = np.concatenate(
        [
            random.multinomial(n, counts / n, size=min(step, resamples - start)) @ distinct / n
            for start in range(0, resamples, step)
        ]
    )
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def paired_bootstrap_difference(
    before: Sequence[float],
    after: Sequence[float],
    *,
    seed: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> DifferenceEstimate:
    """Return mean(after) - mean(before) with a percentile bootstrap interval over the pairs.

    Args:
        before: N >= 1 finite scores.
        after: the scores of the same items in the same order.
        seed: see `bootstrap_interval`.
        resamples: >= 1.
        confidence: in (0, 1).

    Raises:
        ValueError: if lengths differ, nothing is given or an argument is out of its range.

    Source: `bootstrap_interval` of the differences; paired over test items as in P. Koehn, EMNLP 2004.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} and {len(after)} scores: expected as many, at least one")
    differences = [y - x for x, y in zip(before, after, strict=True)]
    low, high = bootstrap_interval(differences, seed=seed, resamples=resamples, confidence=confidence)
    return DifferenceEstimate(math.fsum(differences) / len(differences), low, high)


def _checked_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: expected a number between 0 and 1")
    return confidence
