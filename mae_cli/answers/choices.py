"""The letter of a multiple-choice answer, read out of a text.

Place in the flow: `answers.stated` calls it for problems that have `choices`. Contract: a pure function over text that
never raises; a letter that could be an ordinary word is not taken. Left out: whether the choice is right (verifier
`choice`).
"""

import re
from collections.abc import Sequence

from mae_cli.answers.extract import NOT_FOUND, Extraction, last_boxed
from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.tags import tag_spans


def extract_choice(text: str, labels: Sequence[str]) -> Extraction:
    """Extract the label of a choice, spelled as in `labels`.

    Order: inside the last answer tag, inside the last box (a span without a readable label ends the search: its text
    may be the text of a choice), "answer is (B)" (`phrase`), the last label in brackets (`bracketed`), a label alone on
    the last line or a text of one line that begins with one, "B. Paris" (`lone_letter`). Brackets make lower case
    readable; the article "a" is never a label.
    """
    visible = split_named_reasoning(text).visible
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
