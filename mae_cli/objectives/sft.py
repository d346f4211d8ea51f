"""Rejection sampling fine-tuning: imitate every row the filter kept.

The shortest objective and the one to copy. What is worth imitating was decided by the filter, so the reward is not
read here and every trained token counts the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mae_cli.registry import Advantages, ObjectiveBatch, ObjectiveOutput, Rewarded


class Sft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Negative log-likelihood of the completion, mean over the trained tokens of an optimizer step.

    Source: rejection sampling fine-tuning (RFT, arXiv:2308.01825); with one round of filtering by a reference answer
    it is the training step of STaR (arXiv:2203.14465).
    """

    @property
    def needs_reward(self) -> bool:
        """A kept row is trained whatever its reward."""
        return False

    @property
    def needs_entropy(self) -> bool:
        """Only likelihoods are read."""
        return False

    @property
    def needs_behaviour(self) -> bool:
        """There is no ratio to an earlier policy."""
        return False

    def advantages(self, rows: Sequence[Rewarded], *, min_spread: float) -> Advantages:
        """Weight 1 for every row."""
        return Advantages(values=(1.0,) * len(rows))

    def loss(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        """Minus the sum of the trained log-probabilities, in nats; batch.mask is (B, T)."""
        likelihood_sum = (batch.logprobs * batch.mask).sum()
        return ObjectiveOutput(loss_sum=-likelihood_sum, metrics={})
