"""The answer that a rollout states, read in the way its problem asks for.

Place in the flow: `solve`, `judge` and `eval` call it after generation. It picks the reader: a letter for a problem
with choices, a program for a problem with tests, else the cascade of `answers.extract`. Left out: whether the answer is
right (verifiers).
"""

from __future__ import annotations

from mae_cli.answers.choices import extract_choice
from mae_cli.answers.extract import STRICT_SOURCES, Extraction, extract_answer
from mae_cli.answers.programs import entry_point_of, extract_code, is_code_problem
from mae_cli.records import Problem, Row, choices_of


def candidate_text(row: Row) -> str:
    """The text of a rollout that a judge is shown: the answer the solver marked, or else the whole completion.

    Source: the released MAE code passes the full text when extraction fails; a number found by a looser pattern is
    our guess, not the solver's answer, so it is not shown in its place.
    """
    if row.answer is not None and row.answer_source in STRICT_SOURCES:
        return row.answer
    return row.completion or ""


def read_solution(row: Row) -> Row:
    """Read the answer out of a rollout; without one an otherwise sound row is `unparsed`."""
    if row.completion is None:
        return row
    found = stated_answer(row.problem, row.completion)
    row.answer, row.answer_source = found.answer, found.source
    if row.status == "ok" and row.answer is None:
        row.status = "unparsed"
    return row


def stated_answer(problem: Problem | None, text: str) -> Extraction:
    """The answer that a text gives, in the form its problem asks for: a letter, a program, or any other answer."""
    choices = choices_of(problem) if problem else []
    if choices:
        return extract_choice(text, [chr(ord("A") + index) for index in range(len(choices))], choices)
    if problem and is_code_problem(problem):
        return extract_code(text, entry_point_of(problem))
    return extract_answer(text)
