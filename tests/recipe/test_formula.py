"""Formulas of a recipe: every value computed by hand, and what is refused when they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.errors import ConfigError
from mae_cli.recipe.formula import MAX_DEPTH, Formula

NAMES = {"round", "p", "q"}


def value(text: str, **names: float | None) -> float | None:
    return Formula(text, NAMES, "step").value(names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("round > 2", 1.0),
        ("round > 3", 0.0),
        ("round % 2 == 0", 0.0),
        ("1 < round <= 3", 1.0),
        ("1 < round < 3", 0.0),
        ("min(round, 1 - round)", -2.0),
        ("max(round, 1, 7)", 7.0),
        ("abs(-round)", 3.0),
        ("10 if round >= 3 else 20", 10.0),
        ("not round", 0.0),
        ("round >= 1 and round != 3", 0.0),
        ("round == 9 or round == 3", 1.0),
        ("round // 2 + round / 2", 2.5),
        ("2 ** round", 8.0),
        ("True", 1.0),
    ],
)
def test_a_formula_is_worth_what_it_says(text: str, expected: float) -> None:
    assert value(text, round=3.0) == expected


@pytest.mark.parametrize(
    "text",
    ["p + 1", "p > 1", "1 / 0", "not p", "-p", "min(p, 1)", "2 ** 9", "(0 - 8) ** 0.5", "1 if p else 2", "p and 1",
     "p or 0", "1e308 * 10"],
)  # fmt: skip
def test_what_cannot_be_known_is_null(text: str) -> None:
    assert value(text, p=None) is None


@pytest.mark.parametrize(("text", "expected"), [("p and 0", 0.0), ("p or 1", 1.0), ("1 if 1 else p", 1.0),
                                                ("p if 0 else q", 2.0)])  # fmt: skip
def test_what_the_known_parts_settle_is_known(text: str, expected: float) -> None:
    assert value(text, p=None, q=2.0) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (True, "quotes"),
        (3, "quotes"),
        ("", "no formula"),
        ("round >", "no formula"),
        ("rounds > 2", 'did you mean "round"'),
        ("__import__('os')", "is not part of a formula"),
        ("round.real", "is not part of a formula"),
        ("[round]", "is not part of a formula"),
        ("'a' == 'b'", "is not part of a formula"),
        ("round in (1, 2)", "is not part of a formula"),
        ("min(1)", "two or more"),
        ("abs(1, 2)", "one number"),
        ("lambda: 1", "is not part of a formula"),
        ("1" + "+1" * 2000, "at most 2000"),
        ("(" * (MAX_DEPTH + 2) + "-" * (MAX_DEPTH + 2) + "1" + ")" * (MAX_DEPTH + 2), "deep"),
    ],
)
def test_what_is_no_formula_is_refused_in_one_line(text: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Formula(text, NAMES, "pipeline[2] (judge): when")

    assert said in str(caught.value)
    assert str(caught.value).startswith("pipeline[2] (judge): when: ")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_formula_or_refused(text: str) -> None:
    try:
        formula = Formula(text, NAMES, "here")
    except ConfigError:
        return
    formula.value({"round": 3.0, "p": None, "q": 1e308})
