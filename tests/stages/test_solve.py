from __future__ import annotations

from pathlib import Path

import pytest

from mae_cli.records import Verdict
from tests.support import a_problem, a_row, here, read_json_lines, write_json_lines, write_rows, write_sums

ENGINE = ("--engine", "scripted")


def test_problems_get_their_rollouts_and_their_own_keys_stay(tmp_path: Path) -> None:
    problems = write_json_lines(tmp_path / "p.jsonl", [{"question": "What is 3 + 4?", "answer": 7, "level": "easy"}])

    assert here("solve", problems, "-o", tmp_path / "r.jsonl", *ENGINE, "--rollouts-per-problem", 3) == 0

    rows = read_json_lines(tmp_path / "r.jsonl")
    assert [(row["role"], row["purpose"], row["sample_index"]) for row in rows] == [
        ("solver", "train", index) for index in range(3)
    ]
    assert len({row["group_id"] for row in rows}) == 1
    assert rows[0]["problem"]["reference_answer"] == "7"
    assert rows[0]["problem"]["meta"] == {"level": "easy"}


def test_records_pass_through_before_the_new_rows(tmp_path: Path) -> None:
    proposals = [
        a_row("proposer", problem=a_problem(), index=0),
        a_row("proposer", index=1, completion="no question", status="unparsed", extra={"note": "mine"}),
        a_row("judge", "grade", problem=a_problem()),
    ]
    given = write_rows(tmp_path / "p.jsonl", proposals)

    here("solve", given, "-o", tmp_path / "r.jsonl", *ENGINE, "--rollouts-per-problem", 2)

    assert (tmp_path / "r.jsonl").read_bytes().startswith(given.read_bytes())
    assert len(read_json_lines(tmp_path / "r.jsonl")) == 5


def test_two_proposals_of_one_question_are_solved_once_and_both_are_parents(tmp_path: Path) -> None:
    twins = [a_row("proposer", problem=a_problem(), index=index) for index in range(2)]
    given = write_rows(tmp_path / "p.jsonl", twins)

    here("solve", given, "-o", tmp_path / "r.jsonl", *ENGINE, "--rollouts-per-problem", 1, "--difficulty-samples", 2)

    made = read_json_lines(tmp_path / "r.jsonl")[2:]
    assert [row["purpose"] for row in made] == ["difficulty", "difficulty", "train"]
    assert all(row["parents"] == [twin.id for twin in twins] for row in made)


def test_in_mae_proposals_measure_difficulty_and_the_pool_is_trained(tmp_path: Path) -> None:
    given = write_rows(tmp_path / "p.jsonl", [a_row("proposer", problem=a_problem())])
    pool = write_sums(tmp_path / "pool.jsonl", 5)

    here(
        *("solve", given, "-o", tmp_path / "r.jsonl", *ENGINE, "--pool", pool, "--num-problems", 3),
        *("--rollouts-per-problem", 1, "--difficulty-samples", 4, "--no-train-on-proposals"),
    )

    made = read_json_lines(tmp_path / "r.jsonl")[1:]
    assert [row["purpose"] for row in made] == ["difficulty"] * 4 + ["train"] * 3
    assert {row["problem"]["question"] for row in made[4:]} <= {row["question"] for row in read_json_lines(pool)}
    assert {row["sample_index"] for row in made[:4]} == {0, 1, 2, 3}


def test_only_checked_proposals_are_solved_when_asked(tmp_path: Path) -> None:
    verdicts = [[Verdict("arithmetic", "verifier", "problem", score)] for score in (1.0, 0.0, None)]
    rows = [
        a_row("proposer", problem=a_problem(f"What is {index} + 1?"), index=index, verdicts=verdict)
        for index, verdict in enumerate(verdicts)
    ]
    given = write_rows(tmp_path / "p.jsonl", rows)

    here("solve", given, "-o", tmp_path / "r.jsonl", *ENGINE, "--rollouts-per-problem", 1, "--checked-only")

    assert [row["problem"]["question"] for row in read_json_lines(tmp_path / "r.jsonl")[3:]] == ["What is 0 + 1?"]


