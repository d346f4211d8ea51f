"""What finetune picks; the training itself is tested in tests/training."""

from __future__ import annotations

from pathlib import Path

import pytest

from mae_cli.plugins import registry
from mae_cli.records import Row, Verdict
from mae_cli.training.eligible_rows import trainable
from tests.conftest import save_tiny_model
from tests.support import a_row, here, read_json_lines, write_rows

ROWS = [
    a_row(index=0, reward=1.0, kept=True),
    a_row(index=1, reward=None),
    a_row(index=2, reward=1.0, kept=False, stored=["pairs"]),
    a_row(purpose="difficulty", reward=1.0),
    a_row("judge", "grade", reward=1.0),
    a_row(purpose="eval", reward=1.0),
    a_row(index=3, reward=0.0, status="error", raw=None, completion=None),
    a_row("proposer", reward=0.0, status="unparsed"),
]


def test_difficulty_grade_and_eval_rows_are_never_trained() -> None:
    rows, left_out = trainable(ROWS, ["train"], registry.build("objectives", "sft"))

    assert [row.id for row in rows] == [ROWS[0].id, ROWS[1].id, ROWS[7].id]
    assert left_out == {
        "only stored, not kept": 1,
        "purpose difficulty": 1,
        "purpose grade": 1,
        "purpose eval": 1,
        "nothing generated": 1,
    }


def test_an_unknown_reward_is_not_trained_where_rewards_are_needed() -> None:
    rows, left_out = trainable(ROWS, ["train"], registry.build("objectives", "reinforce_pp"))

    assert [row.id for row in rows] == [ROWS[0].id, ROWS[7].id]
    assert left_out["reward unknown"] == 1


def test_nothing_to_train_is_exit_3_with_the_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = write_rows(tmp_path / "4.jsonl", ROWS[3:6])

    assert here("finetune", given, "-o", tmp_path / "adapter") == 3
    assert "no row to train on (1 purpose difficulty, 1 purpose grade, 1 purpose eval)" in capsys.readouterr().err


def finetune(tiny_model_dir: Path, given: Path, out: Path, *options: object) -> int:
    return here(
        "finetune", given, "-o", out, "-m", tiny_model_dir, "--device", "cpu", "--set", "finetune.lora_r=2", *options
    )


def pair(group: str, texts: tuple[str, str], **changes: object) -> list[Row]:
    """A chosen and a rejected row."""
    rows = [a_row(index=index, prompt=group, raw=text, reward=1.0 - index) for index, text in enumerate(texts)]
    for row in rows:
        row.group_id = group
        for name, value in changes.items():
            setattr(row, name, value)
    return rows


def test_bad_rows_are_told_in_a_line_each_and_the_rest_is_trained(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        *pair("good", ("two apples", "nine books")),
        *pair("equal", ("the same", "the same")),
        *pair("empty", ("", "")),
        *pair("endless", ("word", "other"), completion_token_ids=[5] * 100_000),
        *pair("unknown", ("a", "b"), reward=None),
        *pair("tie", ("c", "d"), reward=0.5),
    ]
    given = write_rows(tmp_path / "4.jsonl", rows)

    code = finetune(tiny_model_dir, given, tmp_path / "adapter", "--objective", "dpo")

    said = capsys.readouterr().err
    assert code == 0
    assert "2 rows not trained: nothing generated" in said
    assert "2 rows not trained: reward unknown" in said
    assert "not trained: 2 too_long, 2 equal_sides, 2 no_spread" in said
    assert "2 rows in 1 pairs" in said
    assert len(read_json_lines(tmp_path / "adapter" / "train_rows.jsonl")) == 2


def test_no_token_to_train_is_exit_2(tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = write_rows(tmp_path / "4.jsonl", [a_row(raw="word", completion_token_ids=[5] * 100_000)])

    assert finetune(tiny_model_dir, given, tmp_path / "adapter") == 2
    assert "nothing to train: no row with a trained token (1 too_long)" in capsys.readouterr().err


def test_rewards_that_agree_are_exit_3_and_name_the_role(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write_rows(tmp_path / "4.jsonl", [a_row(index=index, reward=1.0) for index in range(3)])

    assert finetune(tiny_model_dir, given, tmp_path / "adapter", "--objective", "reinforce_pp") == 3
    assert "3 rows of solver give ReinforcePp no row or pair to train (3 no_spread" in capsys.readouterr().err


def test_another_rank_on_resume_is_refused_with_both_values(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write_rows(tmp_path / "4.jsonl", [a_row(index=index) for index in range(3)])
    assert finetune(tiny_model_dir, given, tmp_path / "adapter") == 0

    assert finetune(tiny_model_dir, given, tmp_path / "adapter", "--set", "finetune.lora_r=4") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "finetune.lora_r: 2 there, 4 now" in error
    assert finetune(tiny_model_dir, given, tmp_path / "adapter") == 0


def test_other_preferences_of_a_judge_are_another_training(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = pair("good", ("two apples", "nine books"))
    for name, score in (("first", 1.0), ("second", 0.0)):
        one.verdicts = [Verdict("pairwise", "judge", "pair", score=score, opponent_id=other.id)]
        write_rows(tmp_path / f"{name}.jsonl", [one, other])
    options = ("--set", "finetune.objective={name: dpo, pairs: verdicts}")
    assert finetune(tiny_model_dir, tmp_path / "first.jsonl", tmp_path / "adapter", *options) == 0

    assert finetune(tiny_model_dir, tmp_path / "second.jsonl", tmp_path / "adapter", *options) == 2
    assert "preferences" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("flag", ["--adapter", "--set=finetune.reference"])
def test_an_adapter_for_another_base_is_one_line_and_nothing_is_left_half_made(
    flag: str, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*pair("good", ("two apples", "nine books")), *pair("more", ("six", "ten"))]
    given = write_rows(tmp_path / "4.jsonl", rows)
    deeper = save_tiny_model(tmp_path / "deeper", layers=3)
    assert finetune(deeper, given, tmp_path / "foreign") == 0
    capsys.readouterr()

    option = [flag, tmp_path / "foreign"] if flag == "--adapter" else [f"{flag}={tmp_path / 'foreign'}"]
    code = finetune(tiny_model_dir, given, tmp_path / "adapter", "--objective", "dpo", *option)

    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert "the adapter is for another base model" in lines[-1]
    assert not (tmp_path / "adapter").exists()
