"""Losses and LoRA gradients of SFT, DPO, KTO and GRPO equal TRL's on five families, in float32.

A base with dropout in its config (GPT-2), a mixture of experts, a sliding window that is shorter than the rows, a base
model without a chat template, and Llama. TRL trains SFT and GRPO with the config's dropout, and we never do: its side
computes in evaluation mode, ours in the training loop's own mode. TRL adds the auxiliary loss of a mixture of experts
by the config's coefficient, and we never do: the coefficient is 0 here. TRL pads the prompts of GRPO on the left
without position ids, which moves GPT-2's learned positions: its rows have one prompt here.
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

FAST, SLOW = ["gpt2", "qwen3_moe"], ["llama", "mistral", "without template"]
FAMILIES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
pairs, gradients = test_pairs_with_a_reference, test_policy_gradients
del test_pairs_with_a_reference, test_policy_gradients


@pytest.fixture(scope="module", params=FAMILIES)
def side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    changes = {"router_aux_loss_coef": 0.0} if request.param == "qwen3_moe" else {}
    folder: Path = save_family(request.param, tmp_path_factory.mktemp("family"), **changes)
    with opened(folder, torch.float32) as found:
        yield found


def test_dpo(side: Side, trainer: Callable[[str], Any]) -> None:
    pairs({"name": "dpo", "beta": 0.3}, "sigmoid", {"beta": 0.3}, side, trainer)


def test_grpo(side: Side, trainer: Callable[[str], Any]) -> None:
    if side.policy.config.model_type == "gpt2":
        side.rows = [row for row in side.rows if row.messages == side.rows[0].messages]
    gradients({**GRPO, **RATIOS, "kl_coefficient": 0.1}, "grpo", {"beta": 0.1}, side, trainer)
