"""Places where a text states which choice it takes: "the answer is B", "B is correct", "I choose B", "wait, it's C".

Place in the flow: `answers.choices` takes the last strong statement, or the only weak one. Contract: pure functions
over text made plain by `Marks.canonical`; a denial, a question, a condition or what others might say is no statement,
and "A or B" states nothing. Left out: letters that stand alone on their line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from mae_cli.answers.answer_words import Opening, all_words, answer_openings, any_step, one_of, right_option
from mae_cli.answers.choice_marks import END, Mark, Marks
from mae_cli.answers.denials import is_not_meant, sentence_before

_MOST_STEPS: Final = 16
"""Blanks, signs and words between an answer word and the answer."""


class Statement(NamedTuple):
    """What a text states at a place: a label, or null where it names several or takes the label back."""

    label: str | None
    start: int
    is_strong: bool
    """Said of the answer itself, or as a correction; the others count only where they agree."""
    mark: Mark
    source: str
    """`phrase`, or `bracketed` where only the brackets tell that a letter is meant."""


_CONDITION: Final = re.compile(r"\b(?:if|had|were)\b", re.IGNORECASE)
_DENIED_AFTER: Final = re.compile(
    r"\s*(?:\?|(?:is|are|was|were|seems?|looks?|can|would|could|does|do|has|fits?)(?:n't|\s(?:\w+\s){0,2}(?:not|wrong|incorrect|false|too"
    r"|impossible|unlikely|out|eliminated|excluded|less|worse|close|possible|no)\b)|cannot\b|can't\b|doesn't\b"
    r"|(?:ist|est|es|\u00e8|\u00e9)\s(?:falsch|nicht|fauss?e?|incorrect[aeo]?|falsa?|sbagliat[ao]|errad[ao])|\u4e0d|\u9519|\u932f|\u306f\u9593\u9055|[\uc774\uac00]?\s?\uc544\ub2c8)",
    re.IGNORECASE,
)
_ITSELF: Final = re.compile(
    r"\b(?P<verb>(?:it|that|this)(?:'s|\s(?:is|must\sbe|has\sto\sbe|should\sbe|would\sbe))|(?<!first\s)(?<!second\s)(?<!third\s)(?<!other\s)(?<!last\s)(?:statement|claim|assertion|sentence|proposition)\sis)(?=\s)"
    r"|\b(?:(?:that|this|which)\sleaves|leaving)(?:\sus)?(?:\swith)?(?:\sonly)?(?=\s)|\b(?:must|has\sto)\sbe(?=\s)"
    r"|\b(?:so(?!\s(?:is|are|was)\b)|thus|therefore|hence|consequently)\b|[\u2234\u21d2]|=>|\b(?:richtig|korrekt|correct)\s?(?:ist|w\u00e4re|:)",
    re.IGNORECASE,
)
_CORRECTED: Final = re.compile(
    r"\b(?:wait|actually|no|sorry|correction|hmm+|oops|scratch\sthat|on\ssecond\sthoughts?|on\sreflection|make\sthat|i\smean|i\smeant)\b",
    re.IGNORECASE,
)
_CORRECTED_STEP: Final = re.compile(
    r"(?P<link>[,.:;!\u2013\u2014-]|\u2026)|\s|\b(?:wait|actually|no|sorry|correction|it's|it|that's|that|is|should|must|be|have|been|i|mean|meant"
    r"|the|my|answer|option|choice|correct|right|rather|to|say)\b(?!')",
    re.IGNORECASE,
)
_LISTED: Final = (
    r"\s*(?:,|/|&|\+|;|\u3001|(?:and/or|or|and|oder|und|ou|et|o|y|e|u|\u0438|\u0438\u043b\u0438|veya|ya\sda|ve|atau|dan|ho\u1eb7c|v\u00e0|au|na|t\u00e0b\u00ed|lub|i|nebo|of|en)(?![^\W_])"
    r"|\u548c|\u6216\u8005|\u6216|\u53ca|\u4e0e|\u8207|\u3068|\u307e\u305f\u306f|\u304b|\uc640|\uacfc|\ubc0f|\ub610\ub294|\u0623\u0648|\u0648|\u092f\u093e|\u0914\u0930|\u09ac\u09be|\u098f\u09ac\u0982)\s*(?:,\s*)?(?:(?:and|or|both|also|option|choice|the)\s)?\s*"
)


@cache
def _chosen() -> re.Pattern[str]:
    """The verbs of choosing: "I choose" and what it is in other languages."""
    english = one_of(
        [word for word in all_words("choose") if word.isascii() and not word.startswith(("ich", "je", "ik"))]
    )
    others = one_of(
        [word for word in all_words("choose") if not word.isascii() or word.startswith(("ich", "je", "ik"))]
    )
    who = r"(?:^|(?<![^\W_])(?:i|we)(?:'ll|'d|'m|\s(?:will|would|should|must|am|have\sto|therefore|would\s\w+))?\s)"
    return re.compile(rf"{who}(?:{english})|(?:{others})", re.IGNORECASE | re.MULTILINE)


@cache
def _right_behind() -> re.Pattern[str]:
    """What calls the letter before it right: "is (clearly) the correct one"."""
    verbs = (
        r"(?:is|was|(?:seems\sto|appears\sto|must|should|would|has\sto)\sbe|ist|est|es|\u00e8|\u00e9|adalah|jest|je)"
    )
    adverbs = r"(?:clearly|indeed|therefore|thus|definitely|probably|likely|actually|the|la|die|option|choice|answer)"
    right = one_of(all_words("right"))
    return re.compile(
        rf"\s*(?:{verbs}\s)?\s*(?:{adverbs}\s){{0,3}}(?:{right})(?!\s(?:of|next|after|before|that|about|when|if|only)\b)",
        re.IGNORECASE,
    )


def statements(text: str, marks: Marks) -> list[Statement]:
    """All statements, in the order of the text."""
    found = [*_of_answers(text, marks), *_of_choosing(text, marks), *_of_itself(text, marks)]
    found += [*_of_corrections(text, marks), *_of_rightness(text, marks)]
    return sorted(found, key=lambda statement: (statement.start, statement.is_strong))


def denied_marks(text: str, marks: list[Mark]) -> list[Mark]:
    """The marks that the text calls wrong, asks about, or names to leave them out."""
    return [mark for mark in marks if is_denied(text, mark)]


def is_denied(text: str, mark: Mark) -> bool:
    """Whether a sentence names a choice without taking it."""
    return bool(_DENIED_AFTER.match(text, mark.end) or is_not_meant(sentence_before(text, mark.start)))


def _of_answers(text: str, marks: Marks) -> Iterator[Statement]:
    openings = list(answer_openings(text))
    openings += [Opening(found.start(), found.end(), any_step()) for found in right_option().finditer(text)]
    for opening in openings:
        mark, has_link, between = _walk(text, opening, marks)
        if mark is None:
            continue
        line = text[text.rfind("\n", 0, opening.start) + 1 : opening.start]
        is_heading = "\n" in between and not line.strip("# ")
        if is_heading and _begins_list(text, mark, marks):
            continue
        if not (has_link or is_heading) and _is_remark(text, mark, marks):
            continue
        is_said = not is_not_meant(sentence_before(text, opening.start))
        if re.search(r"\b(?:would|w\u00e4re|serait|ser\u00eda)\b", between) and _CONDITION.search(
            sentence_before(text, opening.start)
        ):
            is_said = False
        if is_said and not _DENIED_AFTER.match(text, mark.end):
            said = _statement(text, mark, marks, is_strong=has_link or is_heading, start=opening.start)
            yield said._replace(source="phrase")


def _begins_list(text: str, mark: Mark, marks: Marks) -> bool:
    """Whether the next line begins with the next label, so that the choices are only told once more."""
    following = marks.labels[marks.labels.index(mark.label) + 1 :]
    place = re.compile(r"[^\n]*\n\s*").match(text, mark.end)
    found = marks.named_at(text, place.end()) if place else None
    return found is not None and mark.label == marks.labels[0] and found.label in following[:1]


def _is_remark(text: str, mark: Mark, marks: Marks) -> bool:
    """Whether "option A" without a verb begins a remark on that option ("Option A: ..", but not "Option A: Paris")."""
    sign = re.compile(r"\s*[:\u2013\u2014-]\s*").match(text, mark.end)
    named = marks.text_at(text, sign.end()) if sign and marks.has_texts else None
    return sign is not None and (named is None or named.label != mark.label)


def _walk(text: str, opening: Opening, marks: Marks, *, has_link: bool = False) -> tuple[Mark | None, bool, str]:
    """The mark behind an opening, whether a verb or sign gives it, and the text between."""
    place = opening.end
    for _ in range(_MOST_STEPS):
        mark = marks.text_at(text, place) if has_link and marks.has_texts else None
        mark = mark or marks.label_at(text, place, lower=has_link)
        if mark is not None:
            return mark, has_link, text[opening.end : place]
        step = opening.step.match(text, place)
        if step is None or step.end() == place:
            break
        place, has_link = step.end(), has_link or step["link"] is not None
    return None, has_link, ""


def _of_choosing(text: str, marks: Marks) -> Iterator[Statement]:
    for found in _chosen().finditer(text):
        mark, _, _ = _walk(text, Opening(found.start(), found.end(), any_step()), marks, has_link=True)
        if mark and mark.kind == "bare" and text[mark.start].islower():
            continue  # "I choose a .."
        if mark and not is_denied(text, mark._replace(start=found.start())):
            yield _statement(text, mark, marks, is_strong=True, start=found.start())


def _of_itself(text: str, marks: Marks) -> Iterator[Statement]:
    for found in _ITSELF.finditer(text):
        is_verb = found["verb"] is not None
        mark, _, _ = _walk(text, Opening(found.start(), found.end(), _ITSELF_STEP), marks, has_link=is_verb)
        if mark and is_verb and not _is_whole(text, mark):
            continue
        if mark and not is_denied(text, mark._replace(start=found.start())) and not names_others(text, mark, marks):
            yield _statement(text, mark, marks, is_strong=False, start=found.start())


def _is_whole(text: str, mark: Mark) -> bool:
    """Whether a capital letter stands behind "it is", or the words of a choice; a number may be any other number."""
    if mark.kind == "text":
        return (
            not text[mark.start : mark.end].strip("-.,/ ").isdigit()
            and re.compile(END).match(text, mark.end) is not None
        )
    return mark.kind == "bracketed" or text[mark.start].isupper() or not text[mark.start].isascii()


_ITSELF_STEP: Final = re.compile(
    r"[\s,:]|\b(?:it's|it|is|must|be|the|option|choice|answer|letter|correct|right|clearly|indeed|we|get|have|leaves|only)\b(?P<link>)?(?!')",
    re.IGNORECASE,
)


def _of_corrections(text: str, marks: Marks) -> Iterator[Statement]:
    for found in _CORRECTED.finditer(text):
        mark, has_link, _ = _walk(text, Opening(found.start(), found.end(), _CORRECTED_STEP), marks)
        if mark is None or not has_link or mark.kind == "text" or _DENIED_AFTER.match(text, mark.end):
            continue
        if re.compile(END).match(text, mark.end):
            yield _statement(text, mark, marks, is_strong=True, start=found.start())


def _of_rightness(text: str, marks: Marks) -> Iterator[Statement]:
    """Letters and texts that are called right: "B is correct", "that makes D the correct answer"."""
    for mark in marks.all_named(text):
        before = sentence_before(text, mark.start)
        if is_not_meant(before) or _OTHER_THING.search(before):
            continue
        if (right := _right_behind().match(text, mark.end)) and text[right.end() : right.end() + 1] != "?":
            if re.search(rf"(?:\((?:{marks.names})\)|\b(?:{marks.names})){_LISTED}$", before):
                yield Statement(None, mark.start, False, mark, "phrase")
            else:
                yield Statement(mark.label, mark.start, False, mark, _source(mark))
        elif before.strip(" #>*-"):
            continue
        elif _TICKED.match(text, mark.end):
            yield Statement(mark.label, mark.start, False, mark, _source(mark))
        elif _CALLED_RIGHT.match(text, mark.end):
            own = marks.text_at(text, mark.end + 2) if marks.has_texts else None
            if own is None:
                yield Statement(mark.label, mark.start, False, mark, _source(mark))
    for mark in marks.all_texts(text):
        if _RIGHT_TEXT.match(text, mark.end) and not sentence_before(text, mark.start).strip(" \"'"):
            yield Statement(mark.label, mark.start, False, mark, "choice_text")


# In a list of all choices: "A: incorrect", "B) Correct. London ..".
_CALLED_RIGHT: Final = re.compile(
    r"\s?[.):\u2013-]{0,2}\s?(?:(?:this|it)\sis\s)?(?:correct|right|true|\u2713|\u2714|\u2705)(?=\s*(?:$|\n|[.!,;:(\u2013-]))",
    re.IGNORECASE,
)
_TICKED: Final = re.compile(
    r"[^\n\u274c\u2717\u2718]{0,200}(?:[\u2713\u2714\u2705]\ufe0f?|\((?:correct|right)\))[ \t]*(?:$|\n)", re.IGNORECASE
)
_RIGHT_TEXT: Final = re.compile(
    r"\s(?:is|was|would\sbe)\s(?:\w+\s)?the\s(?:correct|right|best)\s(?:answer|option|choice)\b", re.IGNORECASE
)
_OTHER_THING: Final = re.compile(
    r"\b(?:statements?|claim|assertion|premise|figure|graph|group|type|vitamin|point|plan|person|line|case|part|step|class)\s$",
    re.IGNORECASE,
)


def _statement(text: str, mark: Mark, marks: Marks, *, is_strong: bool, start: int) -> Statement:
    """The statement of a mark, or of none where others are listed with it or its text is another choice's."""
    label = None if names_others(text, mark, marks) else mark.label
    return Statement(label, start, is_strong, mark, _source(mark))


