from __future__ import annotations

import pytest

from mae_cli.answers.extract import extract_answer
from mae_cli.plugins.contracts import Verifier
from mae_cli.plugins.verifiers.exact_match import ExactMatch
from mae_cli.plugins.verifiers.numeric import Numeric
from mae_cli.prompts.prompt_files import quoted
from mae_cli.stages.calibration.planted_answers import (
    INJECTED,
    KINDS,
    PADDED_RIGHT,
    REMARKED,
    RIGHT,
    TRUNCATED,
    plant,
    wrong_answer,
)
from tests.support import a_problem

OTHERS = [a_problem("Capital of France?", "Paris"), a_problem("Capital of Italy?", "Rome")]


def test_every_kind_is_planted_once_and_only_two_are_right() -> None:
    planted = plant(a_problem(), "8", "10")

    assert [item.kind for item in planted] == list(KINDS)
    assert {item.kind for item in planted if item.is_right} == {RIGHT, PADDED_RIGHT}


def test_a_program_reads_the_planted_answers_as_they_are_meant() -> None:
    for item in plant(a_problem(), "8", "10"):
        answer = extract_answer(item.text).answer
        if item.kind == TRUNCATED:
            assert answer is None
        elif item.kind not in INJECTED:
            assert answer == ("7" if item.is_right else "8")


def test_the_harmless_remark_is_as_long_as_the_longest_injection_and_names_no_verdict() -> None:
    texts = {item.kind: item.text for item in plant(a_problem(), "8", "yes")}

    lengths = [len(texts[kind]) for kind in INJECTED]
    assert 0.9 * max(lengths) <= len(texts[REMARKED]) <= 1.3 * max(lengths)
    assert not any(word in texts[REMARKED] for word in ("yes", "score", "grade", "judge", "verdict"))
    assert all("yes" in texts[kind] for kind in INJECTED)


def test_injected_tags_are_spelled_out_before_a_judge_sees_them() -> None:
    texts = {item.kind: item.text for item in plant(a_problem(), "8", "10")}

    assert "<score>10</score>" in texts["injected_tags"]
    assert "<score>" not in quoted(texts["injected_tags"])


@pytest.mark.parametrize("answer", ["7", "0", "-3", "2.5", "1,200", "3/4"])
def test_a_wrong_number_is_near_and_wrong(answer: str) -> None:
    problem = a_problem(answer=answer)

    wrong = wrong_answer(problem, [], 0, Numeric())

    assert wrong is not None
    assert Numeric().check(problem, wrong).score == 0.0
    assert Numeric().check(problem, answer).score == 1.0


def test_a_wrong_choice_is_another_choice() -> None:
    assert wrong_answer(a_problem(answer="B", choices=["red", "blue"]), [], 0, None) == "A"
    assert wrong_answer(a_problem(answer="blue", choices=["red", "blue"]), [], 0, None) == "red"


def test_a_wrong_text_is_another_problems_answer() -> None:
    assert wrong_answer(OTHERS[0], OTHERS, 0, None) == "Rome"
    assert wrong_answer(OTHERS[0], OTHERS[:1], 0, None) is None
    assert wrong_answer(OTHERS[0], [OTHERS[0], a_problem("x", " paris ")], 0, ExactMatch()) is None


@pytest.mark.parametrize("verifier", [None, Numeric(), ExactMatch()])
@pytest.mark.parametrize("right", ["B", "(B)", "b", "B. Rome", "Rome", "rome"])
def test_a_wrong_choice_is_wrong_however_the_right_one_is_written(right: str, verifier: Verifier | None) -> None:
    problem = a_problem("Capital of Italy?", right, choices=["Paris", "Rome"])

    found = {wrong_answer(problem, OTHERS, seed, verifier) for seed in range(20)}

    assert found == {"A" if right == "B" else "Paris"}


def test_an_answer_that_the_verifier_cannot_tell_is_not_planted_as_wrong() -> None:
    # Both roots in another order are right, which the verifier cannot read.
    problem, other = a_problem("x^2 - 5x + 6 = 0?", "x = 2 or x = 3"), a_problem("Roots of (y - 3)(y - 2)?", "3 or 2")

    assert Numeric().check(problem, "3 or 2").score is None
    assert wrong_answer(problem, [problem, other], 0, Numeric()) is None


def test_a_choice_problem_whose_reference_names_no_choice_gets_no_wrong_answer() -> None:
    assert wrong_answer(a_problem("Capital of Spain?", "Madrid", choices=["Paris", "Rome"]), OTHERS, 0, None) is None


def test_a_planted_answer_depends_on_seed_and_problem_alone() -> None:
    problem = a_problem()

    assert {wrong_answer(problem, [], 3, None) for _ in range(3)} == {wrong_answer(problem, OTHERS, 3, Numeric())}
    assert len({wrong_answer(problem, [], seed, None) for seed in range(30)}) > 2
