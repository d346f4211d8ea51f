"""The letter of a multiple-choice answer, read out of a text.

Place in the flow: `answers.stated` calls it for problems that have `choices`. Contract: a pure function over text that
never raises; a letter that could be an ordinary word is not taken, and a text that names several choices, or takes one
back, has none. The order of the readings is in `README.md` beside this file. Left out: whether the choice is right
(verifier `choice`).
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from mae_cli.answers.choice_marks import END, Mark, Marks, marks_of
from mae_cli.answers.choice_statements import Statement, denied_marks, is_denied, names_others, statements
from mae_cli.answers.denials import sentence_before
from mae_cli.answers.extract import NOT_FOUND, Extraction, last_box, stated_boxes
from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.run_on import parts_to_read
from mae_cli.answers.tags import fold_text, tag_spans

_CONCLUDES: Final = re.compile(
    r"(?:\b(?:so|thus|therefore|hence|leaves|leaving|must\sbe|only)\b|\u2192|=>)[^.!?\n]{0,40}$", re.IGNORECASE
)
_SOURCES: Final = {"bracketed": "bracketed", "bare": "lone_letter", "text": "choice_text"}
_BULLET: Final = re.compile(r"^[\s#>\u2022\u2192\u21d2\u27a1\u2713\u2714\u2705\U0001f449\ufe0f]+|^-\s+")
_NUMBERED: Final = re.compile(r"^(?:Q(?:uestion)?\s?)?\d{1,3}\s?[.):]\s+", re.IGNORECASE)
_OTHER_TAGS: Final = ("final_answer", "choice", "option", "letter")
_RESTATED: Final = re.compile(r"\b(?:is|are|was|were|be|called|named|by)\s(?:the\s|an?\s)?$", re.IGNORECASE)


_CROSSED: Final = re.compile("[\u274c\u2717\u2718]")
_OF_OPTIONS: Final = re.compile(
    r"\b(?:options?|choices?|one\sof|another|an?\s(?:\w+\s)?(?:example|possib\w+)|first|second|third|last|some|nobody|suppose|assum\w+|unless|might|may|could|not|n't|if"
    r"|whether|who|what|which|where|when)\b|\?",
    re.IGNORECASE,
)


class _Found(NamedTuple):
    """A reading: its label, or null where the text names several; and which reading it was."""

    label: str | None
    source: str


def extract_choice(text: str, labels: Sequence[str], texts: Sequence[str] = ()) -> Extraction:
    """Extract the label of a choice, spelled as in `labels`.

    Order: inside the last answer tag (a tag without a choice ends the search), then the last of box and stated answer
    ("the answer is B", "I choose B", "wait, it's C"), then weaker statements where they agree ("B is correct"), the
    last or first line where it is a choice alone, the only label in brackets that is not called wrong. What stands
    behind an invented next question counts only where nothing was stated before it.

    Args:
        text: a completion.
        labels: A, B, C ..
        texts: of the choices, in the same order; with them "London" is read as its letter.
    """
    if not any(labels):
        return NOT_FOUND
    marks = marks_of(tuple(labels), tuple(texts))
    visible = split_named_reasoning(text).visible
    for part in parts_to_read(visible):
        found = _read_part(part, marks)
        if found is not None:
            return Extraction(found.label, found.source) if found.label else NOT_FOUND
    return NOT_FOUND


def _read_part(text: str, marks: Marks) -> _Found | None:
    spans = [span for span in tag_spans(fold_text(text), "answer") if span.strip()]
    if spans:
        box = last_box(spans[-1])
        span = box.content if box else spans[-1]
        found = _read_text(marks.canonical(span), marks)
        return _Found(found.label if found else None, "answer_tag")
    boxes = stated_boxes(text)
    others = [span for name in _OTHER_TAGS for span in tag_spans(fold_text(text), name)] if not boxes else []
    told = [found for span in others if (found := _read_text(marks.canonical(span), marks))]
    if told:
        return _Found(told[-1].label if len({found.label for found in told}) == 1 else None, "phrase")
    if not boxes:
        return _read_text(marks.canonical(text), marks)
    if len(boxes) > 1:
        labels = {found.label if (found := _read_text(marks.canonical(one.content), marks)) else None for one in boxes}
        return _Found(labels.pop() if len(labels) == 1 else None, "boxed")
    box = boxes[0]
    behind = _last_strong(marks.canonical(text[box.end :]), marks)
    inside = _read_text(marks.canonical(box.content), marks)
    if behind is not None and (inside is None or behind.label is not None):
        return _Found(behind.label, "phrase")
    if inside is not None:
        return _Found(inside.label, "boxed")
    # The box holds a formula or a value: only what is said of the answer itself counts beside it.
    before = _last_strong(marks.canonical(text[: box.start]), marks)
    return _Found(before.label if before else None, "phrase")


def _last_strong(text: str, marks: Marks) -> Statement | None:
    strong = [statement for statement in statements(text, marks) if statement.is_strong]
    return strong[-1] if strong else None


def _read_text(text: str, marks: Marks) -> _Found | None:
    """Read a text without tags and boxes; null where it states nothing."""
    whole = _whole_text(text, marks)
    if whole is not None:
        return whole
    said = statements(text, marks)
    strong = [statement for statement in said if statement.is_strong]
    if strong:
        return _Found(strong[-1].label, strong[-1].source)
    if said:
        agree = len({statement.label for statement in said}) == 1
        return _Found(said[-1].label if agree else None, said[-1].source)
    return (
        _of_lines(text, marks)
        or _of_brackets(text, marks)
        or _last_sentence(text, marks)
        or _restated_question(text, marks)
    )


def _whole_text(text: str, marks: Marks) -> _Found | None:
    """The text of a choice and nothing else, which may itself hold letters ("Both A and B")."""
    bare = text.strip().strip("\"'().").strip()
    mark = marks.text_at(bare, 0) if marks.has_texts else None
    if mark and not bare[mark.end :].strip(" .!\n"):
        return _Found(mark.label, "choice_text")
    return None


def _of_lines(text: str, marks: Marks) -> _Found | None:
    """The last line, or else the first one, where it is a choice and little else."""
    lines = [line for raw in text.splitlines() if (line := _BULLET.sub("", raw).strip())]
    if not lines or _CROSSED.search(text):
        return None
    lines = [_NUMBERED.sub("", lines[0])] if len(lines) == 1 else lines
    leads = [_leading(line, marks) for line in lines]
    listed = {mark.label for mark in leads if mark}
    last = _alone(lines[-1], marks)
    if last and (len(lines) == 1 or not (leads[-2] and leads[-2].label != last.label)):
        return _Found(last.label, _SOURCES[last.kind])
    first = _alone(lines[0], marks)
    if first and (len(lines) == 1 or not (leads[1] and leads[1].label != first.label)):
        return _Found(first.label, _SOURCES[first.kind])
    lead = leads[0]
    if lead is None:
        return _first_words(lines[0], marks)
    enumerated = {
        mark.label for mark in marks.all_named(text) if _is_item(text, mark) or _has_own_text(text, mark, marks)
    }
    if len(listed | enumerated) > 1 or names_others(lines[0], lead, marks):
        return None
    return _Found(lead.label, _SOURCES[lead.kind])


def _last_sentence(text: str, marks: Marks) -> _Found | None:
    """A letter that is the last sentence by itself, where the text names no other one: "4 and 6 are composite. D"."""
    *before, last = re.split(r"(?<=[.!?])\s+", text.strip())
    mark = marks.label_at(last, 0)
    if not before or mark is None or last[mark.end :].strip(" .)!") or len(before[-1].split()) < 3:
        return None
    return None if names_others(text, mark, marks) else _Found(mark.label, "lone_letter")


def _restated_question(text: str, marks: Marks) -> _Found | None:
    """The only choice that a text names, where its last sentence ends with it: "The capital of the UK is London."."""
    named = marks.all_texts(text)
    last = named[-1] if named else None
    if (
        last is None
        or len({mark.label for mark in named}) > 1
        or marks.all_named(text)
        or text[last.end :].strip(" .!\n")
    ):
        return None
    before = sentence_before(text, last.start)
    is_said = _RESTATED.search(before) and not _OF_OPTIONS.search(before) and not is_denied(text, last)
    return _Found(last.label, "choice_text") if is_said else None


def _alone(line: str, marks: Marks) -> Mark | None:
    """The choice that a line names without another word: "B", "(b).", "B. London", "London"."""
    line = re.sub(r"^(?:A:\s*(?=\S{1,4}$)|(?:Assistant|AI|Bot|Response|Output)\s?:\s*)", "", line)  # "Q: .. A: .."
    mark = marks.label_at(line, 0, lower=True)
    if mark and not line[mark.end :].strip(" .):,!"):
        return mark
    if not marks.has_texts:
        return None
    if mark := mark or _leading(line, marks) or marks.named_at(line, 0):
        rest = re.compile(r"\s*[.):,(\u3001\u2013\u2014-]?\s*").match(line, mark.end)
        named = marks.text_at(line, rest.end()) if rest else None
        is_whole = named and named.label == mark.label and not line[named.end :].strip(" .!)")
        return mark if is_whole else None
    named = marks.text_at(line.strip("\"'"), 0)
    return named if named and not line.strip("\"'")[named.end :].strip(" .!") else None


def _leading(line: str, marks: Marks) -> Mark | None:
    """The label that a line begins with, with a sign behind it: "B. ..", "(B) ..", "B: .."."""
    mark = marks.named_at(line, 0) or marks.label_at(line, 0, lower=True)
    if mark is None:
        return None
    behind = line[mark.end :]
    other = marks.label_at(line, mark.end + 2)
    if other and other.label != mark.label and not line[other.end :].strip(" .)"):
        return None  # "A. C"
    own_text = marks.text_at(line, mark.end + 1) if marks.has_texts and behind.startswith(" ") else None
    is_marked = mark.kind == "bracketed" or re.match(r"\s*(?:[.):\u3001]|$)", behind)
    return mark if is_marked or (own_text and own_text.label == mark.label) else None


def _is_item(text: str, mark: Mark) -> bool:
    """Whether a label numbers what stands behind it ("A) Paris is wrong. B) London ..")."""
    before = text[max(0, mark.start - 3) : mark.start].rstrip()
    return bool(re.match(r"\)|\.\s|:\s", text[mark.end : mark.end + 2])) or (
        mark.kind == "bracketed" and before[-1:] in ("", ".", "!", "?", ";", ")")
    )


def _has_own_text(text: str, mark: Mark, marks: Marks) -> bool:
    """Whether a label has its text behind it, as in a list of the choices."""
    own = marks.text_at(text, mark.end + 1) if marks.has_texts else None
    return own is not None and own.label == mark.label


def _first_words(line: str, marks: Marks) -> _Found | None:
    """The text of a choice that a line begins with, where its sentence names no other: "No, it does not."."""
    mark = marks.text_at(line, 0) if marks.has_texts else None
    if mark is None or not re.compile(END).match(line, mark.end):
        return None
    sentence = re.split(r"[.!?](?:\s|$)", line[mark.end :])[0]
    others = [marks.text_at(sentence, found.start()) for found in re.finditer(r"(?<!\w)\w", sentence)]
    others += [other for other in marks.all_named(sentence) if marks.label_at(sentence, other.start)]
    return None if any(other and other.label != mark.label for other in others) else _Found(mark.label, "choice_text")


def _of_brackets(text: str, marks: Marks) -> _Found | None:
    """The only label in brackets that the text does not call wrong; of several the last, where it is a conclusion."""
    named = marks.all_named(text)
    wrong = {mark.label for mark in denied_marks(text, named)}
    left = [mark for mark in named if mark.kind == "bracketed" and mark.label not in wrong]
    if not left:
        return None
    last = left[-1]
    if len({mark.label for mark in left}) == 1 or _CONCLUDES.search(text[max(0, last.start - 80) : last.start]):
        return None if names_others(text, last, marks) else _Found(last.label, "bracketed")
    return _Found(None, "bracketed")
