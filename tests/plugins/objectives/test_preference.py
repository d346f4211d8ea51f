from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import ObjectiveBatch, Unit
from mae_cli.plugins.objectives.preference import Dpo, Hinge, Ipo, Orpo, Preference, Robust, Simpo
from mae_cli.plugins.registry import build
from mae_cli.records.rewarded import Rewarded

LN2 = math.log(2.0)


def batch(
    chosen: list[float], rejected: list[float], *, gap: float = 0.0, reference: float = -1.0
) -> tuple[ObjectiveBatch, torch.Tensor]:
    """One pair with these token log-probabilities; the reference gives every token the same one."""
    width = max(len(chosen), len(rejected))
    sides = [chosen, rejected]
    mask = torch.tensor([[float(place < len(side)) for place in range(width)] for side in sides])
    logprobs = torch.tensor([side + [0.0] * (width - len(side)) for side in sides], requires_grad=True)
    given = ObjectiveBatch(
        logprobs=logprobs, mask=mask, values=torch.tensor([gap]), reference_logprobs=reference * mask
    )
    return given, logprobs


def loss(objective: Preference, chosen: list[float], rejected: list[float], **more: Any) -> float:
    return objective.loss(batch(chosen, rejected, **more)[0]).losses.item()


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


# chosen: 2 tokens, log-ratio (-0.5 + 1) + (-0.5 + 1) = 1; rejected: 1 token, log-ratio -3 + 1 = -2; margin 3
CHOSEN, REJECTED = [-0.5, -0.5], [-3.0]


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        # z = 0.1 * 3
        (Dpo(), -math.log(sigmoid(0.3))),
        (Dpo(label_smoothing=0.2), -0.8 * math.log(sigmoid(0.3)) - 0.2 * math.log(sigmoid(-0.3))),
        (
            Robust(label_smoothing=0.2),
            (-0.8 * math.log(sigmoid(0.3)) + 0.2 * math.log(sigmoid(-0.3))) / 0.6,
        ),
        (Hinge(), 0.7),
        (Hinge(beta=1.0), 0.0),
        # means over tokens: 0.5 - (-2) = 2.5 against 1 / 0.2 = 5
        (Ipo(), 6.25),
        (Ipo(per_token=False), 4.0),
        # mean log-probabilities -0.5 and -3: 2 * 2.5 - 1 = 4
        (Simpo(), -math.log(sigmoid(4.0))),
        # odds e^-0.5 / (1 - e^-0.5) = 1.5414941, e^-3 / (1 - e^-3) = 0.0523957; log odds ratio 3.3817
        (Orpo(), 0.5 - 0.1 * math.log(sigmoid(math.log(1.5414941 / 0.0523957)))),
        (Dpo(sft_weight=2.0), -math.log(sigmoid(0.3)) + 2.0 * 0.5),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Preference) else "",
)
def test_losses_by_hand(objective: Preference, expected: float) -> None:
    assert loss(objective, CHOSEN, REJECTED) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
def test_a_policy_that_is_its_reference_has_loss_ln_2_whatever_beta(beta: float) -> None:
    # SPIN's first batch: the policy is the opponent.
    assert loss(Dpo(beta=beta), [-1.0] * 3, [-1.0] * 7) == pytest.approx(LN2, abs=1e-6)


def test_alpha_0_is_plain_dpo_and_a_wider_gap_asks_for_a_wider_margin() -> None:
    for gap in (0.0, 0.5, 2.0):
        assert loss(Dpo(beta=0.3), CHOSEN, REJECTED, gap=gap) == loss(Dpo(beta=0.3), CHOSEN, REJECTED)

    # Step-APO: -log sigmoid(0.3 * 3 - 1 * gap)
    for gap in (0.5, 2.0):
        expected = -math.log(sigmoid(0.9 - gap))
        assert loss(Dpo(beta=0.3, alpha=1.0), CHOSEN, REJECTED, gap=gap) == pytest.approx(expected, abs=1e-5)


def test_the_gradient_grows_with_the_gap_under_alpha() -> None:
    sizes = []
    for gap in (0.0, 0.5, 1.0):
        given, logprobs = batch(CHOSEN, REJECTED, gap=gap)
        Dpo(alpha=1.0).loss(given).losses.sum().backward()
        assert logprobs.grad is not None
        sizes.append(logprobs.grad[0, 0].item())

    assert 0.0 > sizes[0] > sizes[1] > sizes[2]


def test_the_dpo_gradient_by_hand_pushes_the_sides_apart_and_leaves_padding_alone() -> None:
    given, logprobs = batch(CHOSEN, REJECTED)

    Dpo().loss(given).losses.sum().backward()

    # beta * sigmoid(-z) = 0.1 * sigmoid(-0.3)
    size = 0.1 * sigmoid(-0.3)
    assert logprobs.grad is not None
    assert logprobs.grad.flatten().tolist() == pytest.approx([-size, -size, size, 0.0], abs=1e-6)


def test_metrics_by_hand() -> None:
    output = Dpo().loss(batch(CHOSEN, REJECTED)[0])

    told = {name: (total.item(), count.item()) for name, (total, count) in output.metrics.items()}
    assert told == {
        "accuracy": (1.0, 1.0),
        "margin": (pytest.approx(3.0), 1.0),
        "chosen_score": (pytest.approx(1.0), 1.0),
        "chosen_loss": (pytest.approx(0.5), 1.0),
    }


