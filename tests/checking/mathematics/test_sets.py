import pytest

from mae_cli.checking.mathematics.objects import RealSet
from mae_cli.checking.mathematics.reading import read_object
from mae_cli.checking.mathematics.sets import EMPTY, REALS, as_set, complement, difference, intersection


def the_set(text: str) -> RealSet:
    found = as_set(read_object(text))
    assert found is not None
    return found


def written(of: RealSet) -> str:
    return " ".join(
        f"{'[' if piece.has_low else '('}{piece.low.source},{piece.high.source}{']' if piece.has_high else ')'}"
        for piece in of.pieces
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[2,5)", "[2,5)"),
        ("x<-1 or x>2", "(-\\infty,-1) (2,\\infty)"),
        ("1 < x and x \\le 3", "(1,3]"),
        ("(0,1]\\cup(1,3)", "(0,3)"),
        ("(0,1)\\cup(1,3)", "(0,1) (1,3)"),
        ("(0,1)\\cup\\{1\\}", "(0,1]"),
        ("|x-3.5|<1.5", "(2,5)"),
        ("|x|\\ge 2", "(-\\infty,-2] [2,\\infty)"),
        ("6-2x<0", "(3,\\infty)"),
        ("\\{x : x \\ne 3\\}", "(-\\infty,3) (3,\\infty)"),
        ("\\mathbb{R}\\setminus[1,2)", "(-\\infty,1) [2,\\infty)"),
        ("]1,3[", "(1,3)"),
    ],
)
def test_a_set_is_read_in_order_and_without_overlap(text: str, expected: str) -> None:
    assert written(the_set(text)) == expected


def test_sets_are_turned_round_cut_and_taken_apart() -> None:
    assert complement(EMPTY) == REALS
    assert complement(REALS) == EMPTY
    assert written(complement(the_set("[1,2)"))) == "(-\\infty,1) [2,\\infty)"
    assert written(intersection(the_set("[1,3]"), the_set("(2,5)"))) == "(2,3]"
    assert written(difference(the_set("(0,2)"), the_set("\\{1\\}"))) == "(0,1) (1,2)"


@pytest.mark.parametrize("text", ["x^2 < 4", "x + y < 3", "(a, b)", "(5, 2)", "\\{x \\in \\mathbb{Z} : x > 1\\}"])
def test_what_is_no_set_with_known_ends_stays_unknown(text: str) -> None:
    assert as_set(read_object(text)) is None
