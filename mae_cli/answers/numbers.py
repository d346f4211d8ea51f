r"""One number read out of a short text, exactly.

Place in the flow: the verifier `numeric` and the cascade of `answers.extract` use it. Contract: a text that states
exactly one number gives that number as a `Fraction`, any other text gives None; no text takes more than a moment (long
texts and huge exponents are refused at once). Left out: expressions (`2\sqrt{3}`, `9 * 2`), number words, and equality
of mathematical objects (verifier `math`).
"""

import math
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from mae_cli.answers.units import MULTIPLIERS, MeasureUnit, names_things, unit_named

MAX_LENGTH: Final = 300
"""Longest text read, in characters."""
MAX_EXPONENT: Final = 400
"""Largest power of ten read; past the range of a double (308)."""
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d+)?|\.\d+)"
_POWER = r"(?:[eE](?P<exponent>[+-]?\d+)|\s?(?:\*|x|\\times|\\cdot)\s?10\^\{?(?P<power>[+-]?\d+)\}?)"
_LATEX = r"\\frac(?:\{\s?(?P<a>-?\d+)\s?\}\s?\{\s?(?P<b>\d+)\s?\}|\s?(?P<c>\d)(?P<d>\d))"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s?(?:"
    rf"(?:(?P<whole>{_INTEGER})\s?)?{_LATEX}"
    rf"|(?:(?P<mixed>\d+)\s+(?:and\s)?)?(?P<top>{_DECIMAL})\s?/\s?(?P<bottom>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL}){_POWER}?"
    r")(?![\d^]|[.,]\d|\s?[-+*=<>]|\\)"
)
_SIMPLE = re.compile(r"-?\d{1,18}(?:\.\d{1,18})?", re.ASCII)
_UNIT = re.compile(r"[^\W\d_](?:[^\W\d]|[\s'()\u2019.,/\u00b0\u00b2\u00b3-]|\^\{?[23]\}?)*")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s?\{([^{}]*)\}")
_CURRENCY = re.compile(r"\\?\$|[\u20ac\u00a3\u00a5\u20b9]|\bUSD?\b(?=\s?[$\d])")
# "x = 1 or x = 2", "a = 1, b = 2", "x >= 5" do not state one number.
_NOT_ONE_RESULT = re.compile(r"\b(?:or|and)\b|[,;]\s|[<>!~\u2260]\s*$", re.IGNORECASE)
_WRAPPERS: Final = (("\\(", "\\)"), ("\\[", "\\]"), ("`", "`"))


@dataclass(frozen=True)
class Quantity:
    """A number as written, whether a percent sign or the word stood behind it, and in what unit it is."""

    value: Fraction
    is_percent: bool
    unit: MeasureUnit | None = None
    """The unit behind it or the currency before it, where it is a known one."""


def read_number(
    text: str,
    *,
    allow_units: bool = True,
    percent: Literal["hundredth", "strip", "refuse"] = "hundredth",
) -> Fraction | None:
    r"""Return the one number that a text states, exactly; None if it states none or several.

    Read: "1,234.50", "$1,234", "\$5", "-3" (also with the Unicode minus), "3/4", "1 1/2", the
    signs for fractions, "6.02e23", "1.5 \times 10^3", "\frac{3}{4}" (also dfrac, tfrac), "x = 5"
    (what follows the last equals sign), "2 million", a trailing full stop. Refused: "3 or 4",
    "1,23", "3x", "2\pi", division by zero, more than 300 characters, powers of ten past 400.

    Args:
        text: a short text, such as an extracted answer.
        allow_units: read "12 apples" as 12; the unit may not hold another number.
        percent: "50%" is 1/2 (`hundredth`), 50 (`strip`) or None (`refuse`).
    """
    quantity = read_quantity(text, allow_units=allow_units)
    if quantity is None or (quantity.is_percent and percent == "refuse"):
        return None
    if quantity.is_percent and percent == "hundredth":
        return quantity.value / 100
    return quantity.value


def read_quantity(text: str, *, allow_units: bool = True) -> Quantity | None:
    """Return the one number of a text with its percent flag; see `read_number`."""
    if len(text) > MAX_LENGTH:
        return None
    if _SIMPLE.fullmatch(text):  # most answers: the same result in a tenth of the time
        return Quantity(Fraction(int(text)) if text.isdigit() else Fraction(text), False)
    plain = _plain(text)
    match = _NUMBER.match(plain)
    if match is None:
        return None
    value = _value(match)
    if value is None:
        return None
    rest = plain[match.end() :]
    percent = re.match(r"\s?(?:%|per\s?cent\b|percentage points?\b)", rest, re.IGNORECASE)
    if percent is not None:
        rest = rest[percent.end() :]
    factor = _unit_factor(rest) if allow_units else (None if rest.strip() else 1)
    if factor is None:
        return None
    return Quantity(value * factor, percent is not None, unit_named(_unit_words(rest)) or _currency(text))


