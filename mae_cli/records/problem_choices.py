"""The choices of a problem row, and which of them is right, as a letter by place.

Place in the flow: `records.problems` calls it for every row with choices. Contract: lists, labelled choices and choices
in columns give one list of texts; a right choice that the set tells apart from the wrong ones gets a place drawn from
the question. What a number counts from shows only in the whole file, so numbers are settled at its end (`Places`).
"""

from __future__ import annotations

import ast
import random
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import msgspec

from mae_cli.errors import DataError
from mae_cli.records.ids import seed_from
from mae_cli.records.problem_columns import (
    CHOICE_COLUMNS,
    CHOICE_KEYS,
    SCORED_CHOICES,
    WRONG_CHOICE_COLUMNS,
    ChoiceColumns,
    Columns,
    is_blank,
)
from mae_cli.records.row import Problem

_LETTER = re.compile(r"[(\[]?\s?([A-Za-z])\s?[)\]]?[.:]?")
_INLINE = re.compile(r"\s*,\s*([a-j])\s?\)\s*")
_OWN_LETTER = re.compile(r"\s*[(\[]?([A-Z])[)\].:]\s*(\S.*)", re.DOTALL)


_NUMPY = re.compile(r"\[\s*(?:'[^'\n]*'|\"[^\"\n]*\")(?:\s+(?:'[^'\n]*'|\"[^\"\n]*\"))+\s*\]")
_QUOTED = re.compile(r"'([^'\n]*)'|\"([^\"\n]*)\"")
_OWN_NUMBER = re.compile(r"\s*[(\[]?([1-9])[)\].]\s*(\S.*)", re.DOTALL)
_RIGHT = ("is_correct", "isCorrect", "correct")


class Choices(msgspec.Struct):
    """Choices of one row."""

    texts: list[str] = []
    right: str | None = None
    """Letter of the right one, where the columns themselves say it."""
    columns: ChoiceColumns | None = None
    """Where they stood, if in columns."""


def take_choices(columns: Columns, question: str, where: str) -> Choices:
    """Take the choices out of a row; none where it has none. Labels of their own stay in `choice_labels`.

    Raises:
        DataError: a column of choices holds something else.
    """
    name = columns.first(CHOICE_KEYS)
    if name is not None:
        raw = columns.left.pop(name)
        return Choices(_listed(columns, raw, where), right=_marked(raw))
    for empty in CHOICE_KEYS:
        # A set may fill this column with null where another item has choices.
        if columns.left.get(empty, 0) in (None, []):
            columns.left.pop(empty)
    scored = _scored(columns, question)
    if scored is not None:
        return scored
    if isinstance(columns.get("answers"), list) and len(columns.get("answers")) > 1 and _is_placed(columns):
        return Choices(_listed(columns, columns.take("answers"), where))  # ReClor, QuAIL
    wrong_ones = columns.get("incorrect_answers")
    if isinstance(wrong_ones, list) and columns.own_name("correct_answer"):  # Open Trivia
        right = str(columns.take("correct_answer"))
        columns.take("incorrect_answers")
        return _shuffled([right, *map(str, wrong_ones)], right, question)
    for wrong in WRONG_CHOICE_COLUMNS:
        if columns.own_name("correct_answer") and columns.own_name(wrong[0]):
            right = str(columns.take("correct_answer"))
            others = [str(columns.take(name)) for name in wrong if columns.own_name(name)]
            return _shuffled([right, *others], right, question)
    for layout in CHOICE_COLUMNS:
        if all(columns.own_name(name, exact=layout.exact) for name in layout.columns[:2]):
            names = [found for name in layout.columns if (found := columns.own_name(name, exact=layout.exact))]
            return Choices([str(columns.left.pop(name)) for name in names], columns=layout)
    return Choices()


def _marked(raw: Any) -> str | None:
    """The letter of the one choice that is an object which says that it is right; null otherwise."""
    if not isinstance(raw, list) or not all(isinstance(one, dict) for one in raw):
        return None
    right = [any(one.get(key) is True for key in _RIGHT) for one in raw]
    return letter(right.index(True)) if right.count(True) == 1 else None


def _is_placed(columns: Columns) -> bool:
    """Whether another column says by number which of several answers is right."""
    places = (columns.get("label"), columns.get("correct_answer_id"))
    return any(isinstance(one, int) or (isinstance(one, str) and one.isdecimal()) for one in places)


