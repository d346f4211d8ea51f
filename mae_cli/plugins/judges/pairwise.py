"""A model judge that is shown two answers and says which is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from mae_cli.plugins.contracts import Ask, Option, PairComparison, Reading
from mae_cli.plugins.judges.tagged import Tagged, checked_prompts
from mae_cli.prompts.prompt_files import load_prompt, quoted
from mae_cli.records import Problem, mean_of_known, why_unknown

_OPTIONS = (Option("A", 1.0), Option("B", 0.0), Option("tie", 0.5))


class Pairwise(Tagged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Compare two answers, each pair in both orders: 1 is won, 0 lost, 0.5 a tie; see `combine` for disagreement.

    Judges favour a place (mostly the first), so a verdict that holds in one order only is none. Source: both orders
    and the cautious reading of a disagreement, arXiv:2306.05685, section 3.4.
    """

    targets: ClassVar[frozenset[str]] = frozenset({"pair"})

    prompt: str = "judge_pair"
    disagreement: Literal["unsure", "tie"] = "unsure"
    """A pair whose two orders disagree: unknown, or half a point for both."""
    show: Literal["answer", "completion"] = "completion"

    def ask(self, problem: Problem, candidates: Sequence[str], nonce: str) -> Ask:
        """The prompt that compares two answers, shown in the order given."""
        first, second = candidates
        values = {**self.values(problem, nonce), "first": quoted(first), "second": quoted(second)}
        return Ask(messages=tuple(load_prompt(self.prompt).render(**values)), options=_OPTIONS)

    def prompt_digests(self) -> list[str]:
        """Digest of the rubric file, for the fingerprint; see `checked_prompts` for what is refused."""
        wanted = [self.prompt] if self.reference else []
        return [p.digest for p in checked_prompts("pairwise", [self.prompt], with_reference=wanted)]

    def combine(self, shown_first: Sequence[Reading], shown_second: Sequence[Reading]) -> PairComparison:
        """One answer against another, from the votes where it was shown first and those where it was second.

        The votes of an order give the mean of their known scores, as this answer's chance of winning. An order
        without a known vote leaves the pair unknown: nothing then tells a preference from a habit. Where both orders
        are on one side of 0.5 (or both at 0.5) the score is their mean, else the orders disagree.
        """
        first = mean_of_known(reading.score for reading in shown_first)
        second = mean_of_known(None if r.score is None else 1.0 - r.score for r in shown_second)
        if first is None or second is None:
            missing = [(r.status, r.reason) for r in (*shown_first, *shown_second) if r.score is None]
            status, reason = why_unknown(missing) if missing else ("unparsed", None)
            return PairComparison(None, status, reason or "not asked in both orders")
        if _side(first) == _side(second):
            return PairComparison((first + second) / 2, "ok", f"{first:.3g} shown first, {second:.3g} shown second")
        reason = f"the orders disagree: {first:.3g} shown first, {second:.3g} shown second"
        if self.disagreement == "tie":
            return PairComparison(0.5, "ok", reason, orders_disagree=True)
        return PairComparison(None, "unsure", reason, orders_disagree=True)


def _side(score: float) -> int:
    return (score > 0.5) - (score < 0.5)
