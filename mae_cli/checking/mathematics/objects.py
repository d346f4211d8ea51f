r"""Reading an answer as a mathematical object: number, tuple, interval, set, matrix, equation, or plain text.

Place in the flow: the second opinion of the verifier `math`; `mathematics.equality` compares these objects. Contract:
`read_object` gives an object for every text; what it cannot read is `Unread`, and nothing is ever known about
that. Wrappers (`$..$`, `\boxed{}`, `\\left`, blanks) go, units and names in front (`x =`) are kept apart.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from mae_cli.answers.units import names_things, unit_named
from mae_cli.checking.mathematics.expressions import Node, UnreadableError, read_expression, starts_with_name

MAX_LENGTH: Final = 2000
Relation = Literal["=", "<", ">", "<=", ">="]


class Unread(msgspec.Struct, frozen=True):
    """A text that is not understood; `has_words` where that is for words behind figures ("5 squared")."""

    source: str
    has_words: bool = False


class _WordsError(UnreadableError):
    """Words stand behind figures that are no unit and name nothing that is counted."""


class Text(msgspec.Struct, frozen=True):
    """Words, as normalised."""

    words: str


class Number(msgspec.Struct, frozen=True):
    """An expression, with the unit behind it as normalised ("" for none)."""

    node: Node
    unit: str = ""
    source: str = ""


class Sequence(msgspec.Struct, frozen=True):
    """Parts in brackets whose order counts: a point, a vector or the ends of an interval; ":" for a ratio."""

    opening: str
    closing: str
    parts: tuple[MathObject, ...]


class Collection(msgspec.Struct, frozen=True):
    """Parts whose order does not count: a set, or several answers side by side."""

    parts: tuple[MathObject, ...]


class Union(msgspec.Struct, frozen=True):
    """Intervals joined by a union sign."""

    parts: tuple[MathObject, ...]


class Matrix(msgspec.Struct, frozen=True):
    """Rows of entries."""

    rows: tuple[tuple[MathObject, ...], ...]


class Relational(msgspec.Struct, frozen=True):
    """An equation or inequality; `name` is the left side where that is but a name (`x`, `f(x)`), else null."""

    relation: Relation
    left: Node
    right: MathObject
    name: str | None = None


MathObject = Unread | Text | Number | Sequence | Collection | Union | Matrix | Relational
_SIGNS: Final = {
    "\u2212": "-", "\u2013": "-", "\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u22c5": "\\cdot ", "\u00f7": "/",
    "\u221e": "\\infty ", "\u03c0": "\\pi ", "\u00b0": "^\\circ ", "\u2264": "\\le ", "\u2265": "\\ge ",
    "\u222a": "\\cup ", "\u00b1": "\\pm ", "\u2208": "\\in ", "\u00b2": "^2", "\u00b3": "^3", "\u03b8": "\\theta ",
    "\u20ac": "\\euro ", "\u00a3": "\\pound ", "\u221a": "\\sqrt ", "\u00a0": " ",
}  # fmt: skip
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|bigl?|Bigl?|bigr|Bigr|limits)(?![a-zA-Z])|(?<!\\)\\[,!;: ]|~|\\q?quad"
)
_SPELLED: Final = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:leq|leqslant)(?![a-zA-Z])"), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant)(?![a-zA-Z])"), r"\\ge "),
    (re.compile(r"\\(?:mathrm|mathbf|mathit|mathsf|operatorname)\s*\{([a-zA-Z]+)\}"), r" \1 "),
    (re.compile(r"\\(?:text|mbox|textbf|textit|textrm)\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b"), ","),
    (re.compile(r",\s*,"), ","),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=\d)\s*\\!\s*(?=,)|(?<=,)\s*\\!\s*(?=\d)"), ""),
    (re.compile(r"\\(?:lbrace|lvert)(?![a-zA-Z])"), lambda m: "\\{" if "brace" in m[0] else "|"),
    (re.compile(r"\\(?:rbrace|rvert)(?![a-zA-Z])"), lambda m: "\\}" if "brace" in m[0] else "|"),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
)
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:,\s?\d{3})+(?!\d)")
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm)\s*\{([^{}]*)\}")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_UNIT = re.compile(
    r"(?P<degree>\^\s*\{?\s*\\circ\s*\}?|\\degree|degrees?$)|(?P<percent>\\?%|percent$|per cent$)"
    r"|(?P<words>(?:\\(?:text|mbox|textrm)\s*\{[^{}]*[a-zA-Z][^{}]*\}|(?<![a-zA-Z\\{])[a-zA-Z][a-z]+(?:[ -][a-z]+)*)"
    r"\s*(?:\^\s*\{?\s*[23]\s*\}?)?)\.?$"
)
_NAME = re.compile(r"(?:\\?[a-zA-Z]+(?:_\{?\w+\}?)?'?(?:\s*\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\))?)")
_OPERATORS: Final[tuple[tuple[str, Relation], ...]] = (
    ("\\le ", "<="), ("\\ge ", ">="), ("<", "<"), (">", ">"), ("=", "="),
)  # fmt: skip


def read_object(text: str) -> MathObject:
    """The mathematical object that an answer states; `Unread` where the answer is not understood."""
    if len(text) > MAX_LENGTH:
        return Unread(text[:40])
    plain = _plain(text)
    try:
        return _read(plain)
    except _WordsError:
        return Unread(plain, has_words=True)
    except (UnreadableError, RecursionError):
        words = normalise_words(plain)
        # Words alone are compared as words; anything with mathematics in it that is not understood stays unread.
        is_words = "\\" not in _TEXT.sub(r"\1", plain)
        return Text(words) if is_words and re.fullmatch(r"[^\W\d_]{2,}(?:[ '-][^\W\d_]+)*", words) else Unread(plain)


def _plain(text: str) -> str:
    for sign, spelled in _SIGNS.items():
        text = text.replace(sign, spelled)
    text = text.strip()
    changed = True
    while changed:
        before = text
        text = text.rstrip(".,;: \n") if not text.endswith("\\,") else text[:-2].rstrip()
        for start, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`")):
            if text.startswith(start) and text.endswith(end) and len(text) > len(start) + len(end):
                inside = text[len(start) : -len(end)]
                if start not in inside:
                    text = inside.strip()
        boxed = re.fullmatch(r"\\boxed\s*\{(.*)\}", text, re.DOTALL)
        if boxed and _balanced(boxed[1]):
            text = boxed[1].strip()
        changed = text != before
    for pattern, spelled_as in _SPELLED:
        text = pattern.sub(spelled_as, text)
    return re.sub(r"\s+", " ", _DROPPED.sub(" ", text)).strip()


def _balanced(text: str) -> bool:
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def normalise_words(text: str) -> str:
    """Words in one spelling: no LaTeX text marks, no brackets around all of it, lower case, one blank."""
    text = _TEXT.sub(r"\1", text)
    text = re.sub(r"[\\$]", "", text).strip(" .,;:!?\"'`*").casefold()
    inside = re.fullmatch(r"\(\s*([^()]*)\s*\)", text)
    return " ".join((inside[1] if inside else text).split())


def _read(text: str) -> MathObject:
    """One object; the order of the attempts is from the outside of the text inwards."""
    whole_text = re.fullmatch(r"\\(?:text|mbox|textbf|textit|textrm)\s*\{([^{}]*)\}", text)
    if whole_text:
        words = normalise_words(text)
        return Text(words) if not re.search(r"\d", words) else _read(whole_text[1].strip())
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return Matrix(
            tuple(
                tuple(_read(cell.strip()) for cell in row.split("&"))
                for row in re.split(r"\\\\", matrix[2])
                if row.strip()
            )
        )
    # A comma between groups of three digits parts thousands, but not inside brackets: (1,234) may be a point.
    text = _GROUPED.sub(lambda m: re.sub(r"[,\s]", "", m[0]) if _depth(text, m.start()) == 0 else m[0], text)
    parts = _split(text, (",", ";"))
    if len(parts) > 1:
        return Collection(tuple(item for part in parts for item in members_of(_read(part))))
    unions = _split(text, ("\\cup",))
    if len(unions) > 1:
        return Union(tuple(_read(part) for part in unions))
    member = re.fullmatch(rf"{_NAME.pattern}\s*\\in(?![a-z])(.*)", text)
    if member:
        return _read(member[1].strip())
    for operator, relation in _OPERATORS:
        sides = _split(text, (operator,))
        if len(sides) > 1:
            return _relational(sides, relation, text)
    return _bracketed(text) or _several_signs(text) or _number(text)


def members_of(read: MathObject) -> tuple[MathObject, ...]:
    """What a collection holds; of anything else itself alone."""
    return read.parts if isinstance(read, Collection) else (read,)


def _depth(text: str, end: int) -> int:
    before = text[:end]
    return sum(before.count(mark) for mark in "([{") - sum(before.count(mark) for mark in ")]}")


def _split(text: str, separators: tuple[str, ...]) -> list[str]:
    """The parts between separators that stand outside all brackets."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        if depth == 0:
            found = next((s for s in separators if text.startswith(s, at)), None)
            if found is not None and not (found == "=" and text[at - 1 : at] in ("<", ">", "!", "\\")):
                parts.append(text[start:at].strip())
                at += len(found)
                start = at
                continue
        depth += (text[at] in "([{") - (text[at] in ")]}")
        at += 1
    parts.append(text[start:].strip())
    if len(parts) > 1 and not all(parts):
        raise UnreadableError("an empty part")
    return parts


