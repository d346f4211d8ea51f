"""Problems made from rows of users' files and of published sets.

Place in the flow: `records.read`, `mae data import`, benchmarks and the hub turn rows into problems here. Contract: the
names of `problem_columns` are understood; a passage becomes part of the question; every other column stays in `meta`. A
wrong type is an error that names file and line. Reading what `mae data import` wrote gives the same problem again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mae_cli.errors import DataError, did_you_mean
from mae_cli.records.ids import problem_id
from mae_cli.records.problem_answers import answer_in_solution, answer_text, without_solution, without_unit
from mae_cli.records.problem_choices import Places, named_choice, names_one, take_choices
from mae_cli.records.problem_columns import (
    ALTERNATIVE_KEYS,
    ANSWER_KEYS,
    CHOICE_COLUMNS,
    CHOICE_KEYS,
    MATERIAL_KEYS,
    PASSAGE_KEYS,
    QUESTION_KEYS,
    REWARD_KEYS,
    SOLUTION_KEYS,
    SPECIFICATION_KEYS,
    TEXT_KEY,
    UNDERSTOOD,
    Columns,
    at_path,
    column_key,
    is_blank,
)
from mae_cli.records.problem_tests import INPUT_OUTPUT, as_tests, from_json, take_tests
from mae_cli.records.prompt_text import messages_in_text, prompt_text
from mae_cli.records.row import Problem

MAPPED = ("question", "answer", "choices", "passage")
"""What a column can be mapped to by the user."""
_NO_ANSWER = ("proof", "notfound", "not found")
_ALTERNATIVES = frozenset(map(column_key, ALTERNATIVE_KEYS))
_PARTS = (
    'lists in "{}" are read as one answer of several parts, joined with commas; if they are wordings of one answer, '
    'call the column "answers"'
)
_NO_CHOICE = (
    "the answer names none of the choices, or more than one, so it cannot be checked; mend or remove these rows"
)
_COPA = {"cause": "What was the cause?", "effect": "What happened as a result?"}


def problem_from(tree: dict[str, Any], where: str) -> Problem:
    """A problem out of one row with any of the usual field names; every other key lives on in `meta`.

    Raises:
        DataError: no question, or a question or answer of the wrong type; `where` names file and line.
    """
    reader = ProblemReader()
    problem = reader.read(tree, where)
    reader.finish(where)
    return problem


def own_problem_from(tree: dict[str, Any], where: str) -> Problem:
    """A problem out of a line that we wrote ourselves (a pool): its text and answer as they stand.

    Raises:
        DataError: it has no question.
    """
    question, answer = tree.get("question"), tree.get("reference_answer")
    if not isinstance(question, str) or "reference_answer" not in tree or not isinstance(answer, str | None):
        return problem_from(tree, where)
    meta = {name: value for name, value in tree.items() if name not in ("question", "reference_answer")}
    choices = meta.get("choices") or []
    return Problem(id=problem_id(question, choices), question=question.strip(), reference_answer=answer, meta=meta)


class ProblemReader:
    """Reads the rows of one file or set; what only the whole of it tells is settled by `finish`.

    Attributes:
        read_rows: how many rows were read.
    """

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        """Make a reader.

        Args:
            fields: our name (`MAPPED`) to the file's column, where its own name says something else; a dotted column
                leads into an object.
        """
        self._fields = dict(fields or {})
        self._missing = set(self._fields)
        self._places = Places()
        self._unused: dict[str, None] = {}
        self._notices: dict[str, tuple[int, str]] = {}
        """What to say: in how many rows, and where the first of them is."""
        self.read_rows = 0

    @property
    def unused(self) -> list[str]:
        """Columns that went to `meta` without a meaning to us, in the order they appeared."""
        return list(self._unused)

    def read(self, tree: dict[str, Any], where: str) -> Problem:
        """Return the problem of a row; a numeric answer to one with choices stands only after `finish`.

        Raises:
            DataError: no question, or a question or answer of the wrong type.
        """
        self.read_rows += 1
        columns = Columns(self._renamed(_unwrapped(tree), where))
        question_name = _question_name(columns, where)
        for notice in take_tests(columns):
            self._note(notice, where)
        question = _question(columns, question_name, where)
        choices = take_choices(columns, question, where)
        answer_name = columns.first(ANSWER_KEYS)
        placed: str | int | None = None
        answer: str | None = choices.right
        if answer_name is not None and choices.right is None:
            value = columns.left.pop(answer_name)
            place = f'{where}: field "{answer_name}"'
            if choices.texts:
                placed = named_choice(value, choices, columns.left.get("choice_labels"))
            answer = placed if isinstance(placed, str) else None
            if placed is None:
                alternatives = column_key(answer_name) in _ALTERNATIVES
                answer = _answer(columns, value, alternatives, question, place)
                if not alternatives and isinstance(value, list) and len(value) > 1 and "," in (answer or ""):
                    self._note(f"{_PARTS.format(answer_name)}", where)
        if answer is None and placed is None:
            answer = _in_solution(columns)
        if answer is not None and choices.texts and not names_one(answer, choices.texts):
            self._note(_NO_CHOICE, where)
        meta = columns.left
        known = UNDERSTOOD | columns.read
        self._unused.update(dict.fromkeys(name for name in meta if name not in known and not is_blank(meta[name])))
        if choices.texts:
            meta["choices"] = choices.texts
        problem = Problem(problem_id(question, choices.texts), question.strip(), answer, meta)
        if placed is None and choices.texts and answer in choices.texts and re.fullmatch(r"\d{1,2}", answer):
            placed = int(answer)
        if isinstance(placed, int):
            self._places.add(problem, placed, choices.columns, f'{where}: field "{answer_name}"')
        return problem

    def note_again(self, first: Problem, again: Problem, where: str) -> None:
        """Note where a question that was read before has another answer now; the first one stands."""
        if first is not again and first.reference_answer != again.reference_answer:
            self._note("questions that stand there again with another answer; the first one counts", where)

    def _note(self, notice: str, where: str) -> None:
        count, first = self._notices.get(notice, (0, where))
        self._notices[notice] = (count + 1, first)

    def finish(self, name: str) -> list[str]:
        """Settle what only the whole file tells, and return what a person should know.

        Args:
            name: of the file.

        Raises:
            DataError: numeric answers contradict each other, or no row has a mapped column.
        """
        if self._missing and self.read_rows:
            field = min(self._missing)
            raise DataError(f"{name}: no row has the column {self._fields[field]} that {field} is mapped to")
        notices = [
            f"{name}: {notice} ({count} rows, first {first.removeprefix(name).lstrip(': ')})"
            for notice, (count, first) in self._notices.items()
        ]
        settled = self._places.settle(name)
        return [*notices, *([settled] if settled else [])]

    def _renamed(self, tree: dict[str, Any], where: str) -> dict[str, Any]:
        """The row under our names, where the user mapped some."""
        if not self._fields:
            return tree
        given = {}
        for field, path in self._fields.items():
            is_there, value = at_path(tree, path)
            if not is_there and field == "question":
                raise DataError(f'{where}: no column "{path}"; {did_you_mean(path, tree)}')
            if is_there:
                self._missing.discard(field)
            given[field] = value
        # What is mapped is the only thing of its kind: another name must not win over it.
        others = {"question": QUESTION_KEYS, "answer": ANSWER_KEYS, "choices": CHOICE_KEYS, "passage": PASSAGE_KEYS}
        shadowed = {column_key(name) for field in given for name in others[field]}
        rest = {name: value for name, value in tree.items() if name not in self._fields.values()}
        kept = {f"original_{name}" if column_key(name) in shadowed else name: value for name, value in rest.items()}
        return {**given, **kept}


def _unwrapped(tree: dict[str, Any]) -> dict[str, Any]:
    """The item inside a line of a log of lm-evaluation-harness, or with its question as an object (ARC)."""
    if isinstance(tree.get("doc"), dict) and "doc_id" in tree:
        return dict(tree["doc"])
    question = tree.get("question")
    if isinstance(question, dict) and isinstance(question.get("stem"), str):
        return {
            **tree,
            **{name: value for name, value in question.items() if name != "stem"},
            "question": question["stem"],
        }
    return tree


def _question_name(columns: Columns, where: str) -> str:
    name = columns.first(QUESTION_KEYS)
    if name is not None and columns.own_name("instruction") and columns.own_name("input") == name:
        name = columns.own_name("instruction")
    if name is None and columns.own_name(TEXT_KEY) and _asks_something(columns):
        name = columns.own_name(TEXT_KEY)
    if name is None:
        blank = next((key for key in QUESTION_KEYS if key in columns.left), None)
        if blank is not None:
            raise DataError(f'{where}: field "{blank}": empty')
        found = ", ".join(sorted(map(str, columns.left))) or "nothing"
        raise DataError(
            f'{where}: field "question" is missing (found: {found}); say which column it is: '
            "mae data import FILE -o OUTPUT --map question=COLUMN"
        )
    return name


def _asks_something(columns: Columns) -> bool:
    """Whether a text has tests or choices beside it, and so is no text to go on with."""
    layouts = [layout.columns[0] for layout in CHOICE_COLUMNS if layout.exact and columns.own_name("B", exact=True)]
    return columns.first(("test_list", "test", "tests", INPUT_OUTPUT, *CHOICE_KEYS, *layouts)) is not None


def _question(columns: Columns, name: str, where: str) -> str:
    """The whole question: what is asked, with the passage it is about or the material it is to be done on."""
    value = columns.left.pop(name)
    place = f'{where}: field "{name}"'
    if isinstance(value, str):
        value = messages_in_text(value) or value
    if isinstance(value, list):
        text = prompt_text(value, place)
    elif isinstance(value, str):
        text = value
    else:
        raise DataError(f"{place}: expected text, found {type(value).__name__}")
    key = column_key(name)
    if key == "premise" and columns.get("question") is None and columns.own_name("choice1") is None:
        raise DataError(f'{where}: field "question" is missing (found: {", ".join(sorted(columns.left))}, {name})')
    if key == "question" and text.strip() in _COPA and isinstance(columns.get("premise"), str):
        return f"{columns.take('premise').strip()}\n\n{_COPA[text.strip()]}"
    if key == "instruction":
        material = [columns.take(part).strip() for part in MATERIAL_KEYS if isinstance(columns.get(part), str)]
        columns.drop_blank("input")
        return "\n\n".join([text.strip(), *material])
    if key == "description":
        parts = [columns.take(part).strip() for part in SPECIFICATION_KEYS if isinstance(columns.get(part), str)]
        return "\n\n".join([text.strip(), *parts])
    for passage, between in PASSAGE_KEYS.items():
        about = _passage(columns.get(passage))
        if about is not None:
            columns.take(passage)
            return f"{about.strip()}{between}{text.strip()}"
    about = columns.get(TEXT_KEY)
    if key in ("question", "query") and isinstance(about, str) and columns.first(CHOICE_KEYS) and text not in about:
        return f"{columns.take(TEXT_KEY).strip()}\n\n{text.strip()}"  # LogiQA 2
    return text


def _passage(value: Any) -> str | None:
    """The text of a passage: one text, a list of them, PubMedQA's `contexts`, or HotpotQA's titles and sentences."""
    if isinstance(value, dict) and isinstance(value.get("contexts"), list):
        value = value["contexts"]
    if isinstance(value, dict) and isinstance(value.get("title"), list) and isinstance(value.get("sentences"), list):
        value = [f"{title}: {' '.join(part)}" for title, part in zip(value["title"], value["sentences"], strict=False)]
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return "\n\n".join(value)
    return value if isinstance(value, str) else None


def _answer(columns: Columns, value: Any, alternatives: bool, question: str, place: str) -> str | None:
    """The text of an answer, in whichever way its set writes it."""
    tests = as_tests(value)
    if tests is not None:
        columns.left.setdefault(INPUT_OUTPUT, tests)
        return None
    answer = answer_text(value, place, question=question, alternatives=alternatives)
    if answer is None or not isinstance(value, str):
        return answer
    if columns.own_name("question_type") and answer.casefold() in _NO_ANSWER:
        return None
    if columns.own_name("formula"):
        answer = without_unit(answer)
    answer, has_solution = without_solution(answer)
    if has_solution:
        columns.left.setdefault("solution", value)
        columns.read.add("solution")
    return answer


def _in_solution(columns: Columns) -> str | None:
    for key in REWARD_KEYS:
        held = from_json(columns.get(key))
        if isinstance(held, dict) and held.get("ground_truth") is not None:
            columns.take(key)
            rest = {name: value for name, value in held.items() if name != "ground_truth"}
            columns.left.update({key: rest} if rest else {})
            return _answer(columns, held["ground_truth"], True, "", f'field "{key}.ground_truth"')
    if columns.own_name("question_type") and columns.get("question_type") == "proof":
        return None
    for name in SOLUTION_KEYS:
        solution = columns.get(name)
        found = answer_in_solution(solution) if isinstance(solution, str) else None
        # What a model replied is an answer only where it says so.
        if found is not None and not (name == "response" and found == solution.strip()):
            columns.read.add(columns.own_name(name) or name)
            return found
    return None
