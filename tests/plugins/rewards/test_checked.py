from __future__ import annotations

import pytest

from mae_cli.plugins.contracts import RewardContext
from mae_cli.plugins.rewards.checked import CheckedJudge, CheckedProposer, CheckedSolver, preferred_score
from mae_cli.records import Row, Term, Verdict
from tests.support import a_problem, a_row


def program(score: float | None) -> Verdict:
    return Verdict("numeric", "verifier", "answer", score)


def judged(score: float | None) -> Verdict:
    return Verdict("rubric", "judge", "answer", score)


def context(
    *, problem: float | None = None, answers: list[Verdict] | None = None, solves: list[Verdict] | None = None,
    form: float | None = None,
) -> RewardContext:  # fmt: skip
    rollouts = [[verdict] for verdict in solves or []]
    return RewardContext([Verdict("arithmetic", "verifier", "problem", problem)], answers or [], rollouts, form)


def proposal(text: str = "<question>What is 3 + 4?</question>", **changes: object) -> Row:
    return a_row("proposer", **{"problem": a_problem(), "completion": text, **changes})  # type: ignore[arg-type]


def test_the_programs_verdict_counts_and_the_judges_only_without_one() -> None:
    assert preferred_score([program(1.0), judged(0.0)]) == 1.0
    assert preferred_score([program(None), judged(0.25), judged(None)]) == 0.25
    assert preferred_score([program(None)]) is None


@pytest.mark.parametrize(("rate", "reward"), [(0.0, 0.5), (0.5, 1.0), (1.0, 0.5), (0.25, 0.875)])
def test_a_sound_proposal_is_paid_most_at_half_solved(rate: float, reward: float) -> None:
    reading = CheckedProposer().score(proposal(), context(problem=1.0, solves=[program(rate)]))

    assert reading.reward == pytest.approx(reward)


def test_an_unsound_or_malformed_proposal_gets_zero_and_an_unknown_one_nothing() -> None:
    half = [program(0.5)]
    none = proposal("no tags", problem=None)

    assert CheckedProposer().score(proposal(), context(problem=0.0, solves=half)).reward == 0.0
    assert CheckedProposer().score(none, context(problem=None, solves=half)).reward == 0.0
    assert CheckedProposer().score(proposal(status="truncated"), context(problem=1.0, solves=half)).reward == 0.0
    assert CheckedProposer().score(proposal(), context(problem=None, solves=half)).reward is None
    assert CheckedProposer().score(proposal(), context(problem=1.0)).reward is None


def test_a_proposers_reward_recomputes_from_its_terms() -> None:
    reading = CheckedProposer(floor=0.3).score(proposal(), context(problem=1.0, solves=[program(1.0), program(0.0)]))
    terms = {term.name: term.value for term in reading.terms}

    solve, floor = terms["solve_score"], terms["floor"]
    assert solve is not None
    assert floor is not None
    assert reading.reward == 1.0 * 1.0 * (floor + (1.0 - floor) * 4.0 * solve * (1.0 - solve))


@pytest.mark.parametrize(("weight", "reward"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_a_solvers_format_has_its_weight(weight: float, reward: float) -> None:
    row = a_row(completion="<answer>8</answer>")

    assert CheckedSolver(format_weight=weight).score(row, context(answers=[program(0.0)])).reward == reward


def test_a_solver_without_a_known_verdict_has_no_reward() -> None:
    reading = CheckedSolver().score(a_row(), context(answers=[program(None)]))

    assert reading.reward is None
    assert Term("answer_score", None) in reading.terms


def test_a_truncated_answer_has_no_format() -> None:
    row = a_row(completion="<answer>8</answer>", status="truncated")

    assert CheckedSolver(format_weight=1.0).score(row, context(answers=[program(1.0)])).reward == 0.0


@pytest.mark.parametrize(("given", "truth", "reward"), [("1.0", 1.0, 1.0), ("1.0", 0.0, 0.0), ("0.5", 1.0, 0.5)])
def test_a_judge_is_paid_for_agreeing_with_the_program(given: str, truth: float, reward: float) -> None:
    row = a_row("judge", answer=given)

    assert CheckedJudge().score(row, context(answers=[program(truth)], form=1.0)).reward == reward


def test_a_judge_without_a_score_gets_zero_and_without_a_truth_nothing() -> None:
    assert CheckedJudge().score(a_row("judge"), context(answers=[program(1.0)], form=1.0)).reward == 0.0
    assert CheckedJudge().score(a_row("judge", answer="1.0"), context(answers=[program(1.0)], form=0.0)).reward == 0.0
    assert CheckedJudge().score(a_row("judge", answer="1.0"), context(form=1.0)).reward is None