def _relational(sides: list[str], relation: Relation, text: str) -> MathObject:
    if relation == "=":
        if len(sides) > 2:  # a = b = 5: what it comes to is the last
            sides = [sides[0], sides[-1]]
        name = sides[0] if _NAME.fullmatch(sides[0]) else None
        words = re.sub(r"[^a-z ]", "", normalise_words(sides[0]))
        if name is None and len(words) > 3 and not re.search(r"\d", sides[0]):
            return _read(sides[1])  # "the area = 5"
        left: Node = ("variable", re.sub(r"\s", "", name)) if name else read_expression(sides[0])
        return Relational("=", left, _read(sides[1]), re.sub(r"\s", "", name) if name else None)
    if len(sides) == 3:  # a < x < b: the interval of x, if x is a name
        return _chain(sides, relation)
    if len(sides) != 2 or sum(text.count(mark) for mark, _ in _OPERATORS) > 1:
        return _mixed_chain(text)
    return Relational(relation, read_expression(sides[0]), Number(read_expression(sides[1])))


def _chain(sides: list[str], relation: Relation) -> MathObject:
    if not _NAME.fullmatch(sides[1]):
        raise UnreadableError("a chain of relations")
    ends = (sides[0], sides[2]) if relation in ("<", "<=") else (sides[2], sides[0])
    is_open = relation in ("<", ">")
    parts = tuple(_read(end) for end in ends)
    return Sequence("(" if is_open else "[", ")" if is_open else "]", parts)


