"""One side of the conversation between the program's guest and the guest of its tests: calls, results, references.

Place in the flow: `program` serves with it, `tests` asks with it; the host passes each message on and reads none.
Contract: one side speaks at a time; a question may be answered by another question (a callback). Values travel as
copies (`values`), other objects as references: the other side holds a `Remote` (`remotes`) that asks for every
operation. What a call does to its arguments, and what it prints, comes back with the answer. The side of the tests is
`guarded`: it lets the other side reach nothing but what it has handed over, and there no name that leads to frames or
globals.
"""

from __future__ import annotations

import builtins
import collections
import io
import json
import operator
import sys
from collections.abc import Callable
from typing import Any

from mae_cli.checking.code.guest import values
from mae_cli.checking.code.guest.remotes import Remote, remote_for

SAFE_MODULES = ("math", "operator", "cmath", "string")
"""Modules whose built-in functions travel by name."""
_MODULES_OF_TESTS = ("unittest", "pytest", "_pytest", "mae_cli")
"""Modules whose exceptions, raised by a program, do not end a test as they would out of the tests themselves."""
TESTS_MODULE = "tests"
"""The name of the module the tests run as."""
_NAMES = ("__name__", "__qualname__", "__doc__")
_LEADS_INWARD = ("_", "gi_", "cr_", "ag_", "f_", "tb_", "co_", "func_", "mro")
_TO_OWN = frozenset({"call", "get", "set", "delete", "item", "set item", "delete item", "length", "iterate", "next",
                     "send", "holds", "text", "show", "truth", "binary", "enter", "exit", "read line", "float", "int",
                     "index"})  # fmt: skip


class EndedError(BaseException):
    """The other guest is gone."""


