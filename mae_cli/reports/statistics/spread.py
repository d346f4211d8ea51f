"""Mean and population standard deviation of values of which some may be unknown."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class MeanAndSpread(NamedTuple):
    """Mean and population standard deviation; both null where no value is known."""

    mean: float | None
    spread: float | None


def mean_and_spread(values: Iterable[float | None]) -> MeanAndSpread:
    """Return mean and population standard deviation of the known values.

    Null values are unknown and left out; without any known value both figures are null.
    Source: spread = sqrt(mean((x - mean)^2)), divided by N.
    """
    known = [value for value in values if value is not None]
    if not known:
        return MeanAndSpread(None, None)
    return MeanAndSpread(mean_of(known), population_spread(known))


def mean_of(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(values) / len(values)


def population_spread(values: Sequence[float]) -> float:
    """The standard deviation of at least one value, divided by how many there are."""
    mean = mean_of(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
