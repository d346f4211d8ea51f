"""Whether what a program printed is what a contest problem expects.

Place in the flow: `scripts` compares each case with it. Contract: pure. Equal are: the same lines with blanks at their
ends and empty lines at the end left out; the same words in the same lines; numbers with a point or an exponent in the
expected output within 1e-6 (absolute or relative), with equal words around them. Case and the order of lines count.

Source: ours; APPS (arXiv:2105.09938) and TACO strip and compare lines, then floats with `numpy.allclose`;
LiveCodeBench (arXiv:2403.07974) compares stripped lines, then decimals; CodeContests (arXiv:2203.07814) compares
words, floats within 1e-5.
"""

from __future__ import annotations

import math
import re
from typing import Final

TOLERANCE: Final = 1e-6
_POINT: Final = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?:\.\d*)?[eE][+-]?\d+)")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def same_output(found: str, expected: str) -> bool:
    """Whether two outputs are the same by the rules above."""
    first, second = _lines(found), _lines(expected)
    if first == second:
        return True
    if len(first) != len(second):
        return False
    return all(_same_line(a, b) for a, b in zip(first, second, strict=True))


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return lines


def _same_line(found: str, expected: str) -> bool:
    first, second = found.split(), expected.split()
    return len(first) == len(second) and all(_same_word(a, b) for a, b in zip(first, second, strict=True))


def _same_word(found: str, expected: str) -> bool:
    if found == expected:
        return True
    if not (_POINT.fullmatch(expected) and _NUMBER.fullmatch(found)):
        return False
    return math.isclose(float(found), float(expected), rel_tol=TOLERANCE, abs_tol=TOLERANCE)
