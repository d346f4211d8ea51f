import tracemalloc
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.answers.numbers import Quantity, expand_fraction_signs, numbers_equal, read_number, read_quantity

READ: list[tuple[str, Fraction]] = [
    ("18", Fraction(18)),
    ("18.", Fraction(18)),
    (" 18 \n", Fraction(18)),
    ("018", Fraction(18)),
    ("18.00", Fraction(18)),
    ("1,234.50", Fraction(2469, 2)),  # 1234.5 = 2469/2
    ("1,234,567", Fraction(1234567)),
    ("1{,}234", Fraction(1234)),
    ("3\u202f400", Fraction(3400)),
    ("$1,234", Fraction(1234)),
    ("\\$5", Fraction(5)),
    ("$ 5", Fraction(5)),
    ("\u20ac5", Fraction(5)),
    ("US$5", Fraction(5)),
    ("USD 5", Fraction(5)),
    ("-$5", Fraction(-5)),
    ("$-5", Fraction(-5)),
    ("-3", Fraction(-3)),
    ("- 3", Fraction(-3)),
    ("+3", Fraction(3)),
    ("\u22123", Fraction(-3)),
    ("\u20133", Fraction(-3)),
    (".5", Fraction(1, 2)),
    ("-.5", Fraction(-1, 2)),
    ("3/4", Fraction(3, 4)),
    ("3 / 4", Fraction(3, 4)),
    ("-3/4", Fraction(-3, 4)),
    ("3\u20444", Fraction(3, 4)),
    ("1.5/3", Fraction(1, 2)),
    ("1 1/2", Fraction(3, 2)),
    ("-1 1/2", Fraction(-3, 2)),
    ("1 and 1/2", Fraction(3, 2)),
    ("\u00bd", Fraction(1, 2)),
    ("1\u00bd", Fraction(3, 2)),
    ("12 \u00be", Fraction(51, 4)),  # 12.75
    ("\\frac{3}{4}", Fraction(3, 4)),
    ("\\dfrac{3}{4}", Fraction(3, 4)),
    ("\\tfrac34", Fraction(3, 4)),
    ("-\\frac{3}{4}", Fraction(-3, 4)),
    ("\\frac{-3}{4}", Fraction(-3, 4)),
    ("1\\frac{1}{2}", Fraction(3, 2)),
    ("6.02e23", Fraction(602 * 10**21)),
    ("1E-3", Fraction(1, 1000)),
    ("1.5 \\times 10^{3}", Fraction(1500)),
    ("1.5 \u00d7 10^3", Fraction(1500)),
    ("5 x 10^-3", Fraction(1, 200)),
    ("12 apples", Fraction(12)),
    ("12 apples.", Fraction(12)),
    ("$18 per day", Fraction(18)),
    ("60 miles/hour", Fraction(60)),
    ("5km", Fraction(5)),
    ("5 m", Fraction(5)),
    ("5 m^2", Fraction(5)),
    ("10\\text{ cm}^2", Fraction(10)),
    ("90^\\circ", Fraction(90)),
    ("90\u00b0", Fraction(90)),
    ("12 (dollars)", Fraction(12)),
    ("1/2 cup", Fraction(1, 2)),
    ("2 1/2 cups", Fraction(5, 2)),
    ("2 dozen", Fraction(2)),
    ("2 million", Fraction(2000000)),
    ("$1.5 billion dollars", Fraction(1500000000)),
    ("5 hundred", Fraction(500)),
    ("$18$", Fraction(18)),
    ("\\(18\\)", Fraction(18)),
    ("\\[ 18 \\]", Fraction(18)),
    ("\\boxed{18}", Fraction(18)),
    ("**18**", Fraction(18)),
    ("**18** dollars", Fraction(18)),
    ("60 clips", Fraction(60)),
    ("12 men", Fraction(12)),
    ("200 GB", Fraction(200)),
    ("5 PM", Fraction(5)),
    ("5 p.m.", Fraction(5)),
    ("4th", Fraction(4)),
    ("3 a day", Fraction(3)),
    ("20 \u00b0C", Fraction(20)),
    ("6 five-pound bags", Fraction(6)),
    ("18 dollars for two tickets", Fraction(18)),
    ("x = 5", Fraction(5)),
    ("9 * 2 = 18", Fraction(18)),
    ("\u0663", Fraction(3)),  # Arabic-Indic three
    ("\uff11\uff18", Fraction(18)),
    ("1\u200b8", Fraction(18)),
    ("2^3", Fraction(8)),
    ("2**3", Fraction(8)),
    ("5\u00b2", Fraction(25)),
    ("5k", Fraction(5000)),
    ("12,34,567", Fraction(1234567)),
    ("1.234,50", Fraction(2469, 2)),
    ("1 000 000", Fraction(1000000)),
    ("18 dollars and 50 cents", Fraction(37, 2)),
]

