"""What an answer can be as mathematics: number, words, tuple, set, interval, matrix, relation.

Place in the flow: `mathematics.reading` makes these objects of texts, `mathematics.equality` compares them. Contract:
plain immutable data; what is not understood is `Unread`, and nothing is ever known about that. Left out: reading,
comparing, computing.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from mae_cli.checking.mathematics.expressions import Node

Relation = Literal["=", "<", ">", "<=", ">=", "!="]
TextKind = Literal["words", "clock", "date", "name"]


class Unread(msgspec.Struct, frozen=True):
    """A text that is not understood; `has_words` where that is for words behind figures ("5 squared")."""

    source: str
    has_words: bool = False


class Text(msgspec.Struct, frozen=True):
    """Words, as normalised: a plain answer, a time of the day, a date, or a name with figures ("room 12")."""

    words: str
    kind: TextKind = "words"


class Number(msgspec.Struct, frozen=True):
    """An expression, with the unit behind it ("" for none): a name that pint reads, "%", "base 2", or other words."""

    node: Node
    unit: str = ""
    source: str = ""
    """Its text without the unit; math-verify is given it."""
    digits: str = ""
    """Of a number to another base, as written."""
    is_doubtful: bool = False
    """Whether the letters of the unit stand right behind the figures and may be factors ("10cm")."""


class Sequence(msgspec.Struct, frozen=True):
    """Parts in brackets whose order counts: a point, a vector or the ends of an interval; ":" for a ratio."""

    opening: str
    closing: str
    parts: tuple[MathObject, ...]


class Collection(msgspec.Struct, frozen=True):
    """Parts whose order does not count: a set, or several answers side by side."""

    parts: tuple[MathObject, ...]
    is_set: bool = False
    """Whether braces stand around it, so that a part written twice is one."""


class Union(msgspec.Struct, frozen=True):
    """Intervals joined by a union sign whose ends are no constants."""

    parts: tuple[MathObject, ...]


class Piece(msgspec.Struct, frozen=True):
    """An interval of real numbers, or one number where both ends are it."""

    low: Number
    high: Number
    has_low: bool
    has_high: bool


class RealSet(msgspec.Struct, frozen=True):
    """A set of real numbers with constant ends, in order and without overlap; `name` is what an inequality bounds."""

    pieces: tuple[Piece, ...]
    name: str | None = None


class Matrix(msgspec.Struct, frozen=True):
    """Rows of entries."""

    rows: tuple[tuple[MathObject, ...], ...]


class Relational(msgspec.Struct, frozen=True):
    """An equation or inequality; `name` is the left side where that is but a name (`x`, `f(x)`, `(x,y)`), else null."""

    relation: Relation
    left: Node
    right: MathObject
    name: str | None = None


MathObject = Unread | Text | Number | Sequence | Collection | Union | RealSet | Matrix | Relational
TEXT_MARK: Final = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|textsf)\s*\{([^{}]*)\}")


def members_of(read: MathObject) -> tuple[MathObject, ...]:
    """What a collection holds; of anything else itself alone."""
    return read.parts if isinstance(read, Collection) else (read,)


def normalise_words(text: str) -> str:
    """Words in one spelling: no LaTeX text marks, no brackets around all of it, lower case, one blank."""
    text = TEXT_MARK.sub(r"\1", text)
    text = re.sub(r"[\\$]", "", text).strip(" .,;:!?\"'`*").casefold()
    inside = re.fullmatch(r"\(\s*([^()]*)\s*\)", text)
    return " ".join((inside[1] if inside else text).split())
