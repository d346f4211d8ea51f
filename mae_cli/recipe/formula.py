"""Formulas in a recipe: arithmetic, comparisons and conditions over named numbers, without running code.

A step's `when` is one (`when: "round > 2"`). Contract: a formula is a pure function of its names; numbers are floats; a
name without a value is null, and so is what cannot be computed (1/0, an overflow): null stays null through arithmetic
and comparisons, and only the branch that is taken counts. Long, deep and exploding formulas are refused when they are
read. Left out: everything else of Python (attributes, subscripts, strings, other calls).
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

from mae_cli.errors import ConfigError, did_you_mean

MAX_CHARACTERS = 2000
MAX_DEPTH = 32
MAX_EXPONENT = 8.0

Value = float | None

_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max, "abs": abs}
_LEAST_ARGUMENTS = {"min": 2, "max": 2, "abs": 1}


class Formula:
    """A formula that was read and checked once.

    Raises:
        ConfigError: not text, too long or deep, not an expression, or a name or a construct that formulas do not have.
    """

    def __init__(self, text: object, names: frozenset[str] | set[str], where: str) -> None:
        if not isinstance(text, str):
            raise ConfigError(f'{where}: expected a formula in quotes, such as "round > 2", found {text!r}')
        if len(text) > MAX_CHARACTERS:
            raise ConfigError(f"{where}: a formula of {len(text)} characters; at most {MAX_CHARACTERS}")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise ConfigError(f'{where}: "{text}" is no formula: {getattr(error, "msg", error)}') from error
        self._tree, self._where, self.text = tree, where, text
        _check(tree, names, f'{where}: "{" ".join(text.split())}"', 0)

    def value(self, names: Mapping[str, Value]) -> Value:
        """Return what the formula amounts to, true as 1.0 and false as 0.0, or null.

        Args:
            names: the value of each name, null where it has none.
        """
        found = _value(self._tree, names)
        return found if found is not None and math.isfinite(found) else None


def _check(node: ast.expr, names: frozenset[str] | set[str], where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where}: nested more than {MAX_DEPTH} deep")
    match node:
        case ast.Constant(value=bool() | int() | float()):
            return
        case ast.Name(id=name):
            if name not in names:
                raise ConfigError(f'{where}: unknown name "{name}"; {did_you_mean(name, names)}')
            return
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            parts = [node.left, node.right]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()):
            parts = [node.operand]
        case ast.BoolOp():
            parts = node.values
        case ast.IfExp():
            parts = [node.test, node.body, node.orelse]
        case ast.Compare(ops=ops) if all(type(op) in _COMPARISONS for op in ops):
            parts = [node.left, *node.comparators]
        case ast.Call(func=ast.Name(id=function), keywords=[]) if function in _FUNCTIONS:
            parts = node.args
            if len(parts) < _LEAST_ARGUMENTS[function] or (function == "abs" and len(parts) > 1):
                raise ConfigError(f"{where}: {ast.unparse(node)}: abs takes one number, min and max two or more")
        case _:
            known = "+ - * / // % **, comparisons, and, or, not, if else, min, max, abs"
            raise ConfigError(f"{where}: {ast.unparse(node)} is not part of a formula; known: {known}")
    for part in parts:
        _check(part, names, where, depth + 1)


def _value(node: ast.expr, names: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=value):
            return float(value) if isinstance(value, (bool, int, float)) else None
        case ast.Name(id=name):
            return names.get(name)
        case ast.BinOp():
            return _arithmetic(node, names)
        case ast.UnaryOp():
            return _unary(node, names)
        case ast.BoolOp():
            return _condition(node, names)
        case ast.IfExp():
            test = _value(node.test, names)
            return None if test is None else _value(node.body if test else node.orelse, names)
        case ast.Compare():
            return _comparison(node, names)
        case ast.Call(func=ast.Name(id=function)):
            found = [_value(part, names) for part in node.args]
            known = [value for value in found if value is not None]
            return _FUNCTIONS[function](*known) if len(known) == len(found) else None
    raise AssertionError(f"{ast.dump(node)} was let through")


def _arithmetic(node: ast.BinOp, names: Mapping[str, Value]) -> Value:
    left, right = _value(node.left, names), _value(node.right, names)
    if left is None or right is None:
        return None
    if isinstance(node.op, ast.Pow) and abs(right) > MAX_EXPONENT:
        return None
    try:
        found = _ARITHMETIC[type(node.op)](left, right)
    except (ArithmeticError, ValueError):
        return None
    # A negative base with a broken exponent gives a complex number.
    return found if isinstance(found, float) and math.isfinite(found) else None


def _unary(node: ast.UnaryOp, names: Mapping[str, Value]) -> Value:
    found = _value(node.operand, names)
    if found is None:
        return None
    if isinstance(node.op, ast.Not):
        return float(not found)
    return -found if isinstance(node.op, ast.USub) else found


def _condition(node: ast.BoolOp, names: Mapping[str, Value]) -> Value:
    """`and` and `or` of three values: what the known parts settle is known, else null."""
    settles = isinstance(node.op, ast.Or)
    is_known = True
    for part in node.values:
        found = _value(part, names)
        if found is None:
            is_known = False
        elif bool(found) == settles:
            return float(settles)
    return float(not settles) if is_known else None


def _comparison(node: ast.Compare, names: Mapping[str, Value]) -> Value:
    left = _value(node.left, names)
    for op, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, names)
        if left is None or right is None:
            return None
        if not _COMPARISONS[type(op)](left, right):
            return 0.0
        left = right
    return 1.0
