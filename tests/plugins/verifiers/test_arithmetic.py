import pytest

from mae_cli.plugins.verifiers.arithmetic import Arithmetic
from mae_cli.records import Problem, problem_id


def problem(question: str) -> Problem:
    return Problem(id=problem_id(question), question=question)


@pytest.mark.parametrize(
    ("question", "answer", "score"),
    [
        ("What is 12 + 7?", "19", 1.0),
        ("What is 12 + 7?", "18", 0.0),
        ("What is seven plus five?", "12", 1.0),
        ("3 + 4 + 5 = ?", "12.0", 1.0),
        ("What is 9 - 6?", None, 0.0),  # a missing answer is a wrong answer
        ("What is 9 - 6?", "about three or four", 0.0),
    ],
)
def test_the_question_itself_decides_whether_an_answer_is_right(question, answer, score):
    verdict = Arithmetic().check(problem(question), answer)

    assert (verdict.score, verdict.status, verdict.target) == (score, "ok", "answer")


def test_a_question_that_is_no_arithmetic_is_unsupported_never_wrong():
    verdict = Arithmetic().check(problem("Who wrote Hamlet in 1600?"), "1600")

    assert (verdict.score, verdict.status) == (None, "unsupported")


def test_a_claimed_reference_answer_is_not_consulted():
    lying = Problem(id="x", question="What is 2 + 2?", reference_answer="5")

    assert Arithmetic().check(lying, "5").score == 0.0
    assert Arithmetic().check(lying, "4").score == 1.0


def test_a_problem_is_valid_when_it_can_be_read():
    assert Arithmetic().check_problem(problem("What is 2 + 2?")).score == 1.0
    assert Arithmetic().check_problem(problem("What is 2 + 2? Explain why.")).score == 0.0
    assert Arithmetic().check_problem(problem("What is 2 + 2?")).target == "problem"
