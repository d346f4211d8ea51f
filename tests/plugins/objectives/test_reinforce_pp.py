from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import ObjectiveBatch
from mae_cli.plugins.objectives.policy_gradient import ReinforcePp
from mae_cli.plugins.registry import build
from mae_cli.records.rewarded import Rewarded

# Three roles on different scales, as in MAE: proposers near 0.6, solvers 0 to 1, judges nearly always right.
REWARDS = {
    "proposer": [0.55, 0.60, 0.70, 0.65],
    "solver": [0.0, 1.0, 0.25, 0.75, 0.5],
    "judge": [1.0, 1.0, 0.5],
}
ROWS = [Rewarded(role, role, reward) for role, rewards in REWARDS.items() for reward in rewards]


def surrogate(
    ratio: Sequence[float], advantage: float, objective: ReinforcePp | None = None
) -> tuple[float, list[float], dict[str, float]]:
    """Loss sum, its gradient by the log-probabilities, and metrics of one row whose behaviour had logprob -1."""
    logprobs = torch.tensor([[math.log(value) - 1.0 for value in ratio]], requires_grad=True)
    output = (objective or ReinforcePp(entropy_coefficient=0.0)).loss(
        ObjectiveBatch(
            logprobs=logprobs,
            behaviour_logprobs=torch.full((1, len(ratio)), -1.0),
            mask=torch.ones(1, len(ratio)),
            values=torch.tensor([advantage]),
        )
    )
    output.losses.sum().backward()
    assert logprobs.grad is not None
    metrics = {name: total.item() for name, (total, _) in output.metrics.items()}
    return output.losses.sum().item(), logprobs.grad[0].tolist(), metrics


def planned(
    objective: ReinforcePp, rows: Sequence[Rewarded] = ROWS, min_spread: float = 1e-4
) -> tuple[list[float], tuple[str, ...], dict[str, int]]:
    """Value by row (0 where left out), skipped roles, rows dropped by reason."""
    plan = objective.plan(rows, min_spread=min_spread)
    values = [0.0] * len(rows)
    for unit in plan.units:
        (values[unit.rows[0]],) = (unit.value,)
    return values, plan.skipped, plan.dropped


def of_role(values: Sequence[float], role: str) -> list[float]:
    return [value for value, row in zip(values, ROWS, strict=True) if row.role == role]


@pytest.mark.parametrize("role", sorted(REWARDS))
def test_advantages_have_mean_0_and_population_spread_1_in_each_role(role: str) -> None:
    values = of_role(planned(ReinforcePp())[0], role)

    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    assert mean == pytest.approx(0.0, abs=1e-6)
    assert spread == pytest.approx(1.0, abs=1e-4)


def test_advantages_of_a_judge_by_hand() -> None:
    values = of_role(planned(ReinforcePp())[0], "judge")

    # mean 5/6, deviations 1/6, 1/6, -1/3, variance (1/36 + 1/36 + 1/9) / 3 = 1/18, spread 0.2357023
    # 1/6 / 0.2357023 = 0.7071068, -1/3 / 0.2357023 = -1.4142136
    assert values == pytest.approx([0.7071068, 0.7071068, -1.4142136], abs=1e-6)


def test_one_baseline_for_all_roles_changes_the_advantages() -> None:
    by_role = planned(ReinforcePp())[0]
    merged = planned(ReinforcePp(whiten="all"))[0]

    # Judges as a whole stand above the common mean: merged, being a judge would be rewarded.
    assert max(abs(a - b) for a, b in zip(by_role, merged, strict=True)) > 0.5
    assert sum(merged) == pytest.approx(0.0, abs=1e-6)
    assert sum(of_role(by_role, "judge")) == pytest.approx(0.0, abs=1e-6)
    assert sum(of_role(merged, "judge")) > 1.0


def test_a_baseline_key_splits_a_role_by_a_field_of_its_problem() -> None:
    # two tasks of one role: 0 and 1, 10 and 12; each has mean 0 and spread 1 by itself
    rows = [
        Rewarded("solver", "a", reward, meta={"task": task})
        for task, reward in (("sum", 0.0), ("sum", 1.0), ("code", 10.0), ("code", 12.0))
    ]

    assert planned(ReinforcePp(baseline_key="task"), rows)[0] == pytest.approx([-1.0, 1.0, -1.0, 1.0], abs=1e-6)
    assert planned(ReinforcePp(), rows)[0][1] < 0.0


