"""Promotion: the decision which round a run goes on from and which is best, on items reported nowhere.

Place in the flow: after each round that is evaluated, `mae run` compares the new adapter on the gate set with the last
verified and the best one. *Accepted*: the next round starts from it. *Verified*: it passed the gate, no harm was
shown; a round that is not evaluated (`every`) is accepted unseen and is not verified. *Best*: shown better than the
best so far, the error rate spent over the decisions. Contract: pure functions; a decision is a function of the gate
rows, its number and two levels, so a resumed run decides the same. The gate set and the reported set share no problem,
in whatever words; p-values are printed for the reported set only.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from mae_cli.reports.accuracy import readings_in
from mae_cli.reports.comparison import PairedItem, Side, common_differences, known_pairs, paired_items
from mae_cli.reports.eval_figures import main_reading
from mae_cli.reports.statistics.paired_tests import sign_flip_test, spent_level

NOT_TRAINED = "not trained"
"""The reason of a round that kept no row."""
NOT_EVALUATED = "not evaluated in this round"
"""The reason of a round whose eval step is not due."""


class Outcome(msgspec.Struct, frozen=True):
    """A candidate against one earlier policy on the gate set."""

    against: str
    items: int
    """Pairs whose every verdict is known."""
    wins: int
    losses: int
    unknown: int = 0
    """Pairs left out because a checker failed; a round about which nothing is known shows no harm either."""


class Promotion(msgspec.Struct):
    """Decision about one round."""

    round: str
    accepted: bool
    best: bool
    reason: str
    outcomes: list[Outcome] = []
    best_level: float | None = None
    """What this round could spend of the error rate; null without a gate."""
    verified: bool | UnsetType = UNSET
    """False where the round was accepted unseen; left out elsewhere, where it is the same as accepted."""


def decide(
    candidate: Side, accepted: Side, best: Side, *, decision: int, harm_alpha: float, best_alpha: float
) -> Promotion:
    """Return the decision about a trained round.

    Harm is tested against the last accepted and, where that is another one, against the best: compared with its
    parent alone a run could sink by a little every round and never show it. The two tests share `harm_alpha`. Where the
    checker failed on every item nothing was tested, and nothing is accepted.

    Args:
        candidate: the round's label and gate rows.
        accepted: those of the last verified round (the one it was trained from, where every round is evaluated).
        best: those of the best round so far, the base at first.
        decision: >= 1; the number of this decision in the run, which says how much of `best_alpha` may be spent.
        harm_alpha: level of one round's test for harm.
        best_alpha: level of the claim "better than the best so far", for all rounds of a run together.

    Source: one-sided exact paired tests; spending as in `paired_tests.spent_level`. Deciding on items of their own
    keeps the reported ones honest under repeated looks, cf. A. Blum and M. Hardt, arXiv:1502.04585.
    """
    earlier = [accepted] if accepted[0] == best[0] else [accepted, best]
    reading = main_reading(readings_in(candidate[1]))
    everything = [paired_items(side[1], candidate[1], reading) for side in earlier]
    pairs = [known_pairs(found) for found in everything]
    outcomes = [
        _outcome(side[0], known, len(found) - len(known))
        for side, known, found in zip(earlier, pairs, everything, strict=True)
    ]
    level = spent_level(best_alpha, decision)
    promotion = Promotion(candidate[0], True, False, "", outcomes, level)
    for outcome, found in zip(outcomes, pairs, strict=True):
        if not found and outcome.unknown:
            promotion.accepted = False
            promotion.reason = f"the checker failed on every item, so nothing is known against {outcome.against}"
            return promotion
        if shows_harm(common_differences(found), harm_alpha / len(earlier)):
            promotion.accepted = False
            promotion.reason = f"worse than {outcome.against}"
            return promotion
    promotion.best = shows_gain(common_differences(pairs[-1]), level)
    shown = "better" if promotion.best else "not shown better"
    promotion.reason = f"no harm shown, {shown} than {outcomes[-1].against}"
    return promotion


def shows_harm(differences: Sequence[int], alpha: float) -> bool:
    """Whether the candidate is worse: one-sided exact paired test at level alpha."""
    return sign_flip_test([-difference for difference in differences], "greater") <= alpha


def shows_gain(differences: Sequence[int], alpha: float) -> bool:
    """Whether the candidate is better: one-sided exact paired test at level alpha."""
    return sign_flip_test(differences, "greater") <= alpha


def _outcome(against: str, pairs: Sequence[PairedItem], unknown: int) -> Outcome:
    return Outcome(
        against,
        len(pairs),
        sum(pair.difference > 0 for pair in pairs),
        sum(pair.difference < 0 for pair in pairs),
        unknown,
    )


def promotion_line(promotion: Promotion) -> str:
    """One round's decision for people, in counts."""
    state = "accepted" if promotion.accepted else "not accepted"
    counts = "; ".join(
        f"against {outcome.against} won {outcome.wins}, lost {outcome.losses} of {outcome.items}"
        + (f", {outcome.unknown} unknown" if outcome.unknown else "")
        for outcome in promotion.outcomes
    )
    return (
        f"gate: {promotion.round} {state}{', best' if promotion.best else ''}: {promotion.reason}"
        f"{f' ({counts})' if counts else ''}"
    )
