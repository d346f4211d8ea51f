"""Policy gradients on finished rollouts: one clipped loss, several baselines.

The published methods differ in how a reward becomes an advantage (`plan`) and in how tokens are averaged
(`reduction`); the loss is written once. There is no critic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta

from mae_cli.plugins.contracts import Needs, ObjectiveBatch, ObjectiveOutput, Plan, Unit
from mae_cli.plugins.objectives.advantages import leave_one_out, over_group, plan_rows, whitened
from mae_cli.records.rewarded import Rewarded

_MAX_LOG_RATIO = 20.0
"""exp(20) is far outside every clip range; beyond it the exponential would overflow in half precision."""
Factor = Annotated[float, Meta(ge=0.0)]
Ceiling = Annotated[float, Meta(gt=1.0)]


class PolicyGradient(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the policy gradients: their common clipped surrogate loss.

    To be maximised per token: min(A rho, A clip(rho, 1 - clip_low, 1 + clip_high)), for A < 0 at least dual_clip * A,
    plus entropy_coefficient times the entropy, minus kl_coefficient times a divergence from the reference;
    rho = exp(logprob - behaviour_logprob).

    Sources: PPO, arXiv:1707.06347; asymmetric clip and mean over tokens: DAPO, arXiv:2503.14476; dual clip:
    arXiv:1912.09729; fixed divisor: Dr. GRPO, arXiv:2503.20783; sequence ratio: GSPO, arXiv:2507.18071; estimators of
    the divergence: joschu.net/blog/kl-approx.html; its correction: DeepSeek-V3.2, arXiv:2512.02556.
    """

    clip_low: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2
    """Largest fall of the ratio under 1 before its gradient stops (A < 0)."""
    clip_high: Factor = 0.2
    """Largest rise of the ratio over 1 before its gradient stops (A > 0)."""
    dual_clip: Ceiling | None = None
    """Largest ratio that still counts when A < 0, so that one token cannot blow up a step."""
    ratio: Literal["token", "sequence", "sequence_mean"] = "token"
    """One ratio per token, or one per row: of its probability, or of the geometric mean of its tokens' (GSPO)."""
    ratio_range: tuple[Factor, Ceiling] | None = None
    """Tokens with a ratio outside are left out: the policy has moved too far for them to tell anything."""
    reduction: Literal["token_mean", "sequence_mean", "fixed_length"] = "token_mean"
    """Mean over all tokens of a step; over rows of the mean over their tokens; or of their sum over fixed_length."""
    fixed_length: Annotated[int, Meta(ge=1)] = 1024
    """Divisor of `fixed_length`, in tokens; does not favour short right or long wrong answers."""
    kl_coefficient: Factor = 0.0
    """Weight of the divergence from the reference; 0 leaves the reference uncomputed."""
    kl_estimator: Literal["k1", "k3", "k3_unbiased"] = "k3"
    """k3 joins the loss of each token, and times the ratio its gradient is unbiased; k1, whose own gradient means
    nothing, is summed over the row and taken from the advantage."""
    entropy_coefficient: Factor = 0.0
    """Weight of the entropy bonus; 0 leaves the entropy uncomputed."""

    @property
    def needs(self) -> Needs:
        """Rewards and the policy before the first update; a reference or the entropy where an option asks for it."""
        return Needs(
            reward=True,
            entropy=self.entropy_coefficient > 0.0,
            behaviour=True,
            reference=self.kl_coefficient > 0.0,
        )

    def scales(self, units: Sequence[Unit], tokens: Sequence[int]) -> list[float]:
        """The weights by `reduction`; the loss of a row is a sum over its tokens."""
        if self.reduction == "token_mean":
            return [1.0 / sum(tokens)] * len(units)
        if self.reduction == "sequence_mean":
            return [1.0 / (len(units) * count) for count in tokens]
        return [1.0 / (len(units) * self.fixed_length)] * len(units)

    def loss(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        """Minus the clipped surrogate with its bonus and penalty, summed over the trained tokens of each row."""
        behaviour = _given(batch.behaviour_logprobs)
        mask, count = batch.mask, batch.mask.sum()
        advantage = batch.values[:, None]  # (B, 1)
        drift = batch.logprobs - behaviour  # (B, T), 0 where masked
        log_ratio = self._log_ratio(drift, mask)  # (B, T) or (B, 1)
        ratio = log_ratio.exp()
        penalty: torch.Tensor | None = None
        metrics: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        if self.kl_coefficient:
            reference = _given(batch.reference_logprobs)
            metrics["kl_reference"] = (_k3(batch.logprobs.detach() - reference, mask), count)
            if self.kl_estimator == "k1":
                advantage = advantage - self.kl_coefficient * ((behaviour - reference) * mask).sum(-1, keepdim=True)
            else:
                log_odds = (reference - batch.logprobs).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
                penalty = self.kl_coefficient * (log_odds.exp() - 1.0 - log_odds)
                if self.kl_estimator == "k3_unbiased":
                    penalty = penalty * ratio
        gain = self._surrogate(ratio, advantage)
        unclipped = advantage * ratio
        metrics["clip_share"] = (((gain != unclipped).detach() * mask).sum(), count)
        if self.ratio_range is not None:
            low, high = self.ratio_range
            inside = ((ratio >= low) & (ratio <= high)).detach()
            metrics["left_out_share"] = ((~inside * mask).sum(), count)
            gain = gain * inside
        metrics["kl_behaviour"] = (_k3(drift.detach(), mask), count)
        if penalty is not None:
            gain = gain - penalty
        if self.entropy_coefficient:
            entropy = _given(batch.entropy)
            gain = gain + self.entropy_coefficient * entropy
            metrics["entropy"] = ((entropy.detach() * mask).sum(), count)
        return ObjectiveOutput(losses=-(gain * mask).sum(-1), metrics=metrics)

    def _log_ratio(self, drift: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.ratio != "token":
            drift = (drift * mask).sum(-1, keepdim=True)
        if self.ratio == "sequence_mean":
            drift = drift / mask.sum(-1, keepdim=True)
        return drift.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)

    def _surrogate(self, ratio: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
        clipped = ratio.clamp(1.0 - self.clip_low, 1.0 + self.clip_high)
        surrogate = torch.minimum(advantage * ratio, advantage * clipped)
        if self.dual_clip is None:
            return surrogate
        return torch.where(advantage < 0.0, torch.maximum(surrogate, advantage * self.dual_clip), surrogate)


class ReinforcePp(PolicyGradient, frozen=True, kw_only=True):
    """REINFORCE++ with one baseline per role, the update of Multi-Agent Evolve (Task-Relative REINFORCE++, TRR++).

    Rewards of the three roles live on different scales (a proposer earns by difficulty, a judge by its format), so one
    common baseline would mostly tell which role wrote a row. A = (r - mean) / sqrt(var + eps) with population variance
    over the rows of a baseline. It is computed per row, as the paper's formula says. The released code whitens over
    all tokens of a role instead, which weighs a row by its length: mean and variance then follow the long completions.

    Source: MAE, arXiv:2510.23595 (formula) and its released configuration (0.2, 0.28, 3.0, 0.001); REINFORCE++,
    arXiv:2501.03262; a baseline for each task and role (`baseline_key`): Absolute Zero, arXiv:2505.03335.
    """

    clip_high: Factor = 0.28
    dual_clip: Ceiling | None = 3.0
    entropy_coefficient: Factor = 0.001
    whiten: Literal["role", "group", "all"] = "role"
    """One baseline per role (the paper), per role and group of rollouts, or one for all rows."""
    baseline_key: str | None = None
    """Name of a field of `problem.meta`: rows where it differs get baselines of their own."""
    eps: Annotated[float, Meta(gt=0.0)] = 1e-8
    """Added to the variance."""

    def plan(self, rows: Sequence[Rewarded], *, min_spread: float) -> Plan:
        """Whitened rewards: mean 0 and population spread 1 within each baseline."""
        keys = [self._baseline(row) for row in rows]
        return plan_rows(rows, keys, lambda rewards: whitened(rewards, self.eps), min_spread=min_spread)

    def _baseline(self, row: Rewarded) -> tuple[str, ...]:
        parts = {"role": (row.role,), "group": (row.role, row.group), "all": ()}[self.whiten]
        return parts if self.baseline_key is None else (*parts, str(row.meta.get(self.baseline_key)))


class Grpo(PolicyGradient, frozen=True, kw_only=True):
    """Group-relative policy optimisation: a row is compared with the other rollouts of its problem.

    A = (r - mean) / (spread + eps) over the rows of a `group_id`. The defaults are GRPO's. DAPO: clip_high 0.28 and
    reduction token_mean (groups that agree are left out in any case). Dr. GRPO: divide_by_spread false and reduction
    fixed_length, because dividing favours problems that are nearly always or never solved.

    Source: GRPO, arXiv:2402.03300; DAPO, arXiv:2503.14476; Dr. GRPO, arXiv:2503.20783.
    """

    reduction: Literal["token_mean", "sequence_mean", "fixed_length"] = "sequence_mean"
    divide_by_spread: bool = True
    """Whether the advantages of every group have the same size."""
    spread: Literal["population", "sample"] = "population"
    """Divided by the number of rollouts, or by one less."""
    eps: Factor = 1e-6
    """Added to the spread."""

    def plan(self, rows: Sequence[Rewarded], *, min_spread: float) -> Plan:
        """Rewards relative to their group; a row alone in its group cannot be compared."""

        def advantages(rewards: Sequence[float]) -> list[float]:
            return over_group(rewards, divide=self.divide_by_spread, spread=self.spread, eps=self.eps)

        return plan_rows(rows, [(row.role, row.group) for row in rows], advantages, min_spread=min_spread)


class Rloo(PolicyGradient, frozen=True, kw_only=True):
    """REINFORCE with a leave-one-out baseline: A = r minus the mean reward of the other rollouts of the problem.

    The row is one action: one ratio of its whole probability, clipped as such, and a plain mean over rows.

    Source: Back to basics, arXiv:2402.14740; baseline: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for
    free".
    """

    ratio: Literal["token", "sequence", "sequence_mean"] = "sequence"
    reduction: Literal["token_mean", "sequence_mean", "fixed_length"] = "sequence_mean"

    def plan(self, rows: Sequence[Rewarded], *, min_spread: float) -> Plan:
        """Each reward minus the mean of the other rollouts' rewards; it is not divided by a spread."""
        return plan_rows(rows, [(row.role, row.group) for row in rows], leave_one_out, min_spread=min_spread)


def _given(values: torch.Tensor | None) -> torch.Tensor:
    if values is None:
        raise AssertionError("the trainer gives an objective what it needs")
    return values


def _k3(log_ratio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The summed k3 estimate of KL(other || policy) from log(policy / other): never negative."""
    clamped = log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return ((clamped.exp() - 1.0 - clamped) * mask).sum()
