"""Every line of the mathematics cases: equal ones are never different, and unequal ones never equal."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from mae_cli.plugins.verifiers.math import Math
from mae_cli.records import Verdict
from tests.support import PATIENT_SECONDS, a_problem

HERE = Path(__file__).parent
FILES = ("math_wrong", "math_unsure", "math_more", "math_further")


def _lines() -> list[tuple[str, dict[str, str]]]:
    return [
        (f"{name}:{number}", json.loads(line))
        for name in FILES
        for number, line in enumerate((HERE / f"{name}.jsonl").read_text("utf-8").splitlines(), 1)
    ]


@functools.cache
def _verdicts() -> dict[str, Verdict]:
    """All lines at once, so that one worker compares them."""
    lines = _lines()
    problems = [a_problem(case["question"], answer=case["gold"]) for _, case in lines]
    answers = [case["answer"] for _, case in lines]
    verdicts = Math(timeout_seconds=PATIENT_SECONDS).check_many(problems, answers, ["g"] * len(lines))
    return dict(zip((name for name, _ in lines), verdicts, strict=True))


@pytest.mark.parametrize(("name", "case"), [pytest.param(*line, id=line[0]) for line in _lines()])
def test_math_says_what_is_expected(name: str, case: dict[str, Any]) -> None:
    verdict = _verdicts()[name]

    if case["expected"] == "equal":
        assert verdict.score == 1.0, (case["gold"], case["answer"], verdict.status, verdict.reason)
    else:
        assert verdict.score != 1.0, (case["gold"], case["answer"], verdict.reason)
