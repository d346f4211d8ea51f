"""Reading answers, questions and tags out of model text.

Place in the flow: the generating stages split the reasoning off with `split_reasoning` and extract from what is left;
judges and format rewards use the same tag rules. Contract: pure functions over text, linear in its length, never
raising on any text; nothing inside a reasoning block is ever extracted. One tag rule everywhere: case-insensitive,
blanks tolerated inside the angle brackets, no attributes. Left out: whether the answer is right (verifiers).
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from mae_cli.numbers import read_number

REASONING_TAGS: Final = ("think", "thinking", "thought", "reasoning", "scratchpad")
"""Names of the tags whose content is reasoning, not output."""

STRICT_SOURCES: Final = frozenset({"answer_tag", "boxed", "hashes", "code_fence"})
"""Sources that a completion can only reach by following an answer format."""


@dataclass(frozen=True)
class Extraction:
    """An answer and the pattern that found it; both null when nothing was found."""

    answer: str | None
    source: str | None


@dataclass(frozen=True)
class ReasoningSplit:
    """A text taken apart into its reasoning blocks and the rest, each joined by newlines."""

    reasoning: str
    visible: str
    is_closed: bool
    """False when the last block was never closed (reasoning cut off)."""


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


def split_reasoning(text: str, tags: Sequence[str] = REASONING_TAGS) -> ReasoningSplit:
    """Split the reasoning blocks off a text.

    A block runs from its opening tag to the first closing tag of the same name. An unclosed block swallows everything
    after it. A closing tag without an opening one means that the prompt opened the block: everything before it is
    reasoning. Where the prompt opened a block that may have been cut off, pass the opening tag plus the text.

    Args:
        text: any text.
        tags: names of reasoning tags, without brackets.
    """
    reasoning: list[str] = []
    visible: list[str] = []
    open_name: str | None = None
    start = 0
    for match in _tag_pattern(tuple(tags)).finditer(text):
        name, is_closing = match["name"].lower(), bool(match["slash"])
        piece = text[start : match.start()]
        if open_name is None and is_closing:
            reasoning.extend([*visible, piece])
            visible = []
        elif open_name is None:
            visible.append(piece)
            open_name = name
        elif is_closing and name == open_name:
            reasoning.append(piece)
            open_name = None
        else:
            continue  # another tag inside a block is part of the reasoning
        start = match.end()
    (visible if open_name is None else reasoning).append(text[start:])
    # The newline keeps the two sides of a block from forming a new number or tag.
    return ReasoningSplit("\n".join(reasoning), "\n".join(visible), open_name is None)


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


def last_boxed(text: str) -> str | None:
    r"""Return the stripped content of the last non-empty `\boxed{..}` with balanced braces."""
    best: tuple[int, str] | None = None
    opened: list[int | None] = []  # content start of a box, None for any other brace
    for match in _BRACES.finditer(text):
        if match["boxed"]:
            opened.append(match.end())
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            start = opened.pop()
            if start is None or (best is not None and start < best[0]):
                continue
            content = text[start : match.start()].strip()
            if content:
                best = (start, content)
    return None if best is None else best[1]


def extract_answer(text: str) -> Extraction:
    r"""Extract the answer with the first pattern of the cascade that finds one.

    Order: last `<answer>..</answer>` (`answer_tag`; a `\boxed{}` inside is unwrapped), last `\boxed{..}` (`boxed`),
    `#### x` (`hashes`; not the headings of a text), "the answer is x" or "answer: x" (`phrase`, up to the end of the
    sentence), last number (`last_number`). An empty span is no answer: the next pattern is tried.

    Source: our cascade; MAE's released code takes the last box, else the whole text.
    """
    visible = split_reasoning(text).visible
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


def extract_strict(text: str) -> Extraction:
    """Extract the answer with the patterns of `STRICT_SOURCES` only."""
    return _extract_strict(split_reasoning(text).visible)


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


def extract_choice(text: str, labels: Sequence[str]) -> Extraction:
    """Extract the label of a choice, spelled as in `labels`.

    Order: inside the last answer tag, inside the last box (a span without a readable label ends the search: its text
    may be the text of a choice), "answer is (B)" (`phrase`), the last label in brackets (`bracketed`), a label alone on
    the last line or a text of one line that begins with one, "B. Paris" (`lone_letter`). Brackets make lower case
    readable; the article "a" is never a label.
    """
    visible = split_reasoning(text).visible
    by_name = {label.casefold(): label for label in labels if label}
    if not by_name:
        return NOT_FOUND
    spans = tag_spans(visible, "answer")
    for span, source in ((spans[-1].strip() if spans else None, "answer_tag"), (last_boxed(visible), "boxed")):
        if span:
            found = _label_in(last_boxed(span) or span, by_name)
            return Extraction(found[0], source) if found else NOT_FOUND
    found = _label_in(visible, by_name)
    return Extraction(*found) if found else NOT_FOUND


def _label_in(text: str, by_name: dict[str, str]) -> tuple[str, str] | None:
    """Return the label a text states and how: (label, source)."""
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s?\{([^{}]*)\}", r"\1", text)
    names = "|".join(re.escape(name) for name in sorted(by_name, key=len, reverse=True))
    bracketed = rf"[(\[]\s?(?P<in>{names})\s?[)\]]"
    after = re.compile(
        rf"\banswer\b[*_]{{0,3}}\s{{0,3}}(?:is|[:=])[*_:\s]{{0,9}}(?:(?:option|choice)\s)?[*_]{{0,3}}"
        rf"(?:{bracketed}|(?P<bare>{names})(?!['\w])(?P<end>\s*(?:$|[.,;:)*_\n]))?)",
        re.IGNORECASE,
    )
    for match in reversed(list(after.finditer(text))):
        name = match["in"] or match["bare"]
        label = by_name.get(name.casefold())
        # A bare lower-case "a" before another word is the article.
        if label and (match["in"] or match["end"] is not None or name == label):
            return label, "phrase"
    inside = [by_name.get(name.casefold()) for name in re.findall(bracketed, text, re.IGNORECASE)]
    if inside and inside[-1]:
        return inside[-1], "bracketed"
    lines = [line.strip(" \t*_`") for line in text.splitlines() if line.strip(" \t*_`")]
    end = r"[.):]?" if len(lines) > 1 else r"(?:[.):].*)?"
    alone = re.fullmatch(rf"(?P<name>{names}){end}", lines[-1], re.IGNORECASE) if lines else None
    label = by_name.get(alone["name"].casefold()) if alone else None
    return (label, "lone_letter") if label else None


def extract_question(text: str) -> str | None:
    """Return the last `<question>..</question>` span outside reasoning, stripped; None if empty.

    Source: MAE, arXiv:2510.23595, released code: the last span counts.
    """
    spans = tag_spans(split_reasoning(text).visible, "question")
    return (spans[-1].strip() or None) if spans else None


def count_tag_pairs(text: str, tag: str) -> int:
    """Count the closing tags that have an opening one before them; nested pairs count too."""
    pairs = depth = 0
    for match in _tag_pattern((tag,)).finditer(text):
        pairs += bool(match["slash"]) and depth > 0
        depth = max(0, depth - 1) if match["slash"] else depth + 1
    return pairs


def format_reward(
    text: str,
    tag: str,
    *,
    variant: Literal["paper", "code"],
    role: Literal["proposer", "solver", "judge"],
) -> float:
    """Reward a response for its tag format: 0.0, 0.5 or 1.0.

    paper: 1.0 for exactly one pair, 0.5 for more, else 0.0, for every role; a stray tag beside a pair does not matter.
    code: solver and judge 1.0 for exactly one pair, 0.5 for more, else 0.0; proposer 1.0 for one to three pairs, 0.5
    for more, else 0.0; a stray tag gives 0.0.

    Empty text gives 0.0 in both: a policy's own malformed output is a measured fact. The released code pays 0.5 there.
    It also counts prompt and response together (two pairs come from the prompt of proposer and judge); here only the
    response is passed, so its constants are shifted by two.

    Args:
        text: the response alone, as the role wrote it.
        tag: `question`, `answer` or `score`.
        variant: which of the two published rules.
        role: who wrote the text; only the code rule depends on it.

    Source: MAE, arXiv:2510.23595, format reward, and its released code.
    """
    pairs = count_tag_pairs(text, tag)
    has_stray_tag = len(_tag_pattern((tag,)).findall(text)) != 2 * pairs
    if pairs == 0 or (variant == "code" and has_stray_tag):
        return 0.0
    full_up_to = 3 if variant == "code" and role == "proposer" else 1
    return 1.0 if pairs <= full_up_to else 0.5
