"""Learning from pairs: one margin, several losses.

Every loss here pushes the chosen completion's log-probability up against the rejected one's, most of them relative to
a reference policy that does not move. A pair is trained as a whole; the loss of a step is a mean over its pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
import torch
from msgspec import Meta
from torch.nn.functional import logsigmoid

from mae_cli.data.preference_pairs import PairSource, make_pairs
from mae_cli.plugins.contracts import Needs, ObjectiveBatch, ObjectiveOutput, Plan, Unit
from mae_cli.records.rewarded import Rewarded

PositiveNumber = Annotated[float, Meta(gt=0.0)]
Factor = Annotated[float, Meta(ge=0.0)]
NoiseRate = Annotated[float, Meta(ge=0.0, lt=0.5)]


class Sides(NamedTuple):
    """Values of both sides of each pair, (U,) each, in nats and tokens."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor


class Preference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the pair objectives: pairs, margin and metrics; a subclass adds its loss."""

    pairs: PairSource = "best_vs_worst"
    """Pairs taken from a group of rollouts: best_vs_worst or all by reward, or those a pairwise judge decided."""
    min_gap: Factor = 0.0
    """Smallest difference in reward (or 2 |score - 0.5| of a verdict) that makes a pair; ties never do."""
    sft_weight: Factor = 0.0
    """Weight of the chosen completion's negative log-likelihood, mean over its tokens (CPO, arXiv:2401.08417)."""

    @property
    def needs(self) -> Needs:
        """Both sides are measured against the reference."""
        return Needs(reward=self.pairs != "verdicts", reference=True)

    def plan(self, rows: Sequence[Rewarded], *, min_spread: float) -> Plan:
        """One unit per pair, with how much better its chosen side is."""
        pairs, dropped = make_pairs(rows, self.pairs, min_gap=max(self.min_gap, min_spread))
        units = tuple(Unit((pair.chosen, pair.rejected), pair.gap) for pair in pairs)
        trained = {rows[index].role for unit in units for index in unit.rows}
        return Plan(units=units, skipped=tuple(sorted({row.role for row in rows} - trained)), dropped=dropped)

    def scales(self, units: Sequence[Unit], tokens: Sequence[int]) -> list[float]:
        """A mean over pairs."""
        return [1.0 / len(units)] * len(units)

    def loss(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        """The loss of each pair; batch rows 2u and 2u + 1 are the sides of pair u."""
        logprobs = (batch.logprobs * batch.mask).sum(-1)  # (2U,)
        scores = logprobs
        if self.needs.reference:
            if batch.reference_logprobs is None:
                raise AssertionError("the trainer gives an objective what it needs")
            scores = logprobs - (batch.reference_logprobs * batch.mask).sum(-1)
        tokens = batch.mask.sum(-1)
        sides = Sides(scores[0::2], scores[1::2], tokens[0::2], tokens[1::2])
        losses = self.pair_loss(sides, batch.values)
        likelihood = -logprobs[0::2] / tokens[0::2]
        if self.sft_weight:
            losses = losses + self.sft_weight * likelihood
        margin = (sides.chosen - sides.rejected).detach()
        count = torch.tensor(float(len(margin)))
        metrics = {
            "accuracy": ((margin > 0.0).sum(), count),
            "margin": (margin.sum(), count),
            "chosen_score": (sides.chosen.detach().sum(), count),
            "chosen_loss": (likelihood.detach().sum(), count),
        }
        return ObjectiveOutput(losses=losses, metrics=metrics)

    def pair_loss(self, sides: Sides, gaps: torch.Tensor) -> torch.Tensor:
        """(U,) from log-ratios to the reference (or log-probabilities without one) and differences in reward."""
        raise NotImplementedError


class Shifted(Preference, frozen=True, kw_only=True):
    """Losses of z = beta * (log-ratio chosen - log-ratio rejected) - alpha * gap (the difference in reward)."""

    beta: PositiveNumber = 0.1
    """Steepness of the loss: a small value allows more distance from the reference."""
    alpha: Factor = 0.0
    """Asks for a wider margin where the rewards differ more (Step-APO's advantage gap); 0 is the plain method."""

    def shifted(self, sides: Sides, gaps: torch.Tensor) -> torch.Tensor:
        """The margin (U,)."""
        return self.beta * (sides.chosen - sides.rejected) - self.alpha * gaps


class Dpo(Shifted, frozen=True, kw_only=True):
    """Direct preference optimisation: -log sigmoid(z).

    With `alpha` it is Step-APO, whose pairs share a prefix and differ in value. With the previous round's adapter as
    start and reference, and its answers as the rejected ones, it is SPIN: the first loss is then ln 2. Label smoothing
    is the conservative variant: (1 - e) times the loss of the pair plus e times that of the turned pair.

    Source: DPO, arXiv:2305.18290; Step-APO: Critical Plan Step Learning, arXiv:2409.08642; SPIN, arXiv:2401.01335.
    """

    label_smoothing: NoiseRate = 0.0
    """Share of pairs believed to be the wrong way round."""

    def pair_loss(self, sides: Sides, gaps: torch.Tensor) -> torch.Tensor:
        """-(1 - e) log sigmoid(z) - e log sigmoid(-z)."""
        z = self.shifted(sides, gaps)
        return -(1.0 - self.label_smoothing) * logsigmoid(z) - self.label_smoothing * logsigmoid(-z)


class Robust(Shifted, frozen=True, kw_only=True):
    """DPO whose expected loss under flipped labels is that of the true labels.

    (-(1 - e) log sigmoid(z) + e log sigmoid(-z)) / (1 - 2e). Source: Provably robust DPO, arXiv:2403.00409.
    """

    label_smoothing: NoiseRate = 0.1
    """Share of pairs believed to be the wrong way round."""

    def pair_loss(self, sides: Sides, gaps: torch.Tensor) -> torch.Tensor:
        """The loss corrected for flipped labels."""
        z, rate = self.shifted(sides, gaps), self.label_smoothing
        return (-(1.0 - rate) * logsigmoid(z) + rate * logsigmoid(-z)) / (1.0 - 2.0 * rate)


class Hinge(Shifted, frozen=True, kw_only=True):
    """A margin of 1 is enough: max(0, 1 - z). Source: SLiC-HF, arXiv:2305.10425; RSO, arXiv:2309.06657."""

    def pair_loss(self, sides: Sides, gaps: torch.Tensor) -> torch.Tensor:
        """max(0, 1 - z)."""
        return torch.relu(1.0 - self.shifted(sides, gaps))


class Ipo(Preference, frozen=True, kw_only=True):
    """The margin is drawn to 1 / (2 beta) and no further, so sure pairs do not run away.

    (margin - 1 / (2 beta))^2, with log-ratios as means over tokens by default: summed ones would make the target
    depend on the length. Source: IPO, arXiv:2310.12036.
    """

    beta: PositiveNumber = 0.1
    """The paper's tau."""
    per_token: bool = True
    """Log-ratios as means over tokens, or summed as in the paper's formula."""

    def pair_loss(self, sides: Sides, gaps: torch.Tensor) -> torch.Tensor:
        """Squared distance from the target margin."""
        chosen, rejected = _means(sides) if self.per_token else (sides.chosen, sides.rejected)
        return (chosen - rejected - 1.0 / (2.0 * self.beta)) ** 2


class Simpo(Preference, frozen=True, kw_only=True):
    """DPO without a reference: log-probabilities as means over tokens, and a margin to reach.

    -log sigmoid(beta * (mean chosen - mean rejected) - gamma). Source: SimPO, arXiv:2405.14734.
    """

    beta: PositiveNumber = 2.0
    gamma: Factor = 1.0
    """The margin."""

    @property
    def needs(self) -> Needs:
        """Nothing: there is no reference."""
        return Needs(reward=self.pairs != "verdicts")

    def pair_loss(self, sides: Sides, gaps: torch.Tensor) -> torch.Tensor:
        """-log sigmoid(beta * (mean chosen - mean rejected) - gamma)."""
        chosen, rejected = _means(sides)
        return -logsigmoid(self.beta * (chosen - rejected) - self.gamma)


class Orpo(Preference, frozen=True, kw_only=True):
    """Fine-tuning on the chosen side, with a penalty on the odds of the rejected one; no reference.

    sft_weight * nll(chosen) - beta * log sigmoid(log odds chosen - log odds rejected), where odds = p / (1 - p) of the
    geometric mean p of the token probabilities. Source: ORPO, arXiv:2403.07691.
    """

    beta: PositiveNumber = 0.1
    """Weight of the odds ratio (the paper's lambda)."""
    sft_weight: Factor = 1.0

    @property
    def needs(self) -> Needs:
        """Nothing: there is no reference."""
        return Needs(reward=self.pairs != "verdicts")

    def pair_loss(self, sides: Sides, gaps: torch.Tensor) -> torch.Tensor:
        """The likelihood of the chosen side and the penalty on the odds."""
        chosen, rejected = _means(sides)
        log_odds = chosen - rejected - _log_one_minus_exp(chosen) + _log_one_minus_exp(rejected)
        return -self.beta * logsigmoid(log_odds)


def _means(sides: Sides) -> tuple[torch.Tensor, torch.Tensor]:
    return sides.chosen / sides.chosen_tokens, sides.rejected / sides.rejected_tokens


def _log_one_minus_exp(values: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) for x <= 0, exact at both ends; a certain completion (x = 0) is moved a hair away."""
    safe = values.clamp(max=-torch.finfo(values.dtype).eps)
    return torch.where(safe > -0.6931472, torch.log(-torch.expm1(safe)), torch.log1p(-torch.exp(safe)))
