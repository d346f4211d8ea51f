"""Compare an answer with the reference answer as one number with its unit, exactly.

Place in the flow: `judge` and `eval` call it through the registry; GSM8K-like problems. Contract: an answer that states
no number, several, or another one is wrong (0.0); a reference that is no number cannot be checked (null); the same
figures for different things (5 km north and 5 km south, 5 apples and 5 oranges, 5 USD and 5 CAD) are `unsure`. What
stands on one side only is ignored: references are mostly bare numbers. A time of the day and a ratio are compared as
such (`answers.colons`). Left out: expressions and other mathematics (verifier `math`).
"""

import re
from typing import Final, Literal

import msgspec

from mae_cli.answers.colons import Colons, read_colons, same_colons
from mae_cli.answers.numbers import Quantity, numbers_equal, read_quantity
from mae_cli.answers.units import MeasureUnit, convert
from mae_cli.records import Problem, Verdict, VerdictStatus

_Score = tuple[float | None, VerdictStatus, str]
# Behind a number these say nothing about what is counted.
_EMPTY: Final = """
of the a an in total all altogether each per every them these those are is it there for and to on at by with that which
st nd rd th
"""
_EMPTY_WORDS: Final = frozenset(_EMPTY.split())
_IRREGULAR: Final = {"people": "person", "children": "child", "men": "man", "women": "woman", "feet": "foot"}
_ENDINGS: Final = (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("ss", "ss"), ("s", ""))
_NEAR: Final = 0.1
# Where both terms of a factor are large (a mile is 25146/15625 kilometres) figures are rounded.
_ROUND: Final = 100
_ROUNDED: Final = 0.005
_POINT_GROUP: Final = re.compile(r"(?<![\d.,])[1-9]\d{0,2}\.\d{3}(?!\d)")


def numeric_score(
    answer: str | None,
    reference: str,
    *,
    tolerance: float = 0.0,
    lone_percent: Literal["unsure", "strip"] = "unsure",
) -> _Score:
    """Return (score, status, reason): 1.0 if both texts state the same quantity, else 0.0.

    A percent sign on both sides is ignored on both. On one side only it divides by 100; if the
    numbers are equal only without it ("50%" for 50), the text alone cannot tell which is meant:
    (None, "unsure", reason), or 1.0 where the caller knows that the sign is a unit (`strip`).
    Units on both sides are converted (90 minutes is 1.5 hours); a unit on one side only is ignored, and the same
    figures in units that do not measure one thing, or of different things, are "unsure". "2 dozen" is 24; for 2 it is
    "unsure", and so is "3,4" as a reference, which may be two numbers.

    Args:
        answer: the extracted answer; None or blank is a wrong answer.
        reference: the reference answer; (None, "unsupported", reason) if it is not one number.
        tolerance: see `numbers_equal`; 0.0 is exact equality.
        lone_percent: what a percent sign on one side only means.

    Raises:
        ValueError: if the tolerance is negative or not finite.

    Source: reading rules as in `mae_cli.answers.numbers`; no published rule.
    """
    expected = read_quantity(reference)
    if (expected is None or ":" in (answer or "")) and (colons := read_colons(reference)):
        return _by_colons(answer, colons)
    if expected is None:
        return None, "unsupported", f"the reference answer is not one number: {reference[:60]!r}"
    if answer is None or not answer.strip():
        return 0.0, "ok", "no answer found"
    if expected.has_comma:
        return None, "unsure", f"the comma of the reference may part two numbers: {reference[:60]!r}"
    found = read_quantity(answer)
    if found is None and (time := read_colons(answer)) and not any(time.parts[1:]):
        same_hour = time.parts[0] % 12 == expected.value % 12
        return (None, "unsure", "a time at that hour") if same_hour else (0.0, "ok", "different number")
    if found is None:
        return 0.0, "ok", f"the answer is not one number: {answer[:60]!r}"
    score = _compared(found, expected, tolerance, lone_percent)
    things = _different_things(found, expected)
    if things and (score[0] == 1.0 or found.value == -expected.value):
        return None, "unsure", f"same figures, but {things}"
    if score[0] == 0.0 and (_by_thousand(answer, found, expected) or _by_thousand(reference, expected, found)):
        return None, "unsure", "the point may part thousands"
    return score


def _by_colons(answer: str | None, reference: Colons) -> _Score:
    """Compare an answer with a time of the day or a ratio."""
    if answer is None or not answer.strip():
        return 0.0, "ok", "no answer found"
    found = read_colons(answer)
    if found is None:
        return (
            (None, "unsure", "a time or a ratio, and something else with figures")
            if re.search(r"\d", answer)
            else (0.0, "ok", f"the answer is no time and no ratio: {answer[:60]!r}")
        )
    same = same_colons(found, reference)
    if same is None:
        return None, "unsure", "the same if the half of the day, or the terms of the ratio, do not count"
    return (1.0, "ok", "same time or ratio") if same else (0.0, "ok", "different time or ratio")


def _by_thousand(text: str, first: Quantity, second: Quantity) -> bool:
    """Whether a point before three digits parts thousands in one text, so that both would be the same."""
    return (
        first.value * 1000 == second.value != 0 and re.search(r"(?<![\d.,])[1-9]\d{0,2}\.\d{3}(?!\d)", text) is not None
    )


