from __future__ import annotations

from pathlib import Path

import pytest

from mae_cli.checking.killable import shared
from mae_cli.errors import ConfigError
from mae_cli.plugins.verifiers.regex import TARGET, Regex
from tests.support import PATIENT_SECONDS, a_problem


@pytest.mark.parametrize(
    ("options", "answer", "expected"),
    [
        ({"pattern": r"\d{4}-\d\d-\d\d"}, " 2024-01-31 ", (1.0, "ok")),
        ({"pattern": r"\d{4}-\d\d-\d\d"}, "on 2024-01-31", (0.0, "ok")),
        ({"pattern": r"\d{4}-\d\d-\d\d", "whole": False}, "on 2024-01-31", (1.0, "ok")),
        ({"pattern": "yes"}, "YES", (0.0, "ok")),
        ({"pattern": "yes", "ignore_case": True}, "YES", (1.0, "ok")),
        ({"pattern": "yes"}, None, (0.0, "ok")),
        ({}, "yes", (None, "unsupported")),
        ({"pattern": "a"}, "a" * 100_001, (None, "unsupported")),
    ],
)
def test_an_answer_matches_or_not(
    options: dict[str, object], answer: str | None, expected: tuple[float | None, str]
) -> None:
    verdict = Regex(**options, timeout_seconds=PATIENT_SECONDS).check(a_problem(), answer)

    assert (verdict.score, verdict.status) == expected


def test_a_problem_may_bring_its_own_pattern_and_a_broken_one_is_an_error() -> None:
    verifier = Regex(timeout_seconds=PATIENT_SECONDS)
    assert verifier.check(a_problem(pattern="[ab]+"), "abba").score == 1.0
    assert verifier.check(a_problem(pattern="[ab"), "abba").status == "error"


def test_a_broken_pattern_of_a_recipe_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r'verifier regex: pattern "\[ab": unterminated'):
        Regex(pattern="[ab")


def test_a_pattern_that_takes_for_ever_is_a_timeout_and_its_worker_is_killed() -> None:
    assert Regex(pattern="(a+)+b", timeout_seconds=PATIENT_SECONDS).check(a_problem(), "aab").score == 1.0
    helper, *workers = shared(TARGET).pids()
    assert workers

    verdict = Regex(pattern="(a+)+b", timeout_seconds=0.5).check(a_problem(), "a" * 40)

    assert (verdict.score, verdict.status) == (None, "timeout")
    assert shared(TARGET).pids() == [helper, *workers[:-1]]
    assert not Path(f"/proc/{workers[-1]}").exists()
