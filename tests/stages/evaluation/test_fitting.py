"""The verifier of a file that nobody named one for."""

from __future__ import annotations

import pytest

from mae_cli.records import Problem
from mae_cli.stages.evaluation.fitting import fitting_verifier, is_mathematics


@pytest.mark.parametrize(
    ("references", "expected"),
    [
        (["yes", "no"], "exact_match"),
        (["True", "False"], "exact_match"),
        (["Yes."], "exact_match"),
        (["Jane Austen", "Rome"], "exact_match"),
        (["(B)", "(A)"], "exact_match"),
        (["18", "5"], "numeric"),
        (["$18", "3 apples", "1,250"], "numeric"),
        (["5 km", "2 h 30 min"], "numeric"),
        (["18", "yes"], "numeric"),
        (["18", "2\\sqrt{3}"], "math"),
        (["(3, -2)"], "math"),
        (["3, -3"], "math"),
        (["[0,\\infty)"], "math"),
        (["x^2+1", "7"], "math"),
        (["\\text{Friday}", "\\text{Monday}"], "math"),
        (["p - q", "7"], "numeric"),
        (["No, because x = 5"], "numeric"),
        ([None], "numeric"),
        ([], "numeric"),
    ],
)
def test_the_verifier_fits_what_all_items_have_in_common(references: list[str | None], expected: str) -> None:
    problems = [Problem(str(place), "q", reference, {}) for place, reference in enumerate(references)]

    assert fitting_verifier(problems, "numeric") == expected


@pytest.mark.parametrize("text", ["Ann = the winner", "see (a, page 3)", "A", "x", ""])
def test_words_and_lone_letters_are_no_mathematics(text: str) -> None:
    assert not is_mathematics(text)
