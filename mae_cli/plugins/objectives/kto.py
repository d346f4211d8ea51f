"""Learning from single rows that are labelled good or bad, without pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import torch
from msgspec import Meta

from mae_cli.plugins.contracts import Needs, ObjectiveBatch, ObjectiveOutput, Plan, Unit
from mae_cli.records.rewarded import Rewarded, known


class Kto(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Kahneman-Tversky optimisation: raises the utility of good completions against what the policy does on average.

    desirable: desirable_weight * (1 - sigmoid(beta * (r - z))); undesirable: undesirable_weight * (1 - sigmoid(beta *
    (z - r))), where r is the log-ratio to the reference and z = max(0, mean log-ratio of each prompt of the step with
    the completion of another one), without gradient. Source: KTO, arXiv:2402.01306.
    """

    beta: Annotated[float, Meta(gt=0.0)] = 0.1
    """Steepness of the utility."""
    desirable_over: float = 0.5
    """Rows with a reward over this are desirable."""
    desirable_weight: Annotated[float, Meta(gt=0.0)] = 1.0
    undesirable_weight: Annotated[float, Meta(gt=0.0)] = 1.0
    """The paper: numbers of rows times these weights should be about equal, up to a factor of 4/3."""

    @property
    def needs(self) -> Needs:
        """The reference twice: on the rows, and on prompts with others' completions."""
        return Needs(reward=True, reference=True, mismatched=True)

    def plan(self, rows: Sequence[Rewarded], *, min_spread: float) -> Plan:
        """Every row, labelled 1 or -1."""
        labels = [1.0 if known(row.reward) > self.desirable_over else -1.0 for row in rows]
        return Plan(units=tuple(Unit((index,), label) for index, label in enumerate(labels)))

    def scales(self, units: Sequence[Unit], tokens: Sequence[int]) -> list[float]:
        """A mean over rows."""
        return [1.0 / len(units)] * len(units)

    def loss(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        """The lost utility of each row."""
        if batch.reference_logprobs is None or batch.divergence is None:
            raise AssertionError("the trainer gives an objective what it needs")
        scores = ((batch.logprobs - batch.reference_logprobs) * batch.mask).sum(-1)
        good = batch.values > 0.0
        z = batch.divergence.clamp(min=0.0)
        weights = self.undesirable_weight + good.to(scores.dtype) * (self.desirable_weight - self.undesirable_weight)
        losses = weights * (1.0 - torch.sigmoid(self.beta * batch.values * (scores - z)))
        margins = scores.detach()
        metrics = {
            "desirable_score": ((margins * good).sum(), good.sum()),
            "undesirable_score": ((margins * ~good).sum(), (~good).sum()),
            "divergence": (z * len(scores), torch.tensor(float(len(scores)))),
        }
        return ObjectiveOutput(losses=losses, metrics=metrics)
