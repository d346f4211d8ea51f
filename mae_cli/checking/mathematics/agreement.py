"""Whether two expressions have the same value: exactly where they are fractions, else at points to 25 digits.

Place in the flow: `mathematics.equality` and `mathematics.sets` ask it. Contract: true where the values agree at every
point tried, false where they differ at one, null where that cannot be computed or told. Names stand for positive
numbers first; where negative ones give other real values (the root of a square), nothing is known. Names that a sum, a
factorial or a binomial counts with stand for whole numbers. Left out: proofs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from collections.abc import Sequence as Many
from fractions import Fraction
from typing import Any, Final

from mae_cli.checking.mathematics.expressions import Node, UnreadableError, operations, variables
from mae_cli.checking.mathematics.values import approximate, numbers, value

POINTS: Final = 3
WHOLE_POINTS: Final = 6
_CLOSE: Final = 1e-25
_TINY: Final = 1e-28
_COUNTING: Final = frozenset({"sum", "product", "factorial", "binomial", "gcd", "lcm"})


def all_of(answers: Iterable[bool | None]) -> bool | None:
    """False where any is, else null where any is."""
    found = list(answers)
    return False if False in found else (None if None in found else True)


def points(names: Many[str]) -> list[dict[str, Fraction]]:
    """Points to compare expressions at: one fraction per name, positive, of no special value."""
    return [{name: _coordinate(name, index) for name in names} for index in range(POINTS)]


def _coordinate(name: str, index: int) -> Fraction:
    seed = int.from_bytes(hashlib.blake2b(f"{name}/{index}".encode(), digest_size=4).digest(), "big")
    return Fraction(seed % 9973 + 1009, 3001 + seed % 7)


def whole_points(names: Many[str]) -> list[dict[str, Fraction]]:
    """Points of whole numbers, another one for each name; the first name in the alphabet is not always the smallest."""
    return [
        {name: Fraction(index + 3 + (3 * place * (index % 2 or 1)) % 11 + place) for place, name in enumerate(names)}
        for index in range(WHOLE_POINTS)
    ]


def same_value(first: Node, second: Node) -> bool | None:
    """Whether two expressions have one value at every point tried; null where that cannot be computed or told."""
    names = sorted(variables(first) | variables(second))
    if not names:
        return _same(value(first, {}), value(second, {}))
    if _COUNTING & (operations(first) | operations(second)):
        return all_of(_same(value(first, point), value(second, point)) for point in whole_points(names))
    found = all_of(_same(value(first, point), value(second, point)) for point in points(names))
    if found is not True:
        return found
    return all_of(_same_where_real(first, second, point) for point in _negative_points(names))


def _negative_points(names: Many[str]) -> list[dict[str, Fraction]]:
    """Points where all names are negative, and where every other one is: |a + b| is |a| + |b| for equal signs alone."""
    one, other = points(names)[:2]
    negative = [{name: -number for name, number in point.items()} for point in (one, other)]
    mixed = [
        {name: number if place % 2 == first else -number for place, (name, number) in enumerate(one.items())}
        for first in (0, 1)
    ]
    return negative + mixed if len(names) > 1 else negative


def _same_where_real(first: Node, second: Node, point: dict[str, Fraction]) -> bool | None:
    """True where the values agree or neither is real; null where they do not."""
    try:
        values = value(first, point), value(second, point)
    except UnreadableError:
        return True  # undefined there, as positive names were meant
    if all(approximate(each).imag != 0 for each in values):
        return True
    return _same(*values) or None


def _same(first: Any, second: Any) -> bool | None:
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first == second
    a, b = approximate(first), approximate(second)
    context = numbers()
    if context.isinf(a) or context.isinf(b):
        return bool(a == b)
    size = max(abs(a), abs(b))
    if size == 0 or abs(a - b) <= _CLOSE * size:
        return True
    # A difference of this size may be what rounding leaves of nothing.
    return None if size < _TINY and (isinstance(first, Fraction) or isinstance(second, Fraction)) else False
