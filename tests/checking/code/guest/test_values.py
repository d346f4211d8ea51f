from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import json
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.checking.code.guest.values import CannotCrossError, assign, decode, encode


def refuse(value: Any) -> Any:
    raise CannotCrossError(str(value))


def crossed(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value, refuse))), refuse)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_every_plain_value_arrives_as_it_was(value: Any) -> None:
    found = crossed(value)

    assert found == value
    assert type(found) is type(value)
    assert repr(found) == repr(value)


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        {1, 2}, frozenset({"a"}), {1: {2: (3,)}}, {(1, 2): [3]}, collections.OrderedDict(b=1, a=2),
        collections.Counter("aab"), collections.deque([1, 2], maxlen=3), range(1, 10, 3), slice(1, None), 3 + 4j, ...,
        bytearray(b"ab"), 10**5000, -(2**63), 2**63, float("inf"), -0.0, "\ud800", "\0", fractions.Fraction(1, 3),
        decimal.Decimal("1.50"), datetime.date(2024, 2, 29), datetime.datetime(2024, 1, 1, 12, 30), datetime.time(1, 2),
        datetime.timedelta(days=-1, microseconds=5), [[[[1]]]], Point(1, [2]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_of_the_usual_types_arrive(value: Any) -> None:
    found = crossed(value)

    assert found == value
    assert type(found).__name__ == type(value).__name__


def test_views_arrays_and_subclasses_arrive_as_what_they_equal() -> None:
    class Loud(str):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    class Level(enum.IntEnum):
        LOW = 1

    assert list(crossed({"a": 1}.keys())) == ["a"]
    assert list(crossed({"a": 1}.values())) == [1]
    assert list(crossed({"a": 1}.items())) == [("a", 1)]
    assert numpy.array_equal(crossed(numpy.arange(6).reshape(2, 3)), numpy.arange(6).reshape(2, 3))
    assert crossed(numpy.float32(1.5)).dtype == numpy.float32
    assert type(crossed(Loud("x"))) is str
    assert crossed(Level.LOW) == 1
    assert collections.defaultdict(int, a=1) == crossed(collections.defaultdict(int, a=1))
    assert crossed(float("nan")) != crossed(float("nan"))


def test_what_has_no_form_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (loop, object(), len, lambda: 0, iter([1]), type("X", (list,), {"own": 1})([1])):
        with pytest.raises(CannotCrossError):
            encode(value, refuse)


@given(
    st.recursive(
        st.none() | st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner, max_size=4), max_leaves=8
    )
)
def test_no_tree_does_more_than_be_refused(tree: Any) -> None:
    try:
        decode(tree, refuse)
    except CannotCrossError:
        return


@given(PLAIN, PLAIN)
def test_assign_makes_a_container_equal_to_its_new_state(old: Any, new: Any) -> None:
    assert assign(old, new) == new


def test_assign_changes_lists_and_dicts_in_place() -> None:
    inner = [1]
    outer: dict[str, Any] = {"a": inner, "b": 2}

    assert assign(outer, {"a": [1, 2], "c": 3}) is outer
    assert outer == {"a": [1, 2], "c": 3}
    assert outer["a"] is inner
