from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_cli.checking.mathematics.equality import equality
from mae_cli.checking.mathematics.expressions import UnreadableError, read_expression
from mae_cli.checking.mathematics.objects import Collection, Matrix, Number, RealSet, Sequence, Text, Unread
from mae_cli.checking.mathematics.reading import read_object
from mae_cli.checking.mathematics.values import value

# fmt: off
PIECES = ["1", "2", "x", "\\frac", "{", "}", "(", ")", "[", "]", "\\sqrt", "^", "_", "+", "-", "/", ",", "=", "\\pi",
          "|", "\\pm", "\\cup", "\\text{a}", "$", "%", "!", "<", "\\{", "\\}", " ", "\\sin",
          "9999999", "e", "i", ":"]
# fmt: on
MOST_CALLS = 2_000_000
"""Less than two seconds' work; `make bench WORKLOAD=limits` measures it."""
EXPRESSIONS = st.sampled_from(
    [
        "3",
        "-7/2",
        "\\frac{5}{9}",
        "2\\sqrt{3}",
        "x^2+1",
        "\\pi",
        "0.25",
        "3xy",
        "2e",
        "\\sin 30^\\circ",
        "5!",
        "12,000",
        "1.5e3",
        "½",
    ]
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1+2*3", "7"),
        ("-2^2", "-4"),
        ("2^{3^2}", "512"),
        ("\\frac12", "1/2"),  # LaTeX takes one digit each
        ("\\frac{1}{2}\\cdot 4", "2"),
        ("1\\frac{4}{5}", "9/5"),
        ("2(3+4)", "14"),
        ("\\sqrt{16}", "4"),
        ("\\sqrt[2]{9}", "3"),
        ("|-3|+1", "4"),
        ("5!", "120"),
        ("\\binom{5}{2}", "10"),
        ("\\lfloor 7/2 \\rfloor", "3"),
        (".5", "1/2"),
        ("6/2/3", "1"),
    ],
)
def test_an_expression_has_its_value(text: str, expected: str) -> None:
    assert value(read_expression(text), {}) == Fraction(expected)


@pytest.mark.parametrize(
    "text",
    ["", "1 2", "x2", "1+", "(1", "\\foo{1}", "\\ldots", "x'", "2^{9999999}", "99999!", "\\frac{1}{0}", "\\sin^{-1} x",
     "(" * 100 + "1" + ")" * 100, "1+" * 700 + "1"],
)  # fmt: skip
def test_what_is_not_understood_or_too_large_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableError):
        value(read_expression(text), {"x": Fraction(2)})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("(1, 2)", Sequence),
        ("[1, 2)", Sequence),
        ("1, 2", Collection),
        ("\\{1, 2\\}", Collection),
        ("2 \\pm 1", Collection),
        ("(0,9) \\cup (9,36)", RealSet),
        ("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", Matrix),
        ("\\text{east}", Text),
        ("Evelyn", Text),
        ("12,345", Number),
        ("$\\frac{1}{2}$.", Number),
        ("\\boxed{5 \\text{ cm}}", Number),
        ("\\int x dx", Unread),
        ("1, \\ldots, n", Unread),
    ],
)
def test_a_text_is_read_as_what_it_is(text: str, kind: type) -> None:
    assert type(read_object(text)) is kind


@contextlib.contextmanager
def counted_calls() -> Iterator[list[int]]:
    """How many functions are called inside, as the one item of a list."""
    calls, before = [0], sys.getprofile()

    def count(frame: object, event: str, _: object) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)
def test_any_two_texts_are_compared_in_few_steps_without_an_error_and_in_both_orders_alike(
    first: str, second: str
) -> None:
    with counted_calls() as calls:
        assert equality(first, second) is equality(second, first)

    assert calls[0] < MOST_CALLS


@given(st.fractions(max_denominator=1000), st.fractions(max_denominator=1000))
def test_fractions_are_equal_exactly_when_they_are(a: Fraction, b: Fraction) -> None:
    written = [f"\\frac{{{x.numerator}}}{{{x.denominator}}}" for x in (a, b)]

    assert equality(*written) is (a == b)
    assert equality(written[0], f"{a.numerator * 7}/{a.denominator * 7}") is True


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 50))
def test_a_sum_may_be_reordered_and_a_changed_coefficient_shows(a: int, b: int, step: int) -> None:
    assert equality(f"{a}x^2+({b})y", f"({b})y+{a}x^2") is True
    assert equality(f"{a}x^2+({b})y", f"({b + step})y+{a}x^2") is False


@given(EXPRESSIONS, EXPRESSIONS)
def test_our_own_reading_is_symmetric_and_knows_each_text_as_itself(first: str, second: str) -> None:
    assert equality(first, second) is equality(second, first)
    assert equality(first, first) is not False


@given(EXPRESSIONS, st.integers(1, 9))
def test_one_more_is_never_equal(text: str, step: int) -> None:
    assert equality(text, f"{text}+{step}") is not True


@pytest.mark.parametrize(("first", "second"), [("|x|", "x"), ("\\sqrt{x^2}", "x"), ("\\sqrt{x^2}", "|x|")])
def test_what_differs_for_negative_numbers_only_is_equal_only_where_it_does_not(first: str, second: str) -> None:
    assert equality(first, second) is (True if "|" in second else None)


@pytest.mark.parametrize(
    ("first", "second", "names", "expected"),
    [
        ("ab", "ba", "ab", True),
        ("ab", "ba", "", None),
        ("no", "on", "", None),
        ("no", "yes", "", False),
        ("no", "n \\cdot o", "", None),
        ("no", "n \\cdot o", "no", True),
    ],
)
def test_two_letters_are_a_product_only_where_the_problem_names_them(
    first: str, second: str, names: str, expected: bool | None
) -> None:
    assert equality(first, second, names) is expected
