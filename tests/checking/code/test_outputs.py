from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.checking.code.outputs import same_output


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("7\n", "7", True),
        ("7", "7\n\n", True),
        ("7  \n8", "7\n8", True),
        ("  7", "7", True),  # words count, not the blanks between them
        ("1  2", "1 2", True),
        ("1\r\n2\r\n", "1\n2\n", True),
        ("1\n2", "1 2", False),  # lines count
        ("1\n\n2", "1\n2", False),
        ("YES", "Yes", False),
        ("2\n1", "1\n2", False),
        ("", "", True),
        ("", "0", False),
        ("7 8", "7", False),
        ("0.3333333", "0.3333333333", True),
        ("0.33", "0.3333333333", False),
        ("1e-7", "0.0", True),
        ("2.0", "2", False),  # a whole number was expected
        ("2", "2.0", True),
        ("2.00", "2.0", True),
        ("1000000000001", "1000000000000", False),
        ("1000000.5", "1000000.0", True),  # within 1e-6 of the expected number
        ("nan", "1.0", False),
        ("inf", "1.0", False),
        ("Case #1: 0.5", "Case #1: 0.50", True),
        ("Case #2: 0.5", "Case #1: 0.5", False),
        ("-0.0", "0.0", True),
        ("1.2.3", "1.2.3", True),
        ("1.2.4", "1.2.3", False),
        ("1,5", "1.5", False),
        ("é", "é", True),
        ("007", "7", False),
    ],
)
def test_outputs_are_compared_as_contests_do(found: str, expected: str, same: bool) -> None:
    assert same_output(found, expected) is same


@given(st.text(alphabet="01. \n-ax", max_size=30))
def test_every_output_is_its_own(text: str) -> None:
    assert same_output(text, text)
    assert same_output(f"{text} \n\n", text)


@given(st.lists(st.integers(), min_size=1, max_size=6), st.integers(0, 5))
def test_another_whole_number_is_another_output(numbers: list[int], place: int) -> None:
    other = list(numbers)
    other[place % len(numbers)] += 1

    assert not same_output(" ".join(map(str, other)), " ".join(map(str, numbers)))
