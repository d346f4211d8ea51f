"""Values that cross from one guest to another, as JSON trees: rebuilt on the other side, never run.

Place in the flow: `peer` sends arguments and results with it, and the host compares results of calls with it. Contract:
numbers, texts, the usual containers, dates, exact numbers and arrays of numbers arrive as equal values of the same
type; everything else goes to `refer`, which gives a reference or raises. Nothing that arrives can change what `==`
means for it.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 150
LARGEST = 2**63
"""Whole numbers beyond it travel in hexadecimal: decimal digits are limited in CPython."""
Refer = Callable[[Any], Any]
Seen = dict[int, tuple[int, Any]]
_NUMBERED = frozenset({"list", "dict", "set", "bytearray", "deque", "OrderedDict", "Counter", "defaultdict"})
"""Forms of containers that can be changed: each gets a number when it is complete."""


class CannotCrossError(Exception):
    """A value that has no form here."""


def encode(value: Any, refer: Refer, depth: int = MAX_DEPTH, seen: Seen | None = None) -> Any:
    """The JSON tree of a value; a container that is in it twice is there once, and then by its number.

    Raises:
        CannotCrossError: nested too deeply, or `refer` has no form for a part.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -LARGEST < value < LARGEST else ["int", hex(value)]
    if kind is float:
        return value if value - value == 0 else ["float", repr(value)]
    if depth == 0:
        raise CannotCrossError("nested too deeply")
    seen = {} if seen is None else seen
    if id(value) in seen:
        return ["again", seen[id(value)][0]]
    form = _FORMS.get(kind)
    if form is not None:
        tree = form(value, lambda item: encode(item, refer, depth - 1, seen))
        if tree[0] in _NUMBERED:
            seen[id(value)] = (len(seen), value)  # the value is kept, so that its id stays its own
        return tree
    special = _special(value, kind, lambda item: encode(item, refer, depth - 1, seen))
    if special is not None:
        return special
    base = _base_of(kind)
    return refer(value) if base is None else encode(base(value), refer, depth, seen)


def _items(tag: str) -> Callable[[Any, Any], Any]:
    return lambda value, inner: [tag, *(inner(item) for item in value)]


def _pairs(tag: str) -> Callable[[Any, Any], Any]:
    return lambda value, inner: [tag, *([inner(key), inner(item)] for key, item in value.items())]


_FORMS: dict[type, Callable[[Any, Any], Any]] = {
    list: _items("list"),
    tuple: _items("tuple"),
    set: _items("set"),
    frozenset: _items("frozenset"),
    dict: _pairs("dict"),
    collections.OrderedDict: _pairs("OrderedDict"),
    collections.Counter: _pairs("Counter"),
    collections.defaultdict: lambda value, inner: [
        "defaultdict",
        _FACTORIES.get(value.default_factory),
        *([inner(key), inner(item)] for key, item in value.items()),
    ],
    type({}.keys()): _items("keys"),
    type({}.values()): _items("values"),
    type({}.items()): _items("items"),
    collections.deque: lambda value, inner: ["deque", value.maxlen, *(inner(item) for item in value)],
    bytes: lambda value, inner: ["bytes", value.hex()],
    bytearray: lambda value, inner: ["bytearray", value.hex()],
    complex: lambda value, inner: ["complex", repr(value.real), repr(value.imag)],
    range: lambda value, inner: ["range", inner(value.start), inner(value.stop), inner(value.step)],
    slice: lambda value, inner: ["slice", inner(value.start), inner(value.stop), inner(value.step)],
    type(Ellipsis): lambda value, inner: ["ellipsis"],
    type(NotImplemented): lambda value, inner: ["not implemented"],
}
_FACTORIES: dict[Any, str] = {kind: kind.__name__ for kind in (list, dict, set, int, float, str, tuple, bool)}
_BASES: tuple[type, ...] = (str, int, float, list, tuple, dict, set, frozenset, bytes)


