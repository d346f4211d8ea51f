"""With --dry-run each stage shows the first prompt that its model would see."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.support import a_problem, a_row, here, write_rows, write_sums

OPENED = "<|im_end|>\n<|im_start|>assistant\n\n("


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    return write_sums(tmp_path / "sums.jsonl", 2)


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert here(*arguments, "--dry-run", "--json") == 0
    told = capsys.readouterr()
    prompt: str = msgspec.json.decode(told.out)["first_prompt"]
    assert f"first prompt:\n{prompt}\n" in told.err
    return prompt


def test_of_solve_and_eval_it_is_the_first_problem_as_the_template_renders_it(
    sums: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-m", tiny_model_dir, "--device", "cpu", "-o", tmp_path / "out.jsonl"]

    for stage in ("solve", "eval"):
        prompt = shown(capsys, stage, sums, *options)

        assert "What is 3 + 4?" in prompt
        assert OPENED in prompt
    assert not (tmp_path / "out.jsonl").exists()


def test_of_propose_and_judge_too(
    sums: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-m", tiny_model_dir, "--device", "cpu", "-o", tmp_path / "out.jsonl"]
    row = a_row(problem=a_problem(), raw="It is 7.", completion="It is 7.", status="ok")
    rows = write_rows(tmp_path / "rows.jsonl", [row])

    proposal = shown(capsys, "propose", sums, *options, "--proposer", "reference")
    judgement = shown(capsys, "judge", rows, *options)

    assert any(question in proposal for question in ("What is 3 + 4?", "What is 10 + 5?"))
    assert OPENED in proposal
    assert "It is 7." in judgement
    assert "<score>" in judgement


def test_an_engine_that_renders_elsewhere_shows_the_messages(
    sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = shown(capsys, "solve", sums, "--engine", "scripted", "-o", tmp_path / "out.jsonl")

    assert prompt.startswith("[")
    assert "What is 3 + 4?" in prompt


def test_nothing_is_shown_where_nothing_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [a_row(problem=a_problem())])
    options = ["-o", tmp_path / "out.jsonl", "--engine", "scripted", "--judge", "none", "--verifier", "numeric"]

    assert here("judge", rows, *options, "--dry-run") == 0

    assert "first prompt" not in capsys.readouterr().err
