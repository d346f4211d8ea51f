r"""Markup around an answer: what HTML, Markdown and LaTeX add to a text without changing what it states.

Place in the flow: the readers of letters and of numbers call it on short texts or on a whole completion. Contract: pure
functions, linear in the length of the text; a power (`<sup>`) is spelled with `^`, never dropped. Left out: the
mathematics inside (`\frac`, `\sqrt`), which the verifiers read.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final

from mae_cli.answers.tags import fold_text

_STYLES: Final = (
    "text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathsf|mathit|mathtt|boldsymbol|bm|emph|underline|mbox"
)
_STYLED: Final = re.compile(rf"\\(?:{_STYLES})\s?\{{([^{{}}]*)\}}")
_COLOURED: Final = re.compile(r"\\textcolor\s?\{[^{}]*\}\s?\{([^{}]*)\}|\\color\s?\{[^{}]*\}\s?(?:\{([^{}]*)\})?")
_SWITCH: Final = re.compile(r"\\(?:bf|rm|it|displaystyle|textstyle|bfseries|large|Large|huge)\b\s?")
_PAIRED: Final = re.compile(
    r"<(b|i|u|em|strong|span|p|code|mark|font|div)\b[^<>]{0,200}>([^<>]*)</\1\s?>", re.IGNORECASE
)
_RAISED: Final = re.compile(r"<sup>([^<>]*)</sup>", re.IGNORECASE)
_BREAK: Final = re.compile(r"<br\s?/?>", re.IGNORECASE)
_MARKS: Final = re.compile(r"[*`]+|_{2,}|(?<!\w)_|_(?!\w)")
_QUOTES: Final = str.maketrans(
    dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"')
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'")
)
_WIDE: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_BRACED: Final = re.compile(r"\{(?:[^{},]|\{[^{},]*\})+\}")
_EMPHASIS: Final = (("**", "**"), ("__", "__"), ("`", "`"), ("*", "*"))
_OUTER: Final = (*_EMPHASIS, ('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u00ab", "\u00bb"))


def without_html(text: str) -> str:
    """The text without paired HTML tags of style; a raised number is spelled `^{..}`."""
    if "<" in text:
        text = _BREAK.sub("\n", _RAISED.sub(r"^{\1}", text))
        for _ in range(3):  # nested at most three deep
            text = _PAIRED.sub(r"\2", text)
    return html.unescape(text) if "&" in text else text


def wide_as_ascii(text: str) -> str:
    """The text with full-width signs and figures as the usual ones, each in its place."""
    return text if text.isascii() else text.translate(_WIDE)


def without_colour(text: str) -> str:
    r"""LaTeX without its colours and switches of style."""
    if "\\" not in text:
        return text
    return _SWITCH.sub("", _COLOURED.sub(lambda found: found[1] or found[2] or "", text))


def without_style(text: str) -> str:
    r"""LaTeX without its styles and colours: `\mathbf{12}` and `\color{blue}{12}` are 12."""
    if "\\" not in text:
        return text
    for _ in range(3):
        text = _STYLED.sub(r"\1", _COLOURED.sub(lambda found: found[1] or found[2] or "", text))
    return _SWITCH.sub("", text)


def without_wrapping(text: str) -> str:
    """The text without the emphasis or quotes around all of it, and without braces that hold nothing else."""
    text = text.strip()
    while True:
        for start, end in _OUTER:
            inside = text[len(start) : -len(end)]
            if text.startswith(start) and text.endswith(end) and inside.strip() and end not in inside:
                text = inside.strip()
                break
        else:
            # Braces around several things make a set.
            if not (text.startswith("{") and _BRACED.fullmatch(text)):
                return text
            text = text[1:-1].strip()


def without_emphasis(text: str) -> str:
    """The text without the Markdown emphasis around all of it."""
    text = text.strip()
    for start, end in _EMPHASIS:
        inside = text[len(start) : -len(end)]
        if text.startswith(start) and text.endswith(end) and inside.strip():
            return inside.strip()
    return text


def plain_text(text: str) -> str:
    """A text without marks of style, its letters and quotes in their plain forms; line breaks stay."""
    text = unicodedata.normalize("NFC", text)
    if not text.isascii():
        text = "".join(_plain_letter(character) for character in fold_text(text)).translate(_QUOTES)
    text = without_style(without_html(text))
    text = re.sub(r"\\[()\[\]]|\\?\$|\\[,;!: ]|~", lambda found: " " if found[0] in ("~", "\\ ") else "", text)
    return _MARKS.sub("", text)


def _plain_letter(character: str) -> str:
    """Letters in circles and of the mathematical alphabets as the letters they show."""
    if character < "\u2460":
        return character
    letter = unicodedata.normalize("NFKC", character).strip("()")
    return letter if len(letter) == 1 and letter.isascii() and letter.isalpha() else character
