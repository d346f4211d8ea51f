"""Units of measurement as people write them: their names, what each measures, and how one converts into another.

Place in the flow: number reading (`answers.numbers`), the verifier `numeric` and the reader of mathematics. Contract:
`leading_unit` and `unit_named` know the words of `unit_words`; pint knows what they measure and their exact factors,
and is imported only when two different units must be compared. Money and calendar time (years, months) are dimensions
of our own: no exchange rates, and a year is twelve months but no fixed number of days. `names_things` tells words that
only say what is counted from those that change the number before them ("million", "squared", "xy").
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from mae_cli.answers.unit_words import (
    CHANGING_WORDS,
    CURRENCIES,
    MULTIPLIERS,
    NUMERAL_WORDS,
    SHORT_WORDS,
    SUBUNITS,
    unit_spellings,
)

if TYPE_CHECKING:
    from pint import UnitRegistry

__all__ = ["MULTIPLIERS", "MeasureUnit", "Scale", "convert", "leading_unit", "names_things", "unit_named"]


class Scale(NamedTuple):
    """How a figure in one unit becomes one in another: times `factor`, then plus `offset`."""

    factor: Fraction
    offset: Fraction = Fraction(0)
    is_exact: bool = True


class MeasureUnit(msgspec.Struct, frozen=True):
    """A unit, named by the expression that pint reads ("mile/hour")."""

    name: str

    @property
    def dimension(self) -> str:
        """What it measures, in a form that is the same for all units of one dimension."""
        return _measured(self.name)[0]

    @property
    def factor(self) -> Fraction:
        """How many of the dimension's base units one of it is."""
        return _measured(self.name)[1]

    @property
    def is_money(self) -> bool:
        """Whether it is a currency or a part of one."""
        return self.name in CURRENCIES or any(self.name == name for name, _, _ in SUBUNITS)

    @property
    def is_count(self) -> bool:
        """Whether it only counts by the dozen."""
        return self.name == "dozen"


@lru_cache(maxsize=1)
def _registry() -> UnitRegistry[Any]:
    """Pint's units with exact fractions, and ours: 0.4 seconds, so only where two units differ."""
    from pint import UnitRegistry

    registry: UnitRegistry[Any] = UnitRegistry(non_int_type=Fraction, on_redefinition="ignore")
    for currency in CURRENCIES:
        registry.define(f"{currency} = [{currency}s]")
    for name, currency, share in SUBUNITS:
        registry.define(f"{name} = 1/{share} * {currency}")
    # An acre is 43,560 square feet of today, a furlong 660 feet, where pint keeps the survey foot of before.
    registry.define("field_furlong = 660 * foot")
    registry.define("field_acre = 43560 * foot ** 2")
    registry.define("calendar_month = [calendar]")
    registry.define("calendar_year = 12 * calendar_month")
    registry.define("calendar_decade = 10 * calendar_year")
    registry.define("calendar_century = 100 * calendar_year")
    registry.define("calendar_millennium = 1000 * calendar_year")
    registry.define("dozen = [count]")
    return registry


@cache
def _measured(name: str) -> tuple[str, Fraction]:
    if name == "dozen":
        return "count", Fraction(12)
    registry = _registry()
    factor: Any
    factor, base = registry.get_base_units(name)
    # The names of the base units say what is measured; an angle and a plain number have no dimension in pint.
    return str(sorted((str(unit), str(power)) for unit, power in base._units.items())), Fraction(factor)


_OFFSETS: Final = {"degC": (Fraction(1), Fraction("273.15")), "degF": (Fraction(5, 9), Fraction("459.67") * 5 / 9)}
_TEMPERATURES: Final = {**_OFFSETS, "kelvin": (Fraction(1), Fraction(0))}
_VOLUMES: Final = frozenset(
    {"cup", "pint", "quart", "gallon", "fluid_ounce", "tablespoon", "teaspoon", "milliliter", "liter"}
)
_AVOIRDUPOIS: Final = frozenset({"pound", "ounce", "short_ton", "stone"})
# Words that several countries share, and what they may mean.
_SHARED: Final = {
    "krone": ("swedish_krona", "norwegian_krone", "danish_krone"),
    "peso": ("mexican_peso", "philippine_peso"),
}


def convert(unit: MeasureUnit, into: MeasureUnit) -> Scale | None:
    """How figures in a unit become figures in another; null where the two do not measure one thing."""
    if unit.name == into.name:
        return Scale(Fraction(1))
    if unit.name in _TEMPERATURES and into.name in _TEMPERATURES:
        (step, zero), (other_step, other_zero) = _TEMPERATURES[unit.name], _TEMPERATURES[into.name]
        return Scale(step / other_step, (zero - other_zero) / other_step)
    first, second = _resolved(unit.name, into.name), _resolved(into.name, unit.name)
    (dimension, factor), (other_dimension, other_factor) = _measured(first), _measured(second)
    if dimension != other_dimension:
        return None
    # Degrees and radians differ by pi, which no fraction is.
    is_exact = ("degree" in first) == ("degree" in second) or "radian" not in first + second
    # A gigabyte has 1000 or 1024 megabytes.
    return Scale(factor / other_factor, is_exact=is_exact and "byte" not in first and "bit" not in first)


def _resolved(name: str, other: str) -> str:
    """The unit meant where a word has several meanings: the short ton is one of pounds, the fluid ounce one of cups."""
    if name == "ton_or_tonne":
        return "short_ton" if other in _AVOIRDUPOIS else "tonne"
    if other in _SHARED.get(name, ()):
        return other
    if name == "ounce" and other in _VOLUMES:
        return "fluid_ounce"
    return name


