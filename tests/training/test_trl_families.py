"""Losses and LoRA gradients of SFT, DPO, KTO and GRPO equal TRL's on five families, in float32.

A base with dropout in its config (GPT-2), a mixture of experts, a sliding window that is shorter than the rows, a base
model without a chat template, and Llama. TRL trains SFT and GRPO with the config's dropout, and we never do: its side
computes in evaluation mode, ours in the training loop's own mode. The auxiliary loss of a mixture of experts is off on
both sides (`output_router_logits` false, which is the config's default).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from .families import save_family
from .test_trl import (
    GRPO,
    RATIOS,
    Side,
    opened,
    test_kto,
    test_pairs_with_a_reference,
    test_policy_gradients,
    test_sft,
    trainer,
)

__all__ = ["test_kto", "test_sft", "trainer"]

FAMILIES = ["llama", "gpt2", "qwen3_moe", "mistral", "without template"]
pairs, gradients = test_pairs_with_a_reference, test_policy_gradients
del test_pairs_with_a_reference, test_policy_gradients


@pytest.fixture(scope="module", params=FAMILIES)
def side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    folder: Path = save_family(request.param, tmp_path_factory.mktemp("family"))
    with opened(folder, torch.float32) as found:
        yield found


def test_dpo(side: Side, trainer: Callable[[str], Any]) -> None:  # noqa: F811
    pairs({"name": "dpo", "beta": 0.3}, "sigmoid", {"beta": 0.3}, side, trainer)


def test_grpo(side: Side, trainer: Callable[[str], Any]) -> None:  # noqa: F811
    gradients({**GRPO, **RATIOS, "kl_coefficient": 0.1}, "grpo", {"beta": 0.1}, side, trainer)
