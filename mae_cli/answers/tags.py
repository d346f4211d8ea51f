"""Tags such as `<answer>..</answer>` in model text: their contents, and how many pairs there are.

Place in the flow: all readers of answers, questions and scores use this one rule. The rule ignores case, allows blanks
inside the angle brackets and knows no attributes. Contract: pure functions, linear in the length of the text.
"""

import re
import unicodedata
from functools import lru_cache


@lru_cache(maxsize=64)
def _tag_pattern(tags: tuple[str, ...]) -> re.Pattern[str]:
    names = "|".join(re.escape(tag) for tag in tags)
    # ASCII: a dotless i is no letter of "think".
    return re.compile(rf"<\s{{0,8}}(?P<slash>/?)\s{{0,8}}(?P<name>{names})\s{{0,8}}>", re.IGNORECASE | re.ASCII)


def fold_text(text: str) -> str:
    """Drop format characters; spell full-width signs and decimal digits of any script in ASCII.

    Not NFKC: it would read a superscript as a digit (10 written as 1 with a raised 0).
    """
    if text.isascii():
        return text
    return "".join(_fold_character(character) for character in text)


def _fold_character(character: str) -> str:
    if character.isascii():
        return character
    if unicodedata.category(character) == "Cf":  # zero-width, byte order mark, soft hyphen
        return ""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if "\uff01" <= character <= "\uff5e":  # full-width forms of ASCII
        return chr(ord(character) - 0xFEE0)
    return "-" if character == "\u2212" else character


def tag_spans(text: str, tag: str) -> list[str]:
    """Return the contents of all innermost `<tag>..</tag>` spans, in order, unstripped."""
    spans: list[str] = []
    content_start: int | None = None
    for match in _tag_pattern((tag,)).finditer(text):
        if not match["slash"]:
            content_start = match.end()
        elif content_start is not None:
            spans.append(text[content_start : match.start()])
            content_start = None
    return spans


def count_tag_pairs(text: str, tag: str) -> int:
    """Count the closing tags that have an opening one before them; nested pairs count too."""
    pairs = depth = 0
    for match in _tag_pattern((tag,)).finditer(text):
        pairs += bool(match["slash"]) and depth > 0
        depth = max(0, depth - 1) if match["slash"] else depth + 1
    return pairs
