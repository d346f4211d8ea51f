r"""A number with what stands around it: currency, unit, percent, base, or nothing.

Place in the flow: `mathematics.reading` ends here for every part of an answer that is no relation and no tuple.
Contract: `number` gives a `Number` whose unit is a name that pint reads, "%", "base 2", or the words as they stand;
`WordsError` where words behind figures are no unit and name nothing that is counted. A short run of letters beside
figures is a product of names ("6xy^2"), and units of few letters are taken for units only where they are usual.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from mae_cli.answers.number_spelling import plain_number
from mae_cli.answers.units import names_things, unit_named
from mae_cli.checking.mathematics.expressions import UnreadableError, read_expression, starts_with_name
from mae_cli.checking.mathematics.objects import TEXT_MARK, Number, normalise_words


class WordsError(UnreadableError):
    """Words stand behind figures that are no unit and name nothing that is counted."""


_BASE: Final = re.compile(
    r"\(?\s*(?:\\text\s*\{\s*)?(?P<digits>[0-9A-Za-z]+(?:\.[0-9A-Za-z]+)?)\s*\}?\s*\)?\s*_\s*"
    r"(?:(?P<short>\d)|\{\s*\(?\s*(?:\\text\s*\{)?\s*(?:base\s*\}?\s*)?(?P<base>\d+|[a-z]+)\s*\}?\s*\)?\s*\})"
)
_BASE_WORDS: Final = re.compile(
    r"(?P<digits>[0-9A-Z]+)\s*(?:\\text\s*\{)?\s*\(?(?:in )?base[- ](?P<base>\d+|[a-z]+)\)?\s*\}?"
)
_MIXED: Final = re.compile(r"(-?)\s?(\d+) (\d+)/(\d+)")
_DATE: Final = re.compile(r"\d{1,2}\s*/\s*\d{1,2}\s*/\s*(?:\d{2}|\d{4})")
_SPAN: Final = re.compile(r"(\d{1,9})\s*-\s*(\d{1,9})")
_PROGRAM: Final = {"x": "16", "o": "8", "b": "2"}
_MONEY: Final = re.compile(r"(-?)\s*(\\?\$|\\euro |\\pound |[\u20a0-\u20cf\u00a5])")
_MARKED: Final = r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|textsf)\s*\{[^{}]*[^\W\d_][^{}]*\}"
_UNIT: Final = re.compile(
    rf"(?P<degree>(?:\^\s*(?:\{{\s*\\circ\s*\}}|\\circ)|\\degree(?![a-zA-Z]))(?P<scale>\s*(?:{_MARKED}|[CF]))?|\s*degrees?$)"
    r"|\s*(?P<percent>\\?%|(?:\\text\s*\{\s*)?(?:percent|per cent|percentage|pct)\s*\}?$)"
    rf"|\s*(?P<marked>{_MARKED}(?:\s*(?:/|\\cdot)?\s*(?:{_MARKED}|\^\s*\{{?\s*-?\d\s*\}}?|[a-z]+))*)"
    r"|\s*(?P<words>(?<![a-zA-Z\\{])[a-zA-Z\u00c0-\uffff][^\W\d_]*(?:[ /-][^\W\d_]+)*\s*(?:\^\s*\{?\s*[23]\s*\}?)?"
    r"(?:/[a-z]+(?:\^\s*\{?\s*[23]\s*\}?)?)?)"
)
_LENGTHS: Final = frozenset(["mm", "cm", "dm", "km", "ft", "in", "yd", "mi", "m/s"])
_RANGES: Final = re.compile(r"\\(?:int|sum|prod)(?![a-zA-Z])")
# Unmarked letters beside a number that are units more often than factors.
_USUAL: Final = frozenset(
    [
        "mm",
        "cm",
        "km",
        "kg",
        "mg",
        "ml",
        "mL",
        "ft",
        "lb",
        "lbs",
        "oz",
        "hr",
        "hrs",
        "min",
        "sec",
        "mph",
        "yd",
        "ms",
        "kph",
        "mi",
        "dm",
        "cl",
        "dl",
        "pt",
        "qt",
        "gal",
    ]
)


def number(text: str) -> Number:
    """The number that a text states, with its unit.

    Raises:
        UnreadableError: it states none that this reader understands.
    """
    span = _SPAN.fullmatch(text)
    if _DATE.fullmatch(text) or (span and int(span[1]) < int(span[2])):
        raise UnreadableError("a date, or a range")
    base = _to_a_base(text)
    if base:
        return base
    money = _MONEY.match(text)
    currency = (
        unit_named({"\\euro": "\u20ac", "\\pound": "\u00a3"}.get(money[2].strip(), money[2].strip("\\ ")))
        if money
        else None
    )
    if money:
        text = money[1] + text[money.end() :].strip()
    mixed = _MIXED.fullmatch(text)
    if mixed:
        text = f"{mixed[1]}({mixed[2]}+\\frac{{{mixed[3]}}}{{{mixed[4]}}})"
    bare, unit = _without_unit(text)
    if money and unit and (currency is None or unit != currency.name):
        raise UnreadableError("two units")
    # A lone letter, a name with an index and the like are what they are; several letters may be a word.
    if re.fullmatch(r"(?=.*[a-zA-Z]{2})[a-zA-Z ]+", bare) or re.search(r"(?<![a-zA-Z\\{])[a-zA-Z]{5,}", bare):
        raise UnreadableError("a word")
    is_doubtful = bool(unit) and re.search(r"[\d}][a-zA-Z]{1,2}$", text) is not None
    return Number(read_expression(bare), unit or (currency.name if currency else ""), bare, is_doubtful=is_doubtful)


def spoken_number(text: str) -> Number | None:
    """A number in words or among words ("twelve", "about 18"), by the rules of `answers.numbers`."""
    from mae_cli.answers.numbers import read_quantity

    read = read_quantity(text)
    if read is None or read.is_percent or read.has_comma or read.totals or (read.unit and read.unit.is_count):
        return None
    unit = read.unit.name if read.unit else read.words.casefold()
    return Number(("number", read.value), unit, str(read.value)) if plain_number(text).text else None


def _to_a_base(text: str) -> Number | None:
    prefixed = re.fullmatch(r"0([xob])([\da-fA-F]+)", text.replace(" ", ""))
    if prefixed:
        text = f"{prefixed[2].upper()}_{{{_PROGRAM[prefixed[1]]}}}"
    match = _BASE.fullmatch(text) or _BASE_WORDS.fullmatch(text)
    if match is None:
        return None
    short = match.groupdict().get("short")
    radix = _radix(short or match["base"])
    digits = match["digits"]
    if radix is None or (digits[0].isalpha() and (len(digits) < 2 or radix < 11)):
        if digits[0].isalpha():
            return None  # a name with an index
        raise UnreadableError("not a number to this base")
    whole, _, decimals = digits.partition(".")
    try:
        value = Fraction(int(whole, radix)) + (
            Fraction(int(decimals, radix), radix ** len(decimals)) if decimals else 0
        )
    except ValueError as error:
        raise UnreadableError("not a number to this base") from error
    return Number(("number", value), f"base {radix}", "", digits.upper().lstrip("0") or "0")


def _radix(word: str) -> int | None:
    found = int(word) if word.isdigit() else None
    if found is None:
        spoken = plain_number(word).text
        found = int(spoken) if spoken.isdigit() else None
    return found if found is not None and 2 <= found <= 36 else None


def _without_unit(text: str) -> tuple[str, str]:
    match = next((m for m in _UNIT.finditer(text) if m.end() == len(text)), None)
    if match is None or not match.start() or _RANGES.search(text):
        return text, ""
    bare = text[: match.start()].strip()
    # Units stand behind a number; behind a letter they may be factors.
    if not bare or not re.search(r"[\d})\]]$", bare) or not re.search(r"\d|\\pi|\\infty", bare):
        return text, ""
    if match["degree"]:
        scale = normalise_words(match["scale"] or "")
        return bare, {"": "degree", "c": "degC", "f": "degF"}.get(scale, f"degree {scale}")
    if match["percent"]:
        return bare, "%"
    plain = match["marked"] or match["words"]
    words = TEXT_MARK.sub(r"\1", plain).replace("\\cdot", "*").strip(" .{}").replace("^ ", "^")
    is_attached = not match["marked"] and not text[match.start() : match.start() + 1].isspace()
    known = unit_named(words)
    if known and known.is_count:
        raise WordsError(f"{words} behind figures")
    if known and (match["marked"] or _is_unit(words, is_attached)):
        return bare, known.name
    return _of_words(text, bare, words, is_marked=bool(match["marked"]), is_attached=is_attached)


def _is_unit(words: str, is_attached: bool) -> bool:
    """Whether unmarked letters that could be a unit are one, and no product of names."""
    letters = re.sub(r"\W*\d?\}?$", "", words)
    if letters != words and letters.isascii() and letters not in _LENGTHS and len(letters) < 4:
        return False  # "hr^2" is a product
    return letters in _USUAL or not letters.isascii() or "/" in words or " " in words or len(letters) > 3


def _of_words(text: str, bare: str, words: str, *, is_marked: bool, is_attached: bool) -> tuple[str, str]:
    """The number without the words behind it where they only say what is counted; all of it where they are factors."""
    if names_things(words, is_strict=not is_marked) and (is_marked or not is_attached or not words.isascii()):
        return bare, normalise_words(words).rstrip(".")
    # Names of functions and constants are mathematics, and short runs of letters are products.
    letters = re.sub(r"\s*\^\s*\{?\s*\d\s*\}?$", "", words)
    if not is_marked and (starts_with_name(words) or len(letters) < (5 if is_attached else 3)):
        return text, ""
    raise WordsError(f"{words} behind figures")
