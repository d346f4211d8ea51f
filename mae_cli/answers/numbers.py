r"""One number read out of a short text, exactly, with its unit and what it counts.

Place in the flow: the verifier `numeric` and the cascade of `answers.extract` use it. Contract: a text that states
exactly one number gives that number as a `Fraction`, any other text gives None; no text takes more than a moment (long
texts and huge exponents are refused at once; a plain number needs no units library). Left out: expressions
(`2\sqrt{3}`, `9 * 2`), times of the day (`answers.colons`), and equality of mathematical objects (verifier `math`).
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from mae_cli.answers.number_spelling import expand_fraction_signs, plain_number, spelled_number
from mae_cli.answers.unit_words import HAN_MULTIPLIERS
from mae_cli.answers.units import MULTIPLIERS, MeasureUnit, convert, leading_unit, names_things

__all__ = ["Quantity", "expand_fraction_signs", "numbers_equal", "read_number", "read_quantity"]

MAX_LENGTH: Final = 300
"""Longest text read, in characters."""
MAX_EXPONENT: Final = 400
"""Largest power of ten read; past the range of a double (308)."""
MAX_POWER_BITS: Final = 4000
_DECIMAL = r"(?:\d+(?:\.\d+)?|\.\d+)"
_POWER = (
    r"(?:[eE](?P<exponent>[+-]?\d+)|\s?(?:\*|x|\\times|\\cdot)\s?10\s?\^\s?\{?\s?(?P<power>[+-]?\d+)\s?\}?"
    r"|\s?\^\s?\{?\s?(?P<raised>[+-]?\d+)\s?\}?)"
)
_LATEX = r"\\frac(?:\{\s?(?P<a>-?\d+)\s?\}\s?\{\s?(?P<b>\d+)\s?\}|\s?(?P<c>\d)(?P<d>\d))"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s?(?:"
    rf"(?:(?P<whole>\d+)\s?)?{_LATEX}"
    rf"|(?:(?P<mixed>\d+)\s+(?:and\s)?)?(?P<top>{_DECIMAL})\s?/\s?(?P<bottom>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL}){_POWER}?"
    r")(?![\d^]|[.,]\d|\s?[-+*=<>]|\\)"
)
_SIMPLE = re.compile(r"-?\d{1,18}(?:\.\d{1,18})?", re.ASCII)
_UNIT = re.compile(
    r"(?:[^\W\d_]|\$)(?:[^\W\d]|[\s'()\u2019.,/\u00b0\u00b7*-]|\$|(?<=[^\W\d_])[23](?!\w)|\^\{?-?[1-4]\}?)*"
)
_SIGNS: Final = frozenset(
    "%\u00b0$\u00a2\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba\u0e3f\u20ab\u20a6\u20b1\u20aa\u20b4'\"\u2032\u2033"
)
# A kilogram and a kilometre begin with the sign of a thousand.
_HAN: Final = re.compile(f"\\s?([{''.join(HAN_MULTIPLIERS)}]+(?![\u514b\u7c73\u74e6\u516c]))")
_SHORT_MULTIPLIERS: Final = {"k": 10**3, "K": 10**3, "M": 10**6, "m": 10**6, "B": 10**9, "b": 10**9, "T": 10**12}
_MULTIPLE = re.compile(
    r"(?P<attached>[kKMmBbT]|bn|mn|mil)(?![^\W\d_]|/|\^)|\s?(?P<word>[a-zA-Z]+\b|[^\W\d_a-zA-Z][^\s\d.,;:()/^*+=<>-]*|[a-zA-Z][^\W\d_]*)\.?"
)
_FURTHER = re.compile(rf"[\s,]*(?:and\s)?(?P<figure>{_DECIMAL})(?P<rest>\D.*)?$", re.IGNORECASE | re.DOTALL)
_SMALLER_PARTS: Final = {"foot": 12, "hour": 60}
_CLOCK_SPAN = re.compile(
    r"(?P<sign>-?)(?P<hours>\d+):(?P<minutes>[0-5]\d)(?::(?P<seconds>[0-5]\d))?\s?(?:h|hrs?|hours?)\b\.?$"
)


@dataclass(frozen=True)
class Quantity:
    """A number as written, with what stood around it."""

    value: Fraction
    is_percent: bool
    """Whether a percent sign or the word stood behind it."""
    unit: MeasureUnit | None = None
    """The unit behind it or the currency before it, where it is a known one."""
    words: str = ""
    """The words behind it that are no known unit: what is counted, a direction."""
    totals: tuple[Fraction, ...] = ()
    """Of a quantity in several units (1 h 30 min): the whole of it in each of them."""
    has_comma: bool = False
    """Whether its decimal comma may as well part two numbers ("3,4")."""


def read_number(
    text: str,
    *,
    allow_units: bool = True,
    percent: Literal["hundredth", "strip", "refuse"] = "hundredth",
) -> Fraction | None:
    r"""Return the one number that a text states, exactly; None if it states none or several.

    Read: "1,234.50", "1 234", "12,50,000", "$1,234", "\$5", "Rs. 5", "-3" (also "minus 3"), "3/4", "1 1/2", the signs
    for fractions, "6.02e23", "1.5 \times 10^3", "2^5", "\frac{3}{4}" (also dfrac, tfrac), "x = 5" (what follows the
    last equals sign), "2 million", "18k", "1 hour 30 minutes" (in hours), a trailing full stop. Refused: "3 or 4",
    "about 18", "twelve", "1,23", "3x", "2\pi", division by zero, more than 300 characters, powers of ten past 400.

    Args:
        text: a short text, such as an extracted answer.
        allow_units: read "12 apples" as 12; the unit may not hold another number.
        percent: "50%" is 1/2 (`hundredth`), 50 (`strip`) or None (`refuse`).
    """
    quantity = read_quantity(text, allow_units=allow_units, allow_words=False)
    if quantity is None or quantity.has_comma or (quantity.is_percent and percent == "refuse"):
        return None
    if quantity.is_percent and percent == "hundredth":
        return quantity.value / 100
    return quantity.value


def read_quantity(text: str, *, allow_units: bool = True, allow_words: bool = True) -> Quantity | None:
    """Return the one number of a text with what stands around it; see `read_number`.

    Args:
        text: a short text, such as an extracted answer.
        allow_units: as in `read_number`.
        allow_words: read "twelve", "two thirds", "about 18" and "there are 18" as well. In a longer text such words may
            be a heading ("Two cases"), so `read_number` does not.
    """
    if len(text) > MAX_LENGTH:
        return None
    if _SIMPLE.fullmatch(text):  # most answers: the same result in a tenth of the time
        return Quantity(Fraction(int(text)) if text.isdigit() else Fraction(text), False)
    spelled = plain_number(text, with_words=allow_words)
    span = _span(spelled.text) if allow_units and ":" in spelled.text else None
    match = _NUMBER.match(spelled.text)
    if span is not None or match is None:
        return span
    value = _value(match)
    if value is None:
        return None
    rest = spelled.text[match.end() :]
    percent = re.match(r"\s?(?:%|per\s?cent\b|percentage(?: points?)?\b|pct\b)", rest, re.IGNORECASE)
    if percent is not None:
        rest = rest[percent.end() :]
    if not allow_units:
        return (
            None if rest.strip() else Quantity(value, percent is not None, spelled.money, has_comma=spelled.has_comma)
        )
    factor, rest, is_attached = _multiple(rest, is_money=spelled.money is not None)
    value *= factor
    unit, behind = _unit(rest, spelled.money, is_attached)
    if unit is not None and percent is None and spelled.money is None:
        further = _FURTHER.fullmatch(behind)
        if further:
            return _compound(value, unit, further, is_negative=match["sign"] == "-")
        further = _FURTHER.fullmatch(spelled_number(behind.removeprefix(" and").lstrip(" ,"))) if allow_words else None
        compound = _compound(value, unit, further, is_negative=match["sign"] == "-") if further else None
        if compound:  # "five feet six inches"
            return compound
    if not _is_readable(rest, behind, is_attached):
        return None
    is_doubtful = spelled.has_comma and unit is None and percent is None
    return Quantity(value, percent is not None, unit, behind.strip(" ()/-.,"), has_comma=is_doubtful)


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


def _value(match: re.Match[str]) -> Fraction | None:
    top, bottom = match["a"] or match["c"] or match["top"], match["b"] or match["d"]
    bottom = bottom or match["bottom"]
    if top is not None and bottom is not None:
        denominator = Fraction(bottom)
        if denominator == 0:
            return None
        value = Fraction(top) / denominator
        whole = match["whole"] or match["mixed"]
        value += Fraction(whole) if whole else 0
    elif match["raised"]:
        raised = _raised(Fraction(match["decimal"]), match["raised"])
        if raised is None:
            return None
        value = raised
    else:
        exponent_text = (match["exponent"] or match["power"] or "0").lstrip("+")
        if len(exponent_text) > 6 or abs(int(exponent_text)) > MAX_EXPONENT:
            return None
        value = Fraction(match["decimal"]) * Fraction(10) ** int(exponent_text)
    return -value if match["sign"] == "-" else value


def _raised(base: Fraction, exponent_text: str) -> Fraction | None:
    if len(exponent_text) > 6:
        return None
    exponent = int(exponent_text)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent) > MAX_POWER_BITS or (base == 0 and exponent <= 0):
        return None
    return base**exponent


def _multiple(rest: str, *, is_money: bool) -> tuple[int, str, bool]:
    """What "million", "k", "lakh" multiply the figures by, the text behind it, and whether that is attached.

    "5m" and "5b" are millions and billions of money only, "5M" is five million; "300 K" is a temperature.
    """
    han = _HAN.match(rest)
    if han:
        return math.prod(HAN_MULTIPLIERS[character] for character in han[1]), rest[han.end() :], False
    match = _MULTIPLE.match(rest)
    if match and match["attached"]:
        mark = match["attached"]
        if is_money or mark in ("k", "K", "M", "B", "bn", "mn", "mil"):
            factor = _SHORT_MULTIPLIERS.get(mark) or (10**9 if mark == "bn" else 10**6)
            return factor, rest[match.end() :], False
    word = match["word"] if match else None
    if word in ("k", "K") and match and _counts_by_thousand(rest[match.end() :].lstrip()):
        return 1000, rest[match.end() :], False  # "18 K dollars"; 300 K are kelvins
    if word and (word.lower() in MULTIPLIERS or word == "M" or (is_money and word in _SHORT_MULTIPLIERS)):
        assert match is not None
        return MULTIPLIERS.get(word.lower()) or _SHORT_MULTIPLIERS[word], rest[match.end() :], False
    return 1, rest, rest[:1].isalpha()


def _counts_by_thousand(behind: str) -> bool:
    """Whether a blank and K before these words are a thousand: money, and things in the plural."""
    unit = leading_unit(behind)[0]
    return unit.is_money if unit is not None else re.match(r"[a-z]{3,}s\b|people\b", behind) is not None


def _unit(rest: str, money: MeasureUnit | None, is_attached: bool) -> tuple[MeasureUnit | None, str]:
    """The unit of the figures, and the words behind it; money may have a rate behind it ("$5 per hour")."""
    words = rest.lstrip(" (-")
    if words[:1] in ("'", '"') and words != rest:
        return None, words  # a quotation mark, no foot or inch
    if money is None:
        found, behind = leading_unit(words)
        if found is None or (is_attached and re.match(r"[a-zA-Z]", behind)):
            return None, words
        return found, behind
    rate = re.match(r"\s?(?:/|(?:per|an?|each|every)\b)\s?", rest, re.IGNORECASE)
    divisor, behind = leading_unit(rest[rate.end() :]) if rate else (None, words)
    if divisor is not None:
        return MeasureUnit(f"{money.name}/({divisor.name})"), behind
    again, behind = leading_unit(words)  # "$1.5 billion dollars"
    return (money, behind) if again is not None and again.name == money.name else (money, words)


def _is_readable(rest: str, behind: str, is_attached: bool) -> bool:
    """Whether the text behind the figures only says what they count or measure."""
    if not behind.strip(" ().,"):
        return True
    words = rest.lstrip("\u00b0/- (").rstrip(" )")
    while words[:1] in _SIGNS:
        words = words[1:].lstrip()
    if not words:
        return True
    return _UNIT.fullmatch(words) is not None and names_things(words, is_attached=is_attached)


def _compound(value: Fraction, unit: MeasureUnit, further: re.Match[str], *, is_negative: bool) -> Quantity | None:
    """A quantity in several units, the larger first: 5 ft 6 in, 1 h 30 min, 5'6", 18 dollars and 50 cents."""
    parts, total = [unit], abs(value)
    match: re.Match[str] | None = further
    behind = ""
    while match is not None and match["figure"]:
        next_unit, behind = leading_unit((match["rest"] or "").lstrip(" -"))
        if not match["rest"] and match["figure"].isdigit() and int(match["figure"]) < _SMALLER_PARTS.get(unit.name, 0):
            next_unit = MeasureUnit("inch" if unit.name == "foot" else "minute")  # "5 foot 10", "1h30"
        if next_unit is not None and next_unit.name == "meter" and unit.name == "hour":
            next_unit = MeasureUnit("minute")  # "1h 30m"
        scale = convert(next_unit, parts[-1]) if next_unit is not None else None
        if next_unit is None or scale is None or not 0 < scale.factor < 1 or scale.offset:
            return None
        within = convert(next_unit, unit)
        assert within is not None
        total += Fraction(match["figure"]) * within.factor
        parts.append(next_unit)
        match = _FURTHER.fullmatch(behind)
    if behind.strip(" ().,") and not _is_readable(behind, behind, is_attached=False):
        return None
    total = -total if is_negative else total
    scales = [convert(unit, part) for part in parts]
    totals = tuple(total * scale.factor for scale in scales if scale is not None)
    return Quantity(total, False, unit, behind.strip(" ()/-.,"), totals)


def _span(text: str) -> Quantity | None:
    """Hours with their minutes after a colon, where the word says so: "1:30 hours"."""
    match = _CLOCK_SPAN.match(text)
    if match is None:
        return None
    value = int(match["hours"]) + Fraction(int(match["minutes"]), 60) + Fraction(int(match["seconds"] or 0), 3600)
    value = -value if match["sign"] else value
    return Quantity(value, False, MeasureUnit("hour"), "", (value, value * 60, value * 3600))