def numbers_equal(a: Fraction, b: Fraction, tolerance: float = 0.0) -> bool:
    """Tell whether |a - b| <= tolerance * max(1, |b|), in exact arithmetic.

    Args:
        a: the number to check.
        b: the reference: the tolerance is relative to it where it exceeds 1, else absolute.
        tolerance: finite, >= 0; 0 means exactly equal.

    Raises:
        ValueError: if the tolerance is negative or not finite.
    """
    if not math.isfinite(tolerance) or tolerance < 0:
        raise ValueError(f"tolerance {tolerance} is not a finite number >= 0")
    if a == b or not tolerance:
        return a == b
    return abs(a - b) <= Fraction(tolerance) * max(Fraction(1), abs(b))


def expand_fraction_signs(text: str) -> str:
    """Spell the one-character fractions as " 1/2"; NFKC would make 1 and a half eleven halves."""
    if text.isascii():
        return text
    return "".join(
        " " + unicodedata.normalize("NFKC", character).replace("\u2044", "/")
        if unicodedata.decomposition(character).startswith("<fraction>")
        else character
        for character in text
    )


def _plain(text: str) -> str:
    """Spell signs, digits, spaces and wrappers in one way."""
    text = expand_fraction_signs(text)
    text = re.sub("[\u2212\u2010\u2011\u2012\u2013\uff0d\ufe63]", "-", text).replace("\u2044", "/")
    text = text.replace("\u00d7", "\\times").replace("{,}", ",").replace("\\%", "%")
    text = "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character
        for character in text
        if unicodedata.category(character) != "Cf"
    )
    text = re.sub(r"(?<=\d)[\u00a0\u202f\u2009](?=\d{3}(?!\d))", ",", text)  # thin-space groups
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:[,!;: ]|left|right|displaystyle)", " ", text)
    text = _LATEX_TEXT.sub(r" \1", text)
    text = re.sub(r"\^\s?\{?\s?\\circ\s?\}?|\\degree", "\u00b0", text).strip()
    for start, end in _WRAPPERS:
        if text.startswith(start) and text.endswith(end) and len(text) > len(start) + len(end):
            text = text[len(start) : -len(end)].strip()
    text = re.sub(r"^\*\*([^*]+)\*\*", r"\1", text)  # not "2**3"
    boxed = re.fullmatch(r"\$*\\boxed\s?\{(.*)\}\$*\.?", text, re.DOTALL)
    text = boxed[1] if boxed else text
    before, _, after = text.rpartition("=")
    text = "" if _NOT_ONE_RESULT.search(before) else after
    # Removed, not replaced by a blank: "-$5" and "$-5" are both -5.
    text = _CURRENCY.sub("", text)
    return re.sub(r"\s+", " ", text).strip().rstrip(".,;: ").strip()


def _value(match: re.Match[str]) -> Fraction | None:
    top, bottom = match["a"] or match["c"] or match["top"], match["b"] or match["d"]
    bottom = bottom or match["bottom"]
    if top is not None and bottom is not None:
        denominator = _decimal(bottom)
        if denominator == 0:
            return None
        value = _decimal(top) / denominator
        whole = match["whole"] or match["mixed"]
        value += _decimal(whole) if whole else 0
    else:
        exponent_text = (match["exponent"] or match["power"] or "0").lstrip("+")
        if len(exponent_text) > 6 or abs(int(exponent_text)) > MAX_EXPONENT:
            return None
        value = _decimal(match["decimal"]) * Fraction(10) ** int(exponent_text)
    return -value if match["sign"] == "-" else value


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _unit_words(rest: str) -> str:
    """The text behind a number that names its unit: without "million" before it, or what a "dozen" counts behind it."""
    first, _, others = rest.strip(" ()").partition(" ")
    if first.lower() in MULTIPLIERS:
        return others
    return first if first.lower() in ("dozen", "dozens") else rest


def _currency(text: str) -> MeasureUnit | None:
    """The unit of the currency sign in a text; a dollar may also mark mathematics, so it needs a digit behind it."""
    found = re.search(r"\\\$|(?<!\$)\$(?=\s?-?[\d.])(?!.*\$\s*\.?$)|[\u20ac\u00a3\u00a5\u20b9]", text)
    return unit_named(found[0].strip("\\")) if found else None


def _unit_factor(rest: str) -> int | None:
    """Return what the text after the number multiplies it by; None if it is no unit."""
    is_attached = rest[:1].isalpha()
    rest = rest.strip(" ()")
    factor = MULTIPLIERS.get(rest.split(" ")[0].lower(), 1)
    if factor != 1:
        rest, is_attached = rest.partition(" ")[2], False
    words = rest.lstrip("\u00b0/- ")
    if not words:
        return factor if rest in {"", "\u00b0"} else None
    if rest[0] == "\u00b0" and words in ("C", "F"):
        return factor
    return factor if _UNIT.fullmatch(words) and names_things(words, is_attached=is_attached) else None
