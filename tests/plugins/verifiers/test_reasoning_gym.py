import pytest

from mae_cli.plugins.verifiers.reasoning_gym import ReasoningGym
from mae_cli.recipe.files import shipped_dir
from mae_cli.records import Problem
from mae_cli.records.read import read_problems

pytest.importorskip("reasoning_gym")


def test_every_shipped_item_accepts_its_own_answer_and_refuses_nonsense():
    problems = read_problems(shipped_dir("data") / "gym_heldout.jsonl")
    verifier = ReasoningGym()

    assert len(problems) == 96
    assert all(verifier.check(item, item.reference_answer).score == 1.0 for item in problems)
    assert all(verifier.check(item, "no idea at all").score == 0.0 for item in problems)


def test_a_problem_of_another_origin_is_unsupported():
    verdict = ReasoningGym().check(Problem(id="x", question="What is 2 + 2?", reference_answer="4"), "4")

    assert (verdict.score, verdict.status) == (None, "unsupported")


def test_a_checker_that_fails_leaves_the_answer_unknown():
    broken = Problem(id="x", question="?", meta={"dataset": "chain_sum", "entry": {"answer": None}})

    verdict = ReasoningGym().check(broken, "4")

    assert verdict.score in (None, 0.0)
    assert (
        ReasoningGym().check(Problem(id="x", question="?", meta={"dataset": "none_such", "entry": {}}), "4").score
        is None
    )
