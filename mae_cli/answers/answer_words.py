"""The words of `answer_words.toml` as patterns: where a text says "the answer is", in some thirty languages.

Place in the flow: `answers.choice_statements` and `answers.extract` look for an answer word with them and read what
stands behind it. Contract: a text is matched in NFC, without regard to case; the words between an answer word and the
answer are those of its own language. To add a language, add its table to the file.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

_FILE: Final = Path(__file__).with_suffix(".toml")
# Scripts that put blanks between words; in the others a word may stand directly before a letter or figure.
_WITH_BLANKS: Final = "a-z\u00df-\u024f\u0370-\u03ff\u0400-\u04ff\u1e00-\u1eff"
_SEPARATOR: Final = r"\s|[:=,\"'>|\u2192\u2013\u2014-]|\u2026|\.{3}"
_LINKS: Final = r"=>|[:=>\u2192\u2013\u2014]|\s-\s"


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The words of one language; what each list holds is said at the head of the file."""

    answer: list[str]
    option: list[str]
    gives: list[str]
    between: list[str]
    right: list[str]
    choose: list[str]
    goes_on: list[str]
    question: list[str]


class Opening(NamedTuple):
    """A place where a text begins to state an answer, and the pattern of what may stand before the answer itself."""

    start: int
    end: int
    step: re.Pattern[str]
    """One blank, sign or word of those between; its group `link` is a verb or sign that gives the answer."""


@cache
def words() -> dict[str, Words]:
    """The tables by language."""
    text = unicodedata.normalize("NFC", _FILE.read_text("utf-8"))
    return msgspec.convert(tomllib.loads(text), dict[str, Words])


def one_of(items: list[str]) -> str:
    """A pattern for any of the words, longest first; whole words where the script has blanks between words."""
    bordered: list[str] = []
    joined: list[str] = []
    for item in sorted(dict.fromkeys(items), key=len, reverse=True):
        is_bordered = re.match(rf"[{_WITH_BLANKS}]", item, re.IGNORECASE)
        (bordered if is_bordered else joined).append(item)
    parts = [rf"(?<![^\W_])(?:{'|'.join(bordered)})(?![^\W_])"] if bordered else []
    return "|".join([*parts, *joined]) or r"(?!)"


def all_words(kind: str) -> list[str]:
    """The words of one kind in all languages."""
    return [word for table in words().values() for word in getattr(table, kind)]


@cache
def _openings() -> list[tuple[re.Pattern[str], re.Pattern[str]]]:
    found = []
    for table in words().values():
        nouns = re.compile(one_of(table.answer), re.IGNORECASE)
        found.append((nouns, _step(table)))
    return found


def _step(table: Words) -> re.Pattern[str]:
    others = one_of([*table.between, *table.option, *table.answer])
    return re.compile(rf"(?P<link>{_LINKS}|{one_of(table.gives)})|{_SEPARATOR}|{others}", re.IGNORECASE)


@cache
def right_option() -> re.Pattern[str]:
    """An option that is called the right one, "the correct option" or "my pick", in the languages that say it so."""
    called = r"(?:correct|right|best|final|my|chosen|most\s(?:likely|appropriate|suitable))"
    own = rf"{called}\s(?:\w+\s)?(?:option|choice|pick|selection|guess|letter|alternative|one|verdict|decision)"
    # Without "correct" before it only where a verb or colon follows at once.
    own += r"|(?:the\s)?(?:solution|letter|label|category|classification|sentiment)(?=\sis\b|\s?:)"
    own += r"|(?:the\s)?(?:prediction|verdict|stance)(?=\sis\b|\s?:)"
    own += r"|(?:selected|chosen)(?:\s(?:option|choice|letter))?(?=\s?:)"
    options = "|".join(one_of(table.option) for name, table in words().items() if name != "en")
    return re.compile(rf"(?<![^\W_])(?:{own})(?![^\W_])|(?:{options})", re.IGNORECASE)


@cache
def any_step() -> re.Pattern[str]:
    """What may stand before an answer in any of the languages."""
    merged = {kind: all_words(kind) for kind in Words.__struct_fields__}
    return _step(Words(**merged))


def answer_openings(text: str) -> Iterator[Opening]:
    """The places where a text names its answer ("the answer", "Antwort", ..), language by language."""
    for nouns, step in _openings():
        for match in nouns.finditer(text):
            yield Opening(match.start(), match.end(), step)
