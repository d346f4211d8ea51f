"""Sets of real numbers: intervals, unions, differences and inequalities in one form that can be compared.

Place in the flow: `mathematics.reading` builds them, `mathematics.equality` compares them piece by piece. Contract:
`as_set` gives the set that an object states, or null where that is no set of real numbers with constant ends; joining
keeps pieces in order, without overlap. Left out: inequalities beyond linear ones and |linear| against a constant.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import cmp_to_key
from typing import Final

from mae_cli.checking.mathematics.agreement import same_value
from mae_cli.checking.mathematics.expressions import Node, UnreadableError, variables
from mae_cli.checking.mathematics.objects import (
    Collection,
    MathObject,
    Number,
    Piece,
    RealSet,
    Relational,
    Sequence,
    Union,
)
from mae_cli.checking.mathematics.values import approximate, value

_INFINITE: Final = Number(("constant", "infinity"), source="\\infty")
_MINUS_INFINITE: Final = Number(("neg", ("constant", "infinity")), source="-\\infty")
REALS: Final = RealSet((Piece(_MINUS_INFINITE, _INFINITE, False, False),))
EMPTY: Final = RealSet(())
_FLIPPED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}


def as_set(read: MathObject) -> RealSet | None:
    """The set of real numbers that an object states; null where it states none, or one with names in its ends."""
    if isinstance(read, RealSet):
        return read
    if isinstance(read, Sequence):
        piece = _interval(read)
        return RealSet((piece,)) if piece else None
    if isinstance(read, Collection):
        points = [_constant(part) for part in read.parts]
        return joined([Piece(one, one, True, True) for one in points if one]) if None not in points else None
    if isinstance(read, Union):
        parts = [as_set(part) for part in read.parts]
        return joined([piece for part in parts if part for piece in part.pieces]) if None not in parts else None
    if isinstance(read, Relational) and read.relation != "=":
        return solved(read)
    return None


def _constant(read: MathObject) -> Number | None:
    if isinstance(read, Relational) and read.relation == "=" and read.name is not None:
        read = read.right
    return read if isinstance(read, Number) and not read.unit and not variables(read.node) else None


def _interval(read: Sequence) -> Piece | None:
    ends = [_constant(part) for part in read.parts]
    if len(ends) != 2 or ends[0] is None or ends[1] is None or read.opening not in "([" or read.closing not in ")]":
        return None
    piece = Piece(ends[0], ends[1], read.opening == "[", read.closing == "]")
    order = compare_ends(piece.low, piece.high)
    return piece if order < 0 or (order == 0 and piece.has_low and piece.has_high) else None


def compare_ends(first: Number, second: Number) -> int:
    """-1, 0 or 1 for the order of two constants.

    Raises:
        UnreadableError: one is not real, or rounding hides the order.
    """
    same = same_value(first.node, second.node)
    if same:
        return 0
    a, b = approximate(value(first.node, {})), approximate(value(second.node, {}))
    if same is None or a.imag != 0 or b.imag != 0:
        raise UnreadableError("ends without an order")
    return -1 if a.real < b.real else 1


def joined(pieces: Iterable[Piece], name: str | None = None) -> RealSet:
    """The union of pieces, in order; pieces that touch with the point between them become one."""

    def before(first: Piece, second: Piece) -> int:
        return compare_ends(first.low, second.low) or int(second.has_low) - int(first.has_low)

    found: list[Piece] = []
    for piece in sorted(pieces, key=cmp_to_key(before)):
        last = found[-1] if found else None
        gap = compare_ends(piece.low, last.high) if last else 1
        if last is None or gap > 0 or (gap == 0 and not (piece.has_low or last.has_high)):
            found.append(piece)
            continue
        order = compare_ends(piece.high, last.high)
        is_further = order > 0
        high, has_high = (piece.high, piece.has_high) if is_further else (last.high, last.has_high)
        found[-1] = Piece(last.low, high, last.has_low, has_high or (order == 0 and piece.has_high))
    return RealSet(tuple(found), name)


def complement(of: RealSet) -> RealSet:
    """All real numbers that are not in a set."""
    pieces: list[Piece] = []
    low, has_low = _MINUS_INFINITE, False
    for piece in of.pieces:
        order = compare_ends(low, piece.low)
        if order < 0 or (order == 0 and has_low and not piece.has_low):
            pieces.append(Piece(low, piece.low, has_low, not piece.has_low))
        low, has_low = piece.high, not piece.has_high
    if compare_ends(low, _INFINITE) < 0:
        pieces.append(Piece(low, _INFINITE, has_low, False))
    return RealSet(tuple(pieces), of.name)


def intersection(first: RealSet, second: RealSet) -> RealSet:
    """What is in both sets."""
    outside = joined([*complement(first).pieces, *complement(second).pieces])
    return RealSet(complement(outside).pieces, first.name or second.name)


def difference(first: RealSet, second: RealSet) -> RealSet:
    """What is in the first set and not in the second."""
    return intersection(first, complement(second))


def solved(read: Relational) -> RealSet | None:
    """The solutions of an inequality in one name: linear, or the size of something linear against a constant."""
    if not isinstance(read.right, Number) or read.right.unit:
        return None
    if read.left[0] == "variable" and not variables(read.right.node):
        return _bounded(read.relation, read.right, read.left[1])
    left, right, relation = read.left, read.right.node, read.relation
    if right[0] == "abs" and not variables(left):
        left, right, relation = right, left, _FLIPPED[relation]  # type: ignore[assignment]
    if left[0] == "abs" and not variables(right):
        size = value(right, {})
        return _sized(left[1], size, relation) if isinstance(size, Fraction) and size > 0 else None
    return _linear(("+", left, ("neg", right)), relation)


def _bounded(relation: str, bound: Number, name: str | None) -> RealSet:
    if relation == "!=":
        return RealSet(complement(RealSet((Piece(bound, bound, True, True),))).pieces, name)
    is_closed = relation in ("<=", ">=")
    if relation in ("<", "<="):
        return RealSet((Piece(_MINUS_INFINITE, bound, False, is_closed),), name)
    return RealSet((Piece(bound, _INFINITE, is_closed, False),), name)


def _linear(node: Node, relation: str) -> RealSet | None:
    """The solutions of (linear expression) relation 0, with an exact bound."""
    names = sorted(variables(node))
    if len(names) != 1:
        return None
    at = [value(node, {names[0]: Fraction(point)}) for point in (0, 1, 2, -3)]
    if not all(isinstance(each, Fraction) for each in at):
        return None
    slope = at[1] - at[0]
    if not slope or at[2] - at[1] != slope or at[0] - at[3] != 3 * slope:
        return None
    bound = -at[0] / slope
    return _bounded(relation if slope > 0 else _FLIPPED[relation], _figure(bound), names[0])


def _sized(inner: Node, size: Fraction, relation: str) -> RealSet | None:
    minus = ("neg", ("number", size))
    above = _linear(("+", inner, minus), relation)
    below = _linear(("+", inner, ("number", size)), _FLIPPED[relation])
    if above is None or below is None:
        return None
    if relation in ("<", "<=", "!="):
        return intersection(above, below)
    return joined([*above.pieces, *below.pieces], above.name)


def _figure(bound: Fraction) -> Number:
    return Number(("number", bound), source=str(bound))
