"""Source lines that run before a model-written program, so that it cannot pass its check by trickery.

Place in the flow: the verifiers of programs and the triplet checks run these lines in the sandbox first. Contract: the
lines keep their values under names built from a key that depends on the program's own text. The sandbox has no `locals`
or `exec`, and `eval` reads nothing that leads to those names, so no program can know or rebind them. A value that is
not plain (a function, or an object of the program's own class, whose `==` it may have changed) raises `TypeError(key)`
where a guarded function returns it to the harness. The program's functions may return anything to each other.
"""

from __future__ import annotations

from typing import Final

from mae_cli.records import digest


def key_for(*texts: str) -> str:
    """The prefix of the harness's names for these texts."""
    return f"_mae_{digest(*texts)}"


def prelude(key: str, *, for_tests: bool = False) -> str:
    """Source that defines `<key>_guard(function)`; run it before the program.

    Args:
        key: of `key_for`.
        for_tests: the values stay in the sandbox, where tests compare them. Ranges, deques, counters, decimals and
            dates pass too (classes cannot inherit there, so no program can change what `==` means for them), arguments
            must be as plain after a call as before, and `<key>_taken(value)` gives what the tests may take from a
            program: its guarded functions, modules and plain values.
    """
    return _BASE.replace("KEY", key).replace("#MORE", _FOR_TESTS.replace("KEY", key) if for_tests else "")


_BASE: Final = """
KEY_type, KEY_locals, KEY_eval, KEY_text = type, locals, eval, str
KEY_error, KEY_lack, KEY_unnamed = TypeError, NotImplementedError, NameError
KEY_leaves = (type(None), bool, int, float, complex, str, bytes)
KEY_boxes, KEY_maps, KEY_watches = (list, tuple, set, frozenset), (dict,), False
KEY_busy, KEY_refused = [], []
def KEY_plain(value, depth):
    if depth == 0:
        return False
    kind = KEY_type(value)
    for leaf in KEY_leaves:
        if kind is leaf:
            return True
    for box in KEY_boxes:
        if kind is box:
            for item in value:
                if not KEY_plain(item, depth - 1):
                    return False
            return True
    for mapping in KEY_maps:
        if kind is mapping:
            for item in value:
                if not (KEY_plain(item, depth - 1) and KEY_plain(value[item], depth - 1)):
                    return False
            return True
    return False
def KEY_refuse():
    KEY_refused.append(None)
    raise KEY_error('KEY')
def KEY_guard(function):
    def guarded(*arguments, **options):
        if KEY_busy:
            return function(*arguments, **options)
        KEY_busy.append(None)
        was_plain = KEY_watches and KEY_plain([arguments, options], 60)
        try:
            value = function(*arguments, **options)
        finally:
            KEY_busy.pop()
        if not KEY_plain(value, 60) or (was_plain and not KEY_plain([arguments, options], 60)):
            KEY_refuse()
        return value
    return guarded
#MORE
def locals(*arguments, **options):
    raise KEY_lack('monty keeps its names from programs under test')
exec = locals
def eval(KEY_source, *spaces):
    if spaces or KEY_type(KEY_source) is not KEY_text or not KEY_source.isascii():
        raise KEY_lack('monty has the short form of eval alone')
    if 'eval' in KEY_source or 'exec' in KEY_source or 'locals' in KEY_source:
        raise KEY_lack('monty keeps its names from programs under test')
    try:
        return KEY_eval(KEY_source)
    except KEY_unnamed:
        raise KEY_lack('monty evaluates no local names here')
"""
_FOR_TESTS: Final = """
import collections as KEY_collections, datetime as KEY_datetime, decimal as KEY_decimal, functools as KEY_functools
KEY_leaves += (range, KEY_decimal.Decimal, KEY_datetime.date, KEY_datetime.datetime, KEY_datetime.timedelta)
KEY_boxes += (KEY_collections.deque,)
KEY_maps += (KEY_collections.Counter, KEY_collections.defaultdict)
KEY_watches, KEY_module = True, type(KEY_functools)
KEY_functions = (type(KEY_guard), type(abs), type(KEY_functools.partial(abs)), type(KEY_functools.lru_cache(KEY_guard)))
def KEY_taken(value):
    kind = KEY_type(value)
    for function in KEY_functions:
        if kind is function:
            return KEY_guard(value)
    if kind is not KEY_module and not KEY_plain(value, 60):
        KEY_refuse()
    return value
"""
