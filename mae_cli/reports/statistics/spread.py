"""Mean and population standard deviation of values of which some may be unknown."""

import math
from collections.abc import Iterable
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
    mean = math.fsum(known) / len(known)
    return MeanAndSpread(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in known) / len(known)))
