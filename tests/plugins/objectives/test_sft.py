from __future__ import annotations

import math

import pytest
import torch

from mae_cli.plugins.contracts import ObjectiveBatch, Unit
from mae_cli.plugins.objectives.sft import AdvantageSft, Sft
from mae_cli.plugins.registry import build
from mae_cli.records.rewarded import Rewarded

ROWS = [Rewarded("solver", "a", 0.0), Rewarded("solver", "a", 1.0), Rewarded("judge", "b", 0.5)]


def batch(logprobs: torch.Tensor, mask: torch.Tensor, values: list[float]) -> ObjectiveBatch:
    return ObjectiveBatch(logprobs=logprobs, mask=mask, values=torch.tensor(values))


def test_the_loss_of_a_row_is_minus_the_sum_of_its_trained_logprobs() -> None:
    logprobs = torch.tensor([[-1.0, -2.0], [-4.0, -100.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])

    output = Sft().loss(batch(logprobs, mask, [1.0, 0.5]))

    # 1 + 2, and half of 4; the masked -100 does not count
    assert output.losses.tolist() == [3.0, 2.0]


def test_every_row_weighs_one_whatever_its_reward() -> None:
    plan = Sft().plan([*ROWS, Rewarded("judge", "b", None)], min_spread=1.0)

    assert plan.units == tuple(Unit((index,), 1.0) for index in range(4))
    assert not plan.skipped
    assert not Sft().needs.reward


def test_rewards_as_weights_leave_rows_without_any_out() -> None:
    objective = Sft(weights="reward")

    plan = objective.plan(ROWS, min_spread=0.0)

    assert objective.needs.reward
    assert plan.units == (Unit((1,), 1.0), Unit((2,), 0.5))
    assert plan.dropped == {"no_weight": 1}


def test_scaled_and_summed_it_is_plain_cross_entropy() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[1, 4, 0], [2, -100, -100]])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    chosen = logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    units = Sft().plan(ROWS[:2], min_spread=0.0).units

    losses = Sft().loss(batch(chosen, (labels >= 0).float(), [1.0, 1.0])).losses
    scales = Sft().scales(units, [3, 1])

    assert (losses * torch.tensor(scales)).sum().item() == pytest.approx(expected.item(), abs=1e-6)


def test_only_rows_over_average_are_imitated_and_none_counts_more_than_allowed() -> None:
    # rewards 0 0 0 0 0 0 0 0 0 1: mean 0.1, spread 0.3, so the last advantage is 0.9 / 0.3 = 3, cut to 2
    rows = [Rewarded("solver", str(index), float(index == 9)) for index in range(10)]

    plan = AdvantageSft().plan(rows, min_spread=1e-4)

    assert plan.units == (Unit((9,), 2.0),)
    assert plan.dropped == {"below_average": 9}


def test_exponential_weights_by_hand() -> None:
    # rewards 0 and 1 are advantages -1 and 1; exp(1 / 2) = 1.6487, exp(-1 / 2) = 0.6065
    plan = AdvantageSft(weights="exponential", temperature=2.0).plan(ROWS[:2], min_spread=1e-4)

    assert [unit.value for unit in plan.units] == pytest.approx([math.exp(-0.5), math.exp(0.5)], abs=1e-6)


def test_a_role_without_spread_is_not_imitated_and_named() -> None:
    plan = AdvantageSft().plan(ROWS, min_spread=1e-4)

    assert plan.skipped == ("judge",)
    assert plan.dropped == {"alone": 1, "below_average": 1}


def test_a_recipe_names_it_without_options() -> None:
    assert build("objectives", "sft") == Sft()
