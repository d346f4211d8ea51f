r"""Reading an answer as a mathematical object: number, tuple, interval, set, matrix, relation, or plain text.

Place in the flow: the second opinion of the verifier `math`; `mathematics.equality` compares what `read_object` gives.
Contract: an object for every text; what is not understood is `Unread`, and nothing is ever known about that. Two
letters side by side and nothing else are a word, unless the caller says that they name quantities. Left out: the
spelling of the text (`spelling`), numbers with their units (`figures`), times, dates and letters (`labels`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mae_cli.checking.mathematics.agreement import same_value
from mae_cli.checking.mathematics.expressions import Node, UnreadableError, read_expression, variables
from mae_cli.checking.mathematics.figures import WordsError, number, spoken_number
from mae_cli.checking.mathematics.labels import label, letters
from mae_cli.checking.mathematics.objects import (
    TEXT_MARK,
    Collection,
    MathObject,
    Matrix,
    Number,
    RealSet,
    Relation,
    Relational,
    Sequence,
    Text,
    Union,
    Unread,
    members_of,
    normalise_words,
)
from mae_cli.checking.mathematics.sets import EMPTY, REALS, as_set, difference, intersection, joined
from mae_cli.checking.mathematics.spelling import spelled

MAX_LENGTH: Final = 2000
_GROUPED: Final = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:,\d{3})+(?!\d)")
_MATRIX: Final = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)
_NAME: Final = re.compile(
    r"(?:\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?:\^\s*\{\s*-\s*1\s*\})?'?(?:\s*\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\))?"
    r"|\\(?:vec|hat|overrightarrow)\s*(?:\{\s*[a-zA-Z]{1,2}\s*\}|[a-zA-Z])"
    r"|\|[A-Z]{2}\||\\angle\s*[A-Z]{1,3}|\\frac\{[A-Z]{2}\}\{[A-Z]{2}\}|[A-Z]{2}\s*/\s*[A-Z]{2}"
    r"|[A-Z]+(?:_\{\w+\})?\s*:\s*[A-Z]+(?:_\{\w+\})?"
    r"|\(\s*[a-zA-Z](?:_\{?\w\}?)?(?:\s*,\s*[a-zA-Z](?:_\{?\w\}?)?)+\s*\))"
)
_OPERATORS: Final[tuple[tuple[str, Relation], ...]] = (
    ("\\le ", "<="), ("\\ge ", ">="), ("<", "<"), (">", ">"), ("\\ne ", "!="), ("=", "="),
)  # fmt: skip
_UPWARD: Final = {"<": True, "<=": True, ">": False, ">=": False}
_REALS: Final = re.compile(r"\\mathbb\{R\}|(?:the set of )?(?:all )?real(?: number)?s")
_EXCEPT: Final = re.compile(r"(?:\\mathbb\{R\}|R|all real(?: number)?s)\s*(?:except|\\setminus|-)\s*(?P<rest>.+)")
_BUILDER: Final = re.compile(r"(?P<name>[a-zA-Z])\s*(?:\\in\s*(?:\\mathbb\{R\}|R)\s*)?(?:\||:)(?P<condition>.+)")
_FRENCH: Final = re.compile(r"(?=\].*|.*\[$)([\][(])([^\[\]()]*[,;][^\[\]()]*)([\[\])])")
_SIGN_PAIR: Final = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
_PROSE: Final = re.compile(r"[^\W\d_]+(?:[ '.,;:!?-]+[^\W\d_]+)*")


def read_object(text: str, names: str = "") -> MathObject:
    """The mathematical object that an answer states; `Unread` where the answer is not understood.

    Args:
        text: the answer.
        names: letters that name quantities in the problem; a word of them alone is a product.
    """
    if len(text) > MAX_LENGTH:
        return Unread(text[:40])
    plain = spelled(text)
    try:
        found = label(plain) or letters(plain)
        if found is None and len(plain) > 1 and plain.isalpha() and plain.isascii() and set(plain) <= set(names):
            return Number(read_expression(plain), "", " ".join(plain))
        return found or _read(plain)
    except WordsError:
        return Unread(plain, has_words=True)
    except (UnreadableError, RecursionError):
        return _words(text, plain)


def _words(text: str, plain: str) -> MathObject:
    """Words alone are compared as words; anything with mathematics in it that is not understood stays unread."""
    inside = TEXT_MARK.sub(r"\1", plain)
    if "\\" in inside:
        return Unread(plain)
    words = normalise_words(plain)
    if words in ("empty set", "the empty set"):
        return EMPTY
    spoken = spoken_number(TEXT_MARK.sub(r"\1", text)) if "=" not in text else None
    if spoken is not None:
        return spoken
    return Text(words) if _PROSE.fullmatch(words) and len(words) > 1 else Unread(plain)


def _read(text: str) -> MathObject:
    """One object; the order of the attempts is from the outside of the text inwards."""
    for attempt in _ATTEMPTS:
        found = attempt(text)
        if found is not None:
            return found
    return _several_signs(text) or number(text)


def _marked_text(text: str) -> MathObject | None:
    whole_text = re.fullmatch(r"\\(?:text|mbox|textbf|textit|textrm|textnormal)\s*\{([^{}]*)\}", text)
    if not whole_text:
        return None
    words = normalise_words(text)
    if re.search(r"\d", words):
        return _read(whole_text[1].strip())
    if words in ("empty set", "the empty set"):
        return EMPTY
    if _REALS.fullmatch(words):
        return REALS
    spoken = spoken_number(whole_text[1].strip())
    return spoken or Text(words)


def _matrix(text: str) -> MathObject | None:
    matrix = _MATRIX.fullmatch(text)
    if not matrix or "\\begin" in matrix[1]:
        return None
    rows = [row for row in re.split(r"\\\\", matrix[1]) if row.strip()]
    return Matrix(tuple(tuple(_read(cell.strip()) for cell in row.split("&")) for row in rows))


def _named_set(text: str) -> MathObject | None:
    if _REALS.fullmatch(text):
        return REALS
    if text in ("\\emptyset", "\\{ \\}", "\\{\\}", "\\{ \\ \\}"):
        return EMPTY
    match = _EXCEPT.fullmatch(text)
    if match:
        rest = match["rest"].strip()
        rest = rest if rest[:1] in "([" or rest.startswith("\\") else rest.strip("{}")
        name = re.match(r"[a-zA-Z]\s*=\s*", rest)
        removed = as_set(_read(rest[name.end() :] if name else rest))
        removed = removed or as_set(Collection(members_of(_read(rest))))
        return difference(REALS, removed) if removed is not None else None
    return None


def _parts(text: str) -> MathObject | None:
    """What "or", "and" and commas part: inequalities make one set, other parts stand side by side."""
    # A comma between groups of three digits parts thousands, but not inside brackets: (1,234) may be a point.
    whole, text = text, _GROUPED.sub(lambda m: m[0].replace(",", "") if _depth(text, m.start()) == 0 else m[0], text)
    for word in ("\\lor ", "\\land "):
        parts = _split(text, (word,))
        if len(parts) < 2:
            continue
        read = [_read(part) for part in parts]
        bounds = [as_set(each) if isinstance(each, Relational | RealSet) else None for each in read]
        sets = [each for each in bounds if each is not None]
        if len(sets) == len(parts) and any(getattr(each, "relation", "<") != "=" for each in read):
            if len({each.name for each in sets if each.name}) > 1:
                raise UnreadableError("conditions on several names")
            return _both(sets) if word == "\\land " else joined([p for s in sets for p in s.pieces], sets[0].name)
        _refuse_statements(word, parts, read)
        return Collection(tuple(item for each in read for item in _items(each)))
    parts = _split(text, (",", ";"))
    if len(parts) > 1:
        return Collection(tuple(item for part in parts for item in _items(_read(part))))
    return None if text == whole else _read(text)


def _refuse_statements(word: str, parts: list[str], read: list[MathObject]) -> None:
    """Refuse what "and" and "or" make a statement of: letters alone, and one name or another."""
    if all(re.fullmatch(r"\(?[a-zA-Z]\)?", part) for part in parts):
        raise UnreadableError("letters joined by logic")
    if word == "\\lor " and len({part.name for part in read if isinstance(part, Relational)}) > 1:
        raise UnreadableError("one name or another")


def _items(read: MathObject) -> tuple[MathObject, ...]:
    """What stands side by side in an object; a set in a list or in another set stays one."""
    return (read,) if isinstance(read, Collection) and read.is_set else members_of(read)


def _both(sets: list[RealSet]) -> RealSet:
    found = sets[0]
    for other in sets[1:]:
        found = intersection(found, other)
    return found


def _unions(text: str) -> MathObject | None:
    differences = _split(text, ("\\setminus",))
    if len(differences) == 2:
        whole, removed = (as_set(_read(part)) for part in differences)
        if whole is None or removed is None:
            raise UnreadableError("a difference of sets that are not known")
        return difference(whole, removed)
    both = _split(text, ("\\cap",))
    if len(both) > 1:
        sets = [as_set(_read(part)) for part in both]
        if None in sets:
            raise UnreadableError("sets that are not known")
        return _both([each for each in sets if each is not None])
    unions = _split(text, ("\\cup",))
    if len(unions) > 1:
        union = Union(tuple(_read(part) for part in unions))
        return as_set(union) or union
    member = re.fullmatch(rf"{_NAME.pattern}\s*\\in(?![a-z])(.*)", text)
    return _read(member[1].strip()) if member else None


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


def _relation(text: str) -> MathObject | None:
    approximate = _split(text, ("\\approx",))
    if len(approximate) == 2:  # "x \approx 11", and "1/3 \approx 0.33", which states the first
        return _read(approximate[1] if _NAME.fullmatch(approximate[0]) else approximate[0])
    found = [(operator, relation) for operator, relation in _OPERATORS if len(_split(text, (operator,))) > 1]
    if not found:
        return None
    if len(found) > 1 or (found[0][1] != "=" and len(_split(text, (found[0][0],))) > 2):
        return _chain(text)
    return _relational(_split(text, (found[0][0],)), found[0][1])


def _relational(sides: list[str], relation: Relation) -> MathObject:
    if relation == "=":
        if len(sides) > 2:  # a = b = 5: what it comes to is the last
            for side in sides[1:-1]:
                if _differ(_read(side), _read(sides[-1])):
                    raise UnreadableError("a chain that contradicts itself")
            sides = [sides[0], sides[-1]]
        name = sides[0] if _NAME.fullmatch(sides[0]) else None
        words = re.sub(r"[^a-z ]", "", normalise_words(sides[0]))
        if name is None and len(words) > 3 and not re.search(r"\d|\\", sides[0]):
            return _read(sides[1])  # "the area = 5"
        if name is None and not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", sides[0])):
            found, result = _read(sides[0]), _read(sides[1])  # "10/3 = 3 1/3"
            if isinstance(found, Number) and isinstance(result, Number) and not variables(result.node):
                if _differ(found, result):
                    raise UnreadableError("an equation of two numbers that does not hold")
                return result
        name = re.sub(r"\s|(?<=_)\{(?=\w\})|(?<=_\{\w)\}", "", name).replace("}", "") if name else None
        left: Node = ("variable", name) if name else read_expression(sides[0])
        return Relational("=", left, _read(sides[1]), name)
    if _NAME.fullmatch(sides[1]) and not _NAME.fullmatch(sides[0]):  # "3 < x" is "x > 3"
        flipped: dict[str, Relation] = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
        sides, relation = sides[::-1], flipped[relation]
    left = ("variable", re.sub(r"\s", "", sides[0])) if _NAME.fullmatch(sides[0]) else read_expression(sides[0])
    return Relational(relation, left, Number(read_expression(sides[1]), source=sides[1]))


def _differ(first: MathObject, second: MathObject) -> bool:
    """Whether two objects are numbers without names, and not the same one."""
    if not (isinstance(first, Number) and isinstance(second, Number)) or variables(first.node) | variables(second.node):
        return False
    return same_value(first.node, second.node) is False


def _chain(text: str) -> MathObject:
    r"""The interval of `a < x \le b`, from either side."""
    operator = r"(<|>|\\le |\\ge )"
    match = re.fullmatch(rf"(.+?)\s*{operator}\s*({_NAME.pattern})\s*{operator}\s*(.+)", text)
    if not match:
        raise UnreadableError("a chain of relations")
    first, second = (next(r for o, r in _OPERATORS if o == match[group]) for group in (2, 4))
    if first == "!=" or _UPWARD[first] != _UPWARD[second] or re.search(r"[<>=]|\\[lgn]e ", match[1] + match[5]):
        raise UnreadableError("a chain of relations")
    low, high = (_read(match[group].strip()) for group in (1, 5))
    if not _UPWARD[first]:
        low, high, first, second = high, low, second, first
    return Sequence("(" if first in "<>" else "[", ")" if second in "<>" else "]", (low, high))


def _bracketed(text: str) -> MathObject | None:
    """A tuple, interval or set; null where the brackets only group."""
    ratio = _split(text, (":",))
    if len(ratio) > 1:
        return Sequence(":", ":", tuple(_read(part) for part in ratio))
    match = re.fullmatch(r"(\\\{|[(\[])(.*?)(\\\}|[)\]])", text, re.DOTALL)
    if match is None or not _balanced_brackets(match[2]):
        return None
    if match[1] == "\\{":
        return _braced(match[2].strip())
    parts = _split(match[2].strip(), (",", ";")) if match[2].strip() else []
    if len(parts) < 2:
        return None
    return Sequence(match[1], match[3], tuple(_read(part) for part in parts))


def _braced(inside: str) -> MathObject:
    builder = _BUILDER.fullmatch(inside)
    if builder:
        read = as_set(_read(builder["condition"].strip()))
        if read is None:
            raise UnreadableError("a set by a condition that is not known")
        return read
    if not inside:
        return EMPTY
    parts = _split(inside, (",", ";"))
    return Collection(tuple(item for part in parts for item in _items(_read(part))), is_set=True)


def _balanced_brackets(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _open_french(text: str) -> MathObject | None:
    """]1,3[ with its brackets turned outwards, alone or joined with others."""
    parts = [part.strip() for part in text.split("\\cup")]
    turned = []
    for part in parts:
        match = _FRENCH.fullmatch(part)
        turned.append(f"{match[1].replace(']', '(')}{match[2]}{match[3].replace('[', ')')}" if match else part)
    return _read(" \\cup ".join(turned)) if turned != parts else None


def _several_signs(text: str) -> MathObject | None:
    if len(_SIGN_PAIR.findall(text)) != 1:
        return None
    return Collection(tuple(_read(_SIGN_PAIR.sub(sign, text)) for sign in ("+", "-")))


_ATTEMPTS: Final[tuple[Callable[[str], MathObject | None], ...]] = (
    _marked_text,
    _matrix,
    _named_set,
    _open_french,
    _parts,
    _unions,
    _relation,
    _bracketed,
)
