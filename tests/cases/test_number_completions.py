"""Every line of the number cases: what the flexible reading takes is judged as a person judges the completion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mae_cli.answers.stated import stated_answer
from mae_cli.plugins import registry
from tests.support import a_problem, read_json_lines

HERE = Path(__file__).parent
NAMES = ("number_completions", "number_completions_more")
LINES = [(f"{name}:{n}", line) for name in NAMES for n, line in enumerate(read_json_lines(HERE / f"{name}.jsonl"), 1)]


@pytest.mark.parametrize(("where", "line"), LINES, ids=[f"{where}: {line['kind']}" for where, line in LINES])
def test_the_stated_number_is_judged(where: str, line: dict[str, Any]) -> None:
    problem = a_problem(line["question"], line["gold"])
    verifier = registry.build("verifiers", line["verifier"])

    answer = stated_answer(problem, line["completion"]).answer
    score = verifier.check(problem, answer).score

    if line["expected"] == "right":
        assert score == 1.0, (line["completion"], answer)
    else:  # "wrong": a wrong answer is never right; unsure is as good as 0
        assert score != 1.0, (line["completion"], answer)


READINGS = read_json_lines(HERE / "number_readings.jsonl")


@pytest.mark.parametrize("line", READINGS, ids=[f"number_readings:{n}" for n, _ in enumerate(READINGS, 1)])
def test_the_text_of_the_answer_is_read(line: dict[str, Any]) -> None:
    assert stated_answer(None, line["completion"]).answer == line["read"], line["completion"]
