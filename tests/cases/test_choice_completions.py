"""Every line of the choice cases: the letter that a completion states, or none where it states none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mae_cli.answers.stated import stated_answer
from tests.support import a_problem, read_json_lines

HERE = Path(__file__).parent
NAMES = ("choice_completions", "choice_completions_more")
LINES = [(f"{name}:{n}", line) for name in NAMES for n, line in enumerate(read_json_lines(HERE / f"{name}.jsonl"), 1)]


@pytest.mark.parametrize(("where", "line"), LINES, ids=[f"{where}: {line['kind']}" for where, line in LINES])
def test_the_stated_letter_is_read(where: str, line: dict[str, Any]) -> None:
    problem = a_problem(line["question"], choices=line["choices"])

    assert stated_answer(problem, line["completion"]).answer == line["expected_letter"], line["completion"]
