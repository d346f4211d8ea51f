"""The answer of a free-form text, found by a cascade of patterns from strict to loose.

Place in the flow: `answers.stated` and the readings of `eval` call it on the text behind the reasoning. Contract: pure
functions over text, linear in its length, that never raise; nothing inside a reasoning block is ever extracted. Left
out: letters (`answers.choices`), programs (`answers.programs`), and whether the answer is right (verifiers).
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from mae_cli.answers.answer_words import Opening, answer_openings
from mae_cli.answers.denials import is_not_meant, sentence_before
from mae_cli.answers.markup import wide_as_ascii, without_colour, without_emphasis, without_wrapping
from mae_cli.answers.number_phrases import last_number, stated_value
from mae_cli.answers.numbers import read_number
from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.run_on import parts_to_read
from mae_cli.answers.tags import tag_spans

STRICT_SOURCES: Final = frozenset({"answer_tag", "boxed", "hashes", "code_fence"})
"""Sources that a completion can only reach by following an answer format."""


@dataclass(frozen=True)
class Extraction:
    """An answer and the pattern that found it; both null when nothing was found."""

    answer: str | None
    source: str | None


NOT_FOUND: Final = Extraction(answer=None, source=None)
# "Mr. Smith" is no sentence end, nor is the LaTeX blank "\!", nor "i.e.".
_SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bRs)(?<!\bsq)(?<!\bcu)(?<!\bapprox)(?<!\bU\.S)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\\)(?<!\bi\.e)(?<!\be\.g)(?<!\b[ap]\.m)[.!?](?=\s|$)|[\u3002\uff01\uff1f\u0964]"
)
_EXPLANATION = re.compile(r",?\s(?:because|since|which)\b", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]{0,3}(?P<mark>\*\*|__)?####[ \t]*(?P<rest>\S[^\n]*)$", re.MULTILINE)
_BRACES = re.compile(r"(?P<boxed>\\f?box(?:ed)?\s{0,3}\{)|\\.|[{}]", re.DOTALL)
_JSON = re.compile(
    r"[\"'](?:final_?)?answer[\"']\s{0,9}:\s{0,9}(?P<value>\"(?:[^\"\\]|\\.)*\"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false)",
    re.IGNORECASE,
)
_OWN_TAG = re.compile(r".?[</]\s?answer\s?>", re.IGNORECASE | re.DOTALL)
# "The answer is 12? No, 13.": not stated, and what corrects it.
_ASKED = re.compile(r"[^\n.?!]{0,60}\?")
_CORRECTED = re.compile(
    r"\b(?:wait|actually|no|sorry|correction|oops|scratch\sthat|make\sthat|i\smean|i\smeant)\b[,.:;!\u2013\u2014-]{1,3}\s?"
    r"(?:(?:wait|actually|no|sorry|it's|it\sis|that's|that\sis|should\sbe|must\sbe|i\smeant?|make\sthat|the\sanswer\sis)"
    r"[\s,:]{1,3}){0,4}(?=[-\u2212]?\\?\$?\d[\d.,/]*(?:\s[a-z]+){0,2}\s*(?:[.!\n]|$))",
    re.IGNORECASE,
)
_ANSWER_END = re.compile(r"</\s?(?:final_?)?answer", re.IGNORECASE)
_EMPHASIS = re.compile(r"[*_]{1,3}")
_BEFORE_VALUE = re.compile(r"(?:[*_\s:=}\u3001]|\|\s)+")
# "9 + 9, which is 18": the calculation is no answer yet.
_CALCULATED = re.compile(
    r"(?P<sum>[$\\\d][\d\s.,+*/x\u00d7\u00f7()$\\\u2212-]*?),?\s(?:which|that)\s(?:is|equals|makes|gives|comes\sto)\s(?=[$\\\d-])",
    re.IGNORECASE,
)
_MOST_STEPS: Final = 16
_MOST_BOXES: Final = 12
_LINKED_BOXES = re.compile(
    r"[\s$.]*(?:,|;|(?:,\s?)?\bor\b|(?:,\s?)?\band\b|\\text\{\s?(?:or|and)\s?\})[\s$]*(?:[a-z]\s?=\s?)?", re.IGNORECASE
)


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
    `#### x` (`hashes`; not the headings of a text), "the answer is x" or "answer: x" in some thirty languages
    (`phrase`, up to the end of the sentence), last number (`last_number`). An empty span is no answer: the next pattern
    is tried. Of a sentence that holds one number the number is taken, with its unit. What stands behind an invented
    next question counts only where nothing was found before it.

    Source: our cascade; MAE's released code takes the last box, else the whole text.
    """
    visible = split_named_reasoning(text).visible
    for part in parts_to_read(visible):
        found = _read_part(part)
        if found is not NOT_FOUND:
            return found
    return NOT_FOUND


def _read_part(text: str) -> Extraction:
    strict = _extract_strict(text)
    if strict.answer:
        return strict
    plain = wide_as_ascii(text)
    phrase = _json_value(plain) or _last_phrase(plain)
    if phrase:
        return Extraction(phrase, "phrase")
    number = last_number(plain)
    return Extraction(number, "last_number") if number else NOT_FOUND


