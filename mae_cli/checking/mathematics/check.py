"""Both checks of one pair of mathematical answers: math-verify's and our own. Runs in a worker process only.

Our own reading takes both answers apart. math-verify judges the whole of both in one spelling, and where it does not
call them equal though we do, each pair of expressions in them. Its "different" is an opinion only where it read both
wholly, and decides nothing where our reading cannot tell. Where it cannot read a pair of expressions, our own reading
stands alone only for figures: rational numbers computed exactly from a text without names (fractions, decimals, powers,
numbers to a base, converted units). Words, times, dates and letters are compared as they stand.
math-verify can hang for ever and takes the reference first: only `_parsed`, `_parse` and `verified` call it. Its own
timeouts are switched off, because they need the main thread and do not stop a hanging C loop; the worker is killed.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from latex2sympy2_extended import NormalizationConfig
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import E, Expr, I, N, Symbol

from mae_cli.answers.units import MeasureUnit, convert
from mae_cli.checking.mathematics.agreement import points
from mae_cli.checking.mathematics.equality import Equality
from mae_cli.checking.mathematics.expressions import UnreadableError, variables
from mae_cli.checking.mathematics.objects import Collection, MathObject, Number, Text, Unread
from mae_cli.checking.mathematics.reading import read_object
from mae_cli.checking.mathematics.spelling import spelled
from mae_cli.checking.mathematics.values import value

logging.getLogger("math_verify").setLevel(logging.CRITICAL)
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
warnings.simplefilter("ignore")
convert(MeasureUnit("meter"), MeasureUnit("foot"))  # loads the units before workers are forked off

_FIGURES: Final = re.compile(r"(?:[\d.+*/(){}\s^-]|\\frac|\\cdot|\\times|\\,)*")
DIGITS: Final = 30
# Units are taken off before; what the library takes for units are often names ("2hr", "5ab").
_EXTRACTION: Final = (
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
        )
    ),
    ExprExtractionConfig(),
)
_CLOSE: Final = 1e-20


def both(reference: str, answer: str, names: str = "") -> list[bool | None]:
    """[math-verify, our own], each true, false, or null where it cannot tell.

    Args:
        reference: the reference answer.
        answer: the answer to check.
        names: letters that name quantities in the problem.
    """
    first, second = read_object(reference, names), read_object(answer, names)
    texts = [_for_library(text, read) for text, read in ((reference, first), (answer, second))]
    # The library goes first: where the reference hangs it, nothing is known whatever ours would say.
    library = None if None in texts else verified(str(texts[0]), str(texts[1]))
    own = _quietly(first, second)
    if own and not library:
        by_parts = Equality(same=_confirmed, is_own=False).of(first, second)
        return [True if by_parts else library, own]
    return [library, own]


def _quietly(first: MathObject, second: MathObject) -> bool | None:
    with contextlib.suppress(ArithmeticError, ValueError, RecursionError):
        return Equality().of(first, second)
    return None


def _confirmed(first: Number, second: Number) -> bool | None:
    """Whether two expressions are equal for both readers; figures need but one."""
    own = Equality().same(first, second)
    if not own:
        return own
    if all(_FIGURES.fullmatch(read.source) for read in (first, second)):
        return True
    library = verified(first.source, second.source) if first.source and second.source else None
    return True if library or (library is None and _is_exact(first) and _is_exact(second)) else None


def _is_exact(read: Number) -> bool:
    with contextlib.suppress(UnreadableError):
        return not variables(read.node) and isinstance(value(read.node, {}), Fraction)
    return False


def _for_library(text: str, read: MathObject) -> str | None:
    """What math-verify is given: no unit, which it takes for a factor, and no words; null where it can read nothing.

    Whether the units agree is for our own reading to say.
    """
    if isinstance(read, Unread) and read.has_words:
        return None
    if isinstance(read, Text) or (isinstance(read, Collection) and any(isinstance(p, Text) for p in read.parts)):
        return None
    if isinstance(read, Number):
        return read.source or None
    return re.sub(r"\\l(?:and|or) ", ", ", spelled(text))


def verified(reference: str, answer: str) -> bool | None:
    """The verdict of math-verify on two texts in our spelling; null where it does not read the whole of both.

    It compares expressions by algebra and may miss what is equal; then its own reading is computed at our points.
    """
    reference, answer = (_with_index(text) for text in (reference, answer))
    gold = _parsed(reference)
    if not any(not isinstance(item, str) for item in gold):
        return None
    found = _parse(answer)
    if verify(list(gold), found, allow_set_relation_comp=True, timeout_seconds=None):
        return True
    if not (_is_whole(gold, reference) and _is_whole(found, answer)):
        return None
    return _agree(gold[0], found[0])


def _with_index(text: str) -> str:
    """A sum over i as a sum over another letter: the library takes every i for the imaginary unit."""
    if not re.match(r"\\(?:sum|prod)\s*_\s*\{\s*i\s*=", text):
        return text
    free = next((letter for letter in "kjmpqr" if letter not in text), None)
    return re.sub(r"(?<![a-zA-Z\\])i(?![a-zA-Z])", free, text) if free else text


@lru_cache(maxsize=256)
def _parsed(reference: str) -> tuple[Any, ...]:
    # The rollouts of one problem share their reference.
    return tuple(_parse(reference))


def _parse(text: str) -> list[Any]:
    return list(parse(f"${text}$", _EXTRACTION, parsing_timeout=None))


def _is_whole(items: Any, text: str) -> bool:
    """Whether what was read is the whole text, and no number found in it."""
    written = next((item for item in items if isinstance(item, str)), "")
    return not isinstance(items[0], str) and "".join(written.split()) == "".join(text.split()) if items else False


def _agree(first: Any, second: Any) -> bool:
    """Whether two expressions of the library have the same values at our points."""
    if not (isinstance(first, Expr) and isinstance(second, Expr)):
        return False
    constants = {Symbol("i"): I, Symbol("e"): E}
    first, second = (side.subs({symbol: constants.get(Symbol(symbol.name), symbol) for symbol in side.free_symbols})
                     for side in (first, second))  # fmt: skip
    if first.free_symbols != second.free_symbols:
        return False
    names = sorted(symbol.name for symbol in first.free_symbols)
    for point in points(names) if names else [{}]:
        numbers = {symbol: point[symbol.name] for symbol in first.free_symbols}
        try:
            a, b = (N(side.doit().subs(numbers), DIGITS) for side in (first, second))
            if not abs(a - b) <= _CLOSE * max(abs(a), abs(b)):
                return False
        except (TypeError, ValueError, ArithmeticError, AttributeError):
            return False
    return True
