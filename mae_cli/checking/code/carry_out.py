"""What a worker process does with one order: run tests, calls, scripts or plain code in guests, and say how it ended.

Place in the flow: the target of `checking.killable`; `sandbox` sends the orders. Contract: orders and results are JSON
objects; nothing a program does raises here, and no text of a program is run or unpickled outside a guest. A limit that
is reached is named: `timeout`, `memory`, `output`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from mae_cli.checking.code import scripts
from mae_cli.checking.code.guest import values
from mae_cli.checking.code.guests import Guest, GuestEndedError, WarmGuests, as_json
from mae_cli.checking.code.plain_values import values_equal

_POOL: Final = WarmGuests()
STARTUP_SECONDS: Final = 60.0
"""Longest a guest may take to start; it counts against no program."""
_LOAD: Final = {"source": "", "imports": "", "seed": 0}
_LIMITS: Final = {"memory": "memory", "output": "output"}


def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order: `kind` is tests, calls or script; the result has `status` and `reason`."""
    return _KINDS[order["kind"]](order)


def _run_tests(order: dict[str, Any]) -> dict[str, Any]:
    memory = order["memory_mib"]
    with _POOL.guest("program", memory) as program, _POOL.guest("tests", max(memory, 256)) as tests:
        until = time.monotonic() + order["seconds"]
        try:
            failed = _load(program, order, until)
            if failed is not None:
                return failed
            tests.send(json.dumps(order["plan"]).encode())
            return _talk(program, tests, until)
        except TimeoutError:
            return _timeout(order["seconds"])
        except GuestEndedError as error:
            return {"status": "crashed", "reason": f"the tests' guest: {error.reason}"}


def _talk(program: Guest, tests: Guest, until: float) -> dict[str, Any]:
    """Carry messages between the guests until the tests report."""
    while True:
        message = tests.receive(until)
        if message.startswith(b'["report"'):
            found: dict[str, Any] = as_json(message)[1]
            return found
        program.send(message)
        try:
            answer = program.receive(until)
        except GuestEndedError as error:
            answer = json.dumps(["gone", error.reason]).encode()
        tests.send(answer)


def _load(program: Guest, order: dict[str, Any], until: float) -> dict[str, Any] | None:
    """Load the program; the result where that fails."""
    asked = {"kind": "load", **{key: order.get(key, default) for key, default in _LOAD.items()}}
    program.send(json.dumps(asked).encode())
    try:
        told = as_json(program.receive(until))
    except GuestEndedError as error:
        return _gone(error)
    return None if told[0] == "loaded" else _failed(told)


def _failed(told: list[Any]) -> dict[str, Any]:
    name, text, lack = (*told[1:4], None, None, None)[:3]
    if lack:
        return {"status": _LIMITS.get(str(lack), "unsupported"), "reason": str(lack), "error": str(name)}
    return {"status": "failed", "reason": f"{name}: {text}"[:300], "error": str(name)}


def _gone(error: GuestEndedError) -> dict[str, Any]:
    if "stack" in error.reason or "unreachable" in error.reason:
        return {"status": "unsupported", "reason": f"more stack than the sandbox has: {error.reason}"}
    return {"status": "failed", "reason": f"the program ended itself: {error.reason}"[:300], "error": "SystemExit"}


def _timeout(seconds: float) -> dict[str, Any]:
    return {"status": "timeout", "reason": f"timeout: more than {seconds:g} s"}


def _run_calls(order: dict[str, Any]) -> dict[str, Any]:
    """Call one function with each list of arguments; `outputs`, where given, are compared with what it returns.

    Arguments and outputs come as trees (`guest.values`).
    """
    with _POOL.guest("program", order["memory_mib"]) as program:
        until = time.monotonic() + order["seconds"]
        try:
            failed = _load(program, order, until)
            if failed is None:
                failed, function = _ask(program, until, "method", order["name"])
            if failed is not None:
                return failed
            found: list[Any] = []
            for call in order["calls"]:
                failed, value = _ask(program, until, "call", function, *call["args"], **call.get("kwargs", {}))
                if failed is not None:
                    return {**failed, "values": found}
                found.append(value)
        except TimeoutError:
            return _timeout(order["seconds"])
    return _compared(order, found) if "outputs" in order else {"status": "passed", "reason": "", "values": found}


def _ask(program: Guest, until: float, operation: str, *arguments: Any, **options: Any) -> tuple[Any, Any]:
    """(result where it failed, tree of the value) of one operation on the program; arguments are trees."""
    program.send(json.dumps(["ask", operation, list(arguments), options]).encode())
    try:
        told = as_json(program.receive(until))
        while told[0] == "ask":  # it reads from standard input, or calls back
            program.send(json.dumps(["raised", _NO_INPUT, [], ""]).encode())
            told = as_json(program.receive(until))
        if told[0] == "raised":
            about = told[1]
            return _failed(["", about["name"], about["text"], about["lack"]]), None
        return None, _owned(told[1]) if operation == "method" else _result(told, arguments)
    except GuestEndedError as error:
        return _gone(error), None
    except (LookupError, TypeError):
        return _gone(GuestEndedError("a message that cannot be read")), None


_NO_INPUT: Final[dict[str, Any]] = {
    "class": ["builtin", "EOFError"],
    "name": "EOFError",
    "arguments": ["no input"],
    "state": {},
    "text": "no input",
    "lack": None,
}


def _result(told: list[Any], arguments: tuple[Any, ...]) -> Any:
    """The tree of what a call returned; an argument that it gave back is taken as the call left it."""
    if isinstance(told[1], list) and told[1][:1] == ["argument"]:
        place = told[1][1]
        return dict(told[2]).get(place, arguments[place])
    return told[1]


def _owned(tree: Any) -> list[Any]:
    return ["yours", tree[1]] if tree[0] == "mine" else tree


def _no_form(value: Any) -> Any:
    raise values.CannotCrossError(f"no plain value: {type(value).__name__}")


def _compared(order: dict[str, Any], found: list[Any]) -> dict[str, Any]:
    right = []
    for tree, expected in zip(found, order["outputs"], strict=True):
        try:
            value = values.decode(tree, _no_form)
        except values.CannotCrossError:
            return {"status": "unsupported", "reason": "the program returns something that is no plain value"}
        given = values.decode(expected, _no_form)
        may_be = [given, given[0]] if order["unwraps"] and isinstance(given, list) and len(given) == 1 else [given]
        right.append(any(values_equal(_plain(value), one, order["tolerance"], lists_as_tuples=True) for one in may_be))
    told = f"{sum(right)} of {len(right)} calls right"
    return {"status": "passed" if all(right) else "failed", "reason": told, "right": right}


def _plain(value: Any) -> Any:
    """A value with arrays as the lists they print as."""
    if type(value).__module__ == "numpy":
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return {key: _plain(item) for key, item in value.items()} if type(value) is dict else value


_KINDS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "tests": _run_tests,
    "calls": _run_calls,
    "script": scripts.run_script,
}