def _extract_strict(visible: str) -> Extraction:
    spans = tag_spans(visible, "answer")
    answer = _in_tag(spans[-1]) if spans else None
    if answer:
        return Extraction(answer, "answer_tag")
    boxed = _boxes(visible)
    if boxed:
        return Extraction(boxed, "boxed")
    hashes = _last_hashes(visible)
    return Extraction(hashes, "hashes") if hashes else NOT_FOUND


def _in_tag(span: str) -> str | None:
    boxed = _boxes(span)
    if boxed:
        return boxed
    text = without_emphasis(span)
    # Brackets, braces and quotes may be JSON, which a verifier reads as it stands.
    if not text or text[0] in '[{"':
        return text or None
    return _last_phrase(wide_as_ascii(text), whole_line=True) or stated_value(text)


def _boxes(text: str) -> str | None:
    """The content of the last box; of boxes that only "or", "and" or a comma parts, the contents with commas."""
    return ", ".join(dict.fromkeys(unstyled(box.content) for box in stated_boxes(text))) or None


def stated_boxes(text: str) -> list[Box]:
    """The last box that no "not" stands before, and those before it that "or", "and" or a comma links to it."""
    box = last_box(text)
    while box is not None and is_not_meant(sentence_before(text, box.start)) and last_box(text[: box.start]):
        box = last_box(text[: box.start])
    found: list[Box] = []
    while box is not None and len(found) < _MOST_BOXES:
        found.insert(0, box)
        before = last_box(text[: box.start])
        is_linked = before is not None and _LINKED_BOXES.fullmatch(text, before.end, box.start)
        box = before if is_linked else None
    return found


def unstyled(content: str) -> str:
    r"""The content of a box without colour, and without a style or braces around all of it."""
    previous = None
    while previous != content:
        previous = content
        content = without_colour(content).strip()
        whole = re.fullmatch(
            r"\\(?:text|mathrm|textbf|mathbf|boldsymbol|bm|mathit|textit|mbox)\s?\{([^{}]*)\}", content
        )
        content = whole[1].strip() if whole else content
        dollars = re.fullmatch(r"\$([^$]+)\$", content)
        content = without_wrapping(dollars[1].strip() if dollars else content)
    return content


def _last_hashes(visible: str) -> str | None:
    # "#### Step 2: ..." is a Markdown heading; an answer is a number or the end of the text.
    end = len(visible.rstrip())
    for match in reversed(list(_HASHES.finditer(visible))):
        rest = without_wrapping(match["rest"].rstrip().removesuffix(match["mark"] or ""))
        if not rest:
            continue
        phrase = _last_phrase(wide_as_ascii(rest), whole_line=True)
        if phrase or match.end("rest") >= end or read_number(rest) is not None:
            return phrase or stated_value(rest)
    return None


def _json_value(visible: str) -> str | None:
    found = list(_JSON.finditer(visible))
    if not found:
        return None
    try:
        value = json.loads(found[-1]["value"].lower() if found[-1]["value"][0] != '"' else found[-1]["value"])
    except ValueError:
        return None
    return stated_value(found[-1]["value"] if isinstance(value, int | float) else str(value)) or None


def _last_phrase(visible: str, *, whole_line: bool = False) -> str | None:
    """What the last "the answer is" of a text gives, up to the end of its sentence.

    Args:
        visible: a text without reasoning.
        whole_line: the text is already an answer, so that it must begin with the phrase.
    """
    starts = [
        place
        for opening in answer_openings(visible)
        if (place := _value_start(visible, opening)) is not None
        and not _ASKED.match(visible, place)
        and not is_not_meant(sentence_before(visible, opening.start))
        and not _OWN_TAG.match(visible, max(0, opening.start - 2))
        and not (whole_line and visible[: opening.start].strip().casefold() not in _LEADS)
    ]
    if not starts:
        return None
    corrected = [found.end() for found in _CORRECTED.finditer(visible, max(starts))]
    start = corrected[-1] if corrected else max(starts)
    rest = _ANSWER_END.split(visible[start:].partition("\n")[0], maxsplit=1)[0]
    calculated = _CALCULATED.match(rest)
    if calculated and read_number(calculated["sum"]) is None:
        rest = rest[calculated.end() :]
    for pattern in (_SENTENCE_END, _EXPLANATION):
        rest = pattern.split(rest, maxsplit=1)[0]
    if rest.count("}") > rest.count("{"):  # of a style around the whole sentence
        rest = rest.rstrip().removesuffix("}")
    return stated_value(without_wrapping(rest.strip().rstrip("*_"))) or None


_LEADS: Final = (
    "",
    "the",
    "so the",
    "thus the",
    "therefore the",
    "final",
    "the final",
    "the correct",
    "so, the",
    "the total",
)


def _value_start(text: str, opening: Opening) -> int | None:
    """Where the answer begins behind an answer word and a verb or sign that gives it."""
    place = opening.end
    for _ in range(_MOST_STEPS):
        mark = _EMPHASIS.match(text, place)
        step = mark or opening.step.match(text, place)
        if step is None or step.end() == place:
            return None
        place = step.end()
        if mark is None and step["link"]:
            behind = _BEFORE_VALUE.match(text, place)
            place = behind.end() if behind else place
            return place if place < len(text) else None
    return None
