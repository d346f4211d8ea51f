"""Plain values (numbers, texts and built-in containers), and whether two of them are equal.

Place in the flow: the verifier `python_call` and the triplet checks compare what programs return with it. Contract:
pure; an object of a class of the program's own is never plain and never equal, because its `==` can lie.
"""

from __future__ import annotations

from typing import Any, Final

PLAIN: Final = (type(None), bool, int, float, complex, str, bytes)


def is_plain(value: Any, depth: int = 100) -> bool:
    """Whether a value is made of numbers, texts and the built-in containers alone, at most `depth` deep."""
    if depth == 0:
        return False
    if type(value) in PLAIN:
        return True
    if type(value) in (list, tuple, set, frozenset):
        return all(is_plain(item, depth - 1) for item in value)
    if type(value) is dict:
        return all(is_plain(key, depth - 1) and is_plain(item, depth - 1) for key, item in value.items())
    return False


def values_equal(found: Any, expected: Any, tolerance: float = 0.0, *, lists_as_tuples: bool = False) -> bool:
    """Whether two values are equal as `==` means it; only plain values are ever equal.

    Args:
        found: what a program returned.
        expected: what it should be.
        tolerance: of floats, relative to the larger and at least absolute: |a - b| <= tolerance * max(1, |a|, |b|).
        lists_as_tuples: a tuple may stand for a list, for values that went through JSON.
    """
    if not (is_plain(found) and is_plain(expected)):
        return False
    return _equal(found, expected, tolerance, lists_as_tuples)


def _equal(found: Any, expected: Any, tolerance: float, loose: bool) -> bool:
    if isinstance(found, float | int | complex) and isinstance(expected, float | int | complex):
        if found == expected:
            return True
        if not (isinstance(found, float | complex) or isinstance(expected, float | complex)) or not tolerance:
            return False
        try:
            return bool(abs(found - expected) <= tolerance * max(1.0, abs(found), abs(expected)))
        except OverflowError:
            return False
    sequences = (list, tuple)
    if isinstance(found, sequences) and isinstance(expected, sequences):
        if not loose and type(found) is not type(expected):
            return False
        return len(found) == len(expected) and all(
            _equal(a, b, tolerance, loose) for a, b in zip(found, expected, strict=True)
        )
    if isinstance(found, dict) and isinstance(expected, dict):
        if len(found) != len(expected):
            return False
        if found.keys() != expected.keys():
            # JSON keys are texts.
            if not loose or {str(key) for key in found} != set(expected):
                return False
            found = {str(key): value for key, value in found.items()}
        return all(_equal(value, expected[key], tolerance, loose) for key, value in found.items())
    return bool(found == expected)
