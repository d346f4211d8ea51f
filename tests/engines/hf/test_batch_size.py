"""The automatic batch size: measured, remembered, and never more than fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mae_cli.engines.hf import batch_size as hf_batch
from mae_cli.engines.hf import engine as hf
from mae_cli.engines.hf.batch_size import best_size, bytes_per_token, fitting, measure
from mae_cli.recipe.sections import Recipe


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # A step costs the same for up to 64 rows: doubling pays until then.
        ({8: 1, 16: 1, 32: 1, 64: 1, 128: 2, 256: 4}, 64),
        # Twice the rows, twice the time from the start.
        ({8: 1, 16: 2, 32: 4, 64: 8, 128: 16, 256: 32}, 8),
        # Memory is out at 32 rows.
        ({8: 1, 16: 1, 32: float("inf")}, 16),
        ({8: 1, 16: 1, 32: 1, 64: 1, 128: 1, 256: 1}, 256),
        # Not even the smallest fits: it is tried all the same, and halved.
        ({size: float("inf") for size in (8, 16, 32, 64, 128, 256)}, 8),
    ],
)
def test_the_size_doubles_while_it_pays(seconds: dict[int, float], expected: int) -> None:
    assert measure(lambda rows: seconds[rows]) == expected


def test_a_measured_size_is_remembered(tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = hf.open_engine(tiny_recipe, "")
    first = best_size(engine.prefiller, tmp_path, "model")
    monkeypatch.setattr(hf_batch, "measure", lambda seconds: pytest.fail("measured again"))

    assert best_size(engine.prefiller, tmp_path, "model") == first
    assert list(json.loads((tmp_path / "batch_sizes.json").read_text()).values()) == [first]
    with pytest.raises(pytest.fail.Exception):
        best_size(engine.prefiller, tmp_path, "another model")


def test_a_broken_memory_of_sizes_is_measured_anew(tiny_recipe: Recipe, tmp_path: Path) -> None:
    engine = hf.open_engine(tiny_recipe, "")
    (tmp_path / "batch_sizes.json").write_text("{")

    assert best_size(engine.prefiller, tmp_path, "model") in hf_batch.SIZES


def test_keys_and_values_must_fit(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    model = hf.open_engine(tiny_recipe, "").model
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    assert bytes_per_token(model) == 2 * config.num_hidden_layers * config.num_key_value_heads * size * 4

    monkeypatch.setattr(hf_batch, "room_bytes", lambda model: 100 * 40 * bytes_per_token(model))

    assert fitting(32, 100, model) == 32
    assert fitting(128, 100, model) == 32
    assert fitting(128, 2000, model) == 2
    assert fitting(128, 100_000, model) == 1


def test_a_small_job_is_not_measured(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.engines.hf.test_engine import requests_for

    engine = hf.open_engine(tiny_recipe, "")
    monkeypatch.setattr(hf, "best_size", lambda *args: 16)

    assert [len(segment) for segment in engine.plan(requests_for(20, 2), 64)] == [32, 8]
    assert [len(segment) for segment in engine.plan(requests_for(20, 4), 64)] == [16] * 5
