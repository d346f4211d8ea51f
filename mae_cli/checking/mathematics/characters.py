r"""Unicode mathematics in LaTeX: digits of all scripts, fractions, powers, roots, Greek, relations.

Place in the flow: the first step of `mathematics.spelling`. Contract: `in_latex` returns a text in ASCII as far as a
sign has a LaTeX name; letters of other scripts (units, names) stay as they are. Left out: what LaTeX means.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SIGNS: Final = {
    "\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\ufe63": "-",
    "\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u22c5": "\\cdot ", "\u2219": "\\cdot ", "\u2217": "*", "\u00f7": "/",
    "\u2215": "/", "\u2044": "/",
    "\u221e": "\\infty ", "\u00b0": "^\\circ ", "\u2264": "\\le ", "\u2265": "\\ge ", "\u2a7d": "\\le ",
    "\u2a7e": "\\ge ",
    "\u2260": "\\ne ", "\u2248": "\\approx ", "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2216": "\\setminus ",
    "\u00b1": "\\pm ", "\u2213": "\\mp ", "\u2208": "\\in ", "\u2209": "\\notin ", "\u2205": "\\emptyset ",
    "\u211d": "\\mathbb{R}", "\u2124": "\\mathbb{Z}", "\u2115": "\\mathbb{N}", "\u211a": "\\mathbb{Q}",
    "\u20ac": "\\euro ",
    "\u00a3": "\\pound ", "\u2223": "\\mid ", "\u2308": "\\lceil ", "\u2309": "\\rceil ", "\u230a": "\\lfloor ",
    "\u230b": "\\rfloor ", "\u2211": "\\sum ", "\u220f": "\\prod ", "\u222b": "\\int ", "\u2227": "\\land ",
    "\u2228": "\\lor ", "\u2032": "'", "\u2019": "'", "\u3002": ".", "\u3001": ",", "\u2502": "|", "\u2220": "\\angle ",
}  # fmt: skip
_BLANKS: Final = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_HIDDEN: Final = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff]")
_ROOTS: Final = {"\u221a": "\\sqrt", "\u221b": "\\sqrt[3]", "\u221c": "\\sqrt[4]"}
_ROOT: Final = re.compile(r"([\u221a-\u221c])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[a-zA-Z]|\\[a-z]+))")
_SCRIPTS: Final = re.compile(
    "(?P<raised>[\u2070\u00b9\u00b2\u00b3\u2074-\u207f]+)|(?P<lowered>[\u2080-\u208e\u2090-\u209c]+)"
)
_GREEK_NAMES: Final = {"FINAL SIGMA": "sigma", "LAMDA": "lambda", "OMICRON": "o"}


def in_latex(text: str) -> str:
    """A text with the signs of mathematics spelled as LaTeX does."""
    if text.isascii():
        return text
    text = _HIDDEN.sub("", _BLANKS.sub(" ", text))
    text = "".join(_plain_form(character) for character in text)
    text = _SCRIPTS.sub(_script, text)
    for sign, spelled in _SIGNS.items():
        text = text.replace(sign, spelled)
    text = "".join(_greek(character) for character in text)
    text = _ROOT.sub(lambda m: f"{_ROOTS[m[1]]}{{{m[2] or m[3] or m[4]}}}", text)
    for sign, spelled in _ROOTS.items():
        text = text.replace(sign, f"{spelled} ")
    return text


def _plain_form(character: str) -> str:
    """ASCII for digits, full-width forms and mathematical letters; a fraction behind a digit makes a mixed number."""
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.decomposition(character).startswith("<fraction>"):
        top, _, bottom = unicodedata.normalize("NFKC", character).partition("\u2044")
        return f"\\frac{{{top}}}{{{bottom}}}" if bottom else character
    if "\uff01" <= character <= "\uff5e" or "\U0001d400" <= character <= "\U0001d7ff":
        return unicodedata.normalize("NFKC", character)
    return character


def _script(match: re.Match[str]) -> str:
    inside = unicodedata.normalize("NFKC", match[0]).replace("\u2212", "-")
    return f"{'^' if match['raised'] else '_'}{{{inside}}}"


def _greek(character: str) -> str:
    if not "\u0370" <= character <= "\u03ff":
        return character
    name = unicodedata.name(character, "")
    match = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z ]+)", name)
    if not match:
        return character
    letter = _GREEK_NAMES.get(match[2], match[2].lower())
    if " " in letter:
        return character
    if letter == "o":
        return "o"
    return f"\\{letter.capitalize() if match[1] == 'CAPITAL' else letter} "
