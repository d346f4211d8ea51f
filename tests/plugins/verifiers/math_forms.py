"""Other ways of writing an answer that state the same, and near misses that do not; both by rule, without sympy."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from fractions import Fraction

_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_INTEGER = re.compile(r"-?\d+")


def same(gold: str) -> Iterator[tuple[str, str]]:
    """(rule, completion): texts whose extracted answer states what `gold` states."""
    yield "box", f"We get\n\\[ \\boxed{{{gold}}} \\]"
    yield "dollars in text", f"Adding up, the answer is ${gold}$."
    yield "answer tag", f"<answer> ${gold}$ </answer>"
    if "=" not in gold and "\\in" not in gold and "\\text" not in gold and "," not in gold.replace(",\\!", ""):
        yield "name in front", f"\\boxed{{x = {gold}}}"
    if "\\frac{" in gold:
        yield "dfrac", f"\\boxed{{{gold.replace('frac{', 'dfrac{')}}}"
    fraction = re.fullmatch(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}", gold)
    if fraction:
        sign, top, bottom = fraction.groups()
        yield "slash", f"\\boxed{{{sign}{top}/{bottom}}}"
        yield "signed top", f"\\boxed{{\\frac{{{sign}{top}}}{{{bottom}}}}}"
        yield "not reduced", f"\\boxed{{{sign}\\frac{{{3 * int(top)}}}{{{3 * int(bottom)}}}}}"
        decimal = _terminating(Fraction(int(top), int(bottom)))
        if decimal:
            yield "decimal for fraction", f"\\boxed{{{sign}{decimal}}}"
    if re.fullmatch(r"-?\d*\.\d+", gold):
        value = Fraction(gold)
        sign = "-" if value < 0 else ""
        yield "fraction for decimal", f"\\boxed{{{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}}}"
    if _INTEGER.fullmatch(gold):
        yield "text around", f"After all that there are {gold} of them, so the answer is {gold}."
        yield "point zero", f"\\boxed{{{gold}.0}}"
        yield "unit", f"\\boxed{{{gold}\\text{{ cm}}}}"
        yield "plain unit", f"The answer is {gold} apples."
        yield "fraction of one", f"\\boxed{{\\frac{{{2 * int(gold)}}}{{2}}}}"
        yield "bold", f"The final answer is **{gold}**"
        if int(gold) >= 0:
            yield "currency", f"\\boxed{{\\${gold}}}"
            yield "dollar sign", f"The answer is ${gold}."
        if abs(int(gold)) >= 1000:
            yield "thousands", f"\\boxed{{{int(gold):,}}}"
            yield "latex thousands", f"\\boxed{{{int(gold):,}}}".replace(",", "{,}")
            yield "hashes", f"so\n#### {int(gold):,}"
    terms = _terms(gold)
    if len(terms) > 1:
        yield "sum reordered", f"\\boxed{{{_joined(terms[::-1])}}}"
    if gold.startswith("(") and gold.endswith(")") and "\\cup" not in gold:
        yield "left right", f"\\boxed{{\\left({gold[1:-1]}\\right)}}"
    if re.search(r"\\sqrt\{\d\}", gold):
        yield "short root", "\\boxed{" + re.sub(r"\\sqrt\{(\d)\}", r"\\sqrt\1", gold) + "}"


def _terminating(value: Fraction) -> str | None:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return None
    text = f"{float(value):.12f}".rstrip("0").rstrip(".")
    return text if Fraction(text) == value else None


def _terms(gold: str) -> list[str]:
    """The signed terms of a plain sum; one term where brackets, relations or text make that unsafe."""
    if re.search(r"[(){}\[\]=,^]|\\text|\\pm|\\mbox", re.sub(r"\\sqrt\{\d+\}|\^\d", "", gold)):
        return [gold]
    found = re.findall(r"[+-]?[^+-]+", gold.replace(" ", ""))
    return found if "".join(found) == gold.replace(" ", "") else [gold]


def _joined(terms: list[str]) -> str:
    return "".join(term if term[0] in "+-" or index == 0 else f"+{term}" for index, term in enumerate(terms))


def different(gold: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(rule, answer): answers that look like `gold` and are not."""
    numbers = list(re.finditer(r"(?<![\d.])\d+(?![\d.])", gold))
    for match in numbers:
        for step in (1, -1, 10):
            if int(match[0]) + step >= 0:
                yield "off by one", gold[: match.start()] + str(int(match[0]) + step) + gold[match.end() :]
        if len(match[0]) > 1 and match[0][0] != match[0][1] and match[0][1] != "0":
            swapped = match[0][1] + match[0][0] + match[0][2:]
            yield "digits swapped", gold[: match.start()] + swapped + gold[match.end() :]
    if len(numbers) > 1:
        first, last = numbers[0], numbers[-1]
        if first[0] != last[0] and not _commute(gold):
            yield (
                "numbers swapped",
                gold[: first.start()] + last[0] + gold[first.end() : last.start()] + first[0] + gold[last.end() :],
            )
    if _INTEGER.fullmatch(gold) and gold not in ("0", "-0"):
        yield "sign", gold.lstrip("-") if gold.startswith("-") else f"-{gold}"
        yield "reciprocal", f"\\frac{{1}}{{{gold}}}" if gold.lstrip("-") != "1" else "2"
        yield "tenth", f"{gold}.1"
        yield "square", f"{gold}^2" if gold not in ("1", "0", "-1") else "2"
        yield "root", f"\\sqrt{{{gold}}}" if gold not in ("1", "0") else "\\sqrt{2}"
        yield "plus and minus", f"\\pm {gold}"
        yield "two answers", f"{gold}, {int(gold) + 1}"
        yield "a point", f"({gold}, {gold})"
        yield "nearly", f"{gold}.0000001"
        yield "times pi", f"{gold}\\pi"
        if abs(int(gold)) > 1:
            yield "word behind", f"{gold} squared"
            yield "word behind", f"{gold} minus one"
            yield "word behind", f"{gold} thirds"
            yield "multiplier", f"{gold} thousand dollars"
        if abs(int(gold)) > 2:
            yield "word behind", f"{gold} factorial"
        if int(gold) > 8:
            yield "word behind", f"{gold} in base nine"
    if (gold[-1].isdigit() or gold[-1] == "}") and gold not in ("0", "-0"):
        yield "factors behind", f"{gold} pi"
        yield "factors behind", f"{gold}pi"
        yield "factors behind", f"{gold}xy"
        yield "multiplier", f"{gold} million"
        yield "multiplier", f"{gold} \\text{{million}}"
        yield "multiplier", f"{gold} dozen"
    fraction = _FRACTION.fullmatch(gold)
    if fraction:
        top, bottom = int(fraction[1]), int(fraction[2])
        yield "sign", f"-{gold}"
        yield "rounded", f"{top / bottom:.7f}" if Fraction(f"{top / bottom:.7f}") != Fraction(top, bottom) else "0.1"
        yield "upside down", f"\\frac{{{bottom}}}{{{top}}}"
    if len(gold) > 1 and gold[0] in "([" and gold[-1] in ")]" and gold.count("(") + gold.count("[") == 1:
        parts = gold[1:-1].split(",")
        if len(parts) > 1 and parts[0].strip() != parts[-1].strip():
            yield "coordinates swapped", gold[0] + ",".join([parts[-1], *parts[1:-1], parts[0]]) + gold[-1]
        other = {"(": "[", "[": "("}[gold[0]]
        yield "interval end", other + gold[1:]
        yield "interval end", gold[:-1] + {")": "]", "]": ")"}[gold[-1]]
    if " + " in gold or "+" in gold[1:]:
        yield "sign inside", gold.replace("+", "-", 1)
    elif "-" in gold[1:]:
        yield "sign inside", gold[0] + gold[1:].replace("-", "+", 1)
    if "\\text{" in gold:
        yield "another word", f"\\text{{{rng.choice(['maybe', 'none', 'zebra'])}}}"
    if "\\pi" in gold:
        yield "without pi", gold.replace("\\pi", "", 1).strip() or "1"
        yield "pi rounded", gold.replace("\\pi", "(3.14159265)", 1)
    if "\\sqrt" in gold:
        yield "root doubled", gold.replace("\\sqrt", "2\\sqrt", 1)


def _commute(gold: str) -> bool:
    """Whether swapping the first and last number may leave the value alone."""
    return bool(re.fullmatch(r"[\d\s,+*]+|\\\{.*\\\}|\\?[\w\s]*", gold)) or gold.count("=") > 0 or "pm" in gold
