"""The units that answers to school problems carry: which names mean one unit, and which units measure one thing.

Place in the flow: number reading (`mae_cli.numbers`) and the maths reader. Contract: `unit_named` knows the units of
the table, in the singular or plural; other words ("apples") are no units here and never make two answers differ.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

import msgspec


class Unit(msgspec.Struct, frozen=True):
    """A unit: its short name, what it measures, and how many of the dimension's base unit it is."""

    name: str
    dimension: str
    factor: Fraction


def _table() -> dict[str, Unit]:
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
    )
    found: dict[str, Unit] = {}
    for dimension, name, factor, others in rows:
        unit = Unit(name, dimension, Fraction(factor))
        for word in (name, *others.split()):
            found[word] = found[f"{word}s"] = found[f"{word}es"] = unit
            if word.endswith("meter") or word.endswith("liter"):
                found[f"{word[:-2]}re"] = found[f"{word[:-2]}res"] = unit
    return found


_UNITS: Final = _table()
_POWER: Final = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}


def unit_named(words: str) -> Unit | None:
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
    return Unit(unit.name + power, unit.dimension + power, unit.factor ** int(power[1]))
