from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.answers.extract import extract_answer
from mae_cli.answers.units import convert, unit_named
from mae_cli.plugins.verifiers.numeric import numeric_score
from tests.support import benchmark_items


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("18", "18"),
        ("$18", "18"),
        ("18 dollars per day.", "18"),
        ("70,000", "70000"),
        ("70000.00", "70,000"),
        ("3/4", "0.75"),
        ("\\frac{3}{4}", "3/4"),
        ("1 1/2", "1.5"),
        ("\u22123", "-3"),
        ("50%", "50%"),
        ("50 percent", "50%"),
        ("50%", "0.5"),
        ("0.5", "50%"),
        ("x = 18", "18"),
        ("eighteen", "18"),
    ],
)
def test_same_number_is_right_whatever_its_spelling(answer: str, reference: str) -> None:
    score, status, _ = numeric_score(answer, reference)

    assert (score, status) == (1.0, "ok")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("19", "18"),
        ("-18", "18"),
        ("18.01", "18"),
        ("0.333", "1/3"),
        ("1000001", "1000000"),
        ("51%", "50%"),
        ("51%", "50"),
        ("nineteen", "18"),
        ("18 or 19", "18"),
        ("18 apples, 3 pears", "18"),
        ("1e999999999", "18"),
    ],
)
def test_other_or_no_number_is_wrong(answer: str, reference: str) -> None:
    score, status, reason = numeric_score(answer, reference)

    assert (score, status) == (0.0, "ok")
    assert reason


@pytest.mark.parametrize("answer", [None, "", "  "])
def test_missing_answer_is_wrong(answer: str | None) -> None:
    assert numeric_score(answer, "18") == (0.0, "ok", "no answer found")


@pytest.mark.parametrize("reference", ["", "p - q", "\\left( 3, \\frac{\\pi}{2} \\right)", "3 or 4", "1/0"])
@pytest.mark.parametrize("answer", [None, "18"])
def test_reference_that_is_no_number_is_unsupported(answer: str | None, reference: str) -> None:
    score, status, reason = numeric_score(answer, reference)

    assert (score, status) == (None, "unsupported")
    assert reason


@pytest.mark.parametrize(("answer", "reference"), [("50%", "50"), ("50", "50%"), ("50 percent", "50.0")])
def test_lone_percent_sign_is_unsure_unless_it_is_only_a_unit(answer: str, reference: str) -> None:
    unsure = numeric_score(answer, reference)
    stripped = numeric_score(answer, reference, lone_percent="strip")

    assert unsure[:2] == (None, "unsure")
    assert stripped[:2] == (1.0, "ok")


def test_tolerance_admits_rounding() -> None:
    assert numeric_score("33.33", "100/3")[0] == 0.0
    assert numeric_score("33.33", "100/3", tolerance=0.001)[0] == 1.0


@given(st.text(max_size=40) | st.none(), st.text(max_size=40))
def test_score_is_null_exactly_where_the_status_is_not_ok(answer: str | None, reference: str) -> None:
    score, status, reason = numeric_score(answer, reference)

    assert (score is None) == (status != "ok")
    assert score in {None, 0.0, 1.0}
    assert reason


