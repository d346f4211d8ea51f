"""Intervals, paired tests and small descriptive figures, without numpy.

Place in the flow: `eval` and the report turn counts and scores into claims with these functions.
Contract: pure, exact where a closed form exists, and the same result for the same arguments on
every machine (the bootstrap draws from Python's own generator). Left out: which items are paired
and what a p-value decides.
"""

import math
import random
from collections.abc import Iterable, Sequence
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


class MeanAndSpread(NamedTuple):
    """Mean and population standard deviation; both null where no value is known."""

    mean: float | None
    spread: float | None


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of a share, within [0, 1]; (0, 1) when n is 0.

    centre = (p + z^2/2n) / (1 + z^2/n), half = z / (1 + z^2/n) * sqrt(p(1-p)/n + z^2/4n^2).
    The low end is exactly 0 for no success, the high end exactly 1 for no failure.

    Args:
        successes: 0 <= successes <= n.
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


def mcnemar_exact(wins: int, losses: int) -> float:
    """Return the two-sided exact p-value of a paired comparison; 1.0 without discordant pairs.

    p = min(1, 2 * P(X <= min(wins, losses))) with X ~ Binomial(wins + losses, 1/2), in whole
    numbers until the last division.

    Args:
        wins: pairs right only after, >= 0.
        losses: pairs right only before, >= 0.

    Raises:
        ValueError: if a count is negative.

    Source: Q. McNemar, Psychometrika 12 (1947) 153-157, in its exact binomial form (the sign
    test on the discordant pairs).
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"wins {wins}, losses {losses}: expected counts >= 0")
    n = wins + losses
    coefficient = tail = 1  # C(n, 0)
    for k in range(min(wins, losses)):
        coefficient = coefficient * (n - k) // (k + 1)  # C(n, k + 1)
        tail += coefficient
    return min(1.0, 2 * tail / (1 << n))


def paired_bootstrap_difference(
    before: Sequence[float],
    after: Sequence[float],
    *,
    seed: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> DifferenceEstimate:
    """Return mean(after) - mean(before) with a percentile bootstrap interval over the pairs.

    Pairs are drawn with replacement; the interval ends are the (1 - confidence) / 2 quantiles on
    both sides of the resampled means, linearly interpolated.

    Args:
        before: N >= 1 finite scores.
        after: the scores of the same items in the same order.
        seed: of Python's `random.Random`; only `random()` is drawn, which Python keeps stable.
        resamples: >= 1.
        confidence: in (0, 1).

    Raises:
        ValueError: if lengths differ, nothing is given or an argument is out of its range.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), 13.3; paired over
    test items as in P. Koehn, EMNLP 2004.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} and {len(after)} scores: expected as many, at least one")
    if resamples < 1:
        raise ValueError(f"{resamples} resamples: expected at least 1")
    tail = (1 - _checked_confidence(confidence)) / 2
    differences = [y - x for x, y in zip(before, after, strict=True)]
    if not all(map(math.isfinite, differences)):
        raise ValueError("scores are not all finite")
    n, draw = len(differences), random.Random(seed).random
    means = sorted(math.fsum([differences[int(draw() * n)] for _ in range(n)]) / n for _ in range(resamples))
    observed = math.fsum(differences) / n
    return DifferenceEstimate(observed, _quantile(means, tail), _quantile(means, 1 - tail))


def mean_and_spread(values: Iterable[float | None]) -> MeanAndSpread:
    """Return mean and population standard deviation of the known values.

    Null values are unknown and left out; without any known value both figures are null.
    Source: spread = sqrt(mean((x - mean)^2)), divided by N.
    """
    known = [value for value in values if value is not None]
    if not known:
        return MeanAndSpread(None, None)
    mean = math.fsum(known) / len(known)
    return MeanAndSpread(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in known) / len(known)))


def distinct_n(texts: Iterable[str], n: int) -> float | None:
    """Return the share of different n-grams among all n-grams, in (0, 1]; null if there are none.

    Tokens are the case-folded words between blanks; n-grams do not cross texts.

    Raises:
        ValueError: if n < 1.

    Source: distinct-n of Li et al., NAACL 2016, arXiv:1510.03055, divided by the number of
    n-grams (the paper divides by the number of tokens).
    """
    if n < 1:
        raise ValueError(f"n {n}: expected at least 1")
    grams: list[tuple[str, ...]] = []
    for text in texts:
        words = text.casefold().split()
        grams.extend(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return len(set(grams)) / len(grams) if grams else None


def _checked_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: expected a number between 0 and 1")
    return confidence


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    index = min(int(position), len(ordered) - 1)
    above = ordered[min(index + 1, len(ordered) - 1)]
    return ordered[index] + (position - index) * (above - ordered[index])
