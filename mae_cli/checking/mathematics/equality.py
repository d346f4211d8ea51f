"""Equality of two mathematical answers by our own reader: equal, different, or not known; no computer algebra.

Place in the flow: the verifier `math` asks math-verify and this second opinion, in a worker process. Contract: true
only where both texts are fully read and agree - exactly where they are rational, to 25 digits at points where they are
not - false only where both are read and differ; null for everything else. Decimals are taken as written: 0.33 is not a
third. A comparison is given what decides about two numbers, so that the same walk through the parts of two answers can
ask a second reader for each pair of parts (`mathematics.check`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Sequence as Many
from fractions import Fraction
from typing import Final

import msgspec

from mae_cli.answers.units import MeasureUnit, convert
from mae_cli.checking.mathematics.agreement import all_of, points, same_value
from mae_cli.checking.mathematics.expressions import Node, UnreadableError, renamed, variables
from mae_cli.checking.mathematics.objects import (
    Collection,
    MathObject,
    Matrix,
    Number,
    Piece,
    RealSet,
    Relational,
    Sequence,
    Text,
    Union,
    Unread,
    members_of,
    normalise_words,
)
from mae_cli.checking.mathematics.reading import read_object
from mae_cli.checking.mathematics.sets import as_set
from mae_cli.checking.mathematics.values import approximate, value

_CLOSE: Final = 1e-25
_NO_SOLUTION: Final = frozenset({"no solution", "no solutions", "no real solution", "no real solutions"})
_COUNTERS: Final = (frozenset("jklmn"), frozenset({"C", "c", "K"}))
"""Names that stand for any whole number, and for any constant: which one is taken says nothing."""


def equality(reference: str, answer: str, names: str = "") -> bool | None:
    """Whether two answers state the same: true, false, or null where that is not known."""
    return Equality().of(read_object(reference, names), read_object(answer, names))


def _own(first: Number, second: Number) -> bool | None:
    same = same_value(first.node, second.node)
    return None if same is False and _differ_in_a_counter(first.node, second.node) else same


def _differ_in_a_counter(first: Node, second: Node) -> bool:
    """Whether two expressions are equal but for the name of what counts in them: k pi and n pi."""
    lone, other = variables(first) - variables(second), variables(second) - variables(first)
    if len(lone) != 1 or len(other) != 1 or not any(lone | other <= names for names in _COUNTERS):
        return False
    return same_value(renamed(first, lone.pop(), other.pop()), second) is True


class Equality(msgspec.Struct, frozen=True):
    """How two objects are compared; the order of the two does not matter."""

    same: Callable[[Number, Number], bool | None] = _own
    """Whether two expressions are equal, whatever their units."""
    is_own: bool = True
    """Whether our own reading alone may decide where no pair of expressions does, as for equations."""

    def of(self, first: MathObject, second: MathObject) -> bool | None:
        """Whether two objects are the same; null where that is not known."""
        try:
            return self._compare(first, second)
        except (UnreadableError, RecursionError, ArithmeticError):
            return None

    def _compare(self, first: MathObject, second: MathObject) -> bool | None:
        if isinstance(first, Unread) or isinstance(second, Unread):
            return None
        if isinstance(first, Text) or isinstance(second, Text):
            return texts(first, second)
        if isinstance(first, RealSet | Union) or isinstance(second, RealSet | Union):
            return self._sets(first, second)
        if isinstance(first, Relational) or isinstance(second, Relational):
            return self._relations(first, second)
        if isinstance(first, Collection) or isinstance(second, Collection):
            if isinstance(first, Sequence | Matrix) or isinstance(second, Sequence | Matrix):
                # "(1, 2)" for "1, 2" may be meant, or a point for two answers.
                point, other = (second, first) if isinstance(first, Collection) else (first, second)
                return self._coordinates(point, other)
            return self._collections(first, second)
        if isinstance(first, Number) and isinstance(second, Number):
            return self._numbers(first, second)
        if isinstance(first, Sequence) and isinstance(second, Sequence):
            return self._sequences(first, second)
        if isinstance(first, Matrix) and isinstance(second, Matrix):
            if [len(row) for row in first.rows] != [len(row) for row in second.rows]:
                return False
            return all_of(self._compare(a, b) for r, s in zip(first.rows, second.rows, strict=True)
                          for a, b in zip(r, s, strict=True))  # fmt: skip
        if isinstance(first, Matrix) or isinstance(second, Matrix):
            return self._rows(first, second) if isinstance(first, Matrix) else self._rows(second, first)
        return False

    def _rows(self, matrix: MathObject, other: MathObject) -> bool | None:
        """A matrix and a list of lists that may be its rows."""
        if not (
            isinstance(matrix, Matrix) and isinstance(other, Sequence) and (other.opening, other.closing) == ("[", "]")
        ):
            return None
        rows = [row.parts for row in other.parts if isinstance(row, Sequence) and row.opening == "["]
        return self._compare(matrix, Matrix(tuple(rows))) if len(rows) == len(other.parts) else None

    def _sets(self, first: MathObject, second: MathObject) -> bool | None:
        """Sets of real numbers, in whatever form one of them is written."""
        one, other = as_set(first), as_set(second)
        if one is None or other is None:
            if isinstance(first, Union) and isinstance(second, Union):
                return self._matching(first.parts, second.parts)
            # A single number is no set; other things may state one in a way that is not read.
            return False if isinstance(first, Number) or isinstance(second, Number) else None
        same = len(one.pieces) == len(other.pieces) and all_of(
            self._pieces(a, b) for a, b in zip(one.pieces, other.pieces, strict=True)
        )
        # x > 3 is not y > 3, but the names may be the reader's choice.
        return same if not same or one.name == other.name or None in (one.name, other.name) else None

    def _pieces(self, first: Piece, second: Piece) -> bool | None:
        if (first.has_low, first.has_high) != (second.has_low, second.has_high):
            return False
        return all_of((self._ends(first.low, second.low), self._ends(first.high, second.high)))

    def _ends(self, first: Number, second: Number) -> bool | None:
        if first.node == second.node:
            return True
        return self.same(first, second)

    def _numbers(self, first: Number, second: Number) -> bool | None:
        if first.unit == second.unit:
            return self.same(first, second)
        units = {first.unit, second.unit}
        if "%" in units:
            return self._percent(first, second)
        if any(unit.startswith("base") for unit in units):
            return self._bases(first, second)
        if units <= {"", "radian", "degree"} and "degree" in units and "pi" in first.source + second.source:
            return self._in_degrees(first, second)
        if "" in units:
            same = self.same(first, second)
            return None if same and (first.is_doubtful or second.is_doubtful) else same
        return self._in_units(first, second)

    def _in_degrees(self, first: Number, second: Number) -> bool | None:
        """An angle in degrees and a number with pi, which is one in radians."""
        angle, other = (first, second) if first.unit == "degree" else (second, first)
        half_turn: Node = ("/", ("constant", "pi"), ("number", Fraction(180)))
        in_radians = Number(("*", angle.node, half_turn), "", f"({angle.source}) \\cdot \\frac{{\\pi}}{{180}}")
        return self.same(in_radians, other)

    def _percent(self, first: Number, second: Number) -> bool | None:
        if {first.unit, second.unit} != {"%", ""}:
            return None
        share, other = (first, second) if first.unit == "%" else (second, first)
        hundredth = Number(("/", share.node, ("number", Fraction(100))), "", f"\\frac{{{share.source}}}{{100}}")
        if self.same(hundredth, other):
            return True
        return None if same_value(share.node, other.node) is not False else False

    def _bases(self, first: Number, second: Number) -> bool | None:
        # The digits may be written without their base; then they are read as another number here. The same number to
        # another base may not be what was asked for.
        written, other = (first, second) if first.unit.startswith("base") else (second, first)
        if (other.unit and not other.digits) or written.digits in (other.digits, other.source.upper()):
            return None
        return False if same_value(first.node, second.node) is False else None

    def _in_units(self, first: Number, second: Number) -> bool | None:
        """Two quantities in different units: converted where both are known to measure one thing."""
        try:
            scale = convert(MeasureUnit(first.unit), MeasureUnit(second.unit))
        except Exception:  # noqa: BLE001  (words that pint does not know raise many kinds of errors)
            scale = None
        if scale is None or not scale.is_exact:
            # Two different things: the same figures mean something else, others may be a conversion.
            return None
        factor, offset = ("number", scale.factor), ("number", scale.offset)
        written = f"({first.source}) \\cdot \\frac{{{scale.factor.numerator}}}{{{scale.factor.denominator}}}"
        if scale.offset:
            written += f" + \\frac{{{scale.offset.numerator}}}{{{scale.offset.denominator}}}"
        return self.same(Number(("+", ("*", first.node, factor), offset), "", written), second)

    def _sequences(self, first: Sequence, second: Sequence) -> bool | None:
        if len(first.parts) != len(second.parts):
            return False
        same = all_of(self._compare(a, b) for a, b in zip(first.parts, second.parts, strict=True))
        if (first.opening, first.closing) == (second.opening, second.closing):
            if first.opening == ":" and same is False:
                return None if _proportional(first.parts, second.parts) else False
            return same
        # [1, 2] and (1, 2) are different intervals; as vectors they would be the same, but then the reference says so.
        return False

    def _collections(self, first: MathObject, second: MathObject) -> bool | None:
        one, other = self._members(first), self._members(second)
        if _is_decimal(one, other) or _is_decimal(other, one):
            return None
        kinds = [{type(part) for part in parts} for parts in (one, other)]
        if kinds in ([{Relational}, {Sequence}], [{Sequence}, {Relational}]):
            return None  # "x = 1, y = 2" for "(1, 2)"
        named = [{part.name for part in parts if isinstance(part, Relational) and part.name} for parts in (one, other)]
        if (len(named[0]) > 1) != (len(named[1]) > 1):
            # "x = 1, y = 2" for "1, 2": in this order, or nothing is known.
            if len(one) == len(other) and all_of(self._compare(a, b) for a, b in zip(one, other, strict=True)):
                return True
            return None if self._matching(one, other) is not False else False
        return self._matching(one, other)

    def _members(self, read: MathObject) -> tuple[MathObject, ...]:
        """The parts of a collection; of a set each once."""
        found: list[MathObject] = []
        for part in members_of(read):
            is_known = isinstance(read, Collection) and read.is_set and any(self._compare(part, one) for one in found)
            if not is_known:
                found.append(part)
        return tuple(found)

    def _matching(self, first: Many[MathObject], second: Many[MathObject]) -> bool | None:
        """Whether the parts can be paired so that each pair is equal; null where that depends on an unknown pair."""
        if len(first) != len(second):
            return False
        table = [[self._compare(a, b) if _is_set(a) == _is_set(b) else None for b in second] for a in first]
        if _can_pair(table, (True,)):
            return True
        return None if _can_pair(table, (True, None)) else False

    def _relations(self, first: MathObject, second: MathObject) -> bool | None:
        if isinstance(first, Relational) and isinstance(second, Relational):
            if first.relation == "=" == second.relation:
                return self._equations(first, second)
            found = self._inequalities(first, second)
            return self._sets(first, second) if found is None else found
        relation, other = (first, second) if isinstance(first, Relational) else (second, first)
        assert isinstance(relation, Relational)
        if relation.relation == "=":
            if relation.name is not None:
                if isinstance(relation.right, Sequence) and isinstance(other, Collection):
                    return self._coordinates(relation.right, other, relation.name)
                return self._compare(relation.right, other)
            return False if isinstance(other, Number) else None
        return self._sets(first, second)

    def _coordinates(self, point: MathObject, other: MathObject, names: str | None = None) -> bool | None:
        """A point and its coordinates by their names, "(x,y) = (2,3)" and "x = 2, y = 3"; null where that is not both.

        A point without names has its coordinates in the order of the alphabet, or nothing is known.
        """
        if not (isinstance(point, Sequence) and isinstance(other, Collection) and len(point.parts) == len(other.parts)):
            return None
        found = {part.name: part.right for part in other.parts if isinstance(part, Relational) and part.relation == "="}
        names = names if names and names.startswith("(") else None
        ordered = [name.strip() for name in names.strip("()").split(",")] if names else sorted(map(str, found))
        if len(found) != len(point.parts) or set(ordered) != set(found) or point.opening != "(":
            return None
        same = all_of(self._compare(part, found[name]) for part, name in zip(point.parts, ordered, strict=True))
        return same if names or same else None

    def _equations(self, first: Relational, second: Relational) -> bool | None:
        if first.name is not None and second.name is not None:
            if first.name == second.name or _names_one_function(first.name, second.name):
                return self._compare(first.right, second.right)
            if isinstance(first.right, Number) and isinstance(second.right, Number) and first.name[0] != second.name[0]:
                # y = 2x and x = y/2 are one equation in two forms; x = 5 and y = 5 are not.
                if not variables(first.right.node) and not variables(second.right.node):
                    return False
            else:
                return None
        if not (isinstance(first.right, Number) and isinstance(second.right, Number)):
            return None
        ratio = _ratio(first, second)
        return None if ratio is None else self._by_itself(ratio != 0)

    def _inequalities(self, first: Relational, second: Relational) -> bool | None:
        if not (isinstance(first.right, Number) and isinstance(second.right, Number)):
            return None
        if (first.relation == "=") != (second.relation == "="):
            return False
        sign = _ratio(first, second)
        if sign is None:
            return None
        if (len(first.relation), first.relation == "!=") != (len(second.relation), second.relation == "!="):
            return False
        wanted = 1 if first.relation == second.relation else -1
        return self._by_itself(sign == wanted or (first.relation == "!=" and sign != 0))

    def _by_itself(self, same: bool) -> bool | None:
        """Our own verdict on two relations, which no second reader is asked about."""
        return same if self.is_own or not same else None


def texts(first: MathObject, second: MathObject) -> bool | None:
    """Whether words state the same as words or mathematics."""
    if isinstance(first, Text) and isinstance(second, Text):
        if first == second:
            return True
        if first.kind == second.kind == "date" and first.words.split("-")[:2] == second.words.split("-")[:2]:
            return None if first.words.endswith("-") or second.words.endswith("-") else False
        is_short = max(len(first.words), len(second.words)) <= 4 and first.words.isascii()
        # "ab" for "ba" may be a product after all.
        return None if is_short and sorted(first.words) == sorted(second.words) else False
    text, other = (first, second) if isinstance(first, Text) else (second, first)
    assert isinstance(text, Text)
    if isinstance(other, Number):
        words = _as_words(other)
        if words is not None and text.kind == "words":
            letters = sorted(character for character in words if character.isalpha())
            return words == text.words or (None if letters == sorted(text.words.replace(" ", "")) else False)
        return None if text.kind == "clock" or (other.source and other.source in text.words.split()) else False
    if isinstance(other, RealSet) and not other.pieces and text.words in _NO_SOLUTION:
        return True
    # A time may be written as a ratio.
    return None if isinstance(other, Sequence | RealSet) else False


def _as_words(read: Number) -> str | None:
    """The source of a number without figures; null for others."""
    if not read.unit and not any(character.isdigit() for character in read.source):
        return normalise_words(re.sub(r"\\(?:cdot|times) ?", "", read.source))
    return None


def _is_decimal(several: Many[MathObject], one: Many[MathObject]) -> bool:
    """Whether two whole numbers may be one with a decimal comma: "1000,99" for 1000.99."""
    if len(several) != 2 or len(one) != 1 or not isinstance(one[0], Number):
        return False
    sources = [part.source for part in several if isinstance(part, Number) and not part.unit]
    if len(sources) != 2 or not sources[1].isdigit() or not sources[0].lstrip("-").isdigit():
        return False
    return same_value(("number", Fraction(".".join(sources))), one[0].node) is True


def _names_one_function(first: str, second: str) -> bool:
    """Whether one side says y and the other f(x) for the same thing."""
    return any(one == "y" and other[1:2] == "(" for one, other in ((first, second), (second, first)))


def _proportional(first: Many[MathObject], second: Many[MathObject]) -> bool:
    ratios = [("/", a.node, b.node) for a, b in zip(first, second, strict=True)
              if isinstance(a, Number) and isinstance(b, Number)]  # fmt: skip
    return len(ratios) == len(first) and all(same_value(ratios[0], ratio) for ratio in ratios[1:])


def _is_set(read: MathObject) -> bool:
    return isinstance(read, Collection) and read.is_set


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


def _ratio(first: Relational, second: Relational) -> int | None:
    """The sign of the constant c with (left - right) of one = c times that of the other; 0 where there is none."""
    sides: list[Node] = []
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
