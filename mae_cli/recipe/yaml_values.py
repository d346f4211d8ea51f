"""The value of a YAML scalar: numbers and words as their writer meant them, by the type that is expected there.

Place in the flow: `yaml_text` asks here for every scalar. YAML 1.1 and 1.2 read many plain scalars differently (`no`,
`010`, `1:30`, `2024-01-01`, `1e-5`). Contract: where a text is expected the scalar stands as it is written; elsewhere
numbers are those of YAML 1.2, `yes` and `on` are true as ever, and an integer with a leading zero has no reading.
Source: YAML 1.2.2 section 10.3.2, YAML 1.1 types int, float and bool.
"""

from __future__ import annotations

import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_NULLS = {"", "~", "null", "Null", "NULL"}
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_BOOLS = {form: value for word, value in _WORDS.items() for form in (word, word.capitalize(), word.upper())}
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_BASED = re.compile(r"([-+]?)(0o[0-7]+|0x[0-9a-fA-F_]+|0b[01_]+)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class AmbiguousError(ValueError):
    """A scalar that readers of YAML take for different numbers."""


def parts_of(hint: Any) -> tuple[Any, ...]:
    """The kinds that a type takes, without notes: `int | None` gives (int, NoneType); no type is (Any,)."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(part for inner in get_args(hint) for part in parts_of(inner))
    if get_origin(hint) is Literal:
        return tuple({type(choice) for choice in get_args(hint)})
    return (hint,)


def value_of(text: str, hint: Any = Any) -> Any:
    """The value of a plain scalar where a value of this type is expected.

    Raises:
        AmbiguousError: an integer with a leading zero, where a number may stand.
    """
    kinds = parts_of(hint)
    if str in kinds and not {int, float, bool, Any}.intersection(kinds):
        return None if text in _NULLS else text
    value = _plain_value(text)
    if isinstance(value, bool) and not {bool, Any}.intersection(kinds) and text.lower() not in ("true", "false"):
        return text
    if isinstance(value, float) and int in kinds and float not in kinds and value.is_integer():
        return int(value)
    return value


def _plain_value(text: str) -> Any:
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if based := _BASED.fullmatch(text):
        return int(based[1] + based[2].replace("_", ""), 0)
    if _LEADING_ZERO.fullmatch(text):
        digits = text.lstrip("+-").replace("_", "")
        octal = f"{int(digits, 8)} to some readers of YAML and " if set(digits) <= set("01234567") else ""
        others = "others" if octal else "some"
        raise AmbiguousError(f"{text} is {octal}{int(digits)} to {others}; write it without the leading zero")
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    if special := _SPECIAL.fullmatch(text):
        return float(f"{special[1] or ''}inf" if special[2] else "nan")
    return text