REFUSED = [
    "",
    "apples",
    "about 12",
    "2 and a half",
    "twelve",
    "Two cases",
    "In 5 steps",
    "3 or 4",
    "3 and 4",
    "3, 4",
    "3 to 4",
    "3-4",
    "3\u20134",
    "16-3",
    "3 + 4",
    "3 * 4",
    "3x",
    "3 x",
    "3xy",
    "3 xy",
    "3abc",
    "3 a b",
    "5 pi",
    "5pi",
    "5\u03c0",
    "5 sin x",
    "5 theta",
    "5 squared",
    "10 factorial",
    "2 fifths",
    "1 in five",
    "1 out of five",
    "12 in base nine",
    "2\\pi",
    "2\\sqrt{3}",
    "5!",
    "1,23",
    "1.2.3",
    "10:30",
    "1/2/3",
    "1/0",
    "0/0",
    "1/0.0",
    "\\frac{1}{0}",
    "5 apples, 3 pears",
    "3 or more",
    "3 or four",
    "3 plus four",
    "3 over four",
    "x = 1 or x = 2",
    "a = 1, b = 2",
    "x >= 5",
    "x != 5",
    "x \u2260= 5",
    "1. Understand",
    "nan",
    "inf",
    "1e999999999",
    "1e-999999999",
    "1e401",
    "10 x 10^999999999",
    "1" * 301,
]


