"""What a base would draw at random in training mode is off: ratios and log-ratios start where they must."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mae_cli.recipe.sections import FinetuneSection
from mae_cli.training.base_noise import noise_of, without_base_noise
from mae_cli.training.full_tuning import ModelFolders
from mae_cli.training.lora_tuning import LoraTuning
from tests.support import read_json_lines

from .conftest import Tiny, load_tiny, make_groups, make_row, make_rows, train_tiny
from .families import save_family

NOISY = ["gpt2", "opt", "mixtral"]


def opened(name: str, tmp_path: Path, **changes: Any) -> Tiny:
    return load_tiny(save_family(name, tmp_path / "model", **changes))


def pairs(tiny: Tiny) -> list[Any]:
    return [
        make_row(tiny.chat, f"what is the sum of {number}", text, reward=reward, index=index, group=number)
        for number in range(4)
        for index, (text, reward) in enumerate(((" the answer is ten", 1.0), (" zoe", 0.0)))
    ]


def first_step(folder: Path) -> dict[str, Any]:
    return next(note for note in read_json_lines(folder / "train_log.jsonl") if "loss" in note)


def section(**options: Any) -> FinetuneSection:
    return FinetuneSection(**{"epochs": 2, "batch_size": 100, "lora_r": 4, "save_every": 0, **options})


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "recomputed"])
@pytest.mark.parametrize("family", NOISY)
def test_the_first_dpo_loss_is_ln_2(family: str, checkpointing: bool, tmp_path: Path) -> None:
    tiny = opened(family, tmp_path)

    train_tiny(tiny, pairs(tiny), section(objective="dpo", gradient_checkpointing=checkpointing), tmp_path / "adapter")

    assert first_step(tmp_path / "adapter")["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_first_dpo_loss_of_a_whole_model_is_ln_2(tmp_path: Path) -> None:
    tiny = opened("gpt2", tmp_path)
    folders = ModelFolders(tmp_path / "model", tmp_path / "model")

    train_tiny(
        tiny,
        pairs(tiny),
        section(objective="dpo", full=True, learning_rate=1e-5),
        tmp_path / "out",
        folders=folders,
    )

    assert first_step(tmp_path / "out")["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("family", NOISY)
def test_the_first_kto_loss_is_one_half(family: str, tmp_path: Path) -> None:
    tiny = opened(family, tmp_path)

    train_tiny(tiny, pairs(tiny), section(objective="kto"), tmp_path / "adapter")

    assert first_step(tmp_path / "adapter")["loss"] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("family", NOISY)
def test_the_first_ratio_of_a_policy_gradient_is_one(family: str, tmp_path: Path) -> None:
    tiny = opened(family, tmp_path)

    train_tiny(tiny, make_groups(tiny.chat), section(objective="reinforce_pp"), tmp_path / "adapter")

    metrics = first_step(tmp_path / "adapter")["metrics"]
    assert metrics["clip_share"] == 0
    assert metrics["kl_behaviour"] == pytest.approx(0.0, abs=1e-6)


def test_recomputing_activations_changes_no_loss_where_the_base_has_dropout(tmp_path: Path) -> None:
    losses = []
    for checkpointing in (False, True):
        tiny = opened("gpt2", tmp_path / str(checkpointing))
        chosen = section(objective="sft", gradient_checkpointing=checkpointing, batch_size=4)
        train_tiny(tiny, make_rows(tiny.chat, 8), chosen, tmp_path / f"adapter-{checkpointing}")
        losses.append(
            [note["loss"] for note in read_json_lines(tmp_path / f"adapter-{checkpointing}/train_log.jsonl")[1:]]
        )

    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert len(losses[0]) == 4


def test_a_continued_adapter_takes_the_dropout_of_this_training(tmp_path: Path) -> None:
    tiny = opened("llama", tmp_path)
    train_tiny(tiny, make_rows(tiny.chat, 4), section(lora_dropout=0.5, learning_rate=1e-2), tmp_path / "first")
    told: list[str] = []

    train_tiny(
        tiny,
        pairs(tiny),
        section(objective="dpo"),
        tmp_path / "second",
        start_adapter=tmp_path / "first",
        on_text=told.append,
    )

    assert first_step(tmp_path / "second")["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert any("LoRA dropout of 0.5" in text for text in told)


def test_the_dropout_of_the_adapter_stays_on(tmp_path: Path) -> None:
    tiny = opened("llama", tmp_path)
    tuning = LoraTuning(FinetuneSection(lora_r=4, lora_dropout=0.5))

    with tuning.attached(tiny.model, seed=0) as policy, without_base_noise(policy):
        dropouts = [module for module in policy.modules() if isinstance(module, torch.nn.Dropout)]

        assert dropouts
        assert all(module.training for module in dropouts)
    assert not any(module.training for module in tiny.model.modules())


def test_the_rates_of_a_config_are_told(tmp_path: Path) -> None:
    assert noise_of(opened("gpt2", tmp_path / "a").model.config) == {
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
    }
    assert noise_of(opened("llama", tmp_path / "b").model.config) == {}
    assert noise_of(opened("mixtral", tmp_path / "c").model.config) == {"router_jitter_noise": 0.1}