def test_how_a_rollout_ended_is_told_in_its_status(tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "p.jsonl", 12)

    here("solve", problems, "-o", tmp_path / "r.jsonl", "--engine", "scripted:truncated=0.3,malformed=0.3")

    rows = read_json_lines(tmp_path / "r.jsonl")
    assert {row["status"] for row in rows} == {"ok", "unparsed", "truncated"}
    assert all((row["answer"] is None) == (row["status"] == "unparsed") for row in rows if row["status"] != "truncated")
    assert all((row["finish_reason"] == "length") == (row["status"] == "truncated") for row in rows)


def test_equal_problems_are_solved_once_with_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = write_json_lines(tmp_path / "p.jsonl", [{"question": "What is 3 + 4?"}] * 2)

    here("solve", problems, "-o", tmp_path / "r.jsonl", *ENGINE, "--rollouts-per-problem", 1)

    assert len(read_json_lines(tmp_path / "r.jsonl")) == 1
    assert "1 duplicate problems merged" in capsys.readouterr().err


def test_choices_are_shown_and_read_as_letters(tmp_path: Path) -> None:
    problems = write_json_lines(tmp_path / "p.jsonl", [{"question": "Which?", "choices": ["x", "y"], "answer": 1}])

    here("solve", problems, "-o", tmp_path / "r.jsonl", *ENGINE, "--rollouts-per-problem", 1)

    (row,) = read_json_lines(tmp_path / "r.jsonl")
    assert "(A) x\n(B) y" in row["messages"][0]["content"]
    assert row["problem"]["reference_answer"] == "B"


def test_rows_of_an_interrupted_run_beyond_a_smaller_limit_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, meta = tmp_path / "out.jsonl", tmp_path / "out.jsonl.meta.json"
    command = ("solve", write_sums(tmp_path / "sums.jsonl", 8), "-o", out, "--engine", "scripted", "--batch-size", 3)
    assert here(*command, "--rollouts-per-problem", 2) == 0
    rows = out.read_bytes()
    # As if killed just before the end: every row is in the partial file.
    out.rename(tmp_path / "out.jsonl.partial")
    meta.write_text(meta.read_text().replace('"complete": true', '"complete": false'))
    capsys.readouterr()

    assert here(*command, "--rollouts-per-problem", 2, "--limit", 1) == 0

    assert out.read_bytes() == rows
    assert "skipped 16 (done before)" in capsys.readouterr().err


LETTER, FREE = "Answer the multiple-choice question below", "Work on the task below"


def asked(path: Path) -> list[str]:
    return [row["messages"][0]["content"] for row in read_json_lines(path)]


def test_items_with_choices_are_asked_for_a_letter_and_the_others_are_not(tmp_path: Path) -> None:
    items = [{"question": "Which?", "choices": ["x", "y"], "answer": 1}, {"question": "What is 3 + 4?", "answer": 7}]
    problems = write_json_lines(tmp_path / "p.jsonl", items)
    one_each = ("--rollouts-per-problem", 1)

    assert here("solve", problems, "-o", tmp_path / "r.jsonl", *ENGINE, *one_each) == 0
    assert here("eval", problems, "-o", tmp_path / "e.jsonl", *ENGINE) == 0

    for path in (tmp_path / "r.jsonl", tmp_path / "e.jsonl"):
        assert [text.startswith(start) for text, start in zip(asked(path), (LETTER, FREE), strict=True)] == [True, True]


def test_a_prompt_that_is_named_asks_every_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = write_json_lines(tmp_path / "p.jsonl", [{"question": "Which?", "choices": ["x", "y"], "answer": 1}])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("solve: {prompt: solve, rollouts_per_problem: 1}\neval: {prompt: solve}\n")

    assert here("solve", problems, "-o", tmp_path / "r.jsonl", *ENGINE, "--recipe", recipe) == 0
    assert here("eval", problems, "-o", tmp_path / "e.jsonl", *ENGINE, "--prompt", "solve") == 0
    assert asked(tmp_path / "r.jsonl")[0].startswith(FREE)
    assert asked(tmp_path / "e.jsonl")[0].startswith(FREE)

    # The file was made with another prompt than the one that items with choices have by default.
    assert here("solve", problems, "-o", tmp_path / "r.jsonl", *ENGINE, "--rollouts-per-problem", 1) == 2
    assert "choice_prompt" in capsys.readouterr().err
