from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mae_cli.checking.code.guest import pytest_stub

NUMBERS = st.floats(allow_nan=True) | st.integers(-(10**9), 10**9)
VALUES = NUMBERS | st.lists(NUMBERS, max_size=3) | st.dictionaries(st.text(max_size=2), NUMBERS, max_size=2)


@given(VALUES, VALUES)
def test_approx_agrees_with_pytest(found: Any, expected: Any) -> None:
    # pytest calls an empty dict equal to an empty list; the rest is the same.
    assume(isinstance(found, dict) == isinstance(expected, dict))
    assert (found == pytest_stub.approx(expected)) == (found == pytest.approx(expected))


@given(NUMBERS, st.floats(-1e-5, 1e-5), st.sampled_from([{}, {"rel": 1e-3}, {"abs": 1e-3}, {"rel": 1e-9, "abs": 1e-7}]))
def test_approx_agrees_with_pytest_near_its_limits(expected: float, off: float, options: dict[str, float]) -> None:
    found = expected * (1 + off)

    assert (found == pytest_stub.approx(expected, **options)) == (found == pytest.approx(expected, **options))


def test_raises_demands_the_exception_and_its_text() -> None:
    with pytest_stub.raises(ValueError, match="a+b") as info:
        raise ValueError("xaab")
    assert str(info.value) == "xaab"
    with pytest_stub.raises((KeyError, ValueError)):
        int("x")
    pytest_stub.raises(ZeroDivisionError, lambda: 1 // 0)
    with pytest.raises(AssertionError), pytest_stub.raises(ValueError):
        int("1")
    with pytest.raises(AssertionError), pytest_stub.raises(ValueError, match="nothing of it"):
        int("x")
    with pytest.raises(KeyError), pytest_stub.raises(ValueError):
        raise KeyError


def test_what_is_not_there_is_an_error_and_no_failed_test() -> None:
    with pytest.raises(pytest_stub.MissingError):
        pytest_stub.mark.usefixtures("base")
    with pytest.raises(pytest_stub.MissingError):
        pytest_stub.monkeypatch  # noqa: B018


def test_a_skipped_test_has_no_rows_to_run() -> None:
    marks = (
        pytest_stub.mark.skip,
        pytest_stub.mark.skip("later"),
        pytest_stub.mark.skipif(True),
        pytest_stub.mark.xfail,
    )

    assert [mark(lambda: None).mae_rows for mark in marks] == [[], [], [], []]
    assert not hasattr(pytest_stub.mark.skipif(False)(lambda: None), "mae_rows")
