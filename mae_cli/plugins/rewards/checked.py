"""Rewards for recipes in which a program can check answers.

The program's verdict counts where it has one; the model judge's mean where it has none. Formulas are ours: they keep
MAE's roles (arXiv:2510.23595) but take the truth from the check, and pay a proposer for problems between too easy and
too hard, as AZR does (arXiv:2505.03335, equation 4: nothing at solve rates 0 and 1).
"""

from __future__ import annotations

import msgspec

from mae_cli.answers.format import format_reward
from mae_cli.plugins.contracts import RewardContext, RewardReading
from mae_cli.records import Row, Term, Verdict, mean_of_known, mean_score


def preferred_score(verdicts: list[Verdict]) -> float | None:
    """Mean of the programs' known scores, else of the judges', in [0, 1]; null when all are unknown."""
    programs = mean_score([v for v in verdicts if v.kind == "verifier"])
    return programs if programs is not None else mean_score([v for v in verdicts if v.kind == "judge"])


class CheckedProposer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """r = valid * F * (floor + (1 - floor) * 4 S (1 - S)), in [0, 1].

    valid: the program's verdict on the problem (0 without a question); F: format of the proposal; S: mean score of
    the rollouts. The tent 4 S (1 - S) is 1 at S = 0.5 and 0 at both ends. Null where the problem or S is unknown.
    """

    floor: float = 0.5
    """Share of the reward paid for a valid problem alone; in [0, 1]."""

    def score(self, row: Row, context: RewardContext) -> RewardReading:
        """The reward of a proposal."""
        completion = row.completion or ""
        form = 0.0 if row.status == "truncated" else format_reward(completion, "question", variant="paper")
        valid = 0.0 if row.problem is None else mean_score(context.problem_verdicts)
        solve = mean_of_known(preferred_score(rollout) for rollout in context.solve_verdicts)
        terms = (
            Term("valid", valid),
            Term("format", form),
            Term("solve_score", solve),
            Term("floor", float(self.floor)),
        )
        if valid == 0.0 or form == 0.0:
            return RewardReading(reward=0.0, terms=terms)
        if valid is None or solve is None:
            return RewardReading(reward=None, terms=terms)
        tent = 4.0 * solve * (1.0 - solve)
        return RewardReading(reward=valid * form * (self.floor + (1.0 - self.floor) * tent), terms=terms)


class CheckedSolver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """r = (1 - w) V + w F, in [0, 1]: V the check of the answer, F its format, w the format weight (0 pays V alone)."""

    format_weight: float = 0.0

    def score(self, row: Row, context: RewardContext) -> RewardReading:
        """The reward of a rollout; null where no verdict on its answer is known."""
        form = 0.0 if row.status == "truncated" else _answer_format(row)
        answer = preferred_score(context.answer_verdicts)
        weight = float(self.format_weight)
        terms = (Term("answer_score", answer), Term("format", form), Term("format_weight", weight))
        reward = None if answer is None else (1.0 - weight) * answer + weight * form
        return RewardReading(reward=reward, terms=terms)


class CheckedJudge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """r = F * (1 - |s - V|), in [0, 1]: a judgement s is paid for agreeing with the program's verdict V.

    A reply that breaks its format gets 0; where no program knows the answer the reward is null.
    """

    def score(self, row: Row, context: RewardContext) -> RewardReading:
        """The reward of a judgement."""
        form = 0.0 if row.status == "truncated" else (context.judge_format or 0.0)
        given = float(row.answer) if row.answer is not None else None
        truth = preferred_score(context.answer_verdicts)
        terms = (Term("format", form), Term("judged_score", given), Term("checked_score", truth))
        if form == 0.0 or given is None:
            return RewardReading(reward=0.0, terms=terms)
        if truth is None:
            return RewardReading(reward=None, terms=terms)
        return RewardReading(reward=form * (1.0 - abs(given - truth)), terms=terms)


def _answer_format(row: Row) -> float:
    if row.status == "truncated":
        return 0.0
    return format_reward(row.completion or "", "answer", variant="paper")
