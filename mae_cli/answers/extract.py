"""The answer of a free-form text, found by a cascade of patterns from strict to loose.

Place in the flow: `answers.stated` and the readings of `eval` call it on the text behind the reasoning. Contract: pure
functions over text, linear in its length, that never raise; nothing inside a reasoning block is ever extracted. Left
out: letters (`answers.choices`), programs (`answers.programs`), and whether the answer is right (verifiers).
"""

import re
from dataclasses import dataclass
from typing import Final

from mae_cli.answers.numbers import read_number
from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.tags import tag_spans

STRICT_SOURCES: Final = frozenset({"answer_tag", "boxed", "hashes", "code_fence"})
"""Sources that a completion can only reach by following an answer format."""


@dataclass(frozen=True)
class Extraction:
    """An answer and the pattern that found it; both null when nothing was found."""

    answer: str | None
    source: str | None


NOT_FOUND: Final = Extraction(answer=None, source=None)
# A LaTeX number is kept whole; a sign counts only where no operand stands before it ("16-3").
_LAST_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-\u2212]\s?)?"
    r"(?:\\?\$)?"
    r"(?:\\[dt]?frac\{-?\d+\}\{\d+\}"
    r"|(?<![\w.])(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?(?:/\d+)?"
    r"|(?<![\w.])\.\d+)"
    r"(?:\\?%)?"
)
_PHRASE = re.compile(r"\banswer\b[*_]{0,3}\s{0,3}(?:is\b|[:=])[*_]{0,3}\s{0,3}:?[*_]{0,3}\s{0,9}(?=\S)", re.IGNORECASE)
# "Mr. Smith" is no sentence end, nor is the LaTeX blank "\!".
_SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\\)[.!?](?=\s|$)")
_EXPLANATION = re.compile(r",?\s(?:because|since|which)\b", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]{0,3}(?P<mark>\*\*|__)?####[ \t]*(?P<rest>\S[^\n]*)$", re.MULTILINE)
_BRACES = re.compile(r"(?P<boxed>\\f?box(?:ed)?\s{0,3}\{)|\\.|[{}]", re.DOTALL)


@dataclass(frozen=True)
class Box:
    """A box of a text: where it stands and what is in it."""

    start: int
    end: int
    content: str


def last_boxed(text: str) -> str | None:
    r"""Return the stripped content of the last non-empty `\boxed{..}` with balanced braces."""
    box = last_box(text)
    return None if box is None else box.content


def last_box(text: str) -> Box | None:
    r"""Return the last non-empty `\boxed{..}`, the innermost of nested ones."""
    best: tuple[int, Box] | None = None
    opened: list[tuple[int, int] | None] = []  # start of a box and of its content, None for any other brace
    for match in _BRACES.finditer(text):
        if match["boxed"]:
            opened.append((match.start(), match.end()))
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            box = opened.pop()
            if box is None or (best is not None and box[1] < best[0]):
                continue
            content = text[box[1] : match.start()].strip()
            if content:
                best = (box[1], Box(box[0], match.end(), content))
    return None if best is None else best[1]


def extract_answer(text: str) -> Extraction:
    r"""Extract the answer with the first pattern of the cascade that finds one.

    Order: last `<answer>..</answer>` (`answer_tag`; a `\boxed{}` inside is unwrapped), last `\boxed{..}` (`boxed`),
    `#### x` (`hashes`; not the headings of a text), "the answer is x" or "answer: x" (`phrase`, up to the end of the
    sentence), last number (`last_number`). An empty span is no answer: the next pattern is tried.

    Source: our cascade; MAE's released code takes the last box, else the whole text.
    """
    visible = split_named_reasoning(text).visible
    strict = _extract_strict(visible)
    if strict.answer:
        return strict
    phrase = _last_phrase(visible)
    if phrase:
        return Extraction(phrase, "phrase")
    numbers = _LAST_NUMBER.findall(visible)
    if numbers:
        return Extraction(numbers[-1].replace("\\$", "").replace("$", ""), "last_number")
    return NOT_FOUND


def _extract_strict(visible: str) -> Extraction:
    spans = tag_spans(visible, "answer")
    answer = (last_boxed(spans[-1]) or _unwrap_emphasis(spans[-1])) if spans else None
    if answer:
        return Extraction(answer, "answer_tag")
    boxed = last_boxed(visible)
    if boxed:
        return Extraction(boxed, "boxed")
    hashes = _last_hashes(visible)
    return Extraction(hashes, "hashes") if hashes else NOT_FOUND


def _unwrap_emphasis(text: str) -> str:
    text = text.strip()
    for mark in ("**", "__", "`", "*"):
        if text.startswith(mark) and text.endswith(mark) and len(text) > 2 * len(mark):
            return text[len(mark) : -len(mark)].strip()
    return text


def _last_hashes(visible: str) -> str | None:
    # "#### Step 2: ..." is a Markdown heading; an answer is a number or the end of the text.
    end = len(visible.rstrip())
    for match in reversed(list(_HASHES.finditer(visible))):
        rest = _unwrap_emphasis(match["rest"].rstrip().removesuffix(match["mark"] or ""))
        if rest and (match.end("rest") >= end or read_number(rest) is not None):
            return rest
    return None


def _last_phrase(visible: str) -> str | None:
    starts = [match.end() for match in _PHRASE.finditer(visible)]
    if not starts:
        return None
    rest = visible[starts[-1] :].partition("\n")[0]
    for pattern in (_SENTENCE_END, _EXPLANATION):
        rest = pattern.split(rest, maxsplit=1)[0]
    return _unwrap_emphasis(rest.strip().rstrip("*_")) or None
