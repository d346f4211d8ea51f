"""Times of the day and ratios: figures with a colon between them, and whether two of them are the same.

Place in the flow: the verifier `numeric` asks `same_colons` where a reference is no single number. Contract: 14:30 is
2:30 pm, and 3 to 2 is 3:2; a time without its half of the day may be either, and 6:4 may be an answer to 3:2 or not, so
nothing is known about these. Left out: durations ("1:30 hours" is a number, see `answers.numbers`), time zones.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

import msgspec

from mae_cli.answers.number_spelling import plain_number

_TIME: Final = re.compile(
    r"(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?)?\s?(?P<half>[ap])\.?\s?m\.?", re.IGNORECASE
)
_FIGURES: Final = re.compile(r"\d+(?:\.\d+)?(?:\s?(?::|\bto\b)\s?\d+(?:\.\d+)?)+")
_NAMED: Final = {"noon": "12:00 pm", "12 noon": "12:00 pm", "midnight": "12:00 am", "12 midnight": "12:00 am"}


class Colons(msgspec.Struct, frozen=True):
    """Figures with colons between them."""

    parts: tuple[Fraction, ...]
    is_day_time: bool = False
    """Whether a half of the day was named; the hour is then one of twenty-four."""


def read_colons(text: str) -> Colons | None:
    """The time or ratio that a text states; null where it states none, or more."""
    plain = plain_number(text).text.casefold()
    plain = _NAMED.get(plain, plain)
    time = _TIME.fullmatch(plain)
    if time and 1 <= int(time["hour"]) <= 12:
        hour = int(time["hour"]) % 12 + (12 if time["half"] == "p" else 0)
        return Colons(_trimmed([Fraction(hour), Fraction(time["minute"] or 0), Fraction(time["second"] or 0)]), True)
    if time is None and _FIGURES.fullmatch(plain):
        return Colons(_trimmed([Fraction(figure) for figure in re.split(r"\s?(?::|to)\s?", plain)]))
    return None


def _trimmed(parts: list[Fraction]) -> tuple[Fraction, ...]:
    """Without seconds that are none."""
    return tuple(parts[:2] if len(parts) == 3 and parts[2] == 0 else parts)


def same_colons(first: Colons, second: Colons) -> bool | None:
    """Whether two times or ratios are the same; null where the texts leave that open."""
    if first.parts == second.parts and (first.is_day_time == second.is_day_time or first.parts[0] > 12):
        return True
    if len(first.parts) != len(second.parts):
        return False
    is_half_open = first.parts[0] % 12 == second.parts[0] % 12 and first.parts[1:] == second.parts[1:]
    if is_half_open and not (first.is_day_time and second.is_day_time):
        given = first if first.is_day_time else second
        other = second if given is first else first
        return False if given.is_day_time and (other.parts[0] > 12 or other.parts[0] == 0) else None
    if first.is_day_time or second.is_day_time or 0 in second.parts:
        return False
    ratios = {a / b for a, b in zip(first.parts, second.parts, strict=True)}
    return None if len(ratios) == 1 else False