def _special(value: Any, kind: type, inner: Callable[[Any], Any]) -> Any:
    """Forms of types that are only there once their module is loaded; null for all others."""
    module = kind.__module__
    if module == "fractions" and kind.__name__ == "Fraction":
        return ["Fraction", inner(value.numerator), inner(value.denominator)]
    if module == "decimal" and kind.__name__ == "Decimal":
        return ["Decimal", str(value)]
    if (
        module == "datetime"
        and kind.__name__ in ("date", "datetime", "time")
        and getattr(value, "tzinfo", None) is None
    ):
        return [kind.__name__, value.isoformat()]
    if module == "datetime" and kind.__name__ == "timedelta":
        return ["timedelta", value.days, value.seconds, value.microseconds]
    if module == "numpy" and kind.__name__ == "ndarray" and value.dtype.kind in "biufcUS":
        return ["array", value.dtype.str, list(value.shape), *(inner(item) for item in value.ravel().tolist())]
    if module == "numpy" and hasattr(value, "dtype") and hasattr(value, "item") and value.dtype.kind in "biufcUS":
        return ["scalar", value.dtype.str, inner(value.item())]
    if isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return [
            "namedtuple",
            kind.__name__,
            list(getattr(kind, "_fields", ())),
            *(inner(item) for item in tuple.__iter__(value)),
        ]
    return None


def _base_of(kind: type) -> Callable[[Any], Any] | None:
    """What makes a plain value of an object of a subclass; null where the subclass has something of its own."""
    for base in _BASES:
        if issubclass(kind, base):
            is_enumerated = "enum" in sys.modules and issubclass(kind, sys.modules["enum"].Enum)
            own = [name for one in kind.__mro__[: kind.__mro__.index(base)] for name in vars(one) if name[0] != "_"]
            if own and not is_enumerated:
                return None
            return lambda value: base(_raw(base, value))
    return None


def _raw(base: type, value: Any) -> Any:
    """The value as its built-in base has it, whatever methods the subclass has changed."""
    if base is str:
        return str.__str__(value)
    if base is int:
        return int.__int__(value)
    if base is float:
        return float.__float__(value)
    if base is dict:
        return [(key, dict.__getitem__(value, key)) for key in dict.__iter__(value)]
    return base.__iter__(value)  # type: ignore[attr-defined]


def decode(tree: Any, dereference: Refer, made: list[Any] | None = None) -> Any:
    """The value of a tree; `dereference` gives what a reference stands for.

    Raises:
        CannotCrossError: not a tree that `encode` makes.
    """
    if not isinstance(tree, list):
        return tree
    if not tree or not isinstance(tree[0], str):
        raise CannotCrossError("no tree of a value")
    tag, *parts = tree
    made = [] if made is None else made
    build = _BUILDERS.get(tag)
    if build is None and tag != "again":
        return dereference(tree)
    try:
        if build is None:
            return made[parts[0]]
        value = build(parts, lambda part: decode(part, dereference, made))
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError) as error:
        raise CannotCrossError(f"{tag}: {error}") from error
    if tag in _NUMBERED:
        made.append(value)
    return value


def _dict_of(parts: list[Any], inner: Callable[[Any], Any]) -> dict[Any, Any]:
    return {inner(key): inner(item) for key, item in parts}


def _array_of(parts: list[Any], inner: Callable[[Any], Any]) -> Any:
    import numpy

    kind, shape, *items = parts
    return numpy.array([inner(item) for item in items], dtype=kind).reshape(shape)


def _scalar_of(parts: list[Any], inner: Callable[[Any], Any]) -> Any:
    import numpy

    return numpy.dtype(parts[0]).type(inner(parts[1]))


def _named_tuple(parts: list[Any], inner: Callable[[Any], Any]) -> Any:
    name, fields, *items = parts
    made = _NAMED.get((name, *fields))
    if made is None:
        made = _NAMED[name, *fields] = collections.namedtuple(name, fields)
    return made(*(inner(item) for item in items))