class Peer:
    """One end: asks the other one and serves what it asks back.

    Args:
        send: sends one message to the host and gives the answer.
        guarded: the other side is not trusted.
        lacks: the reason why an exception is the sandbox's fault, or null.
    """

    def __init__(
        self,
        send: Callable[[bytes], bytes],
        *,
        guarded: bool,
        lacks: Callable[[BaseException], str | None] | None = None,
    ) -> None:
        self._send, self.guarded, self._lacks = send, guarded, lacks
        self._own: dict[int, Any] = {}
        self._lent: dict[tuple[int, str], tuple[Any, Any, Any]] = {}
        self._number_of: dict[int, int] = {}
        self._remotes: dict[int, Remote] = {}
        self._exceptions: dict[int, type[BaseException]] = {}
        self.calls = 0
        """Calls asked of the other side."""
        self.lack: str | None = None
        """What the sandbox lacks, where a call failed for that."""
        self.kinds: set[tuple[str, str]] = set()
        """Name and module of the types of objects that were handed over as references."""
        self.refused: str | None = None
        """The first operation on another side's object that says nothing about a program."""
        self.raised: BaseException | None = None
        """The last exception that came from the other side."""
        self.stopped = False  # Whether a call raised what ends a loop of the tests without a word.
        self.beyond: str | None = None  # What the other side did not get of an object here, though no cheat wants it.
        self.printed: Callable[[], str] = str
        """Gives what was printed since the last answer."""
        self.extra: dict[str, Callable[..., Any]] = {}
        """Operations of this side alone."""

    # Asking

    def ask(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """What the other side answers.

        Raises:
            BaseException: what the operation raised there, as an exception of the same name.
            EndedError: the other side is gone.
        """
        self.calls += operation in ("call", "get")
        self._write_back()
        request = [operation, [self.encode(item) for item in arguments],
                   {name: self.encode(item) for name, item in options.items()}]  # fmt: skip
        answer = self._talk(["ask", *request])
        while answer[0] == "ask":
            answer = self._talk(self.serve(*answer[1:]))
        found = self._result(operation, answer, arguments)
        if operation == "get" and self.guarded and type(found) in _CHANGEABLE and len(found) <= _MOST_LENT:
            self._lent[id(arguments[0]), arguments[1]] = (arguments[0], found, self.encode(found))
        return found

    def _write_back(self) -> None:
        """Let attributes of the program's objects follow what the tests did to their copies."""
        lent, self._lent = self._lent, {}
        for (number, name), (owner, value, tree) in lent.items():
            now = self.encode(value)
            if now != tree:
                self.ask("assign", owner, name, value)
            self._lent[number, name] = (owner, value, now)

    def _talk(self, message: Any) -> Any:
        try:
            answer = json.loads(self._send(json.dumps(message, separators=(",", ":")).encode()))
            if answer[0] in ("ask", "answer", "raised"):
                return answer
        except (ValueError, RecursionError, LookupError, TypeError):
            raise EndedError("a message that cannot be read") from None
        raise EndedError(answer[1] if answer[0] == "gone" else "a message that cannot be read")

    def _result(self, operation: str, answer: list[Any], arguments: tuple[Any, ...]) -> Any:
        if len(answer) != 4:
            raise EndedError("a message that cannot be read")
        kind, content, changes, printed = answer
        if printed:
            sys.stdout.write(printed)
        for place, tree in changes:
            values.assign(arguments[place], self.decode(tree))
        if kind == "raised":
            self.raised = self._exception(content)
            if operation == "call" and isinstance(self.raised, StopIteration | StopAsyncIteration):
                self.stopped = True
            raise self.raised
        if isinstance(content, list) and content and content[0] == "argument":
            return arguments[content[1]]
        return self.decode(content)

    # Serving

    def serve_for_ever(self, answer: list[Any]) -> None:
        """Answer questions until the guest is ended."""
        while True:
            request = self._talk(answer)
            answer = self.serve(*request[1:])

    def serve(self, operation: str, trees: list[Any], options: dict[str, Any]) -> list[Any]:
        """The answer to a question: the result or the exception, changed arguments, and what was printed."""
        arguments: list[Any] = []
        try:
            arguments = [self.decode(tree) for tree in trees]
            if self.guarded:
                self._refuse_inward(operation, trees, arguments)
            found = self._operation(operation)(*arguments, **{name: self.decode(o) for name, o in options.items()})
            place = next((i for i, item in enumerate(arguments) if item is found and type(item) in _CHANGEABLE), None)
            result = ["answer", self.encode(found) if place is None else ["argument", place]]
        except EndedError:
            raise
        except BaseException as error:
            result = ["raised", self._describe_exception(error)]
        return [*result, self._changes(trees, arguments), self.printed()]

    def _operation(self, name: str) -> Callable[..., Any]:
        found = self.extra.get(name) or OPERATIONS.get(name)
        if found is None:
            raise LookupError(name)
        return found

    def _changes(self, trees: list[Any], arguments: list[Any]) -> list[Any]:
        found = []
        for place, (tree, value) in enumerate(zip(trees, arguments, strict=False)):
            if type(value) in _CHANGEABLE or type(value).__module__ == "numpy":
                try:
                    now = self.encode(value)
                except values.CannotCrossError:
                    continue
                if now != tree:
                    found.append([place, now])
        return found

    def _refuse_inward(self, operation: str, trees: list[Any], arguments: list[Any]) -> None:
        """Let the other side use only objects it was handed, and attributes of those of the tests' own classes alone.

        Raises:
            AttributeError: for everything else.
        """
        if operation == "read line":
            return
        is_handed = bool(trees) and isinstance(trees[0], list) and trees[0][:1] == ["yours"]
        if operation not in _TO_OWN or not is_handed:
            raise AttributeError(f"the tests do not offer {operation}")
        if operation in ("get", "set", "delete"):
            own, name = arguments[:2]
            module = getattr(own if isinstance(own, type) else type(own), "__module__", "")
            is_name = operation == "get" and name in _NAMES  # what `functools.wraps` copies
            if not isinstance(name, str) or (name.startswith(_LEADS_INWARD) and not is_name):
                raise AttributeError(f"the tests do not show {name}")
            if module not in (TESTS_MODULE, "__main__") and not is_name and not _is_tool(own, operation, name):
                self.beyond = f"the program uses {name} of an object of the tests, which does not reach it"
                raise AttributeError(f"the tests do not show {name}")

    # Trees

    def encode(self, value: Any) -> Any:
        """The tree of a value; objects without a form of their own become references."""
        return values.encode(value, self._refer)

    def decode(self, tree: Any) -> Any:
        """The value of a tree."""
        return values.decode(tree, self._dereference)

    def _refer(self, value: Any) -> list[Any]:
        kind = type(value)
        if issubclass(kind, Remote):
            return ["yours", object.__getattribute__(value, "_mae_number")]
        if isinstance(value, type) and getattr(self, "_exceptions", None):
            for number, made in self._exceptions.items():
                if made is value:
                    return ["yours", number]
        name = getattr(value, "__name__", None)
        if isinstance(name, str) and getattr(builtins, name, None) is value:
            return ["builtin", name]
        module = getattr(value, "__module__", None)
        if module in SAFE_MODULES and kind is type(len) and getattr(sys.modules[module], str(name), None) is value:
            return ["named", module, name]
        if kind is type(sys) and self.guarded:
            raise values.CannotCrossError(f"module {name}")
        number = self._number_of.setdefault(id(value), len(self._own) + 1)
        self._own[number] = value
        about = describe(value)
        if "exception" in about:
            about["bases"] = [self._refer(base) for base in value.__bases__ if issubclass(base, BaseException)]
        return ["mine", number, about]

    def _dereference(self, tree: list[Any]) -> Any:
        tag, *parts = tree
        if tag == "yours":
            return self._own[parts[0]]
        if tag == "builtin":
            found = getattr(builtins, parts[0], None)
            return found if not self.guarded or isinstance(found, type) or parts[0] in _PURE else _nothing
        if tag == "named" and parts[0] in SAFE_MODULES:
            function = getattr(__import__(parts[0]), parts[1])
            return function if type(function) is type(len) else _nothing
        if tag != "mine":
            raise values.CannotCrossError(f"no value: {tag}")
        number, about = parts
        if about.get("exception"):
            return self._exception_class(number, about)
        if number not in self._remotes:
            self.kinds.add((about["kind"], about["of"]))
            self._remotes[number] = remote_for(self, number, about)
        return self._remotes[number]

    # Exceptions

    def _describe_exception(self, error: BaseException) -> dict[str, Any]:
        try:
            text = str(error)
        except Exception:  # the program's own __str__
            text = ""
        try:
            arguments = [self.encode(item) for item in error.args]
            state = {name: self.encode(item) for name, item in vars(error).items() if name[:1] != "_"}
        except (values.CannotCrossError, TypeError):
            arguments, state = [text], {}
        return {
            "class": self._refer(type(error)),
            "name": type(error).__name__,
            "arguments": arguments,
            "state": state,
            "text": text[:500],
            "cause": None if error.__cause__ is None else self._describe_exception(error.__cause__),
            "lack": self._lacks(error) if self._lacks else None,
        }

    def _exception(self, about: dict[str, Any]) -> BaseException:
        made: Any = self._dereference(about["class"])
        if not (isinstance(made, type) and issubclass(made, BaseException)):
            made = Exception
        self.lack = self.lack or about["lack"]
        arguments = [self.decode(item) for item in about["arguments"]]
        try:
            error: BaseException = made(*arguments)
        except Exception:
            error = made.__new__(made)
            error.args = tuple(arguments)
        for name, tree in about["state"].items():
            try:
                setattr(error, name, self.decode(tree))
            except (AttributeError, TypeError):
                continue
        error.__cause__ = about["cause"] and self._exception(about["cause"])
        return error

    def _exception_class(self, number: int, about: dict[str, Any]) -> type[BaseException]:
        name, module = about["name"], about["module"]
        loaded = getattr(sys.modules.get(module), name, None)
        is_of_tests = self.guarded and module.partition(".")[0] in _MODULES_OF_TESTS
        if isinstance(loaded, type) and issubclass(loaded, BaseException) and not is_of_tests:
            return loaded  # of the standard library, and the tests name it too
        if number not in self._exceptions:
            base = next((getattr(builtins, base) for base in about["exception"] if hasattr(builtins, base)), Exception)
            bases = tuple(map(self._dereference, about["bases"]))
            try:
                self._exceptions[number] = type(name, bases, {})
            except TypeError:
                self._exceptions[number] = type(name, (base,), {})
        return self._exceptions[number]


def describe(value: Any) -> dict[str, Any]:
    """What the other side must know of an object: its kind, and which operations it has."""
    kind = type(value)
    about: dict[str, Any] = {
        "kind": kind.__name__,
        "of": kind.__module__,
        "can": [name for name in _ABILITIES if getattr(kind, name, None) is not None],
        "eq": getattr(kind, "__eq__", object.__eq__) is not object.__eq__,
    }
    if kind is type(sys):
        about["name"] = value.__name__
    if isinstance(value, type):
        about.update(name=value.__name__, module=value.__module__)
        if issubclass(value, BaseException):
            about["exception"] = [base.__name__ for base in value.__mro__ if base.__module__ == "builtins"]
    return about


def _is_tool(own: Any, operation: str, name: str) -> bool:
    """Whether this is what a program does with a text stream or a mock that the tests hand it."""
    mock = sys.modules.get("unittest.mock")
    is_mock = mock is not None and isinstance(own, mock.NonCallableMock) and not name.startswith(_OF_MOCKS)
    return operation == "get" and (type(own) in (io.StringIO, io.BytesIO) or is_mock)


def _nothing(*arguments: Any, **options: Any) -> None:
    """Stands for a built-in function that the tests do not run for a program."""


def _as_raised(kind: Any, arguments: Any) -> tuple[Any, ...]:
    return (kind, kind(*arguments), None) if isinstance(kind, type) else (None, None, None)


def _wait_for(awaitable: Any) -> Any:
    import asyncio

    async def whole() -> Any:
        return await awaitable

    return asyncio.run(whole())


_OF_MOCKS = ("assert", "attach_mock", "call_", "called", "configure_mock", "method_calls", "mock_", "reset_mock")
_ABILITIES = ("__call__", "__iter__", "__next__", "__len__", "__getitem__", "__contains__", "__await__", "__aiter__",
              "__enter__", "__bool__", "__float__", "__int__", "__index__", "__hash__")  # fmt: skip
_CHANGEABLE = frozenset({list, dict, set, bytearray, *(collections.deque, collections.OrderedDict),
                         collections.Counter, collections.defaultdict})  # fmt: skip
_MOST_LENT = 1000
_PURE = frozenset(
    (
        *("abs", "len", "min", "max", "sum", "sorted", "repr", "ord", "chr", "hash", "round", "divmod", "pow"),
        *("all", "any", "bin", "hex", "oct", "ascii"),
    )
)
OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *arguments, **options: function(*arguments, **options),
    "get": getattr,
    "set": setattr,
    "delete": delattr,
    "item": operator.getitem,
    "set item": operator.setitem,
    "delete item": operator.delitem,
    "length": len,
    "iterate": iter,
    "next": next,
    "send": lambda generator, value: generator.send(value),
    "holds": operator.contains,
    "text": str,
    "show": repr,
    "format": format,
    "truth": bool,
    "float": float,
    "int": int,
    "index": operator.index,
    "complex": complex,
    "round": round,
    "abs": abs,
    "negative": operator.neg,
    "positive": operator.pos,
    "invert": operator.invert,
    "hash": hash,
    "names": dir,
    "instance": isinstance,
    "subclass": issubclass,
    "binary": lambda name, first, second: getattr(operator, name)(first, second),
    "enter": lambda manager: type(manager).__enter__(manager),
    "exit": lambda manager, kind, text: type(manager).__exit__(manager, *_as_raised(kind, text)),
    "await": _wait_for,
    "assign": lambda owner, name, new: values.assign(getattr(owner, name, None), new),
}