def _compared(found: Quantity, expected: Quantity, tolerance: float, lone_percent: str) -> _Score:
    """Compare figures and units; what else the words say is not looked at."""
    if found.unit and expected.unit and found.unit != expected.unit:
        return _in_units(found, found.unit, expected, expected.unit, tolerance)
    if any(quantity.unit and quantity.unit.is_count for quantity in (found, expected)):
        return _in_dozens(found, expected, tolerance)
    same_figures = numbers_equal(found.value, expected.value, tolerance)
    if found.is_percent == expected.is_percent:
        if same_figures:
            return 1.0, "ok", "same number"
        if (found.unit is None) != (expected.unit is None) and _is_total(found, expected, tolerance):
            return None, "unsure", "the same if the bare number is in the smaller unit"
        return 0.0, "ok", "different number"
    if same_figures and lone_percent == "strip":
        return 1.0, "ok", "same number, percent sign ignored"
    found_value = found.value / 100 if found.is_percent else found.value
    expected_value = expected.value / 100 if expected.is_percent else expected.value
    if numbers_equal(found_value, expected_value, tolerance):
        return 1.0, "ok", "same number, one in percent"
    if same_figures:
        return None, "unsure", "same figures, but only one side has a percent sign"
    return 0.0, "ok", "different number"


def _is_total(found: Quantity, expected: Quantity, tolerance: float) -> bool:
    """Whether a bare number is the whole of a compound in one of its units: 90 for 1 hour 30 minutes."""
    bare, compound = (found, expected) if found.unit is None else (expected, found)
    return any(numbers_equal(bare.value, total, tolerance) for total in compound.totals)


def _in_units(found: Quantity, unit: MeasureUnit, expected: Quantity, other: MeasureUnit, tolerance: float) -> _Score:
    """Compare two numbers in different units: converted where they measure one thing, else nothing is known."""
    units = f"{unit.name} for {other.name}"
    scale = convert(unit, other)
    if scale is None:
        if numbers_equal(found.value, expected.value, tolerance):
            return None, "unsure", f"same figures, but {units}"
        if unit.is_money and other.is_money:
            return None, "unsure", f"no rate of exchange is known, {units}"
        return 0.0, "ok", "different number"
    converted = found.value * scale.factor + scale.offset
    if numbers_equal(converted, expected.value, tolerance):
        return 1.0, "ok", f"same number, {units}"
    if not scale.is_exact and numbers_equal(converted, expected.value, _NEAR):
        return None, "unsure", f"nearly the same, {units}, which no fraction converts"
    if min(scale.factor.as_integer_ratio()) > _ROUND and numbers_equal(converted, expected.value, _ROUNDED):
        return None, "unsure", f"nearly the same, {units}, which is mostly rounded"
    if scale.offset and numbers_equal(found.value * scale.factor, expected.value, tolerance):
        return None, "unsure", f"the same as a difference, {units}"
    return 0.0, "ok", f"different number, {units}"


def _in_dozens(found: Quantity, expected: Quantity, tolerance: float) -> _Score:
    """Compare two numbers of which one or both count dozens: "5 dozen" is 60, or 5 where dozens were asked for."""
    values = [
        quantity.value * (12 if quantity.unit and quantity.unit.is_count else 1) for quantity in (found, expected)
    ]
    if numbers_equal(values[0], values[1], tolerance):
        return 1.0, "ok", "same number, in dozens"
    if numbers_equal(found.value, expected.value, tolerance):
        return None, "unsure", "same figures, but only one side counts dozens"
    return 0.0, "ok", "different number"


def _different_things(found: Quantity, expected: Quantity) -> str | None:
    """What the two sides count, where the words on both sides name other things; null where they may be one."""
    first, second = _things(found.words), _things(expected.words)
    if first <= second or second <= first:
        lone = (found, expected) if first and not second else (expected, found) if second and not first else None
        if lone is None or lone[0].unit or not lone[1].unit or lone[1].unit.is_count or lone[1].words:
            return None
        return f"{lone[0].words} for {lone[1].unit.name}"
    return f"{found.words} for {expected.words}"


def _things(words: str) -> frozenset[str]:
    """The words that say what is counted, in the singular."""
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", words.casefold())
    found = re.findall(r"[^\W\d_]+", text)
    return frozenset(_singular(word) for word in found if word not in _EMPTY_WORDS)


def _singular(word: str) -> str:
    if word in _IRREGULAR or len(word) < 4:
        return _IRREGULAR.get(word, word)
    for ending, end in (
        ("ies", "y"),
        ("sses", "ss"),
        ("xes", "x"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("ss", "ss"),
        ("s", ""),
    ):
        if word.endswith(ending):
            return word[: -len(ending)] + end
    return word


class Numeric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Equal numbers, with units, currency, thousands separators and fractions read; see `numeric_score`.

    Source: no published rule; GSM8K-like problems, arXiv:2110.14168, compare the final number.
    """

    tolerance: float = 0.0
    lone_percent: Literal["unsure", "strip"] = "unsure"

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on an answer; unknown where the problem has no reference answer."""
        if problem.reference_answer is None:
            return Verdict("numeric", "verifier", "answer", status="unsupported", reason="no reference answer")
        score, status, reason = numeric_score(
            answer, problem.reference_answer, tolerance=self.tolerance, lone_percent=self.lone_percent
        )
        return Verdict("numeric", "verifier", "answer", score=score, status=status, reason=reason)
