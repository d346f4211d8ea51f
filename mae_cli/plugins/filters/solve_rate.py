"""Keep problems that are neither too easy nor too hard, by their solve rate."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mae_cli.plugins.contracts import Selection
from mae_cli.records import Row, mean_of_known, mean_score, verdicts_on


class SolveRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep train rollouts (and proposals) of problems whose mean answer score lies in [low, high].

    The rate is taken over the problem's difficulty rollouts, or its train rollouts where it has none. A problem
    without any known score is dropped as unknown. Source: R-Zero's informative band, arXiv:2508.05004, section 3.
    """

    low: float = 0.0
    high: float = 1.0
    roles: tuple[str, ...] = ("solver",)

    def select(self, rows: Sequence[Row]) -> list[Selection]:
        """One selection per row."""
        rates = solve_rates(rows)
        return [self._one(row, rates) for row in rows]

    def _one(self, row: Row, rates: dict[str, float | None]) -> Selection:
        if row.purpose != "train" or row.role not in self.roles or row.problem is None:
            return Selection()
        rate = rates.get(row.problem.id)
        if rate is None:
            return Selection(reason="solve_rate:unknown")
        if not self.low <= rate <= self.high:
            return Selection(reason=f"solve_rate:{rate:.3g}")
        return Selection()


def solve_rates(rows: Sequence[Row]) -> dict[str, float | None]:
    """Mean known answer score of each problem, in [0, 1]; null where all are unknown."""
    scores: dict[str, dict[str, list[float | None]]] = {}
    for row in rows:
        if row.is_answer and row.problem is not None and row.purpose in ("train", "difficulty"):
            by_purpose = scores.setdefault(row.problem.id, {})
            by_purpose.setdefault(row.purpose, []).append(mean_score(verdicts_on(row, "answer")))
    rates: dict[str, float | None] = {}
    for problem, by_purpose in scores.items():
        rates[problem] = mean_of_known(by_purpose.get("difficulty", by_purpose.get("train", [])))
    return rates
