from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_cli.checking.code import triplets
from mae_cli.checking.code.sandbox import Limits
from mae_cli.checking.code.triplets import (
    Triplet,
    check_abduction,
    check_deduction,
    check_error,
    check_induction,
    validate,
)
from tests.support import PATIENT_SECONDS

# For programs that must end by the time limit, and for those that must not.
QUICK, PATIENT = Limits(seconds=0.3, memory_mib=256), Limits(seconds=PATIENT_SECONDS, memory_mib=256)
DOUBLE = "def f(x, y=1):\n    return [2 * x, y]"


def test_a_valid_triplet_carries_the_output_its_program_gives() -> None:
    assert validate(DOUBLE, "3, 'a'").triplet == Triplet(DOUBLE, "3, 'a'", "[6, 'a']")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(x):\n    return x +", "not Python"),
        ("def g(x):\n    return x", "no function f"),
        ("def f():\n    return 1", "takes no input"),
        ("def f(x):\n    x + 1", "returns nothing"),
        ("import os\ndef f(x):\n    return x", "imports os"),
        ("import os.path\ndef f(x):\n    return x", "imports os"),
        ("from random import random\ndef f(x):\n    return random()", "imports random"),
        ("def f(x):\n    import time\n    return time.time()", "imports time"),
        ("def f(x):\n    return __import__('os').getcwd()", "uses __import__"),
        ("def f(x):\n    return eval('x')", "uses eval"),
        ("def f(x):\n    print(x)\n    return x", "uses print"),
        ("def f(x):\n    return x.__class__", "uses __class__"),
        ("n = 0\ndef f(x):\n    global n\n    n += 1\n    return n", "changes global state"),
        ("seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)", "not deterministic"),
        ("def f(x):\n    return x / 0", "ZeroDivisionError"),
        ("def f(x):\n    while True:\n        pass\n    return x", "timeout"),
        ("def f(x):\n    return [x] * 10**9", "memory"),
        ("def f(x):\n    return 'a' * 401", "403 characters"),
        ("def f(x):\n    return float('nan')", "not a plain value"),
        ("def f(x):\n    return lambda: x", "not a plain value"),
        ("class A:\n    pass\ndef f(x):\n    return A()", "plain value"),
        ("def f(x):\n    return float('inf')", "literal"),
    ],
)
def test_an_unfit_program_is_refused_with_its_reason(program: str, reason: str) -> None:
    found = validate(program, "1", limits=QUICK if reason == "timeout" else PATIENT)

    assert found.triplet is None
    assert any(part in found.reason for part in reason.split("|")), found.reason


@pytest.mark.parametrize("body", ["while True: pass", "return ['a'] * 10**9"])
def test_a_program_that_runs_into_a_limit_is_unknown(body: str) -> None:
    found = validate(f"def f(x):\n    {body}\n    return x", "1", limits=QUICK)

    assert (found.triplet, found.is_unknown) == (None, True), found.reason
    assert not validate("def f(x):\n    return 1 / 0", "1").is_unknown


@pytest.mark.parametrize("text", ["1) or (2", "__import__('os')", "x", "[1, 2", "1; 2", "lambda: 0", "'a' * 999"])
def test_an_input_that_is_no_literal_never_becomes_a_value(text: str) -> None:
    assert validate(DOUBLE, text).triplet is None
    assert check_abduction(Triplet(DOUBLE, "1", "[2, 1]"), text).correct is False


def test_deduction_compares_values_not_texts() -> None:
    triplet = Triplet(DOUBLE, "3, {'a': (1, 2)}", "[6, {'a': (1, 2), 'b': 0.5}]")

    assert check_deduction(triplet, " [6,{'b':0.50,'a':(1,2)}] ").correct is True
    assert check_deduction(triplet, "[6, {'a': [1, 2], 'b': 0.5}]").correct is False
    assert check_deduction(triplet, "print('hello')").correct is False


def test_abduction_takes_any_input_that_gives_the_output() -> None:
    triplet = Triplet("def f(x):\n    return x * x", "3", "9")

    assert check_abduction(triplet, "-3").correct is True
    assert check_abduction(triplet, "4").correct is False
    assert check_abduction(triplet, "'a'").correct is False  # raises


def test_abduction_that_runs_into_the_limit_is_unknown() -> None:
    loop = Triplet("def f(x):\n    while x != 3:\n        pass\n    return 1", "3", "1")

    checked = check_abduction(loop, "4", limits=QUICK)

    assert (checked.correct, checked.status) == (None, "timeout")


def test_induction_needs_every_hidden_case() -> None:
    cases = [("1", "1"), ("2", "4"), ("-3", "9")]

    assert check_induction(cases, "def f(x):\n    return x * x").correct is True
    assert check_induction(cases, "def f(x):\n    return x ** 2 if x > 0 else -9").correct is False
    assert check_induction(cases, "import os\ndef f(x):\n    return x * x").correct is False
    assert check_induction([], "def f(x):\n    return x").correct is None


def test_an_error_task_names_the_exception_in_any_case() -> None:
    program = "def f(x):\n    return 1 // x"
    raised, fine = validate(program, "0", allow_error=True).triplet, validate(program, "1", allow_error=True).triplet

    assert raised is not None
    assert fine is not None
    assert (raised.error, fine.error) == ("ZeroDivisionError", "NoError")
    assert check_error(raised, "zerodivisionerror: division by zero").correct is True
    assert check_error(raised, "NoError").correct is False
    assert check_error(fine, "`NoError`").correct is True


@settings(max_examples=60)
@given(st.recursive(st.integers() | st.text(max_size=5) | st.booleans() | st.none(), lambda x: st.lists(x, max_size=3)))
def test_the_identity_gives_every_plain_value_back(value: object) -> None:
    text = repr(value)
    if len(text) > triplets.MAX_TEXT:
        return

    found = validate("def f(x):\n    return x", text).triplet

    assert found is not None
    assert check_deduction(found, text).correct is True


@given(st.text(max_size=60))
def test_reading_a_literal_never_raises(text: str) -> None:
    triplets.read_literal(text)
    triplets.read_arguments(text)
