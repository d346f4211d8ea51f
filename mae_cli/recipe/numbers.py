"""Values of a recipe that have the right type and that nothing could work with: infinite, too small, too large.

Place in the flow: `keys.py` asks here about every section it has made, and the options of plugins stand in them too.
Contract: pure; the first fault is told with its key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

SMALLEST_TEMPERATURE = 1e-6
"""Below it logits divided by the temperature leave float32 sooner or later; the text is the greedy one long before."""
LARGEST = 2**63
"""Numbers from here on fit no 64-bit integer: no generator takes such a seed."""


def faults(section: msgspec.Struct) -> Iterator[tuple[str, str]]:
    """(dotted key, what was expected) of each value that nothing could work with."""
    for field in section.__struct_fields__:
        yield from _faults_of(field, getattr(section, field))


def _faults_of(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, float):
        if not math.isfinite(value):
            yield key, f"expected a finite number, found {value}"
        elif key.rpartition(".")[2] == "temperature" and 0 < value < SMALLEST_TEMPERATURE:
            yield key, f"{value:g} is too small to divide by; 0 is greedy"
    elif isinstance(value, int) and not isinstance(value, bool) and not -LARGEST <= value < LARGEST:
        yield key, f"expected a number below 2**63, found {value}"
    elif isinstance(value, str) and "\0" in value:
        yield key, "holds a zero byte"
    elif isinstance(value, msgspec.Struct):
        for name, inner in faults(value):
            yield f"{key}.{name}", inner
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _faults_of(f"{key}.{name}", inner)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value, 1):
            yield from _faults_of(f"{key}[{place}]", inner)
