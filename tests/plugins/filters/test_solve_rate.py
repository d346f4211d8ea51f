from __future__ import annotations

from mae_cli.plugins.contracts import Selection
from mae_cli.plugins.filters.solve_rate import SolveRate, solve_rates
from mae_cli.records import Purpose, Row, Verdict
from tests.support import a_problem, a_row

EASY, HARD, UNSEEN = (a_problem(f"What is {n} + 1?") for n in range(3))


def rollout(score: float | None, *, problem: object = EASY, purpose: Purpose = "train", index: int = 0) -> Row:
    verdict = Verdict("numeric", "verifier", "answer", score, "ok" if score is not None else "error")
    return a_row(purpose=purpose, problem=problem, index=index, verdicts=[verdict])  # type: ignore[arg-type]


def test_the_rate_is_the_mean_of_the_known_scores() -> None:
    rows = [rollout(1.0), rollout(0.0, index=1), rollout(None, index=2), rollout(None, problem=HARD)]

    assert solve_rates(rows) == {EASY.id: 0.5, HARD.id: None}


def test_difficulty_rollouts_decide_where_there_are_any() -> None:
    rows = [rollout(1.0), rollout(0.0, purpose="difficulty")]

    assert solve_rates(rows) == {EASY.id: 0.0}


def test_problems_outside_the_band_and_unknown_ones_are_dropped_with_their_rate() -> None:
    rows = [
        rollout(1.0),
        rollout(1.0, problem=HARD),
        rollout(0.0, problem=HARD, index=1),
        rollout(None, problem=UNSEEN),
    ]

    assert SolveRate(low=0.25, high=0.75).select(rows) == [
        Selection(reason="solve_rate:1"),
        Selection(),
        Selection(),
        Selection(reason="solve_rate:unknown"),
    ]


def test_proposals_go_with_their_problem_when_their_role_is_named() -> None:
    rows = [rollout(1.0), a_row("proposer", problem=EASY)]

    assert SolveRate(high=0.9).select(rows)[1] == Selection()
    assert SolveRate(high=0.9, roles=("proposer",)).select(rows) == [Selection(), Selection(reason="solve_rate:1")]