_SPELLINGS: Final = unit_spellings()
_FOLDED: Final[dict[str, str]] = {}
for _word, _name in _SPELLINGS.items():
    # "KM" is a kilometre, but "mw" may be a milliwatt or a megawatt; one letter is never folded.
    if len(_word) > 1:
        _FOLDED[_word.casefold()] = _name if _FOLDED.get(_word.casefold(), _name) == _name else ""
# Only as they stand: in other cases these letters are the thousandths.
_SPELLINGS.update({"Mm": "megameter", "Mg": "megagram"})
_BITS: Final = frozenset({"kb", "Kb", "Mb", "Gb", "Tb"})
_LONGEST_PHRASE: Final = max(word.count(" ") for word in _SPELLINGS) + 1
_POWER_BEFORE: Final = re.compile(r"(square|sq\.?|cubic|cu\.?)\s+", re.IGNORECASE)
_POWER_BEHIND: Final = re.compile(r"\s?\^\s?\{?\s?(-?[1-4])\}?|(?<=[a-z])([23])(?![\w.])|\s(squared|cubed)\b")
_TIMES: Final = re.compile(r"\s?[-\u00b7\u22c5*]\s?|\s?\\cdot\s?|\s(?=(?:m|s|kg|mol|K)(?![^\W_]))")
# Alone they are as often something else.
_ONLY_INSIDE: Final = {"C": "coulomb", "A": "ampere"}
_OVER: Final = re.compile(r"\s?/\s?|\s(?:per|an?|each|every)\s", re.IGNORECASE)
_UNIT_WORD: Final = re.compile(
    r"[A-Z]{0,2}\$|\u00b0\s?[CF]\b|[^\W\d_]+\.?|''|[\u00b0\u2032\u2033'\"\u00a2\u20ac\u00a3\u00a5\u20a0-\u20cf\u0e3f\u09f3]"
)


def leading_unit(text: str) -> tuple[MeasureUnit | None, str]:
    """The unit that a text begins with, and the text behind it; null and the whole text where there is none."""
    name, rest = _factor(text.lstrip())
    if name is None:
        return None, text
    while True:
        for pattern, sign in ((_OVER, "/"), (_TIMES, "*")):
            match = pattern.match(rest)
            factor, after = _factor(rest[match.end() :]) if match else (None, rest)
            symbol = re.match(r"[CA](?![^\W_])", rest[match.end() :]) if match and factor is None else None
            if match and symbol:
                factor, after = _ONLY_INSIDE[symbol[0]], rest[match.end() + 1 :]
            if factor is not None:
                name, rest = f"{name}{sign}({factor})" if re.search("[*/]", factor) else f"{name}{sign}{factor}", after
                break
        else:
            return MeasureUnit(name), rest


def unit_named(words: str) -> MeasureUnit | None:
    """The unit that words name ("square feet", "cm^2", "miles per hour"); null where they name none, or more."""
    text = words.replace("\u00b2", "^2").replace("\u00b3", "^3").strip(" ()")
    unit, rest = leading_unit(text)
    return unit if not rest.strip(" .") else None


def _factor(text: str) -> tuple[str | None, str]:
    """The pint name of one unit with its power, and the rest; null where the text does not begin with one."""
    before = _POWER_BEFORE.match(text)
    start = before.end() if before else 0
    for length in range(_LONGEST_PHRASE, 0, -1):
        words: list[str] = []
        at = start
        while len(words) < length and (match := _UNIT_WORD.match(text, at)):
            words.append(match[0])
            at = match.end()
            if len(words) < length and text[at : at + 1] in (" ", "-"):
                at += 1
        phrase = " ".join(words)
        name = _spelled(phrase) if len(words) == length else None
        if name == "inch" and phrase == "in" and re.match(r"\s[^\W\d_]{2}", text[at:]):
            name = None  # "5 in total", "5 in the box"
        if name:
            power = {"s": 2, "c": 3}[before[1][0].lower()] if before else 1
            behind = None if before else _POWER_BEHIND.match(text, at)
            if behind:
                power = int(behind[1] or behind[2] or {"squared": 2, "cubed": 3}[behind[3]])
                at = behind.end()
            return (name if power == 1 else f"({name})**{power}"), text[at:]
    return None, text


def _spelled(phrase: str) -> str | None:
    for word in (phrase, phrase.rstrip(".")):
        if word in _SPELLINGS:
            return _SPELLINGS[word]
        if word.casefold() in _FOLDED and word not in _BITS:
            name = _FOLDED[word.casefold()]
            # "Mm" is no millimetre, though "MM" is.
            return None if not name or (name.startswith("milli") and word[0] == "M" and not word.isupper()) else name
    return None


_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_VOWEL: Final = re.compile("[aeiou]")


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
    if not found or not CHANGING_WORDS.isdisjoint(re.findall(r"[^\W\d_]+", text)):
        return False
    numerals = [index for index, word in enumerate(found) if word in NUMERAL_WORDS]
    if numerals and (is_strict or any(" ".join(found[:n]) in ("in", "by", "out of", "in base") for n in numerals)):
        return False  # "1 in five", "12 in base nine"; but "18 for two" are 18
    first, *others = found
    if first == "a":  # "3 a day"
        return bool(others) and len(others[0]) > 2
    if len(first) == 1 and any(len(word) == 1 and word not in SHORT_WORDS for word in others):
        return False
    if leading_unit(words.strip(" .()"))[0] is not None or first in SHORT_WORDS:
        return True
    if not first.isascii() and not re.match("[\u0370-\u03ff]", first):  # counters of other scripts; Greek is algebra
        return True
    if is_strict and not all(_VOWEL.search(word) for word in found):
        return False
    return len(first) > (3 if is_attached or is_strict else 2)
