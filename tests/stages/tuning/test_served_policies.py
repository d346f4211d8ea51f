"""Engines that cannot be trained are refused before a round is generated; unknown writers of rows are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mae_cli.errors import ConfigError
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Policy, Row
from mae_cli.stages.tuning.served_policies import check_trains, unknown_writers
from tests.support import a_row, here


@pytest.mark.parametrize("engine", ["openai", "openai:retry_seconds=5", "vllm", "vllm:lora=false"])
def test_a_run_with_an_engine_that_only_generates_is_refused_at_the_start(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for more in ((), ("--dry-run",)):
        line = ("run", "quickstart", "--run-dir", run, "--engine", engine, "--base-url", "http://127.0.0.1:9/v1", *more)
        assert here(*line) == 2
        error = capsys.readouterr().err
        assert f'engine "{engine}" has no weights to train' in error
        assert "keep engine: hf" in error
        assert error.count("\n") == 1
    assert not run.exists()


def test_engines_with_weights_or_without_any_are_left_to_the_training_itself() -> None:
    for engine in ("hf", "hf:steps", "scripted", "my.module:open"):
        check_trains(Recipe(engine=engine))
    with pytest.raises(ConfigError, match="serves_policy: true"):
        check_trains(Recipe(engine="openai"))


def row_of(model: str) -> Row:
    return a_row(policy=Policy(model=model))


@pytest.mark.parametrize(
    ("models", "notice"),
    [
        (["a" * 20], ""),
        (["scripted:accuracy=1", "dpo file, line 3"], ""),
        (
            ["a" * 20, "gpt-x", "gpt-x"],
            "2 of 3 trained rows were written by a model that is known by a name only (gpt-x)",
        ),
        (["m:latest"], "1 of 1 trained rows were written by a model that is known by a name only (m:latest)"),
    ],
)
def test_rows_of_a_model_that_is_known_by_name_only_are_told(models: list[str], notice: str) -> None:
    found = unknown_writers([row_of(model) for model in models])

    assert notice in found
    assert bool(found) == bool(notice)
