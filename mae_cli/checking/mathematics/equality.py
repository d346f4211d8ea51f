"""Equality of two mathematical answers by our own reader: equal, different, or not known; no computer algebra.

Place in the flow: the verifier `math` asks math-verify and this second opinion, in a worker process. Contract: true
only where both texts are fully read and agree - exactly where they are rational, to 25 digits at three points where
they are not - false only where both are read and differ; null for everything else. Decimals are taken as written: 0.33
is not a third.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Many
from fractions import Fraction
from typing import Any, Final

from mae_cli.checking.mathematics.expressions import Node, UnreadableError, variables
from mae_cli.checking.mathematics.objects import (
    Collection,
    MathObject,
    Matrix,
    Number,
    Relational,
    Sequence,
    Text,
    Union,
    Unread,
    members_of,
    normalise_words,
    read_object,
)
from mae_cli.checking.mathematics.values import approximate, numbers, value

POINTS: Final = 3
_CLOSE: Final = 1e-25
_TINY: Final = 1e-28


def equality(reference: str, answer: str) -> bool | None:
    """Whether two answers state the same: true, false, or null where that is not known."""
    first, second = read_object(reference), read_object(answer)
    try:
        return compare(first, second)
    except (UnreadableError, RecursionError):
        return None


def compare(first: MathObject, second: MathObject) -> bool | None:
    """Whether two objects are the same; the order of the arguments does not matter."""
    if isinstance(first, Unread) or isinstance(second, Unread):
        return None
    if isinstance(first, Text) or isinstance(second, Text):
        return _text(first, second)
    if isinstance(first, Relational) or isinstance(second, Relational):
        return _relations(first, second)
    if isinstance(first, Collection) or isinstance(second, Collection):
        if isinstance(first, Sequence | Union | Matrix) or isinstance(second, Sequence | Union | Matrix):
            # "(1, 2)" for "1, 2" may be meant, or a point for two answers.
            return None
        return _matching(members_of(first), members_of(second))
    if type(first) is not type(second):
        return None if isinstance(first, Matrix) or isinstance(second, Matrix) else False
    if isinstance(first, Number) and isinstance(second, Number):
        return _numbers(first, second)
    if isinstance(first, Sequence) and isinstance(second, Sequence):
        return _sequences(first, second)
    if isinstance(first, Union) and isinstance(second, Union):
        return _matching(first.parts, second.parts)
    if isinstance(first, Matrix) and isinstance(second, Matrix):
        if [len(row) for row in first.rows] != [len(row) for row in second.rows]:
            return False
        return _all(compare(a, b) for r, s in zip(first.rows, second.rows, strict=True)
                    for a, b in zip(r, s, strict=True))  # fmt: skip
    return None


def _all(answers: Any) -> bool | None:
    """False where any is, else null where any is."""
    found = list(answers)
    return False if False in found else (None if None in found else True)


def _text(first: MathObject, second: MathObject) -> bool | None:
    words = [read.words if isinstance(read, Text) else _as_words(read) for read in (first, second)]
    if None in words:
        # Words against mathematics: different, unless the mathematics is a name too.
        return False
    return words[0] == words[1]


def _as_words(read: MathObject) -> str | None:
    if isinstance(read, Number) and not read.unit and not any(character.isdigit() for character in read.source):
        return normalise_words(read.source)
    return None


def _numbers(first: Number, second: Number) -> bool | None:
    same = same_value(first.node, second.node)
    if first.unit == second.unit:
        return same
    units = {first.unit, second.unit}
    if "%" in units:
        if units != {"%", ""}:
            return None
        share, other = (first, second) if first.unit == "%" else (second, first)
        if same_value(("/", share.node, ("number", Fraction(100))), other.node):
            return True
        return None if same is not False else False
    if any(unit.startswith("base") for unit in units):
        # The digits may be written without their base; then they are read as another number here.
        written, other = (first, second) if first.unit.startswith("base") else (second, first)
        return None if other.unit or written.source == other.source or same is not False else False
    if "" in units:
        return same
    # Two different units: the same figures mean different things, other figures may be a conversion.
    return None


def _sequences(first: Sequence, second: Sequence) -> bool | None:
    if len(first.parts) != len(second.parts):
        return False
    same = _all(compare(a, b) for a, b in zip(first.parts, second.parts, strict=True))
    if (first.opening, first.closing) == (second.opening, second.closing):
        if first.opening == ":" and same is False:
            return None if _proportional(first.parts, second.parts) else False
        return same
    # [1, 2] and (1, 2) are different intervals; as vectors they would be the same, but then the reference says so.
    return False


def _proportional(first: Many[MathObject], second: Many[MathObject]) -> bool:
    ratios = [("/", a.node, b.node) for a, b in zip(first, second, strict=True)
              if isinstance(a, Number) and isinstance(b, Number)]  # fmt: skip
    return len(ratios) == len(first) and all(same_value(ratios[0], ratio) for ratio in ratios[1:])


def _matching(first: Many[MathObject], second: Many[MathObject]) -> bool | None:
    """Whether the parts can be paired so that each pair is equal; null where that depends on an unknown pair."""
    if len(first) != len(second):
        return False
    table = [[compare(a, b) for b in second] for a in first]
    if _can_pair(table, (True,)):
        return True
    return None if _can_pair(table, (True, None)) else False


def _can_pair(table: list[list[bool | None]], allowed: tuple[bool | None, ...]) -> bool:
    partner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, answer in enumerate(table[row]):
            if answer in allowed and column not in seen:
                seen.add(column)
                if column not in partner or place(partner[column], seen):
                    partner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(table)))


def _relations(first: MathObject, second: MathObject) -> bool | None:
    if isinstance(first, Relational) and isinstance(second, Relational):
        if first.relation == "=" == second.relation:
            return _equations(first, second)
        return _inequalities(first, second)
    relation, other = (first, second) if isinstance(first, Relational) else (second, first)
    assert isinstance(relation, Relational)
    if relation.relation == "=":
        if relation.name is not None:
            return compare(relation.right, other)
        return False if isinstance(other, Number) else None
    interval = _as_interval(relation)
    return compare(interval, other) if interval is not None and isinstance(other, Sequence) else None


def _equations(first: Relational, second: Relational) -> bool | None:
    if first.name is not None and second.name is not None:
        if first.name == second.name:
            return compare(first.right, second.right)
        if isinstance(first.right, Number) and isinstance(second.right, Number) and first.name[0] != second.name[0]:
            # y = 2x and x = y/2 are one equation in two forms; x = 5 and y = 5 are not.
            if not variables(first.right.node) and not variables(second.right.node):
                return False
        else:
            return None
    if not (isinstance(first.right, Number) and isinstance(second.right, Number)):
        return None
    return None if (ratio := _ratio(first, second)) is None else ratio != 0


def _inequalities(first: Relational, second: Relational) -> bool | None:
    if not (isinstance(first.right, Number) and isinstance(second.right, Number)):
        return None
    if (first.relation == "=") != (second.relation == "="):
        return False
    sign = _ratio(first, second)
    if sign is None:
        return None
    if len(first.relation) != len(second.relation):
        return False
    wanted = 1 if first.relation == second.relation else -1
    return sign == wanted


def _ratio(first: Relational, second: Relational) -> int | None:
    """The sign of the constant c with (left - right) of one = c times that of the other; 0 where there is none."""
    sides = []
    for read in (first, second):
        assert isinstance(read.right, Number)
        sides.append(("+", read.left, ("neg", read.right.node)))
    names = sorted(variables(sides[0]) | variables(sides[1]))
    if variables(sides[0]) != variables(sides[1]) or not names:
        return 0 if names else None
    ratios = []
    for point in points(names):
        top, bottom = value(sides[0], point), value(sides[1], point)
        if bottom == 0 or top == 0:
            return None
        ratios.append(approximate(top) / approximate(bottom))
    if any(abs(ratio - ratios[0]) > _CLOSE * abs(ratios[0]) for ratio in ratios) or ratios[0].imag != 0:
        return 0
    return 1 if ratios[0].real > 0 else -1


def _as_interval(read: Relational) -> Sequence | None:
    if read.left[0] != "variable" or not isinstance(read.right, Number) or variables(read.right.node):
        return None
    infinity: Node = ("constant", "infinity")
    closed = read.relation in ("<=", ">=")
    if read.relation in ("<", "<="):
        return Sequence("(", "]" if closed else ")", (Number(("neg", infinity)), read.right))
    return Sequence("[" if closed else "(", ")", (read.right, Number(infinity)))


def points(names: Many[str]) -> list[dict[str, Fraction]]:
    """Points to compare expressions at: one fraction per name, positive, of no special value."""
    return [{name: _coordinate(name, index) for name in names} for index in range(POINTS)]


def _coordinate(name: str, index: int) -> Fraction:
    seed = int.from_bytes(hashlib.blake2b(f"{name}/{index}".encode(), digest_size=4).digest(), "big")
    return Fraction(seed % 9973 + 1009, 3001 + seed % 7)


def same_value(first: Node, second: Node) -> bool | None:
    """Whether two expressions have one value at every point tried; null where that cannot be computed or told."""
    names = sorted(variables(first) | variables(second))
    answers = [_same(value(first, point), value(second, point)) for point in points(names)[: POINTS if names else 1]]
    return _all(answers)


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