@pytest.mark.long
def test_every_gsm8k_solution_is_right_in_the_usual_forms() -> None:
    forms = ["{}", "${}", "{}.", "{} dollars", "**{}**", "\\boxed{{{}}}", "\\({}\\)", "x = {}"]

    for item in benchmark_items("gsm8k_test"):
        extracted = extract_answer(item["solution"])
        assert extracted.source == "hashes", item["id"]
        assert numeric_score(extracted.answer, item["answer"])[:2] == (1.0, "ok"), item["id"]
        for form in forms:
            assert numeric_score(form.format(item["answer"]), item["answer"])[0] == 1.0, (form, item["id"])
            assert numeric_score(form.format("7" + item["answer"]), item["answer"])[0] == 0.0, (form, item["id"])
            prose = f"First 3 + 4 = 7. The answer is {form.format(item['answer'])}."
            assert numeric_score(extract_answer(prose).answer, item["answer"])[0] == 1.0, (prose, item["id"])


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("1.5 hours", "90 minutes", (1.0, "ok")),
        ("90 minutes", "1.5 hours", (1.0, "ok")),
        ("2 hours", "90 minutes", (0.0, "ok")),
        ("$1.50", "150 cents", (1.0, "ok")),
        ("150 cents", "$1.50", (1.0, "ok")),
        ("1,200 m", "1.2 km", (1.0, "ok")),
        ("5 km", "5 m", (0.0, "ok")),
        ("9 square feet", "1 square yard", (1.0, "ok")),
        ("3 feet", "1 square yard", (0.0, "ok")),
        ("5 kg", "5 m", (None, "unsure")),
        ("\u20ac5", "$5", (None, "unsure")),
        ("6 kg", "5 m", (0.0, "ok")),
        ("5 apples", "5 m", (None, "unsure")),
        ("5", "$5", (1.0, "ok")),
        ("5 dollars", "\\$5", (1.0, "ok")),
        ("$5 million", "5000000", (1.0, "ok")),
        ("$5$", "5 cents", (1.0, "ok")),
        ("1 year", "12 months", (1.0, "ok")),
        ("5 ms", "5 m", (None, "unsure")),
        ("5 ms", "0.005 s", (1.0, "ok")),
        ("5 dozen", "60", (1.0, "ok")),
        ("60 eggs", "5 dozen eggs", (1.0, "ok")),
        ("5 dozen", "5", (None, "unsure")),
        ("5 dozen", "5 dozen", (1.0, "ok")),
        ("5 dozen", "61", (0.0, "ok")),
    ],
)
def test_units_on_both_sides_are_converted(answer: str, reference: str, expected: tuple[float | None, str]) -> None:
    score, status, _ = numeric_score(answer, reference)

    assert (score, status) == expected


# Units of one dimension each, as people write them.
FAMILIES = [
    ["mm", "cm", "m", "km", "inches", "feet", "yards", "miles"],
    ["mg", "g", "kg", "ounces", "pounds"],
    ["seconds", "minutes", "hours", "days", "weeks"],
    ["ml", "liters", "cups", "pints", "quarts", "gallons", "cubic centimeters"],
    ["km/h", "mph", "m/s"],
    ["cents", "dollars"],
    ["months", "years", "decades"],
    ["J", "kJ", "kWh"],
]
PAIRS = st.sampled_from(FAMILIES).flatmap(lambda family: st.tuples(st.sampled_from(family), st.sampled_from(family)))


@given(st.fractions(min_value=1, max_value=10**6, max_denominator=1000), PAIRS)
def test_a_quantity_in_another_unit_is_equal_and_one_more_is_not(value: Fraction, pair: tuple[str, str]) -> None:
    unit, other = (unit_named(word) for word in pair)
    assert unit is not None
    assert other is not None
    scale = convert(unit, other)
    assert scale is not None
    figure = value * scale.factor
    written = f"{figure.numerator}/{figure.denominator} {pair[1]}"
    more = f"{figure.numerator + figure.denominator}/{figure.denominator} {pair[1]}"

    reference = f"{value.numerator}/{value.denominator} {pair[0]}"
    assert numeric_score(written, reference)[0] == numeric_score(reference, written)[0] == 1.0
    assert numeric_score(more, reference)[0] != 1.0


@given(st.integers(-(10**9), 10**9), st.sampled_from(["", " apples", " km", "%", " dollars per hour", " am"]))
def test_one_more_is_never_equal(value: int, behind: str) -> None:
    assert numeric_score(f"{value}{behind}", f"{value}{behind}")[0] == 1.0
    assert numeric_score(f"{value + 1}{behind}", f"{value}{behind}")[0] == 0.0