@pytest.mark.parametrize(("text", "value"), READ)
def test_one_number_is_read_exactly(text: str, value: Fraction) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize("text", REFUSED)
def test_none_or_several_numbers_are_refused(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize("text", ["12 apples", "5km", "90\u00b0", "2 million"])
def test_units_are_refused_where_they_are_not_allowed(text: str) -> None:
    assert read_number(text) is not None
    assert read_number(text, allow_units=False) is None
    assert read_number(text.split(" ")[0].rstrip("km\u00b0"), allow_units=False) is not None


@pytest.mark.parametrize("text", ["50%", "50 %", "50\\%", "50%.", "50 percent", "50 per cent"])
def test_percent_is_a_hundredth_unless_an_argument_says_otherwise(text: str) -> None:
    assert read_number(text) == Fraction(1, 2)
    assert read_number(text, percent="strip") == 50
    assert read_number(text, percent="refuse") is None
    quantity = read_quantity(text)
    assert quantity is not None
    assert quantity.is_percent


def test_huge_exponents_are_refused_before_the_number_is_built() -> None:
    tracemalloc.start()

    for text in ["1e999999999", "1e-999999999", "1e" + "9" * 290, "5 x 10^{" + "9" * 280 + "}"]:
        assert read_number(text) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2**20, "no such number was ever built: the first alone fills 400 MB"


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "equal"),
    [
        (Fraction(1, 3), Fraction(2, 6), 0.0, True),
        (Fraction(1, 3), Fraction(333, 1000), 0.0, False),
        (Fraction(1, 3), Fraction(333, 1000), 0.001, True),  # |1/3 - 0.333| = 1/3000 <= 0.001 * 1
        (Fraction(101), Fraction(100), 0.01, True),  # 1 <= 0.01 * 100 (the double 0.01 is above 1/100)
        (Fraction(102), Fraction(100), 0.01, False),
        (Fraction(1000001), Fraction(1000000), 0.0, False),
    ],
)
def test_tolerance_is_relative_above_one_and_absolute_below(
    a: Fraction, b: Fraction, tolerance: float, equal: bool
) -> None:
    assert numbers_equal(a, b, tolerance) == equal


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_tolerance_must_be_finite_and_not_negative(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance"):
        numbers_equal(Fraction(1), Fraction(1), tolerance)


def test_fraction_signs_are_spelled_apart_from_the_number_before_them() -> None:
    assert expand_fraction_signs("1\u00bd") == "1 1/2"
    assert expand_fraction_signs("\u00e9 1\u00b2") == "\u00e9 1\u00b2"


@given(st.integers(-(10**15), 10**15))
def test_integers_are_read_with_and_without_separators(value: int) -> None:
    assert read_number(f"{value}") == read_number(f"{value:,}") == read_number(f"${value:,}.") == value


@given(st.decimals(min_value=-(10**6), max_value=10**6, places=4))
def test_decimals_are_read_exactly(value: object) -> None:
    assert read_number(f"{value:f}") == Fraction(f"{value}")


@given(st.integers(-999, 999), st.integers(1, 999))
def test_fractions_are_read_exactly_in_both_spellings(top: int, bottom: int) -> None:
    assert read_number(f"{top}/{bottom}") == read_number(f"\\frac{{{top}}}{{{bottom}}}") == Fraction(top, bottom)


@given(st.text(max_size=40))
def test_reading_never_raises(text: str) -> None:
    value = read_number(text)

    assert value is None or isinstance(value, Fraction)


@given(st.text(alphabet="0123456789.,/-+ e%$x=^\\{}frac\u00bd\u00b2", max_size=30))
def test_reading_number_like_text_never_raises(text: str) -> None:
    value = read_number(text)

    assert value is None or isinstance(value, Fraction)


@given(st.from_regex(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", fullmatch=True))
def test_a_plain_number_reads_the_same_with_a_full_stop_behind_it(text: str) -> None:
    # The full stop takes the long way.
    assert read_quantity(text) == read_quantity(f"{text}.") == Quantity(Fraction(text), False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("about 12", Fraction(12)),
        ("twelve apples", Fraction(12)),
        ("two and a half hours", Fraction(5, 2)),
        ("one hundred and five", Fraction(105)),
        ("two thirds", Fraction(2, 3)),
        ("three hundred thousand", Fraction(300000)),
        ("there are 18 of them", Fraction(18)),
    ],
)
def test_a_quantity_may_be_stated_in_words(text: str, value: Fraction) -> None:
    quantity = read_quantity(text)

    assert quantity is not None
    assert quantity.value == value
    assert read_quantity(text, allow_words=False) is None


@pytest.mark.parametrize(
    "text", ["one two", "twelfth", "third", "not 18", "more than 18", "up to twelve", "ten or twelve"]
)
def test_words_that_state_no_one_number_are_refused(text: str) -> None:
    assert read_quantity(text) is None


@pytest.mark.parametrize(
    ("text", "unit", "words", "value"),
    [
        ("5 km north", "kilometer", "north", "5"),
        ("$5 per hour", "dollar/(hour)", "", "5"),
        ("1 hour 30 minutes", "hour", "", "3/2"),
        ("5'6\"", "foot", "", "11/2"),
        ("-2 kg 300 g", "kilogram", "", "-23/10"),
        ("5 apples", None, "apples", "5"),
        ("Rs. 5 lakh", "rupee", "", "500000"),
        ("12,50 \u20ac", "euro", "", "25/2"),
    ],
)
def test_a_quantity_has_a_number_a_unit_and_what_it_counts(text: str, unit: str | None, words: str, value: str) -> None:
    quantity = read_quantity(text)

    assert quantity is not None
    assert (quantity.unit.name if quantity.unit else None, quantity.words) == (unit, words)
    assert quantity.value == Fraction(value)
    assert not quantity.has_comma
