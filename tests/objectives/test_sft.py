from __future__ import annotations

import pytest
import torch

from mae_cli.objectives.sft import Sft
from mae_cli.registry import ObjectiveBatch, Rewarded, build


def batch(logprobs: torch.Tensor, mask: torch.Tensor, advantages: list[float]) -> ObjectiveBatch:
    return ObjectiveBatch(
        logprobs=logprobs,
        behaviour_logprobs=logprobs.detach(),
        mask=mask,
        advantages=torch.tensor(advantages),
    )


def test_the_loss_is_minus_the_sum_of_trained_logprobs() -> None:
    logprobs = torch.tensor([[-1.0, -2.0], [-4.0, -100.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])

    output = Sft().loss(batch(logprobs, mask, [1.0, 1.0]))

    # -(-1 - 2 - 4); the masked -100 does not count
    assert output.loss_sum.item() == 7.0


def test_every_row_weighs_one_whatever_its_reward() -> None:
    rows = [Rewarded("solver", "a", 0.0), Rewarded("judge", "b", None), Rewarded("solver", "a", 1.0)]

    advantages = Sft().advantages(rows, min_spread=1.0)

    assert advantages.values == (1.0, 1.0, 1.0)
    assert not advantages.skipped
    assert not advantages.left_out


def test_the_loss_divided_by_its_tokens_is_plain_cross_entropy() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[1, 4, 0], [2, -100, -100]])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    chosen = logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]

    output = Sft().loss(batch(chosen, (labels >= 0).float(), [1.0, 1.0]))

    assert output.loss_sum.item() / 4 == pytest.approx(expected.item(), abs=1e-6)


def test_a_recipe_names_it_without_options() -> None:
    assert build("objectives", "sft") == Sft()