def _scored(columns: Columns, question: str) -> Choices | None:
    """Choices whose columns say of each whether it is right (BIG-bench, TruthfulQA)."""
    texts, scores = columns.get("multiple_choice_targets"), columns.get("multiple_choice_scores")
    if isinstance(texts, list) and isinstance(scores, list) and texts and len(texts) == len(scores):
        for name in ("multiple_choice_targets", "multiple_choice_scores", "targets"):
            columns.take(name)
        return Choices(texts, right=letter(scores.index(1)) if scores.count(1) == 1 else None)
    scored = next((key for key in SCORED_CHOICES if isinstance(columns.get(key), dict)), None)
    if scored is None:
        return None
    targets = columns.get(scored)
    if isinstance(targets.get("choices"), list):
        texts, scores = targets["choices"], list(targets.get("labels") or [])
    else:
        texts, scores = list(targets), list(targets.values())
    if not texts or not all(isinstance(text, str) for text in texts):
        return None
    columns.take(scored)
    right = texts[scores.index(1)] if scores.count(1) == 1 else None
    return _shuffled(texts, right, question)


def _listed(columns: Columns, raw: Any, where: str) -> list[str]:
    if isinstance(raw, str):
        raw = _from_text(raw)
    labels: list[Any] | None = None
    if isinstance(raw, list) and raw and all(isinstance(one, dict) and "text" in one for one in raw):
        raw = {"text": [one["text"] for one in raw], "label": [one.get("label") for one in raw]}
    if isinstance(raw, dict) and isinstance(raw.get("text"), list):
        labels, raw = raw.get("label"), raw["text"]
    elif isinstance(raw, dict):
        filled = {name: text for name, text in raw.items() if text is not None}
        labels, raw = list(filled), list(filled.values())
    while isinstance(raw, list) and raw and raw[-1] is None:
        raw = raw[:-1]
    if isinstance(raw, list):
        raw = [str(one) if isinstance(one, (int, float)) and not isinstance(one, bool) else one for one in raw]
    if not isinstance(raw, list) or not all(isinstance(choice, str) for choice in raw):
        found = f"a value of type {type(raw).__name__}" if not isinstance(raw, list) else "a list with other things"
        found = f"the text {raw[:40]!r}" if isinstance(raw, str) else found
        raise DataError(f'{where}: field "choices": expected a list of texts, found {found}; write a JSON list')
    if labels is not None:
        labels, raw = _in_order(labels, raw)
        columns.left["choice_labels"] = labels
    numbered = [_OWN_NUMBER.fullmatch(text) for text in raw]
    if len(raw) > 2 and all(match and match[1] == str(place) for place, match in enumerate(numbered, 1)):
        columns.left["choice_labels"] = [match[1] for match in numbered if match]
        return [match[2] for match in numbered if match]
    return _without_letters(raw)


