r"""The one number of a stated answer ("that she has 12 apples left"), and the last number of a text, in clean form.

Place in the flow: `answers.extract` calls it on what stands behind "the answer is", in a tag or behind hashes.
Contract: pure functions; a number keeps its unit, since 5 cm are not 5 m; where a phrase holds several numbers, a range
or a denial it is returned as it stands, so that no number of it is judged as the answer. Left out: the value of a
number (`answers.numbers`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from mae_cli.answers.markup import without_html, without_style, without_wrapping
from mae_cli.answers.numbers import read_number
from mae_cli.answers.units import unit_named

# Scripts without blanks between words, where a number may stand directly behind a letter.
_JOINED: Final = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
_FRACTIONS: Final = "\u00bc-\u00be\u2150-\u215e"
_RAISED: Final = "\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b"
_DECIMAL: Final = r"(?:\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_GROUPED: Final = r"\d{1,3}(?:[ \u00a0\u202f\u2009'\u2019]\d{3})+(?!\d)(?:[.,]\d+)?"
_POWER: Final = rf"\^\s?\{{?\s?(?P<power>[-+\u2212]?\d+)\s?\}}?|(?P<raised>[{_RAISED}]+)"
_SCIENTIFIC: Final = rf"(?P<mantissa>{_DECIMAL})\s?(?:\\times|\\cdot|[\u00d7\u00b7x*])\s?10\s?(?:{_POWER})"
_COUNTED: Final = r"\s(?:hundred|thousand|million|billion|trillion|dozen)\b|\s?[\u4e07\u842c\u4ebf\u5104\ub9cc\uc5b5]"
_NUMBER: Final = re.compile(
    r"(?:(?<![\w.)\]}])[-\u2212]\s?)?(?:\\?\$|[\u20ac\u00a3\u00a5\u20b9])?"
    r"(?:\\[dt]?frac\{-?\d+\}\{\d+\}"
    rf"|(?:(?<![\w.])|(?<=[{_JOINED}]))(?:"
    r"(?P<clock>\d{1,2}:\d{2}(?::\d{2})?(?:\s?(?:[ap]m\b|[ap]\.m\b\.?))?|\d+:\d+)"
    rf"|{_SCIENTIFIC}|\d+\s\d+/\d+|\d*\s?[{_FRACTIONS}]|(?P<grouped>{_GROUPED})"
    rf"|{_DECIMAL}(?:[eE][+-]?\d+)?(?:/\d+)?(?:{_COUNTED})?|\.\d+))"
    r"(?:\s?\\?%)?",
    re.IGNORECASE,
)
_LAKH: Final = re.compile(r"\d,\d{2},\d")
_TIMES: Final = {"\u4e07": 10**4, "\u842c": 10**4, "\ub9cc": 10**4, "\u4ebf": 10**8, "\u5104": 10**8, "\uc5b5": 10**8}
_INLINE: Final = re.compile(r"\$[^$\n]+\$(?!\d)|\\\((?:(?!\\\)).)+\\\)|\\\[(?:(?!\\\]).)+\\\]", re.DOTALL)
_HEDGES: Final = re.compile(
    r"^(?:(?:that|approximately|about|around|roughly|exactly|precisely|simply|just|only|clearly|therefore|thus|hence|then|so|indeed|equal\sto"
    r"|probably|likely|definitely|actually|again|now|ca|circa|etwa|ungef\u00e4hr|genau|also|environ|exactement|aproximadamente|exactamente"
    r"|\u7ea6|\u5927\u7ea6|\u7d04|\u6b63\u597d)(?![^\W_])[,:]?|[\u2248~:])\s?",
    re.IGNORECASE,
)
_BOUNDARY: Final = re.compile(
    r"[,;:(\u3001\u3002\uff0c]|\s[-\u2013\u2014]\s?|[\u2013\u2014]"
    r"|(?<=\s)(?:so|but|and|because|since|which|not|as|where|when|if|while|or|than|i\.e|e\.g|that|with|after|before|from)\b"
)
_ANOTHER: Final = re.compile(
    r"\s*(?:[,;]|\bor\b|\band\b|\bto\b|[-\u2013\u2014]|\u6216|\u548c)\s*(?:(?:or|and|about|maybe|perhaps|possibly)\s){0,2}(?:[-\u2212]?(?:\\?\$|[\u20ac\u00a3\u00a5\u20b9])?(?:\\[dt]?frac|\.?\d)"
    r")|\s*(?:or|and|to)\s(?:maybe\s|perhaps\s)?(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty)\b"
    r"|\s*than\b|\s*(?:or|and)\s(?:more|less|fewer|so|a\shalf|up|above|below)\b|\s*\(\s?(?:or|and)\b",
    re.IGNORECASE,
)
_LIMITED: Final = re.compile(
    r"\b(?:not|n't|no|less|more|fewer|greater|at\sleast|at\smost|between|over|under|below|above|nearly|almost|up\sto|than|either|neither|within)\s(?:\w+\s)?$"
    r"|\b(?:step|case|part|example|question|problem|figure|chapter|page|equation|option)\s$|n't\s(?:\w+\s)?$",
    re.IGNORECASE,
)
_GIVES: Final = (
    r"(?:has|have|had|is|are|was|were|will\sbe|makes?|made|gives?|gets?|got|leaves?|left|needs?|takes?|took|costs?|earns?|earned|pays?|paid|equals?"
    r"|becomes?|spends?|spent|saves?|saved|eats?|ate|sells?|sold|buys?|bought|reads?|walks?|runs?|uses?|used|contains?|holds?|weighs?|totals?"
    r"|total\sof|left\swith|hat|haben|sind|ist|kostet|tiene|son|cuesta|a|ont|sont|co\u00fbte|tem|s\u00e3o|custa|ha|sono|costa)"
)
_VERB: Final = re.compile(rf"\b{_GIVES}\b|=", re.IGNORECASE)
_RESULT: Final = re.compile(
    rf"(?:=|\b{_GIVES})\s*(?:about\s|only\s|exactly\s|just\s|a\stotal\sof\s|in\stotal\s)?$", re.IGNORECASE
)


def stated_value(text: str) -> str:
    """The number that a stated answer holds, with its unit; the text as it stands where it holds none, or several."""
    text = without_wrapping(text.strip().rstrip("\u3002").rstrip())
    if not re.search(rf"[\d{_FRACTIONS}]", text):
        return text
    text = without_wrapping(without_html(text))
    if read_number(text) is not None and "(" not in text and text[-1] not in _TIMES:
        return text
    inside = re.fullmatch(r"[(\[{<]\s?(.*?)\s?[)\]}>]\.?", text, re.DOTALL)
    if inside and read_number(inside[1]) is not None:
        return inside[1]
    segment = _INLINE.match(text)
    if segment:
        return _of_segment(text, segment)
    rest = text
    while (hedge := _HEDGES.match(rest)) and hedge.end() < len(rest):
        rest = rest[hedge.end() :]
    number = _NUMBER.match(rest)
    found = _quantity(rest, number) if number else _of_sentence(rest)
    return text if found is None else found


def last_number(text: str) -> str | None:
    """The last number of a text, whole: with its groups, its power of ten, as a time or ratio; null if there is none.

    Where it stands inside a formula, the formula behind its last equals sign: the 3 of a root of 3 is no answer.
    """
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    last = found[-1]
    for segment in _INLINE.finditer(text):
        if segment.start() < last.start() and last.end() < segment.end():
            inner = (
                segment[0].strip("$").removeprefix("\\(").removesuffix("\\)").removeprefix("\\[").removesuffix("\\]")
            )
            side = inner.rpartition("=")[2].strip()
            if (
                not _NUMBER.fullmatch(side)
                and read_number(side) is None
                and re.search(r"\\sqrt|\\pi|\^|[a-zA-Z]", side)
            ):
                return side or None
    return _clean(last)


def _clean(number: re.Match[str]) -> str:
    """A number without currency sign and blanks, its power of ten as an exponent."""
    text = re.sub(r"\\?\$", "", number[0])
    if number["mantissa"]:
        power = number["power"] or "".join("-" if sign == "\u207b" else str(_raised(sign)) for sign in number["raised"])
        sign = "-" if text[0] in "-\u2212" else ""
        return f"{sign}{number['mantissa'].replace(',', '')}e{power.replace(chr(0x2212), '-')}"
    if number["grouped"]:
        digits = re.sub(r"(?<=\d)[ \u00a0\u202f\u2009'\u2019](?=\d{3})", "", text)
        return re.sub(r",(?=\d+\s?\\?%?$)", ".", digits)
    if text[-1] in _TIMES:
        value = read_number(text[:-1].strip())
        return text if value is None else _decimal(value * _TIMES[text[-1]])
    return text.replace(",", "") if _LAKH.search(text) else text


def _raised(sign: str) -> int:
    return "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079".index(sign)


def _decimal(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else str(float(value))


def _quantity(text: str, number: re.Match[str]) -> str | None:
    """A number with the words that say what it counts; null where more is said of it than that."""
    behind = text[number.end() :]
    border = _BOUNDARY.search(behind)
    words, tail = (behind[: border.start()], behind[border.start() :]) if border else (behind, "")
    if _ANOTHER.match(tail) or _ANOTHER.match(behind):
        return None
    words = words.rstrip(" .!?\u3002")
    if re.search(r"\d", words):  # "4 July 1776", "5 ft 6 in"
        return None
    if number["clock"]:
        return number[0]
    first = re.match(r"\s?[^\s\d]+", words)
    plain = _clean(number)
    sign = re.match(r"[-\u2212]?\s?((?:\\?\$)|[\u20ac\u00a3\u00a5\u20b9])", number[0])
    whole = number[0] if sign and not (number["mantissa"] or number["grouped"]) else plain
    for unit in dict.fromkeys((words, first[0] if first else "")):
        if read_number(whole + unit) is not None:
            return (whole + unit).strip()
    # Letters of a script without blanks ("12\u4e2a\u82f9\u679c") are no part of the number.
    return whole if re.match(rf"\s?[{_JOINED}]", words) and read_number(whole) is not None else None


def _of_sentence(text: str) -> str | None:
    """The number of a sentence that holds one, or the one that a verb of having or being gives."""
    # A formula is no sentence, and the number of a name ("Apollo 11") is given by no verb.
    if re.search(r"[\\^_{}|]|\w\(|\w\s?[-+*/<>]\s?\w|[+*/<>]\s?\d", text.replace("\\$", "$")) or not _VERB.search(text):
        return None
    found = list(_NUMBER.finditer(text))
    if len(found) > 1:
        found = [number for number in found if _RESULT.search(text[max(0, number.start() - 60) : number.start()])]
    if len(found) != 1 or _LIMITED.search(text[max(0, found[0].start() - 60) : found[0].start()]):
        return None
    return _quantity(text, found[0])


def _of_segment(text: str, segment: re.Match[str]) -> str:
    """The formula that a text begins with, where only words stand behind it."""
    behind = text[segment.end() :]
    if not behind.strip(" .") or _INLINE.search(behind) or _ANOTHER.match(behind) or re.match(r"\s*[-+*/=<>^]", behind):
        return text
    inner = segment[0].strip("$").removeprefix("\\(").removesuffix("\\)").strip()
    value = without_style(inner).rpartition("=")[2].strip()
    number = _NUMBER.fullmatch(value)
    if number:
        return _quantity(value + behind, _NUMBER.match(value + behind) or number) or text
    unit = re.match(r"\s?([^\W\d_]+)", behind)
    return f"{inner} \\text{{ {unit[1]}}}" if unit and unit_named(unit[1]) else segment[0]
