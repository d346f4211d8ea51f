"""Both checks of one pair of mathematical answers: math-verify's and our own. Runs in a worker process only.

math-verify can hang for ever and takes the reference first: `verified` is the one place that calls it. Its own timeouts
are switched off, because they need the main thread and do not stop a hanging C loop; the worker is killed instead.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

from mae_cli.checking.mathematics.equality import equality
from mae_cli.checking.mathematics.objects import Number, Unread, read_object

logging.getLogger("math_verify").setLevel(logging.CRITICAL)
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
warnings.simplefilter("ignore")


def both(reference: str, answer: str) -> list[bool | None]:
    """[math-verify, our own], each true, false, or null where it cannot tell.

    Ours comes second: where the reference hangs math-verify, nothing is known whatever ours would say.
    """
    return [verified(reference, answer), _quietly(reference, answer)]


def verified(reference: str, answer: str) -> bool | None:
    """The verdict of math-verify; null where it reads no mathematics in the reference or takes words for factors."""
    gold = _parsed(reference)
    if not any(not isinstance(item, str) for item in gold):
        return None
    if any(isinstance(read, Unread) and read.has_words for read in (read_object(reference), read_object(answer))):
        return None
    found = parse(_wrapped(figures(answer)), parsing_timeout=None)
    assert gold is _parsed(reference), "the reference goes first"
    return bool(verify(list(gold), found, allow_set_relation_comp=True, timeout_seconds=None))


def _quietly(reference: str, answer: str) -> bool | None:
    with contextlib.suppress(ArithmeticError, ValueError, RecursionError):
        return equality(reference, answer)
    return None


@lru_cache(maxsize=256)
def _parsed(reference: str) -> tuple[Any, ...]:
    # The rollouts of one problem share their reference.
    return tuple(parse(_wrapped(figures(reference)), parsing_timeout=None))


def figures(text: str) -> str:
    """The text of a number without unit or currency, which math-verify takes for factors; any other text unchanged.

    Whether the units agree is for our own reading to say. A number to another base keeps its mark.
    """
    read = read_object(text)
    if isinstance(read, Number) and not read.unit.startswith("base") and (read.unit or "+\\frac" in read.source):
        return read.source
    return text


def _wrapped(text: str) -> str:
    r"""Mark the whole text as mathematics, unless it does so itself; a `\$` is money."""
    bare = text.strip().rstrip(".")
    if re.search(r"(?<!\\)\$|\\boxed|\\\(|\\\[", bare):
        return bare if not re.fullmatch(r"\$[\d.,]+", bare) else f"${bare[1:]}$"
    return f"${bare}$"
