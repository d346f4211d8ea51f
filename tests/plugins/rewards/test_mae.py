import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.plugins.rewards.mae import Variant, judge_reward, proposer_reward, recompute, solver_reward
from mae_cli.records import Role, Term


@pytest.mark.parametrize(
    ("quality", "solve_score", "format_score", "variant", "expected"),
    [
        # Q >= 0.7: both variants are (Q + (1 - S) + F) / 3.
        (1.0, 0.5, 1.0, "code", 2.5 / 3),  # (1 + 0.5 + 1) / 3
        (1.0, 0.5, 1.0, "paper", 2.5 / 3),
        (0.75, 0.25, 0.5, "code", 2.0 / 3),  # (0.75 + 0.75 + 0.5) / 3
        (0.75, 0.25, 0.5, "paper", 2.0 / 3),
        (1.0, 0.0, 1.0, "code", 1.0),  # (1 + 1 + 1) / 3
        (1.0, 1.0, 0.0, "code", 1.0 / 3),  # (1 + 0 + 0) / 3
        # Q < 0.7: the code drops the difficulty term, the paper keeps it.
        (0.5, 0.25, 1.0, "code", 0.5),  # (0.5 + 1) / 3
        (0.5, 0.25, 1.0, "paper", 0.75),  # (0.5 + 0.75 + 1) / 3 = 2.25 / 3
        (0.0, 0.0, 0.0, "code", 0.0),
        (0.0, 0.0, 0.0, "paper", 1.0 / 3),  # (0 + 1 + 0) / 3
        # Exactly at the threshold the difficulty counts.
        (0.7, 0.5, 1.0, "code", 2.2 / 3),  # (0.7 + 0.5 + 1) / 3
        (0.6999999999999999, 0.5, 1.0, "code", 1.7 / 3),  # one step of a double below: (Q + F) / 3
    ],
)
def test_proposer_reward_is_the_published_formula(
    quality: float, solve_score: float, format_score: float, variant: Variant, expected: float
) -> None:
    reading = proposer_reward(quality, solve_score, format_score, variant=variant)

    assert reading.reward == pytest.approx(expected, abs=1e-15)


def test_threshold_of_the_code_variant_can_be_moved() -> None:
    # (0.5 + (1 - 0.5) + 1) / 3 = 2 / 3 against (0.5 + 1) / 3 = 0.5
    assert proposer_reward(0.5, 0.5, 1.0, variant="code", threshold=0.5).reward == 2 / 3
    assert proposer_reward(0.5, 0.5, 1.0, variant="code", threshold=0.6).reward == 0.5


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("quality", [None, 0.0, 1.0])
@pytest.mark.parametrize("solve_score", [None, 0.0])
def test_proposal_without_a_question_gets_zero_whatever_else_is_known(
    variant: Variant, quality: float | None, solve_score: float | None
) -> None:
    assert proposer_reward(quality, solve_score, 1.0, variant=variant, has_question=False).reward == 0.0


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_unknown_quality_makes_the_reward_unknown(variant: Variant) -> None:
    assert proposer_reward(None, 0.5, 1.0, variant=variant).reward is None


def test_unknown_solve_score_matters_only_where_it_is_needed() -> None:
    assert proposer_reward(0.7, None, 1.0, variant="code").reward is None
    assert proposer_reward(0.5, None, 1.0, variant="paper").reward is None
    assert proposer_reward(0.5, None, 1.0, variant="code").reward == 0.5  # (0.5 + 1) / 3


@pytest.mark.parametrize(
    ("answer_score", "format_score", "expected"),
    [
        (1.0, 1.0, 1.0),
        (0.0, 1.0, 0.5),
        (1.0, 0.0, 0.5),
        (0.5, 0.5, 0.5),  # 0.25 + 0.25
        (0.25, 1.0, 0.625),  # 0.125 + 0.5
        (0.0, 0.0, 0.0),
        (None, 1.0, None),
    ],
)
def test_solver_reward_is_half_score_and_half_format(
    answer_score: float | None, format_score: float, expected: float | None
) -> None:
    assert solver_reward(answer_score, format_score).reward == expected


@pytest.mark.parametrize("format_score", [0.0, 0.5, 1.0])
def test_judge_reward_is_its_format(format_score: float) -> None:
    assert judge_reward(format_score).reward == format_score


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf")])
def test_numbers_outside_zero_to_one_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"quality .* is not in \[0, 1\]"):
        proposer_reward(bad, 0.5, 1.0, variant="code")
    with pytest.raises(ValueError, match=r"solve_score .* is not in \[0, 1\]"):
        proposer_reward(0.5, bad, 1.0, variant="code")
    with pytest.raises(ValueError, match=r"answer_score .* is not in \[0, 1\]"):
        solver_reward(bad, 1.0)
    with pytest.raises(ValueError, match=r"format_score .* is not in \[0, 1\]"):
        judge_reward(bad)


def test_proposer_terms_hold_everything_the_reward_was_computed_from() -> None:
    reading = proposer_reward(0.5, None, 1.0, variant="code")

    assert reading.terms == (
        Term("has_question", 1.0),
        Term("quality", 0.5),
        Term("solve_score", None),
        Term("format_score", 1.0),
        Term("variant_code", 1.0),
        Term("threshold", 0.7),
    )


@pytest.mark.parametrize(
    ("role", "terms"),
    [
        ("solver", []),
        ("solver", [Term("format_score", 1.0)]),
        ("solver", [Term("answer_score", 1.0), Term("format_score", 1.0), Term("format_score", 1.0)]),
        ("solver", [Term("answer_score", 1.0), Term("format_score", 1.0), Term("length", 1.0)]),
        ("judge", [Term("answer_score", 1.0)]),
        ("proposer", [Term("quality", 1.0)]),
    ],
)
def test_recompute_refuses_terms_that_are_not_those_of_the_role(role: Role, terms: list[Term]) -> None:
    with pytest.raises(ValueError, match=f"terms of a {role} reward"):
        recompute(role, terms)


SHARE = st.floats(0, 1)


@given(
    quality=SHARE | st.none(),
    solve_score=SHARE | st.none(),
    format_score=SHARE,
    variant=st.sampled_from(["paper", "code"]),
    has_question=st.booleans(),
    threshold=SHARE,
)
def test_proposer_reward_recomputes_exactly_from_its_terms_read_back_from_json(
    quality: float | None,
    solve_score: float | None,
    format_score: float,
    variant: Variant,
    has_question: bool,
    threshold: float,
) -> None:
    reading = proposer_reward(
        quality, solve_score, format_score, variant=variant, has_question=has_question, threshold=threshold
    )
    terms = [Term(*pair) for pair in json.loads(json.dumps([(term.name, term.value) for term in reading.terms]))]

    assert recompute("proposer", terms) == reading.reward
    assert recompute("proposer", terms[::-1]) == reading.reward
    assert reading.reward is None or 0 <= reading.reward <= 1


@given(SHARE | st.none(), SHARE)
def test_solver_and_judge_rewards_recompute_exactly_from_their_terms(
    answer_score: float | None, format_score: float
) -> None:
    solver, judge = solver_reward(answer_score, format_score), judge_reward(format_score)

    assert recompute("solver", solver.terms) == solver.reward
    assert recompute("judge", judge.terms) == judge.reward
