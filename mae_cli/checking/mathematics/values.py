"""The values of expression trees at a point: exact while that is possible, with 40 digits beyond.

Place in the flow: `mathematics.equality` compares two answers at three points with it. Contract: `value` gives a
`Fraction` where everything in the tree is rational, else an mpmath number; it raises `UnreadableError` where the tree
is undefined at the point or past fixed bounds on size, so it always ends soon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from mae_cli.checking.mathematics.expressions import BINDING, Node, UnreadableError

MAX_EXPONENT: Final = 5000
"""Largest whole exponent and factorial computed exactly."""
MAX_BITS: Final = 200_000
MAX_TERMS: Final = 2000
"""Most terms of a sum or product computed."""
DIGITS: Final = 40


@lru_cache(maxsize=1)
def numbers() -> Any:
    """The arithmetic beyond fractions: mpmath with 40 digits."""
    import mpmath

    context = mpmath.MPContext()
    context.dps = DIGITS
    return context


def value(node: Node, point: Mapping[str, Fraction]) -> Any:
    """The value of a tree at a point: a `Fraction` where it is exact, else an mpmath number.

    Raises:
        UnreadableError: undefined there, or too large.
    """
    try:
        return _value(node, point)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError, RecursionError) as error:
        raise UnreadableError(str(error)) from error


def approximate(number: Any) -> Any:
    """A value as an mpmath number."""
    return numbers().mpf(number.numerator) / number.denominator if isinstance(number, Fraction) else number


def _value(node: Node, point: Mapping[str, Fraction]) -> Any:
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind in ("variable", "known"):
        return point[node[1]] if kind == "variable" else node[1]
    if kind == "constant":
        context = numbers()
        return {"pi": +context.pi, "e": +context.e, "i": context.mpc(0, 1), "infinity": context.inf}[node[1]]
    if kind in BINDING:
        return _over(kind, node, point)
    operands = [_value(part, point) for part in node[1:]]
    if kind in _EXACT and all(isinstance(operand, Fraction) for operand in operands):
        exact = _EXACT[kind](*operands)
        if exact is not None:
            if exact.numerator.bit_length() + exact.denominator.bit_length() > MAX_BITS:
                raise UnreadableError("too large")
            return exact
    if kind not in _APPROXIMATE:
        raise UnreadableError(f"{kind} of what is not a whole number")
    result = _APPROXIMATE[kind](*map(approximate, operands))
    if numbers().isnan(result):
        raise UnreadableError("undefined")
    return result


def _over(kind: str, node: Node, point: Mapping[str, Fraction]) -> Any:
    """The value of a sum or product over whole numbers, or of an integral."""
    name, first, last, body = node[1], _value(node[2], point), _value(node[3], point), node[4]
    if kind == "integral":
        return _integral(lambda at: approximate(_value(body, {**point, name: at})), first, last)
    if not all(isinstance(bound, Fraction) and bound.denominator == 1 for bound in (first, last)):
        raise UnreadableError("bounds that are no whole numbers")
    if last - first > MAX_TERMS:
        raise UnreadableError("too many terms")
    total: Any = Fraction(0) if kind == "sum" else Fraction(1)
    operation = "+" if kind == "sum" else "*"
    for index in range(int(first), int(last) + 1):
        term = _value(body, {**point, name: Fraction(index)})
        total = _value((operation, ("known", total), ("known", term)), point)
    return total


def _integral(function: Any, low: Any, high: Any) -> Any:
    context = numbers()
    low, high = approximate(low), approximate(high)
    if context.isinf(low) or context.isinf(high):
        raise UnreadableError("an integral without end")
    total, error = context.quad(function, [low, high], error=True, maxdegree=6)
    if error > context.mpf(10) ** -28:
        raise UnreadableError("an integral that is not computed well enough")
    return total


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return None
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) > MAX_EXPONENT or bits * abs(exponent) > MAX_BITS:
        if abs(base) == 1:
            return base if exponent % 2 else Fraction(1)
        raise UnreadableError("exponent too large")
    return base ** int(exponent)


def _exact_root(base: Fraction, degree: Fraction) -> Fraction | None:
    if degree != 2 or base < 0:
        return None
    top, bottom = math.isqrt(base.numerator), math.isqrt(base.denominator)
    return Fraction(top, bottom) if top * top == base.numerator and bottom * bottom == base.denominator else None


def _exact_factorial(number: Fraction) -> Fraction | None:
    if number < 0 or number > MAX_EXPONENT:
        raise UnreadableError("no factorial")
    if number.denominator != 1:
        return None
    return Fraction(math.factorial(int(number)))


def _exact_binomial(top: Fraction, bottom: Fraction) -> Fraction:
    """Of any top: n over 2 is n(n-1)/2."""
    if bottom.denominator != 1 or not 0 <= bottom <= MAX_EXPONENT or abs(top) > MAX_EXPONENT:
        raise UnreadableError("no binomial")
    if top.denominator == 1 and top >= 0:
        return Fraction(math.comb(int(top), int(bottom)))
    found = Fraction(1)
    for index in range(int(bottom)):
        found = found * (top - index) / (index + 1)
    return found


def _of_whole_numbers(function: Any) -> Any:
    def apply(*numbers: Fraction) -> Fraction:
        if any(number.denominator != 1 for number in numbers):
            raise UnreadableError("no whole numbers")
        return Fraction(function(*(int(number) for number in numbers)))

    return apply


# What Python's operators do for fractions and for the library's numbers alike.
_SHARED: Final[dict[str, Any]] = {
    "+": lambda a, b: a + b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "neg": lambda a: -a,
    "abs": abs,
}
_EXACT: Final[dict[str, Any]] = {
    **_SHARED,
    "^": _exact_power,
    "root": _exact_root,
    "factorial": _exact_factorial,
    "binomial": _exact_binomial,
    "gcd": _of_whole_numbers(math.gcd),
    "lcm": _of_whole_numbers(math.lcm),
    "max": max,
    "min": min,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
}


def _power(base: Any, exponent: Any) -> Any:
    context = numbers()
    if context.isinf(base) or context.isinf(exponent):
        raise UnreadableError("power with infinity")
    if base == 0:
        raise UnreadableError("power of zero")
    if abs(context.log(base)) * abs(exponent) > MAX_BITS:
        raise UnreadableError("power too large")
    return context.power(base, exponent)


def _root(base: Any, degree: Any) -> Any:
    context = numbers()
    if base.imag == 0 and base.real < 0 and degree != 2:
        if degree.imag == 0 and context.isint(degree.real) and int(degree.real) % 2:
            return -context.power(-base, 1 / degree)  # schools take the real root
        raise UnreadableError("even root of a negative number")
    return _power(base, 1 / degree) if base != 0 else base


def _bounded_exp(exponent: Any) -> Any:
    if abs(exponent) > MAX_BITS:
        raise UnreadableError("power too large")
    return numbers().exp(exponent)


def _real(number: Any) -> Any:
    if number.imag != 0:
        raise UnreadableError("no order")
    return number.real


def _function(name: str) -> Any:
    def apply(argument: Any) -> Any:
        if abs(argument) > 10**12:
            raise UnreadableError("argument too large")
        return getattr(numbers(), name)(argument)

    return apply


_APPROXIMATE: Final[dict[str, Any]] = {
    **_SHARED,
    "^": _power,
    "root": _root,
    "factorial": lambda a: numbers().gamma(a + 1),
    "max": lambda *several: max(several, key=_real),
    "min": lambda *several: min(several, key=_real),
    "floor": lambda a: numbers().floor(a),
    "ceil": lambda a: numbers().ceil(a),
    "exp": _bounded_exp,
    "ln": lambda a: numbers().log(a),
    # Schools mean ten where no base stands; the tree keeps it apart from ln.
    "log": lambda a, base=None: numbers().log(a, 10 if base is None else base),
    **{name: _function(name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    **{f"arc{name}": _function(f"a{name}") for name in ("sin", "cos", "tan")},
}
