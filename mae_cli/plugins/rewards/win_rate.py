"""Reward of a rollout from its comparisons with the others of its group."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from mae_cli.answers.format import format_reward
from mae_cli.plugins.contracts import RewardContext, RewardReading
from mae_cli.records import Row, Term, mean_score


class WinRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """r = (1 - w) W + w F, in [0, 1]: W the mean of the known comparisons with the group's other answers, F the format.

    W = 1/(K-1) * sum over the others of P(this one beats it), P from a pairwise judge asked in both orders; a pair
    whose verdict is unknown leaves the sum and the count. Null where no comparison is known. With all known the W of
    a group of K sum to K/2. Source: SPO, arXiv:2401.04056 (win rate against own samples); w is ours.
    """

    format_weight: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0

    def score(self, row: Row, context: RewardContext) -> RewardReading:
        """The reward of a rollout."""
        form = 0.0 if row.status == "truncated" else format_reward(row.completion or "", "answer", variant="paper")
        rate = mean_score(context.pair_verdicts)
        known = sum(verdict.score is not None for verdict in context.pair_verdicts)
        weight = float(self.format_weight)
        terms = (
            Term("win_rate", rate),
            Term("pairs_known", float(known)),
            Term("pairs", float(len(context.pair_verdicts))),
            Term("format", form),
            Term("format_weight", weight),
        )
        reward = None if rate is None else (1.0 - weight) * rate + weight * form
        return RewardReading(reward=reward, terms=terms)
