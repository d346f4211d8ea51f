"""Compare an answer with the reference answer as one number, exactly.

Place in the flow: `judge` and `eval` call it through the registry; GSM8K-like problems. Contract:
an answer that states no number, several, or another one is wrong (0.0); a reference that is no
number cannot be checked (null). Left out: expressions and other mathematics (verifier `math`).
"""

from typing import Literal

import msgspec

from mae_cli.answers.numbers import Quantity, numbers_equal, read_quantity
from mae_cli.records import Problem, Verdict, VerdictStatus


def numeric_score(
    answer: str | None,
    reference: str,
    *,
    tolerance: float = 0.0,
    lone_percent: Literal["unsure", "strip"] = "unsure",
) -> tuple[float | None, VerdictStatus, str]:
    """Return (score, status, reason): 1.0 if both texts state the same number, else 0.0.

    A percent sign on both sides is ignored on both. On one side only it divides by 100; if the
    numbers are equal only without it ("50%" for 50), the text alone cannot tell which is meant:
    (None, "unsure", reason), or 1.0 where the caller knows that the sign is a unit (`strip`).
    Units on both sides are converted (90 minutes is 1.5 hours); a unit on one side only is ignored, and the same
    figures in units that do not measure one thing are "unsure". "2 dozen" is 24; for 2 it is "unsure".

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
    if expected is None:
        return None, "unsupported", f"the reference answer is not one number: {reference[:60]!r}"
    if answer is None or not answer.strip():
        return 0.0, "ok", "no answer found"
    found = read_quantity(answer)
    if found is None:
        return 0.0, "ok", f"the answer is not one number: {answer[:60]!r}"
    same_figures = numbers_equal(found.value, expected.value, tolerance)
    if found.unit and expected.unit and found.unit != expected.unit:
        return _in_units(found, expected, tolerance)
    if any(quantity.unit and quantity.unit.dimension == "count" for quantity in (found, expected)):
        return _in_dozens(found, expected, tolerance)
    if found.is_percent == expected.is_percent:
        return (1.0, "ok", "same number") if same_figures else (0.0, "ok", "different number")
    if same_figures and lone_percent == "strip":
        return 1.0, "ok", "same number, percent sign ignored"
    found_value = found.value / 100 if found.is_percent else found.value
    expected_value = expected.value / 100 if expected.is_percent else expected.value
    if numbers_equal(found_value, expected_value, tolerance):
        return 1.0, "ok", "same number, one in percent"
    if same_figures:
        return None, "unsure", "same figures, but only one side has a percent sign"
    return 0.0, "ok", "different number"


def _in_units(found: Quantity, expected: Quantity, tolerance: float) -> tuple[float | None, VerdictStatus, str]:
    """Compare two numbers in different units: converted where they measure one thing, else nothing is known."""
    assert found.unit is not None
    assert expected.unit is not None
    units = f"{found.unit.name} for {expected.unit.name}"
    if found.unit.dimension == expected.unit.dimension:
        same = numbers_equal(found.value * found.unit.factor / expected.unit.factor, expected.value, tolerance)
        return (1.0, "ok", f"same number, {units}") if same else (0.0, "ok", f"different number, {units}")
    if numbers_equal(found.value, expected.value, tolerance):
        return None, "unsure", f"same figures, but {units}"
    return 0.0, "ok", "different number"


def _in_dozens(found: Quantity, expected: Quantity, tolerance: float) -> tuple[float | None, VerdictStatus, str]:
    """Compare two numbers of which one or both count dozens: "5 dozen" is 60, or 5 where dozens were asked for."""
    values = [quantity.value * (quantity.unit.factor if quantity.unit else 1) for quantity in (found, expected)]
    if numbers_equal(values[0], values[1], tolerance):
        return 1.0, "ok", "same number, in dozens"
    if numbers_equal(found.value, expected.value, tolerance):
        return None, "unsure", "same figures, but only one side counts dozens"
    return 0.0, "ok", "different number"


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
