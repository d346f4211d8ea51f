"""One line of a judge's verdict without what stands around it: its name, brackets and quotes, a remark behind it.

Place in the flow: `judges.score_tag` reads the content of a `<score>` tag with it. Contract: pure functions over a
short line; a remark that could take the verdict back is left where it stands, so that the line is not read.
"""

import re
from collections.abc import Sequence
from typing import Final

from mae_cli.answers.markup import without_html

# What may stand before the verdict itself: its name, as the judge of MT-bench writes "Rating: [[8]]".
_NAMED = re.compile(
    r"(?:(?:my|the|final|overall)\s){0,2}(?:score|rating|grade|verdict|answer|winner|judge?ment|result|(?:first\s)?(?:wrong|incorrect)\sstep"
    r"|(?:first\s)?(?:error|mistake)(?:\s(?:is|occurs|appears))?\sin)(?:\s?(?:is\b|[:=])\s*|\s+)"
    r"|i(?:'d|\swould)?\s(?:give|rate|score)(?:\s(?:it|this|the|answer|response|solution)){0,2}(?:\s(?:an?|at|with|as))?\s+",
    re.IGNORECASE,
)
_WRAPPERS: Final = (
    *(("[[", "]]"), ("[", "]"), ("(", ")"), ("{", "}"), ("\\boxed{", "}"), ("$", "$")),
    *(("**", "**"), ("*", "*"), ("__", "__"), ("_", "_")),
    *(("`", "`"), ('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u2018", "\u2019")),
)  # fmt: skip
_NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_REMARK: Final = re.compile(
    r"(?P<verdict>[^:,;()]{1,60}?)(?:\s?[:;,]\s+|\s[-\u2013\u2014]\s|\s(?=(?:because|since)\s)|\s(?=\())(?P<remark>.{1,200})"
)
_TAKES_BACK: Final = re.compile(
    r"\b(?:but|however|(?:al)?though|or|maybe|perhaps|unless|except|if|should|would|could|minus|less|off|instead|rather|wait"
    rf"|{'|'.join(_NUMBERS[1:])})\b",
    re.IGNORECASE,
)
_NO: Final = re.compile(r"n't\b|\b(?:not|no|wrong|incorrect|false|fails?|errors?|mistakes?)\b", re.IGNORECASE)
_YES: Final = re.compile(r"\b(?:correct|right|true|valid|holds)\b", re.IGNORECASE)
_THINGS: Final = "answer|response|assistant|solution|option|candidate|model|step|number|paragraph"
_BEFORE: Final = rf"(?:(?:the\s)?(?:{_THINGS}|it(?:'s|\sis)|a(?=\s\w{{2}}))(?:[\s:#]{{1,3}}|(?=[\[(]))|#\s?){{0,2}}"
_BEHIND: Final = (
    r"(?:\s(?:wins|is\s(?:wrong|(?:the\s)?(?:better|best|winner|wrong\sone|better\sone|first\swrong\sstep))))?"
)
_COMPARED: Final = re.compile(
    rf"{_BEFORE}(?P<one>[AB])\s?(?:(?P<more>>{{1,3}}|\u227b|(?:is\s)?(?:\w+\s)?better\sthan|beats)|(?P<less><{{1,3}}|\u227a)"
    rf"|(?:={{1,2}}|\u2248))\s?{_BEFORE}(?P<other>[AB])",
    re.IGNORECASE,
)
_EQUAL: Final = re.compile(
    r"(?:it(?:'s|\sis)\s)?(?:a\s)?draw|(?:(?:both|they|both\s(?:answers|responses|solutions))\s(?:are\s)?)?"
    r"(?:equal|(?:equally|just\sas)\s(?:good|bad|right|wrong|correct|helpful|strong))",
    re.IGNORECASE,
)
_NO_ERROR: Final = re.compile(
    r"no\s(?:errors?|mistakes?|wrong\sstep)|all\s(?:steps\s)?(?:are\s)?(?:correct|right)", re.IGNORECASE
)


def word_of(line: str, words: Sequence[str]) -> str:
    """The word of a line, without marks around it, "Answer" before it, "wins" or a remark behind it."""
    line = _told_otherwise(unwrapped(line), words)
    found = _word_alone(line, words)
    bare = unwrapped(without_remark(line, with_figures=not words[-1].isdigit()))
    if found is not None or bare == line:
        return found or line
    remark = line[line.find(bare) + len(bare) :]
    found = _word_alone(_told_otherwise(bare, words), words)
    return line if found is None or _speaks_against(remark, found, words) else found


def _speaks_against(remark: str, word: str, words: Sequence[str]) -> bool:
    """Whether what stands behind a word names another one, or says the opposite of it."""
    others = "|".join(re.escape(one) for one in words)
    flags = 0 if "A" in words else re.IGNORECASE  # "a" is also an article
    if re.search(rf"(?<!\w)(?:{others})(?!\w)", remark, flags):
        return True
    is_praised = bool(_YES.search(remark)) and not _NO.search(remark)
    is_blamed = bool(_NO.search(remark))
    # A remark on answer A may praise or blame either answer.
    return is_praised if word.casefold() == "no" or word.strip("0").isdigit() else is_blamed


def _told_otherwise(line: str, words: Sequence[str]) -> str:
    """A comparison ("A > B"), a tie, "no error" and "Y" in the words that are asked for."""
    compared = _COMPARED.fullmatch(line) if {"A", "B"} <= set(words) else None
    if compared and compared["one"].upper() != compared["other"].upper():
        if compared["more"] or compared["less"]:
            return compared["one" if compared["more"] else "other"].upper()
        line = "equal"
    if "tie" in words and _EQUAL.fullmatch(line):
        return "tie"
    if words[0] == "0" and _NO_ERROR.fullmatch(line):
        return "0"
    return {"y": "yes", "n": "no"}.get(line.casefold(), line) if "yes" in words else line


def _word_alone(line: str, words: Sequence[str]) -> str | None:
    names = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    is_step = all(word.isdigit() for word in words)
    ordinal = r"(?:(?:st|nd|rd|th)(?:\sstep)?)?" if is_step else ""
    found = re.fullmatch(
        rf"{_BEFORE}[\[(\"'*]{{0,3}}(?P<word>{names}){ordinal}[\])\"'*]{{0,3}}(?P<behind>{_BEHIND})",
        number_of_word(line),
        re.IGNORECASE,
    )
    # Only of a step is it the verdict that it is wrong.
    if found is None or ("wrong" in found["behind"]) > is_step:
        return None
    return found["word"]


def first_line(content: str) -> tuple[str, list[str]]:
    """The first line with text, and the others."""
    lines = [line for line in content.splitlines() if line.strip()] or [""]
    return lines[0], lines[1:]


def unwrapped(text: str) -> str:
    """A short text without the brackets, quotes and emphasis around all of it, its name before and its stop behind."""
    previous, text = None, without_html(text)
    while previous != text:
        previous = text
        text = text.strip().rstrip(".!").strip()
        text = _NAMED.sub("", text, count=1) if _NAMED.match(text) else text
        for start, end in _WRAPPERS:
            inside = text[len(start) : -len(end)]
            if text.startswith(start) and text.endswith(end) and len(text) > len(start + end) - 1 and end not in inside:
                text = inside
        bold = re.match(r"\*\*([^*]+)\*\*\s?(.*)", text, re.DOTALL)  # "**Score:** 6"
        text = f"{bold[1]} {bold[2]}" if bold and _NAMED.match(f"{bold[1]} ") else text
    return text


def without_remark(line: str, *, with_figures: bool = False) -> str:
    """The line without a remark behind its verdict ("8: good"); with it where the remark may change the verdict."""
    found = _REMARK.fullmatch(line)
    if found is None or _TAKES_BACK.search(found["remark"]):
        return line
    return line if re.search(r"\d", found["remark"]) and not with_figures else found["verdict"]


def number_of_word(line: str) -> str:
    """A line that is a small number in words, "three" or "step three", with its figure."""
    before, blank, last = line.rpartition(" ")
    is_named = not before or before.casefold().strip("# ") in ("step", "the step", "number")
    return f"{before}{blank}{_NUMBERS.index(last.casefold())}" if is_named and last.casefold() in _NUMBERS else line
