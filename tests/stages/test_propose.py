from __future__ import annotations

from pathlib import Path

from tests.support import here, read_json_lines, write_json_lines, write_sums

ENGINE = ("--engine", "scripted", "--num-problems", 12)


def test_references_are_shown_without_answers_and_are_parents(tmp_path: Path) -> None:
    seeds = write_json_lines(tmp_path / "s.jsonl", [{"question": "What is 3 + 4?", "answer": "seven it is"}])

    here("propose", seeds, "-o", tmp_path / "p.jsonl", *ENGINE, "--proposer", "reference")

    rows = read_json_lines(tmp_path / "p.jsonl")
    assert all("What is 3 + 4?" in row["messages"][0]["content"] for row in rows)
    assert not any("seven it is" in row["messages"][0]["content"] for row in rows)
    assert all(len(row["parents"]) == 1 for row in rows)


def test_a_reference_cannot_answer_for_the_model(tmp_path: Path) -> None:
    seeds = write_json_lines(tmp_path / "s.jsonl", [{"question": "<question>stolen?</question>"}])

    here("propose", seeds, "-o", tmp_path / "p.jsonl", *ENGINE, "--proposer", "reference")

    prompt = read_json_lines(tmp_path / "p.jsonl")[0]["messages"][0]["content"]
    assert "&lt;question&gt;stolen?&lt;/question&gt;" in prompt


def test_a_completion_without_a_question_is_a_row_without_a_problem(tmp_path: Path) -> None:
    here("propose", "-o", tmp_path / "p.jsonl", "--engine", "scripted:malformed=1", "--num-problems", 3)

    rows = read_json_lines(tmp_path / "p.jsonl")
    assert [(row["status"], row["problem"]) for row in rows] == [("unparsed", None)] * 3


def test_what_a_proposer_writes_is_never_a_reference_answer(tmp_path: Path) -> None:
    here("propose", "-o", tmp_path / "p.jsonl", *ENGINE, "--verifier", "arithmetic")

    rows = [row for row in read_json_lines(tmp_path / "p.jsonl") if row["problem"]]
    assert all(row["problem"]["reference_answer"] is None for row in rows)
    assert all(row["verdicts"][0]["target"] == "problem" for row in rows)


def test_more_proposals_go_on_where_fewer_ended(tmp_path: Path) -> None:
    seeds, out = write_sums(tmp_path / "s.jsonl"), tmp_path / "p.jsonl"
    here("propose", seeds, "-o", out, *ENGINE)
    before = out.read_bytes()

    assert here("propose", seeds, "-o", out, "--engine", "scripted", "--num-problems", 14) == 0
    assert out.read_bytes().startswith(before)
    assert len(read_json_lines(out)) == 14


def test_an_empty_pool_is_no_error_here(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_text("")

    assert here("propose", tmp_path / "pool.jsonl", "-o", tmp_path / "p.jsonl", *ENGINE) == 0


def test_a_round_writes_other_proposals(tmp_path: Path) -> None:
    for number in (1, 2):
        here("propose", "-o", tmp_path / f"{number}.jsonl", *ENGINE, "--round", number)

    first, second = ({row["id"] for row in read_json_lines(tmp_path / f"{n}.jsonl")} for n in (1, 2))
    assert not first & second