def _imported(module: str, name: str) -> Callable[..., Any]:
    return lambda *arguments: getattr(__import__(module), name)(*arguments)


def _iso(name: str) -> Callable[[Any, Any], Any]:
    return lambda parts, inner: getattr(__import__("datetime"), name).fromisoformat(parts[0])


_NAMED: dict[tuple[str, ...], Any] = {}
_BUILDERS: dict[str, Callable[[Any, Any], Any]] = {
    "int": lambda parts, inner: int(parts[0], 16),
    "float": lambda parts, inner: float(parts[0]),
    "list": lambda parts, inner: [inner(part) for part in parts],
    "tuple": lambda parts, inner: tuple(inner(part) for part in parts),
    "set": lambda parts, inner: {inner(part) for part in parts},
    "frozenset": lambda parts, inner: frozenset(inner(part) for part in parts),
    "dict": _dict_of,
    "OrderedDict": lambda parts, inner: collections.OrderedDict(_dict_of(parts, inner)),
    "Counter": lambda parts, inner: collections.Counter(_dict_of(parts, inner)),
    "defaultdict": lambda parts, inner: collections.defaultdict(
        next((kind for kind, name in _FACTORIES.items() if name == parts[0]), None), _dict_of(parts[1:], inner)
    ),
    "keys": lambda parts, inner: dict.fromkeys(inner(part) for part in parts).keys(),
    "values": lambda parts, inner: dict(enumerate(inner(part) for part in parts)).values(),
    "items": lambda parts, inner: dict(inner(part) for part in parts).items(),
    "deque": lambda parts, inner: collections.deque((inner(part) for part in parts[1:]), parts[0]),
    "bytes": lambda parts, inner: bytes.fromhex(parts[0]),
    "bytearray": lambda parts, inner: bytearray.fromhex(parts[0]),
    "complex": lambda parts, inner: complex(float(parts[0]), float(parts[1])),
    "range": lambda parts, inner: range(*map(inner, parts)),
    "slice": lambda parts, inner: slice(*map(inner, parts)),
    "ellipsis": lambda parts, inner: ...,
    "not implemented": lambda parts, inner: NotImplemented,
    "Fraction": lambda parts, inner: _imported("fractions", "Fraction")(*map(inner, parts)),
    "Decimal": lambda parts, inner: _imported("decimal", "Decimal")(parts[0]),
    "date": _iso("date"),
    "datetime": _iso("datetime"),
    "time": _iso("time"),
    "timedelta": lambda parts, inner: _imported("datetime", "timedelta")(*parts),
    "array": _array_of,
    "scalar": _scalar_of,
    "namedtuple": _named_tuple,
}


def assign(old: Any, new: Any, moved: dict[int, Any] | None = None) -> Any:
    """Make a container equal to its new state, in place where it can be, and give what then stands for it."""
    moved = {} if moved is None else moved
    if id(new) in moved:
        return moved[id(new)]
    if old is new or type(old) is not type(new):
        return new
    if isinstance(old, list | dict | set | collections.deque | bytearray):
        moved[id(new)] = old
    if isinstance(old, list):
        kept = [assign(a, b, moved) for a, b in zip(old, new, strict=False)]
        old[:] = [*kept, *(moved.get(id(item), item) for item in new[len(kept) :])]
    elif isinstance(old, dict):
        state = {key: assign(old.get(key), item, moved) for key, item in new.items()}
        old.clear()
        old.update(state)
    elif isinstance(old, set | collections.deque):
        old.clear()
        old.update(new) if isinstance(old, set) else old.extend(new)
    elif isinstance(old, bytearray):
        old[:] = new
    elif type(old).__module__ == "numpy" and getattr(old, "shape", None) == getattr(new, "shape", ()):
        old[...] = new
    else:
        return new
    return old
