"""Turns of speech around a number, said the plain way: "an hour and a half" is 1 and a half hours, "twice" is 2.

Place in the flow: `answers.number_spelling` calls it on a text without wrappers, before it looks for number words.
Contract: pure functions; the number and what is said of it stay the same ("a loss of $5" is "$5 loss"). Left out: the
words for numbers themselves.
"""

from __future__ import annotations

import re
from typing import Final

_COUNTS: Final = {"once": "1", "twice": "2", "thrice": "3"}
_TURNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"^(an?|one|\d+) ([a-z]+) and (a half|a quarter|three quarters)\b", r"\1 and \3 \2"),
        (r"^an? (?=and (?:a half|a quarter|three quarters)\b)", "1 "),
        (r"^an? (profit|loss|gain|increase|decrease|rise|fall|drop|discount|deficit|surplus) of (.+)$", r"\2 \1"),
        (r"^(quarter|third|tenth)(?= of an? )", r"a \1"),
        (r"\bto the (?=(?:north|south|east|west|left|right)(?:[a-z]*)\b)", ""),
        (r"^(?:#|no\.|nr\.|number) ?(?=\d)", ""),
        (r"(?<=\d) ?(?:y/o|yo|y\.o\.)$", " years old"),
        (r"(?<=\d) times(?=$|,? (?:a|an|per|each|every|as|more)\b(?! than \w+$)\D*$)", " occasions"),
    )
)
_ARTICLE: Final = re.compile(r"(?<=\d/\d) (?:of )?an? (?=[a-z]{3})", re.IGNORECASE)


def phrased(text: str) -> str:
    """A text with its turns of speech in plain words."""
    text = _COUNTS.get(text.casefold(), text)
    for pattern, replacement in _TURNS:
        text = pattern.sub(replacement, text)
    return text


def without_article(text: str) -> str:
    """A share of one thing without its article: "1/2 an hour"."""
    return _ARTICLE.sub(" ", text)
