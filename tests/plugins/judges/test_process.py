from __future__ import annotations

import pytest

from mae_cli.plugins.judges.process import MAX_STEPS, Process, split_steps
from tests.support import a_problem

NONCE = "0123456789ab"
SOLUTION = "3 + 4 = 7\n7 + 5 = 13\nThe answer is 13."


def test_steps_are_paragraphs_or_lines() -> None:
    assert split_steps("one\n\ntwo\nstill two\n \nthree") == ["one", "two\nstill two", "three"]
    assert split_steps(SOLUTION) == SOLUTION.splitlines()
    assert split_steps("") == [""]


def test_a_very_long_solution_keeps_its_rest_in_the_last_step() -> None:
    lines = [f"line {number}" for number in range(MAX_STEPS + 5)]

    steps = split_steps("\n".join(lines))

    assert len(steps) == MAX_STEPS
    assert "\n".join(steps) == "\n".join(lines)


def test_every_step_is_numbered_and_fenced() -> None:
    text = Process().ask(a_problem(), (SOLUTION,), NONCE).messages[0].content

    assert f"===== steps {NONCE} =====\n(1) 3 + 4 = 7\n(2) 7 + 5 = 13\n(3) The answer is 13.\n===== end" in text
    assert "numbered from 1 to 3" in text


@pytest.mark.parametrize(
    ("reply", "score"),
    [("0", 1.0), ("1", 0.0), ("2", 1 / 6), ("3", 1 / 3), ("4", None), ("-1", None), ("none", None)],
)
def test_the_score_is_half_the_share_of_steps_before_the_first_wrong_one(reply: str, score: float | None) -> None:
    judge = Process()
    options = judge.ask(a_problem(), (SOLUTION,), NONCE).options

    found = judge.read_reply(f"<think>step 1 is fine</think><score>{reply}</score>", options)

    assert found.score == (None if score is None else pytest.approx(score))
    assert found.status == ("unparsed" if score is None else "ok")
    assert found.reason


def test_a_mistake_in_the_last_step_is_still_a_mistake() -> None:
    options = Process().ask(a_problem(), ("\n".join("abcdefghij"),), NONCE).options

    assert max(option.score for option in options[1:]) < 0.5
