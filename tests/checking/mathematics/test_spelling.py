import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.checking.mathematics.characters import in_latex
from mae_cli.checking.mathematics.spelling import spelled


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$\\boxed{\\sfrac{1}{2}}$.", "\\frac{1}{2}"),
        ("4\u2154", "4\\frac{2}{3}"),
        ("0.1\\overline{6}", "\\frac{1}{6}"),
        ("0.\\dot{2}\\dot{4}", "\\frac{8}{33}"),
        ("1.25e-3", "1.25 \\cdot 10^{-3}"),
        ("1\\,000\\,000", "1000000"),
        ("1 000 000", "1000000"),
        ("1 000, 2", "1 000, 2"),
        ("\\cos 60^\\circ", "\\cos (\\frac{60\\pi}{180})"),
        ("60^\\circ", "60^\\circ"),
        ("{}_5C_2", "\\binom{5}{2}"),
        ("\\left(\\begin{array}{cc}1&2\\\\3&4\\end{array}\\right)", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        ("$1$ and $2$", "1 \\land 2"),
        ("\\$5", "\\$5"),
    ],
)
def test_one_spelling_stands_for_many(text: str, expected: str) -> None:
    assert spelled(text) == expected


def test_signs_of_other_scripts_become_latex() -> None:
    assert in_latex("\u221a13 \u2264 \u03c0\u00b2, \uff14\uff12 \u096a\u0968") == "\\sqrt{13} \\le  \\pi ^{2}, 42 42"


@given(st.text(max_size=60))
def test_spelling_never_raises(text: str) -> None:
    assert isinstance(spelled(text), str)
