"""Objects of the other guest, as this one sees them: every operation on one is a question to its owner.

Place in the flow: `peer` makes them for what has no form as a value. Contract: on the side of the tests a remote
object never decides a comparison and never sees what it is compared with: its owner is the program under test, and
could say "equal" to anything. Such an operation raises `UndecidedError`, and the peer remembers it, so that the verdict
is "unsupported" even where the tests go on. Objects that are equal to nothing but themselves, generators and
coroutines are told apart by kind.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
ARITHMETIC = (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and_",
    "or_",
    "xor",
    "lshift",
    "rshift",
)


class UndecidedError(BaseException):
    """An operation whose outcome the program under test would decide."""


class Remote:
    """An object of the other guest."""

    _mae_peer: Any
    _mae_number: int
    _mae_about: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name in _COMPARING:
            raise refuse(self, f"{name} of an object of the program's own")
        return ask(self, "get", name)

    @property
    def __signature__(self) -> Any:
        raise refuse(self, "the signature of a function")

    def __setattr__(self, name: str, value: Any) -> None:
        ask(self, "set", name, value)

    def __delattr__(self, name: str) -> None:
        ask(self, "delete", name)

    def __str__(self) -> str:
        return str(ask(self, "text"))

    def __repr__(self) -> str:
        return str(ask(self, "show"))

    def __format__(self, form: str) -> str:
        return str(ask(self, "format", form))

    def __dir__(self) -> list[str]:
        return list(ask(self, "names"))

    def __bool__(self) -> bool:
        can = object.__getattribute__(self, "_mae_about")["can"]
        return bool(ask(self, "truth")) if "__bool__" in can or "__len__" in can else True

    def __eq__(self, other: object) -> Any:
        return _compared(self, "eq", other)

    def __ne__(self, other: object) -> Any:
        return _compared(self, "ne", other)

    def __hash__(self) -> int:
        return hash(("remote", object.__getattribute__(self, "_mae_number")))

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, Remote) and bool(
            object.__getattribute__(self, "_mae_peer").ask("instance", instance, self)
        )

    def __subclasscheck__(self, subclass: type) -> bool:
        return isinstance(subclass, Remote) and bool(
            object.__getattribute__(self, "_mae_peer").ask("subclass", subclass, self)
        )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise refuse(self, "a class derived from one of the program's")


def ask(remote: Remote, operation: str, *arguments: Any, **options: Any) -> Any:
    """Ask the owner for an operation on its object."""
    return object.__getattribute__(remote, "_mae_peer").ask(operation, remote, *arguments, **options)


def refuse(remote: Remote, what: str) -> UndecidedError:
    """The exception for an operation that says nothing; the peer keeps its name."""
    peer = object.__getattribute__(remote, "_mae_peer")
    peer.refused = peer.refused or f"the tests use {what}"
    return UndecidedError(what)


def _compared(remote: Remote, name: str, other: Any) -> Any:
    peer = object.__getattribute__(remote, "_mae_peer")
    if not peer.guarded:
        return peer.ask("binary", name, remote, other)
    if name in ("eq", "ne"):
        about = object.__getattribute__(remote, "_mae_about")
        others = object.__getattribute__(other, "_mae_about") if isinstance(other, Remote) else None
        if not about["eq"] and (others is None or not others["eq"]):
            return (remote is other) is (name == "eq")
    raise refuse(remote, f"a comparison of an object of the program's own ({name})")


def _arithmetic(name: str, *, reflected: bool) -> Callable[[Remote, Any], Any]:
    def operation(self: Remote, other: Any) -> Any:
        peer = object.__getattribute__(self, "_mae_peer")
        if peer.guarded and not isinstance(other, Remote):
            raise refuse(self, "arithmetic with an object of the program's own")
        first, second = (other, self) if reflected else (self, other)
        return peer.ask("binary", name, first, second)

    return operation


def _ordering(name: str) -> Callable[[Remote, Any], Any]:
    return lambda self, other: _compared(self, name, other)


def _unary(operation: str) -> Callable[..., Any]:
    return lambda self, *arguments: ask(self, operation, *arguments)


def _iterated(remote: Remote) -> Any:
    found = ask(remote, "iterate")
    return iter(found) if not isinstance(found, Remote) else found


def _indexed(self: Remote) -> Any:
    return operator.index(ask(self, "index"))


def _of_owner(name: str) -> property:
    """An attribute that every object has, and a remote one asks for."""
    return property(lambda self: ask(self, "get", name))


def _held(self: Remote, item: Any) -> bool:
    peer = object.__getattribute__(self, "_mae_peer")
    about = object.__getattribute__(self, "_mae_about")
    if peer.guarded and "__contains__" in about["can"]:
        raise refuse(self, "`in` with an object of the program's own")
    return bool(peer.ask("holds", self, item)) if not peer.guarded else any(item == one for one in _iterated(self))


def _left(self: Remote, kind: Any, error: Any, trace: Any) -> bool:
    """Leave a context of the program's; it may swallow an exception, but no failed check."""
    swallows = ask(self, "exit", kind, None if error is None else list(error.args))
    return bool(swallows) and isinstance(error, Exception) and not isinstance(error, AssertionError)


