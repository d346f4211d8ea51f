"""A problem made from a row with any of the usual field names.

Place in the flow: `records.read` and `mae data import` turn users' rows into problems here. Contract: `question`,
`prompt`, `problem` and their like are understood, and so are choices and answers in the forms of the known benchmarks;
every other key stays in `meta`. A wrong type is an error that names file and line.
"""

from __future__ import annotations

from typing import Any

from mae_cli.errors import DataError
from mae_cli.records.ids import problem_id
from mae_cli.records.row import Problem

QUESTION_KEYS = ("question", "problem", "prompt", "query", "input", "instruction")
ANSWER_KEYS = ("reference_answer", "answer", "final_answer", "target", "answerKey", "label", "gold", "output")


def problem_from(tree: dict[str, Any], where: str) -> Problem:
    """A problem out of a row with any of the usual field names; every other key lives on in `meta`.

    Raises:
        DataError: no question, or a question or answer of the wrong type; `where` names file and line.
    """
    key = next((name for name in QUESTION_KEYS if tree.get(name) is not None), None)
    if key is None:
        found = ", ".join(sorted(tree)) or "nothing"
        raise DataError(f'{where}: field "question" is missing (found: {found})')
    question = tree[key]
    if not isinstance(question, str):
        raise DataError(f'{where}: field "{key}": expected text, found {type(question).__name__}')
    if not question.strip():
        raise DataError(f'{where}: field "{key}": empty')
    answer_key = next((name for name in ANSWER_KEYS if tree.get(name) is not None), None)
    meta = {name: value for name, value in tree.items() if name not in (key, answer_key)}
    choices = _choices(meta, where)
    answer = None
    if answer_key is not None:
        answer = _answer(tree[answer_key], choices, meta, f'{where}: field "{answer_key}"')
    if choices:
        meta["choices"] = choices
    return Problem(id=problem_id(question, choices), question=question.strip(), reference_answer=answer, meta=meta)


def _choices(meta: dict[str, Any], where: str) -> list[str]:
    raw = meta.pop("choices", None)
    if raw is None:
        raw = meta.pop("options", None)
    if isinstance(raw, dict) and isinstance(raw.get("text"), list):
        meta["choice_labels"] = raw.get("label")
        raw = raw["text"]
    elif isinstance(raw, dict):
        meta["choice_labels"] = list(raw)
        raw = list(raw.values())
    if raw is None:
        return []
    if not isinstance(raw, list) or not all(isinstance(choice, str) for choice in raw):
        raise DataError(f'{where}: field "choices": expected a list of texts')
    return raw


def _answer(value: Any, choices: list[str], meta: dict[str, Any], where: str) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) and choices and 0 <= value < len(choices):
        return chr(ord("A") + value)
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str) and choices and value.strip() in (labels := meta.get("choice_labels") or []):
        # ARC numbers some of its choices; answers are letters by place.
        return chr(ord("A") + labels.index(value.strip()))
    if isinstance(value, str):
        # GSM8K style: the worked solution first, the answer behind four hashes.
        solution, hashes, last = value.rpartition("####")
        if hashes:
            if solution.strip():
                meta.setdefault("solution", value)
            return last.strip()
        return value.strip()
    raise DataError(f"{where}: expected text or a number, found {type(value).__name__}")