def _source(mark: Mark) -> str:
    return "bracketed" if mark.kind == "bracketed" else "phrase"


def names_others(text: str, mark: Mark, marks: Marks) -> bool:
    """Whether another choice is listed behind a mark ("A or B", "A, C"), or named as the same ("London (C)")."""
    beside = re.compile(r"\s*[,:(\u2013\u2014-]?\s*").match(text, mark.end)
    own = marks.text_at(text, beside.end()) if beside and marks.has_texts and mark.kind != "text" else None
    if own and own.label == mark.label:
        return False
    listed = re.compile(_LISTED, re.IGNORECASE).match(text, mark.end)
    if listed:
        other = (
            marks.label_at(text, listed.end()) or _roman(text, listed.end()) or _listed_text(text, listed.end(), marks)
        )
        is_wrong = other and _DENIED_AFTER.match(text, other.end) and text[other.end : other.end + 1] != "?"
        if other and other.label != mark.label and not is_wrong:
            return True
    if mark.kind == "text":
        beside = re.compile(r"\s*(?=\()").match(text, mark.end)
        other = marks.label_at(text, beside.end()) if beside else None
    else:
        beside = re.compile(r"[ \t]*[.):,-]?[ \t]*").match(text, mark.end)
        other = marks.text_at(text, beside.end()) if beside and marks.has_texts else None
        if other and not re.compile(r"\s*(?:$|\n|\.(?:\s|$))").match(text, other.end):
            other = None
    return other is not None and other.label != mark.label


def _listed_text(text: str, place: int, marks: Marks) -> Mark | None:
    """The text of a choice at a place in a list, with the next one or an end behind it."""
    named = marks.text_at(text, place) if marks.has_texts else None
    ends = rf"{END}|{_LISTED}"
    return named if named and re.compile(ends, re.IGNORECASE).match(text, named.end) else None


def _roman(text: str, place: int) -> Mark | None:
    found = re.compile(r"[IVX]{1,4}(?![^\W_])").match(text, place)
    is_pronoun = found and found[0] == "I" and re.compile(r"'|\s(?!(?:and|or)\b)[a-z]").match(text, found.end())
    return Mark(found[0], place, found.end(), "roman") if found and not is_pronoun else None
