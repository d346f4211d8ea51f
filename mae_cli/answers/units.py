"""Units of measurement in school problems: their names, and what each of them measures.

Place in the flow: number reading (`answers.numbers`) and the reader of mathematics. Contract: `unit_named` knows the
units of the table, in the singular or plural; other words ("apples") are no units here and never make two answers
differ. `names_things` tells such words from those that change the number before them ("million", "squared", "xy").
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

import msgspec


class MeasureUnit(msgspec.Struct, frozen=True):
    """A unit: its short name, what it measures, and how many of the dimension's base unit it is."""

    name: str
    dimension: str
    factor: Fraction


def _table() -> dict[str, MeasureUnit]:
    rows = (
        ("length", "mm", "1/1000", "millimeter"),
        ("length", "cm", "1/100", "centimeter"),
        ("length", "m", "1", "meter"),
        ("length", "km", "1000", "kilometer"),
        ("length", "inch", "127/5000", "in"),
        ("length", "foot", "381/1250", "feet ft"),
        ("length", "yard", "1143/1250", "yd"),
        ("length", "mile", "201168/125", "mi"),
        ("mass", "mg", "1/1000000", "milligram"),
        ("mass", "g", "1/1000", "gram"),
        ("mass", "kg", "1", "kilogram kilo"),
        ("mass", "ounce", "45359237/1600000000", "oz"),
        ("mass", "pound", "45359237/100000000", "lb"),
        ("mass", "ton", "1000", "tonne"),
        ("time", "ms", "1/1000", "millisecond"),
        ("time", "second", "1", "sec s"),
        ("time", "minute", "60", "min"),
        ("time", "hour", "3600", "hr h"),
        ("time", "day", "86400", ""),
        ("time", "week", "604800", ""),
        ("volume", "ml", "1/1000", "milliliter"),
        ("volume", "liter", "1", "l"),
        ("money in dollars", "cent", "1/100", "\u00a2"),
        ("money in dollars", "$", "1", "dollar usd buck"),
        ("money in euros", "\u20ac", "1", "euro eur"),
        ("money in pounds", "\u00a3", "1", "gbp"),
        ("money in yen", "\u00a5", "1", "yen jpy"),
        ("money in rupees", "\u20b9", "1", "rupee inr"),
        ("months", "month", "1", ""),
        ("months", "year", "12", "yr"),
        ("angle", "degree", "1", "deg \u00b0"),
        ("share", "%", "1/100", "percent"),
        ("count", "dozen", "12", ""),
    )
    found: dict[str, MeasureUnit] = {}
    for dimension, name, factor, others in rows:
        unit = MeasureUnit(name, dimension, Fraction(factor))
        for word in (name, *others.split()):
            found[word] = unit
            if len(word) > 1:  # one letter has no plural: "ms" are no metres
                found[f"{word}s"] = found[f"{word}es"] = unit
            if word.endswith("meter") or word.endswith("liter"):
                found[f"{word[:-2]}re"] = found[f"{word[:-2]}res"] = unit
    return found


_UNITS: Final = _table()
MULTIPLIERS: Final = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
# "3 or more", "2 and a half", "3 over 4", "5 squared": the figures before these are not the whole story.
_CHANGING: Final = """
hundred thousand million billion trillion hundreds thousands millions billions trillions or not to plus minus times over
point divided multiplied modulo mod squared cubed factorial doubled tripled halved choose root sqrt infinity inf half
halves third thirds quarter quarters fourths fifths sixths sevenths eighths ninths tenths twelfths twentieths
hundredths thousandths sin cos tan cot csc sinh cosh tanh arcsin arccos arctan log ln exp abs pi alpha beta gamma
delta epsilon theta lambda mu sigma tau phi psi rho omega \u03c0
"""
_NUMERALS: Final = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty thirty forty fifty sixty seventy eighty ninety
"""
# Of one to three letters, behind a number; other such runs ("3xy") are taken for factors.
_SHORT: Final = """
of in at on by an as is it he we so us my if am pm st nd rd th sq cu fl pt qt wk mo gb mb kb tb kw hp tv cd pc m g s h l
mph kph kmh fps psi cup pcs ppl
"""
_CHANGING_WORDS: Final = frozenset(_CHANGING.split())
_NUMERAL_WORDS: Final = frozenset(_NUMERALS.split())
_SHORT_WORDS: Final = frozenset(_SHORT.split())
_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_VOWEL: Final = re.compile("[aeiou]")
_POWER: Final = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}


def unit_named(words: str) -> MeasureUnit | None:
    """The unit that words name ("square feet", "cm^2", "hours"); null where they name none of the table."""
    text = " ".join(words.casefold().replace("\u00b2", "^2").replace("\u00b3", "^3").strip(" .()").split())
    head, _, tail = text.partition(" ")
    power = ""
    if head in _POWER and tail:
        text, power = tail, _POWER[head]
    raised = re.fullmatch(r"(\S+?)\s?\^\s?\{?([23])\}?", text)
    if raised and not power:
        text, power = raised[1], f"^{raised[2]}"
    unit = _UNITS.get(text)
    if unit is None or not power:
        return unit
    return MeasureUnit(unit.name + power, unit.dimension + power, unit.factor ** int(power[1]))


def names_things(words: str, *, is_attached: bool = False, is_strict: bool = False) -> bool:
    """Whether words behind a number only say what is counted or measured, so that the number stands as it is.

    Args:
        words: "apples", "miles/hour", "square feet", "of them".
        is_attached: no blank stands before them; "3abc" is then a product.
        is_strict: in mathematics, where letters may be factors: a word has a vowel and four letters or more, and no
            number is spelled out.
    """
    text = re.sub(r"\b([ap])\.\s?m\b", r"\1m", words.casefold())
    found = _WORD.findall(text)
    if not found or not _CHANGING_WORDS.isdisjoint(re.findall(r"[^\W\d_]+", text)):
        return False
    numerals = [index for index, word in enumerate(found) if word in _NUMERAL_WORDS]
    if numerals and (is_strict or any(" ".join(found[:n]) in ("in", "by", "out of", "in base") for n in numerals)):
        return False  # "1 in five", "12 in base nine"; but "18 for two" are 18
    first, *others = found
    if first == "a":  # "3 a day"
        return bool(others) and len(others[0]) > 2
    if len(first) == 1 and any(len(word) == 1 and word not in _SHORT_WORDS for word in others):
        return False
    if unit_named(first) is not None or first in _SHORT_WORDS:
        return True
    if is_strict and not all(_VOWEL.search(word) for word in found):
        return False
    return len(first) > (3 if is_attached or is_strict else 2)
