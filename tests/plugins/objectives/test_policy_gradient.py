"""What GRPO, RLOO and the options of the family change; the clipped loss by hand is in test_reinforce_pp.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import ObjectiveBatch, Plan, Unit
from mae_cli.plugins.objectives.policy_gradient import Grpo, PolicyGradient, ReinforcePp, Rloo
from mae_cli.plugins.registry import build
from mae_cli.records.rewarded import Rewarded

# Two groups of one role; the second agrees.
ROWS = [Rewarded("solver", "a", reward) for reward in (0.0, 0.0, 1.0, 1.0, 1.0)] + [Rewarded("solver", "b", 1.0)] * 3


def values(plan: Plan) -> list[float]:
    return [unit.value for unit in plan.units]


def batch(
    ratios: list[list[float]], advantages: list[float], mask: list[list[float]] | None = None, **more: Any
) -> tuple[ObjectiveBatch, torch.Tensor]:
    """Rows whose behaviour had logprob -1 everywhere, and the log-probabilities to differentiate by."""
    shape = torch.ones(len(ratios), len(ratios[0])) if mask is None else torch.tensor(mask)
    logprobs = ((torch.tensor(ratios).log() - 1.0) * shape).requires_grad_()
    behaviour = -shape
    given = ObjectiveBatch(
        logprobs=logprobs, mask=shape, values=torch.tensor(advantages), behaviour_logprobs=behaviour, **more
    )
    return given, logprobs


def test_grpo_advantages_by_hand_and_a_group_that_agrees_is_left_out() -> None:
    plan = Grpo(eps=0.0).plan(ROWS, min_spread=1e-4)

    # mean 0.6, population spread sqrt(0.6 * 0.4) = 0.4898979
    assert values(plan) == pytest.approx([-1.2247449] * 2 + [0.8164966] * 3)
    assert plan.dropped == {"no_spread": 3}
    assert plan.skipped == ()


def test_the_sample_spread_divides_by_one_row_less() -> None:
    # sqrt(5 * 0.24 / 4) = 0.5477226
    assert values(Grpo(eps=0.0, spread="sample").plan(ROWS, min_spread=1e-4))[2] == pytest.approx(0.4 / 0.5477226)


def test_without_division_an_advantage_is_the_distance_from_the_mean() -> None:
    assert values(Grpo(divide_by_spread=False).plan(ROWS, min_spread=1e-4)) == pytest.approx([-0.6] * 2 + [0.4] * 3)


def test_leave_one_out_by_hand() -> None:
    plan = Rloo().plan(ROWS, min_spread=1e-4)

    # reward 0 against a mean of 3/4 of the others, reward 1 against 2/4
    assert values(plan) == pytest.approx([-0.75] * 2 + [0.5] * 3)
    assert sum(values(plan)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("objective", [Grpo(), Rloo()])
def test_a_role_of_which_no_group_differs_is_skipped_by_name(objective: PolicyGradient) -> None:
    rows = [*ROWS, Rewarded("judge", "c", 0.5), Rewarded("judge", "d", 0.5), Rewarded("judge", "d", 0.5)]

    plan = objective.plan(rows, min_spread=1e-4)  # type: ignore[attr-defined]

    assert plan.skipped == ("judge",)
    assert plan.dropped == {"alone": 1, "no_spread": 5}


def test_rows_of_two_roles_in_one_group_are_not_compared() -> None:
    rows = [Rewarded("solver", "a", 0.0), Rewarded("judge", "a", 1.0)]

    assert Grpo().plan(rows, min_spread=0.0).units == ()


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        # tokens 2 and 6 of two rows: 1/8; 1/(2 * 2) and 1/(2 * 6); 1/(2 * 100)
        ("token_mean", [1 / 8, 1 / 8]),
        ("sequence_mean", [1 / 4, 1 / 12]),
        ("fixed_length", [1 / 200, 1 / 200]),
    ],
)
def test_scales_by_hand(reduction: Any, expected: list[float]) -> None:
    units = [Unit((0,), 1.0), Unit((1,), 1.0)]

    assert Grpo(reduction=reduction, fixed_length=100).scales(units, [2, 6]) == pytest.approx(expected)


def test_a_sequence_ratio_is_the_product_and_clips_as_one() -> None:
    given, logprobs = batch([[1.1, 1.05], [1.2, 1.1]], [1.0, 1.0])

    losses = Rloo().loss(given).losses
    (losses * torch.tensor([0.5, 0.5])).sum().backward()

    # 1.1 * 1.05 = 1.155 is inside 1.2; 1.2 * 1.1 = 1.32 is cut to 1.2. Each row counts once whatever its length:
    # the sum over 2 tokens is twice that, and the scale is 1/(rows * tokens).
    assert losses.tolist() == pytest.approx([-2 * 1.155, -2 * 1.2], abs=1e-5)
    assert logprobs.grad is not None
    assert logprobs.grad.flatten().tolist() == pytest.approx([-1.155, -1.155, 0.0, 0.0], abs=1e-5)


def test_a_mean_sequence_ratio_is_the_geometric_mean_of_the_unmasked() -> None:
    given, _ = batch([[1.1, 1.05, 9.0]], [1.0], mask=[[1.0, 1.0, 0.0]])

    # sqrt(1.155) = 1.0747093
    assert Grpo(ratio="sequence_mean").loss(given).losses.item() == pytest.approx(-2 * 1.0747093, abs=1e-5)


def test_tokens_outside_the_ratio_range_are_left_out_and_counted() -> None:
    given, logprobs = batch([[0.05, 0.9, 12.0]], [-1.0])

    output = Grpo(ratio_range=(0.1, 10.0), clip_low=1.0, clip_high=50.0).loss(given)
    output.losses.sum().backward()

    assert output.losses.item() == pytest.approx(0.9, abs=1e-5)
    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, 0.9, 0.0], abs=1e-5)
    assert [total.item() for total in output.metrics["left_out_share"]] == [2.0, 3.0]


def test_the_k3_penalty_by_hand() -> None:
    # policy at -1, reference at -1 + ln 2: ratio 2, so 2 - ln 2 - 1 = 0.3068528; its gradient is 1 - 2 = -1
    reference = torch.tensor([[-1.0 + math.log(2.0)]])
    given, logprobs = batch([[1.0]], [0.0], reference_logprobs=reference)

    objective = Grpo(kl_coefficient=0.5)
    output = objective.loss(given)
    output.losses.sum().backward()

    assert objective.needs.reference
    assert output.losses.item() == pytest.approx(0.5 * 0.3068528, abs=1e-6)
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(-0.5, abs=1e-6)


def test_the_k1_penalty_is_taken_from_the_advantage_of_the_whole_row() -> None:
    # behaviour -1 each, reference -1.5 each: k1 = 0.5 + 0.5 = 1, so the advantage 1 falls to 1 - 0.3
    given, logprobs = batch([[1.0, 1.0]], [1.0], reference_logprobs=torch.full((1, 2), -1.5))

    Grpo(kl_coefficient=0.3, kl_estimator="k1").loss(given).losses.sum().backward()

    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([-0.7, -0.7], abs=1e-6)


def test_only_what_is_asked_for_is_needed() -> None:
    assert not Grpo().needs.reference
    assert not Grpo().needs.entropy
    assert Grpo(entropy_coefficient=0.1).needs.entropy
    assert Grpo(kl_coefficient=0.1).needs.reference
    assert ReinforcePp().needs.behaviour


@pytest.mark.parametrize(
    "option", [{"ratio_range": [2.0, 10.0, 3.0]}, {"ratio_range": [0.1, 0.5]}, {"fixed_length": 0}, {"whiten": "role"}]
)
def test_options_out_of_range_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="grpo"):
        build("objectives", {"name": "grpo", **option})