def test_a_role_whose_rewards_agree_is_named_and_never_divided() -> None:
    rows = [Rewarded("solver", "a", 1.0), Rewarded("solver", "b", 0.0), *[Rewarded("judge", "c", 0.1)] * 3]

    values, skipped, dropped = planned(ReinforcePp(), rows)

    assert values == pytest.approx([1.0, -1.0, 0.0, 0.0, 0.0])
    assert skipped == ("judge",)
    assert dropped == {"no_spread": 3}


def test_rounding_noise_in_the_rewards_is_no_spread_even_when_nothing_is_asked() -> None:
    rows = [Rewarded("solver", "a", 0.1 + 0.2), Rewarded("solver", "b", 0.3)]

    # 0.1 + 0.2 - 0.3 = 5.6e-17: the variance 7.7e-34 is far under eps, so nothing is blown up to full size
    values = planned(ReinforcePp(), rows, 0.0)[0]

    assert max(abs(value) for value in values) < 1e-9


def test_a_single_row_has_no_spread() -> None:
    _, skipped, dropped = planned(ReinforcePp(), [Rewarded("judge", "a", 1.0)], 0.0)

    assert skipped == ("judge",)
    assert dropped == {"alone": 1}


def test_the_order_of_the_rows_does_not_change_an_advantage() -> None:
    forward = planned(ReinforcePp())[0]
    backward = planned(ReinforcePp(), ROWS[::-1])[0]

    assert forward == backward[::-1]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        # loss -A rho inside the clip range, and d(-A rho)/dlogprob = -A rho
        (1.0, 2.0, -2.0, -2.0),
        (1.2, 2.0, -2.4, -2.4),
        # A > 0 and rho over 1.28: the loss stays at -A * 1.28, no gradient
        (1.5, 2.0, -2.56, 0.0),
        # A > 0 and rho under 0.8: the unclipped -A rho is the larger loss, so it counts
        (0.5, 2.0, -1.0, -1.0),
        # A < 0 and rho under 0.8: the loss stays at -A * 0.8, no gradient
        (0.5, -2.0, 1.6, 0.0),
        # A < 0 and rho over 1.28: the unclipped 2 * 2 counts ...
        (2.0, -2.0, 4.0, 4.0),
        # ... up to the dual clip: 2 * 3, no gradient
        (4.0, -2.0, 6.0, 0.0),
    ],
)
def test_surrogate_of_one_token_by_hand(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    value, gradients, _ = surrogate([ratio], advantage)

    assert value == pytest.approx(loss, abs=1e-5)
    assert gradients == pytest.approx([gradient], abs=1e-5)


def test_the_clip_share_counts_tokens_whose_gradient_stopped() -> None:
    _, _, metrics = surrogate([1.0, 1.5, 0.5], 1.0)

    # only 1.5 is over 1.28; 0.5 is outside the range on the side where nothing is clipped for A > 0
    assert metrics["clip_share"] == 1.0


def test_the_divergence_estimate_by_hand() -> None:
    _, _, metrics = surrogate([1.0, 2.0], 1.0)

    # rho - 1 - ln rho: 0 for 1, and 2 - 1 - 0.6931472 for 2
    assert metrics["kl_behaviour"] == pytest.approx(0.3068528, abs=1e-6)


def test_the_entropy_bonus_lowers_the_loss() -> None:
    entropy = torch.tensor([[2.0, 5.0]], requires_grad=True)
    zeros = torch.zeros(1, 2)
    batch = ObjectiveBatch(
        logprobs=zeros,
        behaviour_logprobs=zeros,
        mask=torch.tensor([[1.0, 0.0]]),
        values=torch.tensor([1.0]),
        entropy=entropy,
    )

    output = ReinforcePp().loss(batch)
    output.losses.sum().backward()

    # -(A * 1 + 0.001 * 2); the second token is masked
    assert output.losses.item() == pytest.approx(-1.002, abs=1e-6)
    assert entropy.grad is not None
    assert entropy.grad[0].tolist() == pytest.approx([-0.001, 0.0])
    assert output.metrics["entropy"][0].item() == 2.0


def test_a_far_off_policy_token_keeps_the_loss_finite() -> None:
    value, gradients, _ = surrogate([1e30], -1.0)

    assert value == pytest.approx(3.0)
    assert gradients == [0.0]


def test_entropy_is_only_asked_for_when_it_counts() -> None:
    assert ReinforcePp().needs.entropy
    assert not ReinforcePp(entropy_coefficient=0.0).needs.entropy


@pytest.mark.parametrize("option", [{"dual_clip": 0.5}, {"clip_low": 1.5}, {"whiten": "problem"}, {"clip": 0.2}])
def test_options_out_of_range_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="reinforce_pp"):
        build("objectives", {"name": "reinforce_pp", **option})
