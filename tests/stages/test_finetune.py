"""What finetune picks; the training itself is tested in tests/training."""

from __future__ import annotations

from pathlib import Path

import pytest

from mae_cli import registry
from mae_cli.stages.finetune import trainable
from tests.support import a_row, here, write_rows

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
