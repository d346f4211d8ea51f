"""Every line of the number cases: what must be equal, and what must not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mae_cli.plugins.verifiers.numeric import numeric_score

HERE = Path(__file__).parent
SCORES = {1.0: "equal", 0.0: "different"}


def _cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{name}:{number}")
        for name in ("numeric_wrong", "numeric_more")
        for number, line in enumerate((HERE / f"{name}.jsonl").read_text("utf-8").splitlines(), 1)
        for case in [json.loads(line)]
    ]


@pytest.mark.parametrize("case", _cases())
def test_numeric_says_what_is_expected(case: dict[str, str]) -> None:
    score, status, reason = numeric_score(case["answer"], case["gold"])

    found = status if score is None else SCORES[score]
    assert found in case["expected"].split(" or "), (case["gold"], case["answer"], reason)


@pytest.mark.parametrize("case", _cases())
def test_what_is_not_equal_is_not_equal_with_the_sides_changed_either(case: dict[str, str]) -> None:
    score, _, reason = numeric_score(case["gold"], case["answer"])

    assert (score == 1.0) <= ("equal" in case["expected"]), (case["gold"], case["answer"], reason)
