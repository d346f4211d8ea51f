"""Pairs that authors of other graders call equal or different, beside our verdict on them.

The values are theirs: the tests of math-verify, of two more libraries for grading and of three smaller ones. Where one
calls a pair different, ours must not call it equal, but for `MORE_LENIENT`; where one calls a pair equal, ours may be
unsure, but calls it different only in `STRICTER`.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mae_cli.answers.extract import last_boxed
from mae_cli.plugins.verifiers.math import Math
from mae_cli.records import Verdict
from tests.support import PATIENT_SECONDS

ROUNDED = "a rounded decimal for an exact value: ours takes decimals as written"
MORE_LENIENT = {
    ("50%", "1/2"): "that grader knows no percent sign; others call 10% and 0.1 equal",
    ("(14/3, 2/3)", "(14/3, 4/6)"): "that grader wants reduced fractions; ours compares values",
    ("18 dollars", "18"): "that grader knows no units; ours ignores a unit on one side only",
}
STRICTER = {
    (
        r"$(\begin{pmatrix}\frac{1}{3}\\ \frac{1}{5} \end{pmatrix})$",
        r"$\begin{pmatrix}0.33\\0.2 \end{pmatrix}$",
    ): ROUNDED,
    (r"$(\frac{3}{5},\frac{8}{3}]$", "$(0.6,2.6667]$"): ROUNDED,
    (r"\frac13, \sqrt3, \pi", "1/3, 1.732, 3.1416"): ROUNDED,
    (r"40\pi", "125.663"): ROUNDED,
    (r"2.314814814815 \times 10^{-3}", r"\frac{1}{432}"): ROUNDED,
    ("3.14159", "3.1416"): ROUNDED,
    ("2", "2.0001"): ROUNDED,
    ("1", "1.0001"): ROUNDED,
    ("75", "0.75"): "that grader multiplies every answer by a hundred as well",
    (r"$1 - \frac{1}{\mathrm{e}}$", r"$1 + \frac{1}{\mathrm{e}}$"): "a known error of that grader, kept in its tests",
}


def _cases() -> list[dict[str, Any]]:
    lines = (Path(__file__).parent / "math_others.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _stated(text: str) -> str:
    """What a sentence states: its one box, or its one formula behind words."""
    if text.count("boxed{") == 1:
        return last_boxed(text) or text
    formulas = re.findall(r"\$\$?([^$]+)\$\$?", text)
    has_words = len(formulas) == 1 and re.search(r"[A-Za-z]{3,} ", text.replace(formulas[0], ""))
    return formulas[0] if has_words else text


@functools.cache
def _verdicts() -> list[Verdict]:
    pairs = [(_stated(case["gold"]), _stated(case["answer"])) for case in _cases()]
    return Math(timeout_seconds=PATIENT_SECONDS).compare(pairs)


@pytest.mark.parametrize(("number", "case"), list(enumerate(_cases())))
def test_no_verdict_is_the_opposite_of_what_its_author_says(number: int, case: dict[str, str]) -> None:
    verdict, pair = _verdicts()[number], (case["gold"], case["answer"])

    if case["expected"] == "different":
        assert verdict.score != 1.0 or pair in MORE_LENIENT, verdict.reason
    else:
        assert verdict.score != 0.0 or pair in STRICTER, verdict.reason


def test_most_of_what_others_call_equal_is_equal_here() -> None:
    equal = [verdict for case, verdict in zip(_cases(), _verdicts(), strict=True) if case["expected"] == "equal"]

    assert sum(verdict.score == 1.0 for verdict in equal) >= 0.8 * len(equal)
