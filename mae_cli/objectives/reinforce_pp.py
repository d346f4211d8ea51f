"""REINFORCE++ with one baseline per role, the update of Multi-Agent Evolve (there called Task-Relative REINFORCE++).

Rewards of the three roles live on different scales (a proposer earns by difficulty, a judge by its format), so one
common baseline would mostly tell which role wrote a row. No critic, no reference model, no KL term.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta

from mae_cli.registry import Advantages, ObjectiveBatch, ObjectiveOutput, Rewarded

_MAX_LOG_RATIO = 20.0
"""exp(20) is far outside every clip range; beyond it the exponential would overflow in half precision."""


class ReinforcePp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Role-relative advantages and a clipped policy gradient, mean over the trained tokens of a step.

    Advantage: A = (r - mean) / sqrt(var + eps) with population variance over the rows of a role. It is computed per
    row, as the paper's formula says. The released code whitens over all tokens of a role instead, which weighs a row
    by its length: mean and variance then follow the long completions, and a wordy role is whitened by its verbosity.

    To be maximised per token: min(A rho, A clip(rho, 1 - clip_low, 1 + clip_high)), for A < 0 at least dual_clip * A,
    plus entropy_coefficient times the entropy; rho = exp(logprob - behaviour_logprob).

    Source: MAE, arXiv:2510.23595 (formula) and its released configuration (0.2, 0.28, 3.0, 0.001); REINFORCE++,
    arXiv:2501.03262; asymmetric clip: DAPO, arXiv:2503.14476; dual clip: arXiv:1912.09729.
    """

    clip_low: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2
    """How far the ratio may fall under 1 before its gradient stops (A < 0)."""
    clip_high: Annotated[float, Meta(ge=0.0)] = 0.28
    """How far the ratio may rise over 1 before its gradient stops (A > 0)."""
    dual_clip: Annotated[float, Meta(gt=1.0)] = 3.0
    """Largest ratio that still counts when A < 0, so that one token cannot blow up a step."""
    entropy_coefficient: Annotated[float, Meta(ge=0.0)] = 0.001
    """Weight of the entropy bonus; 0 leaves the entropy uncomputed."""
    whiten: Literal["role", "all"] = "role"
    """One baseline per role (the paper), or one for all rows."""
    eps: Annotated[float, Meta(gt=0.0)] = 1e-8
    """Added to the variance."""

    @property
    def needs_reward(self) -> bool:
        """A row with an unknown reward has no advantage."""
        return True

    @property
    def needs_entropy(self) -> bool:
        """Only with an entropy bonus."""
        return self.entropy_coefficient > 0.0

    @property
    def needs_behaviour(self) -> bool:
        """The ratio is taken to the policy before the first update."""
        return True

    def advantages(self, rows: Sequence[Rewarded], *, min_spread: float) -> Advantages:
        """Whitened rewards: mean 0 and population spread 1 within each baseline.

        A baseline whose rewards hardly differ says nothing about which row was better: dividing by such a spread
        would turn rounding noise into full-size updates.
        """
        members: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            members.setdefault(row.role if self.whiten == "role" else "all", []).append(index)
        values = [0.0] * len(rows)
        skipped: list[str] = []
        left_out: list[int] = []
        for name, indices in sorted(members.items()):
            rewards = [_known(rows[index].reward) for index in indices]
            mean = math.fsum(rewards) / len(rewards)
            variance = math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards)
            if math.sqrt(variance) < min_spread or variance == 0.0:
                skipped.append(name)
                left_out.extend(indices)
                continue
            for index, reward in zip(indices, rewards, strict=True):
                values[index] = (reward - mean) / math.sqrt(variance + self.eps)
        return Advantages(values=tuple(values), skipped=tuple(skipped), left_out=frozenset(left_out))

    def loss(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        """Minus the clipped surrogate and the entropy bonus, summed over trained tokens; batch.mask is (B, T)."""
        advantage = batch.advantages[:, None]  # (B, 1)
        log_ratio = (batch.logprobs - batch.behaviour_logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
        ratio = log_ratio.exp()  # (B, T)
        clipped = ratio.clamp(1.0 - self.clip_low, 1.0 + self.clip_high)
        surrogate = torch.minimum(advantage * ratio, advantage * clipped)
        floored = torch.maximum(surrogate, advantage * self.dual_clip)
        gain = torch.where(advantage < 0.0, floored, surrogate)
        metrics = {
            "clip_share": ((gain.detach() != (advantage * ratio).detach()) * batch.mask).sum(),
            # The k3 estimator (joschu.net/blog/kl-approx.html) of KL(behaviour || policy): never negative.
            "kl_behaviour": ((ratio - 1.0 - log_ratio).detach() * batch.mask).sum(),
        }
        if self.needs_entropy:
            if batch.entropy is None:
                raise AssertionError("the trainer gives the entropy to an objective that needs it")
            gain = gain + self.entropy_coefficient * batch.entropy
            metrics["entropy"] = (batch.entropy.detach() * batch.mask).sum()
        return ObjectiveOutput(loss_sum=-(gain * batch.mask).sum(), metrics=metrics)


def _known(reward: float | None) -> float:
    if reward is None:
        raise AssertionError("rows without a reward are dropped before advantages are computed")
    return reward