_COMPARING = frozenset(f"__{name}__" for name in (*COMPARISONS, "contains"))
_BY_ABILITY: dict[str, dict[str, Callable[..., Any]]] = {
    "__call__": {"__call__": lambda self, *arguments, **options: ask(self, "call", *arguments, **options)},
    "__iter__": {"__iter__": _iterated},
    "__next__": {"__next__": _unary("next"), "__iter__": lambda self: self},
    "__len__": {"__len__": _unary("length")},
    "__getitem__": {
        "__getitem__": _unary("item"),
        "__setitem__": _unary("set item"),
        "__delitem__": _unary("delete item"),
    },
    "__contains__": {"__contains__": _held},
    "__enter__": {"__enter__": _unary("enter"), "__exit__": _left},
    "__float__": {"__float__": _unary("float")},
    "__int__": {"__int__": _unary("int")},
    "__index__": {"__index__": _indexed},
}
for _name in ("lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_name}__", _ordering(_name))
for _name in ARITHMETIC:
    setattr(Remote, f"__{_name.strip('_')}__", _arithmetic(_name, reflected=False))
    setattr(Remote, f"__r{_name.strip('_')}__", _arithmetic(_name, reflected=True))
for _name, _asked in (("abs", "abs"), ("neg", "negative"), ("pos", "positive"), ("invert", "invert"),
                      ("round", "round"), ("complex", "complex")):  # fmt: skip
    setattr(Remote, f"__{_name}__", _unary(_asked))
_CLASSES: dict[frozenset[str], type[Remote]] = {}


def remote_for(peer: Any, number: int, about: dict[str, Any]) -> Any:
    """The remote object of a reference; generators and coroutines become real ones that ask."""
    abilities = frozenset(name for name in about["can"] if name in _BY_ABILITY)
    made = _CLASSES.get(abilities)
    if made is None:
        methods: dict[str, Any] = {}
        for ability in sorted(abilities):
            methods.update(_BY_ABILITY[ability])
        if "__next__" in abilities:
            methods.update(_BY_ABILITY["__next__"])
        methods.update({name: _of_owner(name) for name in ("__doc__", "__dict__")})
        made = _CLASSES[abilities] = type("Remote", (Remote,), methods)
    remote = object.__new__(made)
    for name, value in (("_mae_peer", peer), ("_mae_number", number), ("_mae_about", about)):
        object.__setattr__(remote, name, value)
    if about["kind"] == "generator":
        return _generator(peer, remote)
    if about["kind"] == "coroutine":
        return _coroutine(peer, remote)
    if about["kind"] == "async_generator":
        return _async_generator(peer, remote)
    return remote


def _generator(peer: Any, remote: Remote) -> Generator[Any, Any, Any]:
    sent: Any = None
    while True:
        try:
            item = peer.ask("next", remote) if sent is None else peer.ask("send", remote, sent)
        except StopIteration as stop:
            return stop.value
        sent = yield item


async def _coroutine(peer: Any, remote: Remote) -> Any:
    return peer.ask("await", remote)


async def _async_generator(peer: Any, remote: Remote) -> AsyncIterator[Any]:
    following = peer.ask("get", remote, "__anext__")
    while True:
        try:
            item = peer.ask("await", peer.ask("call", following))
        except StopAsyncIteration:
            return
        yield item
