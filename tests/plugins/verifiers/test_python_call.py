from __future__ import annotations

import pytest

from mae_cli.plugins.verifiers.python_call import PythonCall
from tests.support import PATIENT_SECONDS, a_problem

META = {"entry_point": "f", "inputs": [[1], [2]], "outputs": [[1, 1.0], [2, 2.0]]}


def check(program: str | None, *, seconds: float = PATIENT_SECONDS, **meta: object) -> tuple[float | None, str]:
    verdict = PythonCall(timeout_seconds=seconds).check(a_problem(**(meta or META)), program)
    return verdict.score, verdict.status


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def f(x):\n    return [x, float(x)]", (1.0, "ok")),
        ("def f(x):\n    return x, x + 1e-12", (1.0, "ok")),  # a tuple for a list; within the tolerance
        ("def f(x):\n    return [x, x + 0.1]", (0.0, "ok")),
        ("def f(x):\n    return [1, 1.0]", (0.0, "ok")),  # one of two calls
        ("def f(x):\n    return missing", (0.0, "ok")),
        ("def f():\n    return 1", (0.0, "ok")),
        (None, (0.0, "ok")),
        ("def f(x):\n    return lambda: x", (None, "unsupported")),
        ("class E:\n    def __eq__(self, o): return True\ndef f(x):\n    return E()", (None, "unsupported")),
        ("def f(x):\n    while True:\n        pass", (None, "timeout")),
    ],
)
def test_the_values_returned_are_compared(program: str | None, expected: tuple[float | None, str]) -> None:
    seconds = 0.5 if expected[1] == "timeout" else PATIENT_SECONDS

    assert check(program, seconds=seconds) == expected


def test_calls_may_have_keywords_and_a_changed_argument_does_not_reach_the_next_call() -> None:
    calls = [{"args": [[3, 1]], "kwargs": {"down": True}, "output": [3, 1]}, {"args": [[2, 1]], "output": [1, 2]}]
    program = "def f(x, down=False):\n    x.sort(reverse=down)\n    return x"

    assert check(program, entry_point="f", calls=calls) == (1.0, "ok")


@pytest.mark.parametrize(
    "meta",
    [{"entry_point": "f"}, {"calls": [{"args": [], "output": 1}]}, {"entry_point": "f", "inputs": [1], "outputs": []},
     {"entry_point": "a b", "calls": [{"args": [], "output": 1}]}, {"entry_point": "f", "calls": "no"}],
)  # fmt: skip
def test_a_problem_without_calls_is_unsupported(meta: dict[str, object]) -> None:
    assert check("def f():\n    return 1", **meta) == (None, "unsupported")


@pytest.mark.parametrize(
    "line",
    [
        "L = locals()\nfor n in list(L):\n    if n.endswith('_calls'): L[n].clear()",
        "L = eval('loc' + 'als()')\nfor n in list(L):\n    if n.endswith('_calls'): L[n].append(L[n][0])",
        "L = eval('locals', {})()\nprint(L)",
    ],
)
def test_no_program_reaches_the_calls_it_is_tested_with(line: str) -> None:
    assert check(f"{line}\ndef f(x):\n    return 0") == (0.0, "ok")
    caught = "".join(f"    {part}\n" for part in line.splitlines())
    assert check(f"try:\n{caught}except BaseException: pass\ndef f(x):\n    return 0") == (0.0, "ok")
