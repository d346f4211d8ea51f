"""Every verifier through the commands: `mae eval` on answers replayed from a file, `mae judge` on groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mae_cli.plugins.registry import VERIFIERS
from tests.support import a_problem, a_row, here, read_json_lines, write_json_lines, write_rows

CODE = {"question": "Write f(x) that adds one.", "entry_point": "f"}
RIGHT_CODE, WRONG_CODE = "```python\ndef f(x):\n    return x + 1\n```", "```python\ndef f(x):\n    return x\n```"
CASES: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "exact_match": ("exact_match", {"question": "Capital?", "answer": "Paris"},
                    "<answer>paris</answer>", "\\boxed{Rome}"),
    "numeric": ("numeric", {"question": "Time?", "answer": "90 minutes"}, "\\boxed{1.5 hours}", "\\boxed{2 hours}"),
    "choice": ("choice", {"question": "Which?", "choices": ["x", "y"], "answer": "B"},
               "<answer>B</answer>", "<answer>A</answer>"),
    "arithmetic": ("arithmetic", {"question": "What is 3 + 4?", "answer": "7"}, "\\boxed{7}", "\\boxed{8}"),
    "math": ("math", {"question": "Root?", "answer": "\\frac{\\sqrt{3}}{3}"}, "\\boxed{1/\\sqrt3}", "\\boxed{\\sqrt3}"),
    "python_tests": ("python_tests", {**CODE, "tests": ["assert f(1) == 2"]}, RIGHT_CODE, WRONG_CODE),
    "python_call": ("python_call", {**CODE, "inputs": [[1]], "outputs": [2]}, RIGHT_CODE, WRONG_CODE),
    "regex": ({"name": "regex", "pattern": "[a-z]+"}, {"question": "A word?"},
              "<answer>abc</answer>", "<answer>1</answer>"),
    "json_schema": ({"name": "json_schema", "schema": {"type": "array"}}, {"question": "A list?"},
                    "<answer>[1]</answer>", "<answer>{}</answer>"),
}  # fmt: skip


def test_every_verifier_is_tried_through_a_command() -> None:
    # `reasoning_gym` has its own data sets (tests/verifiers); `majority` needs groups: below.
    assert CASES.keys() | {"reasoning_gym", "majority"} == VERIFIERS.keys()


def replayed(tmp_path: Path, item: dict[str, Any], verifier: str, completions: list[str]) -> list[dict[str, Any]]:
    """The rows of `mae eval` on one item, answered by these completions, one per sample."""
    items = write_json_lines(tmp_path / "items.jsonl", [item])
    common = ("--samples", len(completions), "--temperature", 1)
    told = tmp_path / "told.jsonl"
    assert here("eval", items, "-o", told, "--engine", "scripted", "--verifier", "regex", *common) == 0
    rows = read_json_lines(told)
    for row, completion in zip(rows, completions, strict=True):
        row.update(completion=completion, raw=completion, status="ok", finish_reason="stop", error=None)
    write_json_lines(tmp_path / "answers.jsonl", rows)
    engine = f"replay:{tmp_path / 'answers.jsonl'}"
    out = tmp_path / "eval.jsonl"
    assert here("eval", items, "-o", out, "--engine", engine, "--set", f"eval.verifier={verifier}", *common) == 0
    return read_json_lines(out)


@pytest.mark.parametrize("name", CASES)
def test_eval_tells_right_from_wrong_by_the_verifier(name: str, tmp_path: Path) -> None:
    spec, item, right, wrong = CASES[name]

    rows = replayed(tmp_path, item, str(spec), [right, wrong])

    assert [[v["score"] for v in row["verdicts"]] for row in rows] == [[1.0, 1.0], [0.0, 0.0]]
    assert [v["name"] for v in rows[0]["verdicts"]] == [f"{name}/strict", f"{name}/flexible"]
    assert all(row["answer_source"] for row in rows)


def test_a_program_outside_a_fence_counts_in_the_flexible_reading_alone(tmp_path: Path) -> None:
    spec, item, _, _ = CASES["python_tests"]

    (row,) = replayed(tmp_path, item, spec, ["def f(x):\n    return x + 1"])

    assert row["answer_source"] == "code_text"
    assert [v["score"] for v in row["verdicts"]] == [0.0, 1.0]


def test_eval_takes_the_majority_of_an_items_samples(tmp_path: Path) -> None:
    rows = replayed(tmp_path, {"question": "How many?"}, "majority", ["\\boxed{7}", "\\boxed{7.0}", "It is 8"])

    assert [[v["score"] for v in row["verdicts"]] for row in rows] == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


def test_judge_takes_the_majority_within_each_group_and_pays_by_it(tmp_path: Path) -> None:
    rows = [
        a_row(problem=a_problem(question, None), index=index, answer=answer, completion=f"<answer>{answer}</answer>")
        for question, answers in (("one?", ("7", "7", "8")), ("two?", ("8", "8", "7")), ("three?", ("1", "2", "3")))
        for index, answer in enumerate(answers)
    ]
    source = write_rows(tmp_path / "r.jsonl", rows)

    code = here("judge", source, "-o", tmp_path / "j.jsonl", "--verifier", "majority", "--judge", "none",
                "--solver-reward", "checked_solver")  # fmt: skip

    assert code == 0
    judged = read_json_lines(tmp_path / "j.jsonl")
    assert [row["reward"] for row in judged] == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, None, None, None]
    assert judged[0]["verdicts"][0]["reason"] == "2 of 3 answers agree (share 0.67, 2 clusters)"


def test_solve_reads_a_program_as_the_answer_of_a_code_problem(tmp_path: Path) -> None:
    from mae_cli.answers.stated import read_solution

    row = read_solution(a_row(problem=a_problem("Write f.", None, entry_point="f"), completion=RIGHT_CODE))

    assert (row.answer, row.answer_source) == ("def f(x):\n    return x + 1", "code_fence")
