from __future__ import annotations

import pytest
import torch

from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import ObjectiveBatch, Unit
from mae_cli.plugins.objectives.mix import Mix
from mae_cli.plugins.registry import build
from mae_cli.records.rewarded import Rewarded

ROWS = [
    Rewarded("solver", "a", 0.0, "p", "w"),
    Rewarded("solver", "a", 1.0, "p", "x"),
    Rewarded("judge", "b", 1.0, "q", "y"),
    Rewarded("solver", "c", None, "r", "z"),
]
MIX = {
    "name": "mix",
    "parts": [{"objective": "reinforce_pp"}, {"objective": "sft", "weight": 0.5, "rows": "unrewarded"}],
}


def mix(*parts: object) -> Mix:
    built = build("objectives", {"name": "mix", "parts": list(parts)})
    assert isinstance(built, Mix)
    return built


def test_each_part_gets_its_own_rows() -> None:
    plan = build("objectives", MIX).plan(ROWS, min_spread=1e-4)

    assert plan.units == (
        Unit((0,), pytest.approx(-1.0), part=0),
        Unit((1,), pytest.approx(1.0), part=0),
        Unit((3,), 1.0, part=1),
    )
    assert plan.skipped == ("judge",)
    assert plan.dropped == {"reinforce_pp_alone": 1}


def test_a_row_may_be_trained_by_several_parts_and_a_pair_counts_as_one_unit() -> None:
    objective = mix({"objective": "dpo"}, {"objective": "sft", "roles": ["solver"], "min_reward": 0.5})

    assert objective.plan(ROWS, min_spread=1e-4).units == (Unit((1, 0), 1.0, part=0), Unit((1,), 1.0, part=1))


def test_the_mean_of_each_part_is_weighted_whatever_its_share_of_the_step() -> None:
    objective = build("objectives", MIX)
    units = objective.plan(ROWS, min_spread=1e-4).units

    # the policy gradient over 2 + 6 tokens; half of the mean over 4 tokens
    assert objective.scales(units, [2, 6, 4]) == [1 / 8, 1 / 8, 0.5 / 4]


def test_a_batch_is_given_to_the_objective_of_its_part_and_metrics_say_which() -> None:
    objective = build("objectives", MIX)
    logprobs, mask = torch.full((1, 2), -1.5), torch.ones(1, 2)
    options = {"logprobs": logprobs, "mask": mask, "values": torch.ones(1), "behaviour_logprobs": logprobs}

    gradient = objective.loss(ObjectiveBatch(**options, entropy=torch.zeros(1, 2)))
    imitation = objective.loss(ObjectiveBatch(**options, part=1))

    # two tokens with ratio 1 and advantage 1; two tokens of 1.5 nats
    assert gradient.losses.item() == -2.0
    assert imitation.losses.item() == 3.0
    assert all(name.startswith("reinforce_pp.") for name in gradient.metrics)


def test_a_mix_needs_what_any_part_needs_but_keeps_rows_that_one_part_can_use() -> None:
    needs = mix({"objective": "sft"}, {"objective": "kto"}, {"objective": "grpo"}).needs

    assert (needs.reward, needs.reference, needs.mismatched, needs.behaviour, needs.entropy) == (
        False,
        True,
        True,
        True,
        False,
    )
    assert mix({"objective": "kto"}, {"objective": "grpo"}).needs.reward


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "mix"),
        ([{"objective": "mix"}], "a mix holds no other mix"),
        ([{"objective": "grpp"}], 'unknown objective "grpp"; did you mean "grpo"'),
        ([{"objective": {"name": "dpo", "bta": 1}}], 'unknown option "bta"; did you mean "beta"'),
        ([{"objective": "sft", "weight": 0.0}], "mix"),
    ],
)
def test_wrong_parts_are_refused_when_the_recipe_is_read(parts: list[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("objectives", {"name": "mix", "parts": parts})