def test_orpo_stays_finite_when_a_side_is_certain() -> None:
    given, logprobs = batch([0.0, 0.0], [-50.0])

    losses = Orpo().loss(given).losses
    losses.sum().backward()

    assert losses.isfinite().all()
    assert logprobs.grad is not None
    assert logprobs.grad.isfinite().all()


def test_only_simpo_and_orpo_need_no_reference() -> None:
    family = ("dpo", "robust", "hinge", "ipo", "simpo", "orpo")
    free = [name for name in family if not build("objectives", name).needs.reference]

    assert free == ["simpo", "orpo"]


ROWS = [
    Rewarded("solver", "a", 0.2, "p", "one"),
    Rewarded("solver", "a", 0.9, "p", "two"),
    Rewarded("solver", "a", 0.5, "p", "three"),
    Rewarded("solver", "a", None, "p", "four"),
    Rewarded("solver", "a", 0.0, "other prompt", "five"),
    Rewarded("solver", "b", 0.0, "p", "six"),
    Rewarded("solver", "b", 1.0, "p", "six"),
    Rewarded("judge", "a", 0.5, "p", "seven"),
    Rewarded("judge", "a", 0.5, "p", "eight"),
]


def test_best_against_worst_of_each_group_and_prompt() -> None:
    plan = Dpo().plan(ROWS, min_spread=1e-4)

    assert plan.units == (Unit((1, 0), pytest.approx(0.7)),)
    # five has a prompt of its own, the two sixes are one text with two rewards, the judges agree
    assert plan.dropped == {"alone": 1, "equal_sides": 2, "no_reward": 1, "no_spread": 2, "not_paired": 1}
    assert plan.skipped == ("judge",)


def test_every_two_rows_that_differ_enough() -> None:
    assert [unit.rows for unit in Dpo(pairs="all").plan(ROWS, min_spread=1e-4).units] == [(1, 2), (1, 0), (2, 0)]
    assert [unit.rows for unit in Dpo(pairs="all", min_gap=0.35).plan(ROWS, min_spread=1e-4).units] == [(1, 2), (1, 0)]


def test_the_smallest_difference_makes_a_pair_and_no_difference_makes_none() -> None:
    right_and_wrong = [Rewarded("solver", "a", 1.0, "p", "one"), Rewarded("solver", "a", 0.0, "p", "two")]
    agreed = [Rewarded("solver", "a", 1.0, "p", "one"), Rewarded("solver", "a", 1.0, "p", "two")]

    assert [unit.rows for unit in Dpo(min_gap=1.0).plan(right_and_wrong, min_spread=1e-4).units] == [(0, 1)]
    assert Dpo(min_gap=0.0).plan(agreed, min_spread=1e-4).units == ()


def test_pairs_from_verdicts_need_no_reward_and_follow_the_judge() -> None:
    rows = [
        Rewarded("solver", "a", 1.0, "p", "one", id="1", against={"2": 0.1, "3": 0.5}),
        Rewarded("solver", "a", None, "p", "two", id="2", against={"1": 0.9, "4": 1.0}),
        Rewarded("solver", "a", None, "p", "three", id="3"),
        Rewarded("solver", "a", None, "p", "four", id="4", against={"3": 0.75}),
        Rewarded("judge", "a", None, "q", "five", id="5"),
        Rewarded("judge", "a", None, "q", "six", id="6"),
    ]
    objective = Dpo(pairs="verdicts")

    plan = objective.plan(rows, min_spread=1e-4)

    # 2 beats 1 by 0.9 (gap 0.8), whatever the rewards; 1 and 3 tie; 2 beats 4 for sure; 4 beats 3 by 0.75 (gap 0.5)
    gaps = {unit.rows: unit.value for unit in plan.units}
    assert gaps == {(1, 0): pytest.approx(0.8), (1, 3): 1.0, (3, 2): pytest.approx(0.5)}
    assert plan.dropped == {"no_verdict": 2}
    assert plan.skipped == ("judge",)
    assert not objective.needs.reward


def test_ties_and_the_order_of_the_rows_decide_nothing() -> None:
    rows = [
        Rewarded("solver", "a", reward, "p", text) for reward, text in ((1.0, "b"), (1.0, "a"), (0.0, "d"), (0.0, "c"))
    ]
    texts = set()
    for turned in (rows, rows[::-1]):
        (unit,) = Dpo().plan(turned, min_spread=0.0).units
        texts.add(tuple(turned[index].completion for index in unit.rows))

    assert texts == {("a", "d")}


def test_the_loss_of_a_step_is_a_mean_over_pairs() -> None:
    assert Dpo().scales([Unit((0, 1), 1.0)] * 4, [10, 20, 30, 40]) == [0.25] * 4


@pytest.mark.parametrize("option", [{"beta": 0.0}, {"label_smoothing": 0.5}, {"pairs": "some"}, {"gamma": 1.0}])
def test_options_out_of_range_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="dpo"):
        build("objectives", {"name": "dpo", **option})
