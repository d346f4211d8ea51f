from __future__ import annotations

import ast
import warnings
from typing import Any

import pytest

from mae_cli.checking.code.guest import instrument


def checks_in(source: str) -> int:
    """How many checks a text makes while it runs."""
    found = []

    def note(value: Any) -> Any:
        found.append(value)
        return value

    try:
        with warnings.catch_warnings(action="ignore"):
            exec(compile(instrument.counted(source), "t", "exec"), {instrument.COUNTED: note, instrument.CHECKED: note})
    except (ValueError, AssertionError):
        found.append("raised")
    return len(found)


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("assert 1 + 1 == 2", 1),
        ("for i in range(3): assert i < 5", 3),
        ("assert True", 0),
        ("assert (1 == 2, 'text')", 0),
        ("assert 'text'", 0),
        ("def f():\n    assert 1 == 1", 0),
        ("def f():\n    assert 1 == 1\nf()", 1),
        ("1 == 2", 0),
        ("if 1 != 1:\n    raise ValueError", 1),
        ("if 1 != 1:\n    print(1)", 0),
        ("try:\n    int('x')\n    assert False\nexcept ValueError:\n    pass", 1),
        ("try:\n    int('x')\nexcept ValueError:\n    pass", 0),
        ("class T:\n    def assertEqual(self, a, b): pass\nT().assertEqual(1, 1)", 1),
        ("assert []", 2),  # checked, and raised
    ],
)
def test_only_what_can_fail_counts_as_a_check(source: str, number: int) -> None:
    assert checks_in(source) == number


def test_the_names_a_text_takes_from_elsewhere() -> None:
    tree = ast.parse(
        "import math\nfrom a import b as c\nx = f(1)\ndef g(y): return y + h(x, len(k)) + math.pi + c\n[z for z in w]"
    )

    assert set(instrument.free_names(tree)) == {"f", "w", "h", "k"}
    assert instrument.called_at_top(tree) == {"f"}
