import subprocess
import sys
from fractions import Fraction

import pytest

from mae_cli.answers.unit_words import unit_spellings
from mae_cli.answers.units import MeasureUnit, convert, leading_unit, names_things, unit_named
from tests.support import ROOT, child_environment


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("km", "kilometer"),
        ("KM", "kilometer"),
        ("square feet", "(foot)**2"),
        ("ft^2", "(foot)**2"),
        ("miles per hour", "mile/hour"),
        ("dollars an hour", "dollar/hour"),
        ("mW", "milliwatt"),
        ("MW", "megawatt"),
        ("degrees Celsius", "degC"),
        ("\u5186", "yen"),
        ("mw", None),  # milliwatts or megawatts
        ("apples", None),
        ("km north", None),
    ],
)
def test_a_unit_is_known_in_the_ways_of_writing_it(words: str, name: str | None) -> None:
    assert unit_named(words) == (MeasureUnit(name) if name else None)


@pytest.mark.parametrize(
    ("text", "rest"), [("km north", " north"), ("hours of work", " of work"), ("in total", "in total"), ("in.", "")]
)
def test_the_words_behind_a_unit_are_left(text: str, rest: str) -> None:
    assert leading_unit(text)[1] == rest


@pytest.mark.parametrize(
    ("unit", "into", "factor"),
    [
        ("mile/hour", "kilometer/hour", Fraction("1.609344")),
        ("field_acre", "(foot)**2", Fraction(43560)),
        ("ton_or_tonne", "pound", Fraction(2000)),
        ("ton_or_tonne", "kilogram", Fraction(1000)),
        ("calendar_year", "calendar_month", Fraction(12)),
        ("ounce", "cup", Fraction(1, 8)),
    ],
)
def test_units_convert_exactly(unit: str, into: str, factor: Fraction) -> None:
    scale = convert(MeasureUnit(unit), MeasureUnit(into))

    assert scale is not None
    assert scale.factor == factor


@pytest.mark.parametrize(
    ("unit", "into"), [("meter", "second"), ("dollar", "euro"), ("cent", "euro"), ("calendar_year", "day")]
)
def test_what_measures_another_thing_does_not_convert(unit: str, into: str) -> None:
    assert convert(MeasureUnit(unit), MeasureUnit(into)) is None


def test_every_unit_of_the_table_is_known_to_the_library() -> None:
    for name in set(unit_spellings().values()) - {"ton_or_tonne"}:
        assert MeasureUnit(name).factor > 0


def test_words_that_change_a_number_name_nothing() -> None:
    assert names_things("apples")
    assert not names_things("squared")
    assert not names_things("xy", is_attached=True)


def test_a_plain_number_needs_no_units_library() -> None:
    code = (
        "import sys\nfrom mae_cli.plugins.verifiers.numeric import numeric_score\n"
        "assert numeric_score('18 apples', '18')[0] == numeric_score('$1,200', '1200')[0] == 1.0\n"
        "assert numeric_score('5 km', '5 kilometers')[0] == 1.0\nassert 'pint' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=child_environment(), cwd=ROOT)
