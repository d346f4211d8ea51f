r"""One spelling for the text of a number: signs, digits, groups of digits, words, and what stands around it.

Place in the flow: `answers.numbers` matches what `plain_number` returns. Contract: pure functions over short texts; a
text that states one number begins with it afterwards, in ASCII digits without groups and with a decimal point; any
other text stays unreadable. Left out: units and nouns behind the number (`answers.units`), and what the text is worth.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from mae_cli.answers.number_turns import phrased, without_article
from mae_cli.answers.unit_words import NUMERAL_WORDS
from mae_cli.answers.units import MeasureUnit, unit_named

_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|textit|textrm|mathit)\s?\{([^{}]*)\}")
# "x = 1 or x = 2", "a = 1, b = 2", "x >= 5" do not state one number.
_NOT_ONE_RESULT = re.compile(r"\b(?:or|and)\b|[,;]\s|[<>!\u2260]\s*$", re.IGNORECASE)
_WRAPPERS: Final = (
    *(("\\(", "\\)"), ("\\[", "\\]"), ("`", "`"), ("$$", "$$"), ("'", "'"), ('"', '"'), ("\u2018", "\u2019")),
    *(("\u201c", "\u201d"), ("\u201e", "\u201c"), ("\u00ab", "\u00bb"), ("\u300c", "\u300d"), ("(", ")"), ("[", "]")),
    *(("*", "*"), ("_", "_")),
)
_LEAD_WORDS: Final = """
a total of in all the sum there are is was were it about approximately approx around roughly circa ca nearly almost
exactly only just equals equal to answer final result amount number cost costs price he she they we you has have had
will be takes makes value altogether so therefore thus hence
"""
_LEAD: Final = re.compile(
    rf"(?:(?:{'|'.join(_LEAD_WORDS.split())})\b[.:,]?\s+|[~\u223c\u2248\u2243\u2245]\s*|\\(?:approx|sim)\s*)+",
    re.IGNORECASE,
)
_TOTAL: Final = re.compile(r"(?:total|answer|result|sum|value)\s*:\s*", re.IGNORECASE)
_MINUS: Final = re.compile(r"(?:minus|negative)\s+(?=[\w.$\\\u20ac\u00a3\u00a5\u20b9])", re.IGNORECASE)
_SIGNS_OF_MONEY: Final = (
    r"(?:(?:USD?|CA?|AU?|HK|NT|S|R)\s?)?\\?\$|[\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba\u0e3f\u20ab\u20a6\u20b1\u20aa\u20b4"
    r"\u09f3]|(?:Rs\.?|INR|USD|EUR|GBP|JPY|CNY|RMB|KRW|CHF|CAD|AUD|HKD|SGD|Fr\.|RM|kr|z\u0142|SEK|NOK|DKK|PLN)(?![a-zA-Z])"
)
_MONEY: Final = re.compile(rf"(?P<sign>[-+]?)\s?(?P<money>{_SIGNS_OF_MONEY})\s?(?=[-+]?\s?[\d.])", re.IGNORECASE)
# Groups of digits as the world writes them; what stands for "1234567.5" in each.
_GROUPS: Final = tuple(
    (re.compile(pattern), mark)
    for pattern, mark in (
        (r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])", "."),
        (r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?(?![\d,])", "."),
        (r"\d{1,3}(?: \d{3})+(?:[.,]\d+)?(?![\d,./]|\s\d|\s?/)", ".,"),
        (r"\d{1,3}(?:['\u2019]\d{3})+(?:[.,]\d+)?(?![\d,.'\u2019])", ".,"),
        (r"\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?(?![\d,.])", ","),
        (r"\d{1,3}(?:\.\d{3})+,\d+(?![\d,.])", ","),
        (r"\d{1,3}(?:_\d{3})+(?:\.\d+)?(?![\d_])", "."),
    )
)
_DECIMAL_COMMA: Final = re.compile(r"\d+,(?:\d{1,2}|\d{4,})(?![\d,.])")


@dataclass(frozen=True)
class Spelled:
    """The text of a number in one spelling, with what was taken out of it."""

    text: str
    money: MeasureUnit | None = None
    """The currency before the number."""
    has_comma: bool = False
    """Whether its decimal comma may as well part two numbers."""


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


def plain_number(text: str, *, with_words: bool = True) -> Spelled:
    """The text with its number first and in one spelling; the currency before it apart.

    Args:
        text: a short text, such as an extracted answer.
        with_words: number words and the words before a number ("about twelve") are read too.
    """
    text = _unwrapped(_ascii(text))
    before, _, after = text.rpartition("=")
    text = "" if _NOT_ONE_RESULT.search(before) else after.strip()
    text = re.sub(r"(?<=\d)\s?\*\*\s?(?=-?\d)", "^", text)
    text = _without_lead(spelled_number(phrased(text))) if with_words else _with_sign(text)
    money = _MONEY.match(text)
    currency = None
    if money:
        currency = unit_named(re.sub(r"\\|\s|(?<=US)D(?=\W)", "", money["money"]))
        text = money["sign"] + text[money.end() :]
    text = spelled_number(_without_lead(text)) if with_words else _with_sign(text)
    text, has_comma = _ungrouped(re.sub(r"(?<=\d) or so\b", "", text))
    return Spelled(text.strip().rstrip(".,;:\u3002\uff0e ").strip(), currency, has_comma)


def _ascii(text: str) -> str:
    """ASCII digits, signs and blanks; raised digits as powers."""
    text = expand_fraction_signs(text)
    if not text.isascii():
        text = re.sub(
            "[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]+",
            lambda match: "^" + unicodedata.normalize("NFKC", match[0]).replace("\u2212", "-"),
            text,
        )
        text = re.sub("[\u2212\u2010\u2011\u2012\u2013\uff0d\ufe63]", "-", text).replace("\u2044", "/")
        text = "".join(
            str(unicodedata.decimal(character)) if character.isdecimal() else _half_width(character)
            for character in text
            if unicodedata.category(character) != "Cf"
        )
        text = text.replace("\u00d7", "\\times").replace("\u066b", ".").replace("\u066c", ",").replace("\u066a", "%")
        text = re.sub("(?<=\\d)\\s?[\u00b7\u22c5]\\s?(?=\\d)", "\\\\cdot ", text)
        text = re.sub("[\u00a0\u202f\u2009\u2008\u2007\u3000]", " ", text)
    text = text.replace("{,}", ",").replace("\\%", "%")
    text = re.sub(r"(?<=\d)(?:\\[,;:! ]|~)+(?=\d)", " ", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:[,!;: ]|left|right|displaystyle)", " ", text)
    text = _LATEX_TEXT.sub(r" \1", text)
    return re.sub(r"\^\s?\{?\s?\\circ\s?\}?|\\degree", "\u00b0", text).strip()


def _half_width(character: str) -> str:
    if "\uff01" <= character <= "\uff5e" or "\uffe0" <= character <= "\uffe6":
        return unicodedata.normalize("NFKC", character)
    return character


def _unwrapped(text: str) -> str:
    """The text without marks around it: quotes, boxes, emphasis, the dollars of mathematics."""
    before = None
    while before != text:
        before = text
        for start, end in _WRAPPERS:
            if text.startswith(start) and text.endswith(end) and len(text) > len(start) + len(end):
                inside = text[len(start) : -len(end)]
                if start not in inside and end not in inside:
                    text = inside.strip()
        text = re.sub(r"^\*\*([^*]+)\*\*", r"\1", text)  # not "2**3"
        # "$18$ dollars" and "$18$"; "$5 and $6" is money twice.
        text = re.sub(r"^\$(?=\S)([^$]*[^$\s\\])\$(?!\d)", r"\1", text)
        boxed = re.fullmatch(r"\$*\\boxed\s?\{(.*)\}\$*\.?", text, re.DOTALL)
        text = (boxed[1] if boxed else text).strip()
    return re.sub(r"\s+", " ", text)


def _without_lead(text: str) -> str:
    """The text behind "about", "a total of", "there are" and the like; "minus" before a number as its sign."""
    total = _TOTAL.match(text)
    text = text[total.end() :] if total else text
    lead = _LEAD.match(text)
    if lead and lead.end() < len(text):
        text = text[lead.end() :]
    return _with_sign(text)


def _with_sign(text: str) -> str:
    minus = _MINUS.match(text)
    return "-" + text[minus.end() :] if minus else text


def _ungrouped(text: str) -> tuple[str, bool]:
    """The number at the start of a text without groups and with a decimal point; whether its comma is doubtful."""
    sign = re.match(r"[-+]?\s?", text)
    start = sign.end() if sign else 0
    for pattern, marks in _GROUPS:
        match = pattern.match(text, start)
        if match:
            figures = match[0]
            at = max((figures.rfind(mark) for mark in marks), default=-1)
            if at < 0 or (marks == "," and figures.count(",") != 1):
                whole, decimals = figures, ""
            else:
                whole, decimals = figures[:at], figures[at + 1 :]
            whole = re.sub(r"\D", "", whole)
            return f"{text[:start]}{whole}{'.' + decimals if decimals else ''}{text[match.end() :]}", False
    comma = _DECIMAL_COMMA.match(text, start)
    if comma:
        return f"{text[:start]}{comma[0].replace(',', '.')}{text[comma.end() :]}", True
    return text, False


_ONES: Final = {word: value for value, word in enumerate(NUMERAL_WORDS[:20])}
_TENS: Final = {word: 10 * value for value, word in enumerate(NUMERAL_WORDS[20:], 2)}
_LARGE: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS: Final = {
    "half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4, "fifth": 5,
    "fifths": 5, "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8, "tenth": 10, "tenths": 10,
}  # fmt: skip
_SPOKEN: Final = {*NUMERAL_WORDS, *_LARGE, "hundred"}
_TWICE: Final = re.compile(r"(?P<words>[a-zA-Z][a-zA-Z\s-]*)\(\s?(?P<figures>\d[\d,]*)\s?\)(?P<rest>[^\d]*)")
_PART_BEHIND: Final = re.compile(
    rf"(?P<before>\d+)\s(?:and\s)(?P<top>an?|\w+)[\s-](?P<part>{'|'.join(_PARTS)})\b", re.I
)
_PART_ALONE: Final = re.compile(rf"(?:(?P<top>an?|[a-z]+)[\s-])?(?P<part>{'|'.join(_PARTS)})\b", re.I)


def _spelled_words(text: str) -> str:
    """Number words at the start of a text as figures: "twenty-five apples", "2 and a half", "two thirds"."""
    sign = "-" if text.startswith("-") else ""
    rest = text.removeprefix("-")
    chinese = _CHINESE.match(rest)
    if chinese and (value := _chinese_value(chinese[0])) is not None:
        return f"{sign}{value}{rest[chinese.end() :]}"
    part = _PART_BEHIND.match(rest)
    if part and (top := _small(part["top"])):
        return f"{sign}{part['before']} {top}/{_PARTS[part['part'].lower()]}{rest[part.end() :]}"
    if not rest[:1].isalpha():
        return text
    part = _PART_ALONE.match(rest)
    if part and not (part["top"] is None and part["part"].lower() != "half") and (top := _small(part["top"] or "a")):
        return f"{sign}{top}/{_PARTS[part['part'].lower()]}{rest[part.end() :]}"
    if re.match(r"dozen\b", rest, re.IGNORECASE):
        return f"{sign}1 {rest}"
    run = re.match(r"[a-z]+(?:[\s-][a-z]+)*", rest, re.IGNORECASE)
    words = re.findall(r"[a-z]+", run[0].lower()) if run else []
    taken, value = _spoken(words)
    if value is None:
        return text
    end = 0
    for _ in range(taken):
        match = re.compile(r"[\s-]*[a-zA-Z]+").match(rest, end)
        assert match is not None
        end = match.end()
    whole = f"{sign}{value}{rest[end:]}"
    return _spelled_words(whole) if _PART_BEHIND.match(whole.lstrip("-")) else whole


_CHINESE_DIGITS: Final = {
    sign: value for value, sign in enumerate("\u96f6\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d")
} | {"\u3007": 0, "\u4e24": 2, "\u5169": 2}
_CHINESE_UNITS: Final = {"\u5341": 10, "\u767e": 100, "\u5343": 1000}
_CHINESE_LARGE: Final = {"\u4e07": 10**4, "\u842c": 10**4, "\u4ebf": 10**8, "\u5104": 10**8}
_CHINESE: Final = re.compile(f"[{''.join([*_CHINESE_DIGITS, *_CHINESE_UNITS, *_CHINESE_LARGE])}]+")


def _chinese_value(text: str) -> int | None:
    """A whole number in Chinese words; null where the signs are no number, or digits one behind the other."""
    total = part = 0
    digit: int | None = None
    least = 10**9
    for sign in text:
        if sign in _CHINESE_DIGITS:
            if digit:
                return None
            digit = _CHINESE_DIGITS[sign]
        elif sign in _CHINESE_UNITS:
            unit = _CHINESE_UNITS[sign]
            if unit >= least or (digit is None and unit != 10):
                return None
            part, digit, least = part + (1 if digit is None else digit) * unit, None, unit
        else:
            part += digit or 0
            if not part:
                return None
            total, part, digit, least = (total + part) * _CHINESE_LARGE[sign], 0, None, 10**9
    return total + part + (digit or 0)


def spelled_number(text: str) -> str:
    """A text that begins with number words with figures instead; "eighteen (18)" and "half an hour" as one number."""
    twice = _TWICE.fullmatch(text)
    if twice and _spelled_words(twice["words"].strip()) == twice["figures"].replace(",", ""):
        return f"{twice['figures']}{twice['rest']}"
    return without_article(_spelled_words(text))


def _small(word: str) -> int | None:
    return 1 if word.lower() in ("a", "an") else (_ONES.get(word.lower()) or (int(word) if word.isdigit() else None))


def _spoken(words: list[str]) -> tuple[int, int | None]:
    """How many words at the start state one number, and that number; null where they do not."""
    total, part, at, last = 0, 0, 0, 10**15
    while at < len(words):
        word = words[at]
        follows = words[at + 1] if at + 1 < len(words) else ""
        if word == "and" and at and (words[at - 1] in ("hundred", *_LARGE)) and follows in _SPOKEN:
            at += 1
            continue
        if (
            word in _ONES
            and not (part % 100 and (part % 10 or _ONES[word] > 9 or not _ONES[word]))
            and not (at and words[at - 1] in _ONES)
        ):
            part += _ONES[word]
        elif word in _TENS and not part % 100:
            part += _TENS[word]
        elif word == "hundred" and (0 < part < 100 or not at):
            part = 100 * (part or 1)
        elif word in _LARGE and (part or not at) and _LARGE[word] < last:
            total, part, last = total + (part or 1) * _LARGE[word], 0, _LARGE[word]
        else:
            break
        at += 1
    if at < len(words) and words[at] in _SPOKEN:
        return 0, None  # "one two": no number
    return (at, total + part) if at else (0, None)
