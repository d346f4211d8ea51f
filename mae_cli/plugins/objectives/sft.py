"""Imitation: the shortest objectives, and the ones to copy.

`sft` trusts the filter: what is worth imitating was decided there. `advantage_sft` weighs rows by how much better they
are than the rows they are compared with; it needs no log-probabilities of an earlier policy, so it can learn from
rollouts of any age and origin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mae_cli.plugins.contracts import Needs, ObjectiveBatch, ObjectiveOutput, Plan, Unit
from mae_cli.plugins.objectives.advantages import plan_rows, whitened
from mae_cli.records.rewarded import Rewarded, known


class Likelihood(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Weighted negative log-likelihood of completions, per trained token of an optimizer step."""

    def scales(self, units: Sequence[Unit], tokens: Sequence[int]) -> list[float]:
        """One over the trained tokens of the step."""
        return [1.0 / sum(tokens)] * len(units)

    def loss(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        """Minus the sum of the trained log-probabilities of each row, in nats, times its weight."""
        return ObjectiveOutput(losses=-(batch.logprobs * batch.mask).sum(-1) * batch.values)


class Sft(Likelihood, frozen=True, kw_only=True):
    """Negative log-likelihood of the completion, mean over the trained tokens of an optimizer step.

    Source: rejection sampling fine-tuning (RFT, arXiv:2308.01825); with one round of filtering by a reference answer
    it is the training step of STaR (arXiv:2203.14465).
    """

    weights: Literal["equal", "reward"] = "equal"
    """Every row counts the same, or as much as its reward; a row with a reward of 0 or less is then left out."""

    @property
    def needs(self) -> Needs:
        """Nothing: a kept row is trained whatever its reward."""
        return Needs(reward=self.weights == "reward")

    def plan(self, rows: Sequence[Rewarded], *, min_spread: float) -> Plan:
        """Every row with its weight."""
        if self.weights == "equal":
            return Plan(units=tuple(Unit((index,), 1.0) for index in range(len(rows))))
        return _weighted([known(row.reward) for row in rows])


class AdvantageSft(Likelihood, frozen=True, kw_only=True):
    """Likelihood of rows weighted by their advantage; rows below average teach nothing or little.

    With A = (r - mean) / sqrt(var + eps) over a baseline, the weight is min(max(A, 0), max_weight), or
    min(exp(A / temperature), max_weight).

    Source: self-imitation learning, arXiv:1806.05635 (positive part); advantage-weighted regression, arXiv:1910.00177
    (exponential).
    """

    weights: Literal["positive", "exponential"] = "positive"
    temperature: Annotated[float, Meta(gt=0.0)] = 1.0
    """Of the exponential weights: small follows the best rows, large imitates all."""
    max_weight: Annotated[float, Meta(gt=0.0)] = 2.0
    """No single row counts more."""
    whiten: Literal["role", "group", "all"] = "role"
    """The rows a row is compared with: those of its role, of its problem, or all."""
    eps: Annotated[float, Meta(gt=0.0)] = 1e-8
    """Added to the variance."""

    @property
    def needs(self) -> Needs:
        """Rewards, which the weights are computed from."""
        return Needs(reward=True)

    def plan(self, rows: Sequence[Rewarded], *, min_spread: float) -> Plan:
        """Advantages to weights; rows of weight 0 are left out."""
        keys = [{"role": (row.role,), "group": (row.role, row.group), "all": ()}[self.whiten] for row in rows]
        found = plan_rows(rows, keys, lambda rewards: whitened(rewards, self.eps), min_spread=min_spread)
        values = [self._weight(unit.value) for unit in found.units]
        units = tuple(Unit(unit.rows, value) for unit, value in zip(found.units, values, strict=True) if value > 0.0)
        below = {"below_average": len(values) - len(units)} if len(units) < len(values) else {}
        return Plan(units=units, skipped=found.skipped, dropped={**found.dropped, **below})

    def _weight(self, advantage: float) -> float:
        if self.weights == "positive":
            return min(max(advantage, 0.0), self.max_weight)
        return math.exp(min(advantage / self.temperature, math.log(self.max_weight)))


def _weighted(weights: Sequence[float]) -> Plan:
    units = tuple(Unit((index,), weight) for index, weight in enumerate(weights) if weight > 0.0)
    dropped = {"no_weight": len(weights) - len(units)} if len(units) < len(weights) else {}
    return Plan(units=units, dropped=dropped)
