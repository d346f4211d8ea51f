"""Answers that are names more than mathematics: times of the day, dates, "Room 12", lists of letters.

Place in the flow: `mathematics.reading` tries `label` and `letters` before anything else. Contract: a label is a `Text`
whose words are the same for each way of writing it; null where the text is none. Left out: durations (units), ratios
(12:30 without am or pm may be one), words without figures.
"""

from __future__ import annotations

import re
from typing import Final

from mae_cli.checking.mathematics.expressions import NAMES
from mae_cli.checking.mathematics.objects import TEXT_MARK, Collection, Text

_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"),
    "december",
)
_MONTH: Final = r"(?P<month>[a-z]{3,9})\.?"
_DAY: Final = r"(?P<day>\d{1,2})\s?(?:st|nd|rd|th)?"
_DATES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:the )?{_MONTH} (?:the )?{_DAY}(?:,? (?P<year>\d{{4}}))?",
        rf"(?:the )?{_DAY} (?:of )?{_MONTH}(?:,? (?P<year>\d{{4}}))?",
        r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)",
    )
)
_CLOCK: Final = re.compile(
    r"(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d))?(?::00)?\s?(?P<half>[ap])\.?\s?m\.?"
    r"(?: in the (?:morning|afternoon|evening))?"
)
_NAME: Final = re.compile(r"(?P<name>[a-z]{3,}(?: [a-z]{3,}){0,2})\s?(?:#|no\.?|number)?\s?(?P<figure>\d+)")
_LETTER: Final = re.compile(r"\(?([A-Z]|[IVX]{1,4})\)?")
# "about 18" and "equals 18" state a number.
_NO_NAMES: Final = frozenset(
    [
        "about",
        "approximately",
        "approx",
        "around",
        "roughly",
        "exactly",
        "only",
        "just",
        "equals",
        "equal",
        "the",
        "and",
        "are",
        "there",
        "answer",
        "total",
        "result",
        "value",
        "minus",
        "plus",
        "negative",
        "positive",
        "over",
        "times",
        "than",
        "least",
        "most",
        "more",
        "less",
        "not",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "hundred",
        "thousand",
        "million",
        "percent",
        "mod",
        "modulo",
        "base",
        "power",
        "infinity",
        "undefined",
    ]
) | frozenset(NAMES)


def label(text: str) -> Text | None:
    """The time, the date or the name with figures that a text is."""
    if not re.search(r"\d", text):
        return None
    words = re.sub(r"\\[ ,;:]|~", " ", TEXT_MARK.sub(r" \1 ", text))
    words = " ".join(words.casefold().replace("{", "").replace("}", "").split()).rstrip(" .")
    if re.search(r"[\\^_=$]", words):
        return None
    clock = _CLOCK.fullmatch(words)
    if clock and 1 <= int(clock["hour"]) <= 12:
        hour = int(clock["hour"]) % 12 + (12 if clock["half"] == "p" else 0)
        return Text(f"{hour}:{clock['minute'] or '00'}", "clock")
    for pattern in _DATES:
        date = pattern.fullmatch(words)
        month = _month(date["month"]) if date else None
        if date and month and 1 <= int(date["day"]) <= 31:
            return Text(f"{month}-{int(date['day'])}-{date['year'] or ''}", "date")
    name = _NAME.fullmatch(words)
    if name and _NO_NAMES.isdisjoint(name["name"].split()):
        return Text(f"{name['name']} {int(name['figure'])}", "name")
    return None


def _month(word: str) -> int | None:
    if word.isdigit():
        return int(word) if 1 <= int(word) <= 12 else None
    found = [index for index, month in enumerate(_MONTHS, 1) if month == word or month[:3] == word or word == "sept"]
    return (9 if word == "sept" else found[0]) if found else None


def letters(text: str) -> Collection | None:
    """The list of option letters or Roman numerals that a text is, with a comma or "and" between them."""
    words = TEXT_MARK.sub(r" \1 ", text).replace("\\land", ",").replace("&", ",")
    parts = [part.strip(" .") for part in re.split(r"[,;]", words) if part.strip(" .")]
    found = [_LETTER.fullmatch(part) for part in parts]
    if len(parts) < 2 or not all(found):
        return None
    return Collection(tuple(Text(match[1].casefold()) for match in found if match))
