"""Held-out questions in other dress are dropped; questions with another number or another word are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mae_cli.answers.questions import bare_key
from mae_cli.plugins.filters.decontaminate import Decontaminate
from mae_cli.plugins.filters.dedup import Dedup
from tests.support import a_problem, a_row, read_json_lines, write_json_lines

HERE = Path(__file__).parent
CASES = read_json_lines(HERE / "decontaminate.jsonl") + read_json_lines(HERE / "decontaminate_more.jsonl")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['name']}")
def test_a_question_is_dropped_or_kept_as_decided(case: dict[str, Any], tmp_path: Path) -> None:
    held_out = write_json_lines(tmp_path / "h.jsonl", [{"question": case["held_out"]}])
    row = a_row("proposer", problem=a_problem(case["question"]))

    (selection,) = Decontaminate(against=(str(held_out),)).select([row])

    assert ("kept" if selection.reason is None else "dropped") == case["expected"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['name']}")
def test_a_proposal_in_other_dress_is_a_repetition(case: dict[str, Any]) -> None:
    rows = [
        a_row("proposer", problem=a_problem(case[name]), index=index)
        for index, name in enumerate(("held_out", "question"))
    ]

    assert ("kept" if Dedup().select(rows)[1].reason is None else "dropped") == case["expected"]


def test_no_two_near_misses_of_the_lists_are_one_question() -> None:
    questions = {case[name] for case in CASES for name in ("held_out", "question")}
    dressed = {case["question"]: case["held_out"] for case in CASES if case["expected"] == "dropped"}
    by_key: dict[str, set[str]] = {}
    for question in questions:
        by_key.setdefault(bare_key(question), set()).add(dressed.get(question, question))

    assert [found for found in by_key.values() if len(found) > 1] == []