def _from_text(text: str) -> Any:
    """A list that a file or a set (MathQA: `a ) 24 , b ) 120`) has made a text of; any other text as it stands."""
    parts = _INLINE.split(f", {text.strip()}")
    if len(parts) > 3 and not parts[0] and parts[1::2] == list("abcdefghij"[: len(parts) // 2]):
        return [part.strip() for part in parts[2::2]]
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if len(lines) > 1 and _without_letters(lines) != lines:
        return lines
    if _NUMPY.fullmatch(text.strip()):
        # A list as numpy prints it into a table: Python would read one text out of all of them.
        return [one or other for one, other in _QUOTED.findall(text)]
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text) if text.lstrip().startswith(("[", "{", "(")) else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _in_order(labels: list[Any], texts: list[str]) -> tuple[list[Any], list[str]]:
    """Labels and choices in the order of the labels, where these are letters: an answer is a letter by place."""
    letters = [str(label) for label in labels]
    wanted = [chr(ord("A") + place) for place in range(len(texts))]
    if sorted(letters) != wanted or len(letters) != len(texts):
        return labels, texts
    pairs = sorted(zip(letters, texts, strict=True))
    return [label for label, _ in pairs], [text for _, text in pairs]


def _without_letters(texts: list[str]) -> list[str]:
    """The choices without their own letters, where all of them have theirs, as in AQuA ("A)70")."""
    found = [_OWN_LETTER.fullmatch(text) for text in texts]
    if len(texts) > 2 and all(match and match[1] == chr(ord("A") + place) for place, match in enumerate(found)):
        return [match[2] for match in found if match]
    return texts


def _shuffled(texts: Sequence[str], right: str | None, question: str) -> Choices:
    """The choices in an order drawn from the question: the set has the right one first."""
    order = list(range(len(texts)))
    random.Random(seed_from("choices", question)).shuffle(order)
    place = order.index(texts.index(right)) if right is not None else None
    return Choices([texts[index] for index in order], right=letter(place) if place is not None else None)


def letter(place: int) -> str:
    """Return the letter of a choice by its place."""
    return chr(ord("A") + place)


class _Placed(msgspec.Struct):
    problem: Problem
    number: int
    count: int
    first: int
    is_known: bool
    where: str
    is_text: bool
    """Whether a choice reads like the number, so that it may be meant by its text."""


class Places:
    """Numeric answers of a file, settled together: they count from 0 or from 1, and one row alone may not show it."""

    def __init__(self) -> None:
        self._found: list[_Placed] = []
        self._texts: list[_Placed] = []

    def add(self, problem: Problem, number: int, columns: ChoiceColumns | None, where: str) -> None:
        """Note an answer, and the columns of the choices where these are known to count from 0 or from 1.

        One that already has its text as its answer is a place only where others of the file can be nothing else.
        """
        first, is_known = (columns.first, True) if columns else (0, False)
        texts = problem.meta["choices"]
        noted = _Placed(problem, number, len(texts), first, is_known, where, str(number) in texts)
        (self._found if problem.reference_answer is None else self._texts).append(noted)

    def settle(self, name: str) -> str | None:
        """Write the letters into the problems; what to say about how the numbers were read, if anything.

        Raises:
            DataError: a number is no place, or some show that they count from 0 and others that they count from 1.
        """
        zero = last = None
        if any(not one.is_text for one in self._found):
            self._found += [one for one in self._texts if 0 <= one.number <= one.count]
        for one in self._found:
            if not 0 <= one.number <= one.count:
                raise DataError(f"{one.where}: {one.number} is no place among {one.count} choices")
            zero = zero or (one.where if one.number == 0 else None)
            last = last or (one.where if one.number == one.count else None)
        if zero and last:
            raise DataError(
                f"{zero}: the answer 0 counts from 0 (0 is A), but at {last} the last choice is counted from 1 "
                f"(1 is A); mend one of them"
            )
        for one in self._found:
            first = 0 if zero else 1 if last else one.first
            one.problem.reference_answer = letter(one.number - first)
        guessed = [one for one in self._found if not one.is_known]
        if last and guessed:
            return (
                f"{name}: numeric answers are read as counting from 1 (1 is A): 0 does not occur and the number of "
                f"choices does, so they cannot count from 0 (0 is A)"
            )
        texts = [one for one in guessed if one.is_text]
        if texts and len(texts) == len(self._found):
            return (
                f"{name}: numeric answers are read as places that count from {1 if last else 0}, but each is the text "
                f"of a choice, too (first {texts[0].where}); write letters, or the texts in quotes"
            )
        if guessed and not zero:
            return (
                f"{name}: numeric answers are read as counting from 0 (0 is A); neither 0 nor the number of choices "
                f"occurs, so if they count from 1 (1 is A), write letters instead"
            )
        return None


def names_one(answer: str, texts: Sequence[str]) -> bool:
    """Whether an answer names exactly one of the choices, by its letter, its text or both."""
    found = _LETTER.fullmatch(answer.strip())
    if found and ord(found[1].upper()) - ord("A") < len(texts):
        return True
    marked = _OWN_LETTER.fullmatch(answer)
    if (
        marked
        and ord(marked[1]) - ord("A") < len(texts)
        and _even(texts[ord(marked[1]) - ord("A")]) == _even(marked[2])
    ):
        return True
    return sum(_even(text) == _even(answer) for text in texts) == 1


def _even(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".,;:!?\u3002 ")


def named_choice(value: Any, choices: Choices, labels: Any) -> str | int | None:
    """The letter of a right choice, or its number where it is told by one, or null: the value is a text of its own."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or is_blank(value):
        return None
    if isinstance(value, (int, float)):
        # A choice may itself be a number ("4"), and so may the answer that repeats it.
        return int(value) if float(value).is_integer() and int(value) <= len(choices.texts) else _number(value, choices)
    if not isinstance(value, str):
        return None
    text = value.strip()
    known = [str(label) for label in labels] if isinstance(labels, list) else []
    if text in known:
        return letter(known.index(text))
    if text in choices.texts:
        return None
    if re.fullmatch(r"\d{1,2}", text):
        return int(text)
    found = _LETTER.fullmatch(text)
    if found and ord(found[1].upper()) - ord("A") < len(choices.texts):
        return found[1].upper()
    return None


def _number(value: float, choices: Choices) -> int | None:
    if str(value) in choices.texts or not float(value).is_integer():
        return None
    return int(value)
