from __future__ import annotations

from pathlib import Path

import pytest

from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import Selection
from mae_cli.plugins.filters.decontaminate import Decontaminate
from tests.support import a_problem, a_row, write_json_lines


@pytest.fixture
def held_out(tmp_path: Path) -> str:
    path = write_json_lines(tmp_path / "h.jsonl", [{"question": "What is 3 + 4?"}, {"question": "Who wrote Emma?"}])
    return str(path)


def test_held_out_items_are_neither_trained_nor_stored_in_any_wording(held_out: str) -> None:
    questions = ("What is four plus three?", "who  wrote Emma?", "Who wrote Persuasion?")
    rows = [a_row("proposer", problem=a_problem(question)) for question in questions]

    taken = Selection(reason="decontaminate:held out", stored="none")
    assert Decontaminate(against=(held_out,)).select(rows) == [taken, taken, Selection()]


def test_rows_without_a_problem_or_not_trained_are_let_be(held_out: str) -> None:
    rows = [a_row("proposer"), a_row(purpose="eval", problem=a_problem())]

    assert Decontaminate(against=(held_out,)).select(rows) == [Selection(), Selection()]


def test_without_a_file_it_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"needs against: \[FILE"):
        Decontaminate().select([])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: no such file"):
        Decontaminate(against=("nowhere.jsonl",)).select([a_row()])
