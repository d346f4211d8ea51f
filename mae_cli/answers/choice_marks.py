"""Letters and texts of choices, found at a place in a text.

Place in the flow: `answers.choice_statements` asks what stands at a place where an answer is stated; `answers.choices`
asks what a line is. Contract: a letter that could be an ordinary word ("A cat", "I think") is no mark; a text counts
only whole, with its end behind it; two choices with one text have no text. Left out: what the text says about a mark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from mae_cli.answers.answer_words import all_words, one_of
from mae_cli.answers.markup import plain_text
from mae_cli.answers.numbers import read_number

_LETTER: Final = "A-Za-z0-9_\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff"
_OPEN, _CLOSE = r"[\[({<\u3010\u3014\u300c\u300e\u300a\u3008]", r"[\])}>\u3011\u3015\u300d\u300f\u300b\u3009]"
END: Final = (
    rf"\s*(?:$|\n|[!?;)\]\"'\u3001\u3002\u0964\u06d4]|\.(?!\d)|,(?!\d)|:|[(<]|[-\u2013\u2014](?![{_LETTER}])|\u2026)"
)
"""What ends an answer: a sign that no word goes on behind."""
# What options are called where the script has no A, B, C; in the order in which each script counts.
_NATIVE: Final = (
    "\u0623\u0628\u062c\u062f\u0647\u0648",
    "\u0627\u0628\u062c\u062f",
    "\u0995\u0996\u0997\u0998\u0999",
    "\u0915\u0916\u0917\u0918\u0919",
    "\u0e01\u0e02\u0e04\u0e07",
    "\u30a2\u30a4\u30a6\u30a8\u30aa",
    "\u05d0\u05d1\u05d2\u05d3\u05d4",
    "\u0391\u0392\u0393\u0394\u0395",
    "\u1200\u1208\u1210\u1218",
    "\u3131\u3134\u3137\u3139\u3141",
    "\u7532\u4e59\u4e19\u4e01",
)
# Cyrillic letters that look like a Latin one or stand at its place in the alphabet; "\u0412" does both: left out.
_CYRILLIC: Final = {"\u0410": 0, "\u0411": 1, "\u0421": 2, "\u0413": 3, "\u0414": 4}
_POSITIONS: Final = {letter: index for row in _NATIVE for index, letter in enumerate(row)} | _CYRILLIC

_VALUE: Final = re.compile(r"[^\n;!?=+*<>]{1,80}?(?=[.,](?!\d)|[\n;!?]|$)")
# Options by their number, counted from 1: "option 2", "2\ubc88", a figure in a circle.
_NUMBERED: Final = re.compile(
    r"(?P<option>(?<![^\W_])(?:option|choice|alternative|opci\u00f3n|alternativa|opzione|op\u00e7\u00e3o)\s(?:no\.?\s?|number\s|#)?|\u9009\u9879\s?"
    r"|\u9078\u9805\s?|\u9078\u629e\u80a2\s?)(?P<number>\d{1,2})(?![\w.,]?\d|\s?(?:[,/&-]|or|and|to)\s?\d)|(?<!\d)(?P<korean>\d{1,2})\ubc88|(?P<circled>[\u2460-\u2469])",
    re.IGNORECASE,
)
_OTHER_LETTER: Final = re.compile(r"\(\s?([^\W\da-zA-Z])\s?\)|([^\W\da-zA-Z])")


class Mark(NamedTuple):
    """A choice named at a place: by letter (in brackets or bare) or by its text."""

    label: str
    start: int
    end: int
    kind: str
    """`bracketed`, `bare` or `text`."""


class Marks:
    """The choices of one problem, as they may be named in a text that `canonical` has made plain."""

    def __init__(self, labels: Sequence[str], texts: Sequence[str]) -> None:
        self._by_name = {label.casefold(): label for label in labels if label}
        self.labels = list(labels)
        names = "|".join(re.escape(name) for name in sorted(self._by_name, key=len, reverse=True)) or "(?!)"
        self.names = names
        wrapped = rf"(?<![{_LETTER}}}]){_OPEN}{{1,3}}\s{{0,2}}({names})\s{{0,2}}{_CLOSE}{{1,3}}"
        quoted = rf"(?<![{_LETTER}])([\"'])({names})\2(?![{_LETTER}])"
        self._wrapped = re.compile(rf"{wrapped}|{quoted}", re.IGNORECASE)
        self._bracketed = re.compile(rf"\((?P<name>{names})\)", re.IGNORECASE)
        suffix = "'(?:dir|d\u0131r|dur|d\u00fcr|tir|t\u0131r)\\b"
        bare = rf"(?<![{_LETTER}'])(?P<name>{names})(?:{suffix}|(?![{_LETTER}]|'[a-z]|[-+#&][{_LETTER}]|[+#]))"
        self._bare = re.compile(bare, re.IGNORECASE)
        goes_on = one_of(all_words("goes_on"))
        # Behind a letter: the end, a word that goes on, or a script without capital letters.
        self._after = re.compile(rf"{END}|\s*(?:{goes_on})|\s*[^\x00-\u058f\u1e00-\u2fff]", re.IGNORECASE)
        self._end = re.compile(END)
        self._firm_end = re.compile(r"\s*(?:$|\n|[.)]{1,2}(?:\s|$)|</)")
        self._numbers = self._values(texts)
        # Where a choice holds a figure, "option 2" may be the one with the 2.
        self._may_be_numbered = not any(character.isnumeric() for text in texts for character in text)
        self._texts = self._patterns(texts)
        self.has_texts = bool(self._texts)

    def canonical(self, text: str) -> str:
        """The text without markup, with a label in any brackets or quotes written as "(B)"."""
        plain = plain_text(text)
        if self._may_be_numbered:
            plain = _NUMBERED.sub(self._by_number, plain)
        return self._wrapped.sub(lambda found: f"({found[1] or found[3]})", plain)

    def _by_number(self, found: re.Match[str]) -> str:
        figures = found["number"] or found["korean"] or str(ord(found["circled"]) - 0x245F)
        place = int(figures) - 1
        return f"{found['option'] or ''}({self.labels[place]})" if 0 <= place < len(self.labels) else found[0]

    def label_at(self, text: str, place: int, *, lower: bool = False) -> Mark | None:
        """The letter at a place.

        Args:
            text: made plain by `canonical`.
            place: where it has to begin.
            lower: also a bare small letter, where nothing but an end stands behind it.
        """
        found = self._bracketed.match(text, place)
        if found and (label := self._label(found)):
            return Mark(label, place, found.end(), "bracketed")
        found = self._bare.match(text, place)
        if found is None:
            return self._native_at(text, place)
        label = self._label(found)
        if label is None:
            return None
        if found["name"] != label:
            is_word = found["name"] in "aeiou"  # an article or another short word in some language
            is_read = (self._firm_end if is_word else self._end).match(text, found.end()) if lower else None
        elif label == "I":  # the pronoun
            is_read = self._end.match(text, found.end())
        else:
            own_text = self.text_at(text, found.end() + 1) if text[found.end() : found.end() + 1] == " " else None
            if own_text and own_text.label == label:
                return Mark(label, place, found.end(), "bare")
            is_read = self._after.match(text, found.end())
        return Mark(label, place, found.end(), "bare") if is_read else None

    def _native_at(self, text: str, place: int) -> Mark | None:
        """A letter of another script at a place, in brackets or with an end behind it."""
        found = _OTHER_LETTER.match(text, place)
        position = _POSITIONS.get(found[1] or found[2]) if found else None
        if found is None or position is None or position >= len(self.labels):
            return None
        is_read = found[1] or self._end.match(text, found.end())
        return Mark(self.labels[position], place, found.end(), "bracketed" if found[1] else "bare") if is_read else None

    def _label(self, found: re.Match[str]) -> str | None:
        # Without regard to case, "I" also matches a dotted capital I, which is no label.
        return self._by_name.get(found["name"].casefold())

    def named_at(self, text: str, place: int) -> Mark | None:
        """A letter at a place, in brackets or bare and capital, whatever stands behind it."""
        found = self._bracketed.match(text, place) or self._bare.match(text, place)
        label = found and self._label(found)
        if not found or not label or (text[place] != "(" and found["name"] != label):
            return None
        return Mark(label, place, found.end(), "bracketed" if text[place] == "(" else "bare")

    def all_named(self, text: str) -> list[Mark]:
        """Every letter of the text that `named_at` finds."""
        places = {found.start() for pattern in (self._bracketed, self._bare) for found in pattern.finditer(text)}
        marks = [mark for place in sorted(places) if (mark := self.named_at(text, place))]
        return [mark for mark in marks if mark.kind == "bracketed" or text[mark.start - 1 : mark.start] != "("]

    def text_at(self, text: str, place: int) -> Mark | None:
        """The choice whose whole text begins at a place: the longest one; by its number where no text fits."""
        found = [(match.end(), label) for label, pattern in self._texts if (match := pattern.match(text, place))]
        if found:
            end, label = max(found)
            return Mark(label, place, end, "text")
        rest = _VALUE.match(text, place) if self._numbers else None
        value = read_number(rest[0].strip(), percent="refuse", allow_units=False) if rest else None
        labels = [label for label, number in self._numbers if number == value] if value is not None else []
        return Mark(labels[0], place, rest.end(), "text") if rest and len(labels) == 1 else None

    def all_texts(self, text: str) -> list[Mark]:
        """Every choice that the text names by its own text."""
        return [
            Mark(label, match.start(), match.end(), "text")
            for label, pattern in self._texts
            for match in pattern.finditer(text)
        ]

    def _patterns(self, texts: Sequence[str]) -> list[tuple[str, re.Pattern[str]]]:
        plain = [self._own_text(text, label) for text, label in zip(texts, self.labels, strict=False)]
        patterns = []
        for text, label in zip(plain, self.labels, strict=False):
            # A text that is itself a letter, or that two choices share, names none of them.
            if (
                not text
                or text.casefold() in self._by_name
                or [one.casefold() for one in plain].count(text.casefold()) > 1
            ):
                continue
            words = r"\s+".join(re.escape(word) for word in text.split())
            article = "" if re.match(r"(?:the|an?)\s", text, re.IGNORECASE) else r"(?:(?:the|an?)\s+)?"
            ends = rf"(?={END}|\s*(?:{_WORDS_BEHIND})\b)" if re.search(r"\w$", text) else ""
            patterns.append((label, re.compile(rf"(?<![{_LETTER}]){article}{words}{ends}", re.IGNORECASE)))
        return patterns

    def _own_text(self, text: str, label: str) -> str:
        """The text of a choice without the letter that some data sets write before it."""
        plain = self.canonical(text).strip()
        own = re.match(rf"\({re.escape(label)}\)\s*|{re.escape(label)}[.):]\s+", plain, re.IGNORECASE)
        return (plain[own.end() :] if own else plain).strip().rstrip(".").rstrip()

    def _values(self, texts: Sequence[str]) -> list[tuple[str, Fraction]]:
        values = [(label, read_number(text, percent="refuse")) for text, label in zip(texts, self.labels, strict=False)]
        return [(label, value) for label, value in values if value is not None]


_WORDS_BEHIND: Final = "because|since|as|which|and|but|so|not|is the|weil|car|porque|perch\u00e9|karena"


@lru_cache(maxsize=512)
def marks_of(labels: tuple[str, ...], texts: tuple[str, ...]) -> Marks:
    """The marks of a problem's choices."""
    return Marks(labels, texts)
