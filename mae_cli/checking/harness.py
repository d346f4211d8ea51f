"""The lines put before a model-written program, so that it cannot pass by trickery.

Place in the flow: the verifiers of programs and the triplet checks run these lines in the sandbox first. Contract:
what they need is kept under names built from a key that depends on the program's own text, so no program can know or
rebind them; a value that is not plain (a function, an object of the program's own class, whose `==` it may have
changed) raises `TypeError(key)` where a guarded function returns it.
"""

from __future__ import annotations

from mae_cli.records import digest


def key_for(*texts: str) -> str:
    """The prefix of the harness's names for these texts."""
    return f"_mae_{digest(*texts)}"


def prelude(key: str, *, language_types: bool = False) -> str:
    """Source that defines `<key>_guard(function)`; run it before the program.

    Args:
        key: of `key_for`.
        language_types: let ranges, deques, counters, decimals and dates through too. Classes cannot inherit in the
            sandbox, so no program can change what `==` means for them.
    """
    more = (
        f"""
import collections as {key}_collections, datetime as {key}_datetime, decimal as {key}_decimal
{key}_leaves += (range, {key}_decimal.Decimal, {key}_datetime.date, {key}_datetime.datetime, {key}_datetime.timedelta)
{key}_boxes += ({key}_collections.deque,)
{key}_maps += ({key}_collections.Counter, {key}_collections.defaultdict)
"""
        if language_types
        else ""
    )
    return f"""
{key}_type, {key}_locals, {key}_error = type, locals, TypeError
{key}_leaves = (type(None), bool, int, float, complex, str, bytes)
{key}_boxes, {key}_maps = (list, tuple, set, frozenset), (dict,)
{more}
def {key}_plain(value, depth):
    if depth == 0:
        return False
    kind = {key}_type(value)
    for leaf in {key}_leaves:
        if kind is leaf:
            return True
    for box in {key}_boxes:
        if kind is box:
            for item in value:
                if not {key}_plain(item, depth - 1):
                    return False
            return True
    for mapping in {key}_maps:
        if kind is mapping:
            for item in value:
                if not ({key}_plain(item, depth - 1) and {key}_plain(value[item], depth - 1)):
                    return False
            return True
    return False
def {key}_guard(function):
    def guarded(*arguments, **options):
        value = function(*arguments, **options)
        if not {key}_plain(value, 60):
            raise {key}_error('{key}')
        return value
    return guarded
"""
