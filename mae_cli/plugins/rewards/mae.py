"""The rewards of Multi-Agent Evolve as pure formulas, in the paper's and the code's variant.

Place in the flow: `judge` computes Q, S, V and F from verdicts and calls these functions; the
terms go to `reward_terms` of the row. Contract: a reward recomputes exactly (==) from its terms
alone (`recompute`), and an unknown input that the formula needs makes the reward null. Left out:
how verdicts are averaged, and storing (MAE stores a question if Q >= 0.7, filter `quality`).

Symbols: Q quality of the question, S mean score of the difficulty answers, V score of an answer,
F format, all in [0, 1].
"""

import math
from collections.abc import Sequence
from typing import Literal, assert_never

import msgspec

from mae_cli.answers.format import format_reward
from mae_cli.plugins.contracts import RewardContext, RewardReading
from mae_cli.records import Row, Term, Verdict, mean_score

Variant = Literal["paper", "code"]
Formula = Literal["proposer", "solver", "judge"]
"""The three formulas, named like the roles they were written for; a recipe may give them to other roles."""


def proposer_reward(
    quality: float | None,
    solve_score: float | None,
    format_score: float,
    *,
    variant: Variant,
    has_question: bool = True,
    threshold: float = 0.7,
) -> RewardReading:
    """Reward a proposal, in [0, 1]; null where a needed verdict is unknown.

    No question: 0.0. paper: (Q + (1 - S) + F) / 3. code: the same if Q >= threshold, else
    (Q + F) / 3, where S is not needed. The comparison is exact; no epsilon.

    Args:
        quality: Q, null if every quality verdict is unknown.
        solve_score: S, null if every verdict on the difficulty answers is unknown.
        format_score: F of the proposal.
        variant: which of the two published formulas.
        has_question: whether a question was found in the completion; else Q, S and F do not count.
        threshold: smallest Q with a difficulty term (code only).

    Raises:
        ValueError: if a number is outside [0, 1].

    Source: MAE, arXiv:2510.23595, section 3 (paper), and its released code (code).
    """
    terms = _terms(
        has_question=float(has_question),
        quality=quality,
        solve_score=solve_score,
        format_score=format_score,
        variant_code=float(variant == "code"),
        threshold=threshold,
    )
    return RewardReading(reward=recompute("proposer", terms), terms=terms)


def solver_reward(answer_score: float | None, format_score: float) -> RewardReading:
    """Reward an answer with 0.5 V + 0.5 F, in [0, 1]; null if V is unknown.

    Raises:
        ValueError: if a number is outside [0, 1].

    Source: MAE, arXiv:2510.23595, section 3 (the same in paper and code).
    """
    terms = _terms(answer_score=answer_score, format_score=format_score)
    return RewardReading(reward=recompute("solver", terms), terms=terms)


def judge_reward(format_score: float) -> RewardReading:
    """Reward a judgement with its format alone, F in [0, 1].

    Raises:
        ValueError: if F is outside [0, 1].

    Source: MAE, arXiv:2510.23595, section 3. Nothing rewards accurate judging.
    """
    terms = _terms(format_score=format_score)
    return RewardReading(reward=recompute("judge", terms), terms=terms)


def recompute(role: Formula, terms: Sequence[Term]) -> float | None:
    """Compute a reward from its recorded terms alone; null if a needed term is null.

    This is the only place where the formulas stand, so a recorded reward and its recomputation
    are the same float.

    Raises:
        ValueError: if terms are missing, repeated or not those of the role.
    """
    by_name = {term.name: term.value for term in terms}
    expected = _TERM_NAMES[role]
    if len(by_name) != len(terms) or by_name.keys() != expected:
        found = ", ".join(term.name for term in terms)
        raise ValueError(f"terms of a {role} reward: expected {', '.join(sorted(expected))}; found {found}")
    if role == "proposer":
        return _proposer(by_name)
    if role == "solver":
        answer_score, format_score = by_name["answer_score"], by_name["format_score"]
        if answer_score is None or format_score is None:
            return None
        return 0.5 * answer_score + 0.5 * format_score
    if role == "judge":
        return by_name["format_score"]
    assert_never(role)


_TERM_NAMES: dict[Formula, set[str]] = {
    "proposer": {"has_question", "quality", "solve_score", "format_score", "variant_code", "threshold"},
    "solver": {"answer_score", "format_score"},
    "judge": {"format_score"},
}


def _proposer(by_name: dict[str, float | None]) -> float | None:
    if by_name["has_question"] == 0.0:
        return 0.0
    quality, format_score, threshold = by_name["quality"], by_name["format_score"], by_name["threshold"]
    if quality is None or format_score is None or threshold is None:
        return None
    if by_name["variant_code"] == 1.0 and quality < threshold:
        return (quality + format_score) / 3
    solve_score = by_name["solve_score"]
    if solve_score is None:
        return None
    return (quality + (1 - solve_score) + format_score) / 3


def _terms(**values: float | None) -> tuple[Term, ...]:
    """Named numbers as terms, floats written as floats; each one is in [0, 1] or null."""
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and 0 <= value <= 1):
            raise ValueError(f"{name} {value} is not in [0, 1]")
    return tuple(Term(name, None if value is None else float(value)) for name, value in values.items())


def _judged(verdicts: Sequence[Verdict]) -> float | None:
    """Mean of the model judge's known scores: the method's only truth."""
    return mean_score([verdict for verdict in verdicts if verdict.kind == "judge"])


def _format(row: Row, tag: str, variant: Variant) -> float:
    """A cut-off text has format 0, whatever tags it got to write."""
    if row.status == "truncated":
        return 0.0
    return format_reward(row.completion or "", tag, variant=variant)


class MaeProposer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Quality, difficulty and format in equal parts; see `proposer_reward`. Source: arXiv:2510.23595, section 3."""

    variant: Variant = "code"
    threshold: float = 0.7

    def score(self, row: Row, context: RewardContext) -> RewardReading:
        """The reward of a proposal."""
        return proposer_reward(
            _judged(context.problem_verdicts),
            _judged([verdict for rollout in context.solve_verdicts for verdict in rollout]),
            _format(row, "question", self.variant),
            variant=self.variant,
            has_question=row.problem is not None,
            threshold=self.threshold,
        )


class MaeSolver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Half the judged score, half the format; see `solver_reward`. Source: arXiv:2510.23595, section 3."""

    variant: Variant = "code"

    def score(self, row: Row, context: RewardContext) -> RewardReading:
        """The reward of a rollout."""
        return solver_reward(_judged(context.answer_verdicts), _format(row, "answer", self.variant))


class MaeJudge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Format alone; see `judge_reward`. Source: arXiv:2510.23595, section 3."""

    variant: Variant = "code"

    def score(self, row: Row, context: RewardContext) -> RewardReading:
        """The reward of a judgement."""
        return judge_reward(_format(row, "score", self.variant))