def _mixed_chain(text: str) -> MathObject:
    match = re.fullmatch(rf"(.+?)(<|\\le )\s*({_NAME.pattern})\s*(<|\\le )(.+)", text)
    if not match:
        raise UnreadableError("a chain of relations")
    parts = (_read(match[1].strip()), _read(match[5].strip()))
    return Sequence("(" if match[2] == "<" else "[", ")" if match[4] == "<" else "]", parts)


def _bracketed(text: str) -> MathObject | None:
    """A tuple, interval or set; null where the brackets only group."""
    match = re.fullmatch(r"(\\\{|[(\[])(.*?)(\\\}|[)\]])", text, re.DOTALL)
    ratio = _split(text, (":",))
    if len(ratio) > 1:
        return Sequence(":", ":", tuple(_read(part) for part in ratio))
    if match is None or not _balanced_brackets(match[2]):
        return None
    parts = _split(match[2].strip(), (",", ";")) if match[2].strip() else []
    if match[1] == "\\{":
        return Collection(tuple(item for part in parts for item in members_of(_read(part))))
    if len(parts) < 2:
        return None
    return Sequence(match[1], match[3], tuple(_read(part) for part in parts))


def _balanced_brackets(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _several_signs(text: str) -> MathObject | None:
    if text.count("\\pm") + text.count("\\mp") != 1:
        return None
    pair = [re.sub(r"\\[pm][pm](?![a-z])", sign, text) for sign in ("+", "-")]
    return Collection(tuple(_read(side) for side in pair))


_BASE = re.compile(r"(\d+)_(?:\{(\d+)\}|(\d))")
_MIXED = re.compile(r"(-?)\s?(\d+) (\d+)/(\d+)")


def _number(text: str) -> MathObject:
    currency = ""
    money = re.match(r"(-?)\s*(\\?\$|\\euro |\\pound )", text)
    if money:
        currency = money[2].strip("\\ ")
        text = money[1] + text[money.end() :].strip()
    base = _BASE.fullmatch(text)
    if base:
        radix = int(base[2] or base[3])
        if not 2 <= radix <= 10 or any(int(digit) >= radix for digit in base[1]):
            raise UnreadableError("not a number to this base")
        return Number(read_expression(str(int(base[1], radix))), f"base {radix}", base[1])
    mixed = _MIXED.fullmatch(text)
    if mixed:
        text = f"{mixed[1]}({mixed[2]}+\\frac{{{mixed[3]}}}{{{mixed[4]}}})"
    bare, unit = _without_unit(text)
    if currency and unit:
        raise UnreadableError("two units")
    # A lone letter, a name with an index and the like are what they are; two letters may be words.
    if re.fullmatch(r"[a-zA-Z]{3,}", bare):
        raise UnreadableError("a word")
    return Number(read_expression(bare), unit or currency, bare)


def _without_unit(text: str) -> tuple[str, str]:
    match = _UNIT.search(text)
    if match is None or match.end() != len(text) or not match.start():
        return text, ""
    bare = text[: match.start()].strip()
    # Units stand behind a number; behind a letter they may be factors.
    if not bare or not re.search(r"[\d})]$", bare) or not re.search(r"\d|\\pi", bare):
        return text, ""
    if match["degree"]:
        return bare, "degree"
    if match["percent"]:
        return bare, "%"
    words = normalise_words(re.sub(r"[{}]", "", _TEXT.sub(r"\1", match["words"])))
    known = unit_named(words)
    if known and known.dimension != "count":
        return bare, known.name
    is_marked, is_attached = match["words"][0] == "\\", not text[match.start() - 1].isspace()
    if not known and names_things(words, is_strict=not is_marked) and (is_marked or not is_attached):
        return bare, words.rstrip(".")
    # Names of functions and constants are mathematics, and short runs of letters are products.
    if not is_marked and (starts_with_name(words) or len(words) < (4 if is_attached else 3)):
        return text, ""
    raise _WordsError(f"{words} behind figures")
