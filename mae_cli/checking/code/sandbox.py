"""The sandbox for model-written Python: a real CPython in WebAssembly, in worker processes that may be killed.

Place in the flow: the verifiers `python_tests` and `python_call`, and the triplet checks, send programs here; nothing
model-written ever reaches the Python that runs this toolkit. Contract: `run_all` keeps the order, never raises on a
program, and ends each within its limit and a few seconds; results are equal for equal orders where a program does not
read the clock. `passed` and `failed` are known; the other results name the limit or what the sandbox lacks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

import msgspec

from mae_cli.answers.programs import MAX_PROGRAM
from mae_cli.checking import killable
from mae_cli.checking.code import runtime
from mae_cli.checking.code.guest import values

TARGET: Final = "mae_cli.checking.code.carry_out:carry_out"
STARTUP_SECONDS: Final = 120.0
"""What a worker may need besides the limit of a program: starting guests, and loading the runtime once."""
MAX_WORKERS: Final = 8
RunStatus = Literal["passed", "failed", "timeout", "memory", "output", "unsupported", "crashed"]


class Limits(msgspec.Struct, frozen=True):
    """Limits of one program: time on the wall clock, and memory."""

    seconds: float = 5.0
    memory_mib: int = 512


DEFAULT_LIMITS: Final = Limits()


class ProgramRun(msgspec.Struct, frozen=True):
    """Result of an order: how the program ended, in a word and a line.

    `passed` and `failed` are what the tests say, `timeout`, `memory` and `output` name the limit it ran into,
    `unsupported` what the sandbox lacks or why the tests say nothing, `crashed` a lost worker.
    """

    status: RunStatus
    reason: str = ""
    error: str = ""
    """Name of the exception class, where the program raised one."""
    values: tuple[Any, ...] = ()
    """Of `calls` without outputs: what each call returned, in a tuple of one; empty where that is no plain value."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do with a program; made by `tests_order`, `calls_order` and `script_order`."""

    kind: Literal["tests", "calls", "script"]
    source: str
    content: dict[str, Any]
    limits: Limits = DEFAULT_LIMITS
    cases: int = 1
    """How many times the limit of time may be used up."""


def calls_order(
    source: str,
    name: str,
    calls: Sequence[Mapping[str, Any]],
    *,
    outputs: Sequence[Any] | None = None,
    tolerance: float = 0.0,
    unwraps: bool = False,
    seed: int = 0,
    limits: Limits = DEFAULT_LIMITS,
) -> Order:
    """Call a function of the program (or a method of its class `Solution`) with each of the given arguments.

    Args:
        source: the program.
        name: of the function.
        calls: `args` (a list) and perhaps `kwargs` each, plain values.
        outputs: what the calls should return; without them the values are given back.
        tolerance: of floats, see `plain_values.values_equal`.
        unwraps: an output that is a list of one thing may stand for that thing, as in APPS and TACO.
        seed: where `random` starts.
        limits: of all calls together.
    """
    content: dict[str, Any] = {"name": name, "calls": [_encoded(call) for call in calls], "seed": seed}
    if outputs is not None:
        content |= {"outputs": [values.encode(output, _no_form) for output in outputs], "tolerance": tolerance}
        content["unwraps"] = unwraps
    return Order(kind="calls", source=source, content=content, limits=limits)


def script_order(
    source: str, inputs: Sequence[str], outputs: Sequence[str], *, limits: Limits = DEFAULT_LIMITS
) -> Order:
    """Run the program as a script on each input; the limit of time is that of each."""
    content = {"inputs": list(inputs), "outputs": list(outputs)}
    return Order(kind="script", source=source, content=content, limits=limits, cases=len(inputs))


def run_all(orders: Sequence[Order]) -> list[ProgramRun]:
    """Carry out orders in as many worker processes as there are CPUs, results in the same order.

    Raises:
        MissingDependencyError: the runtime is not installed.
    """
    if not orders:
        return []
    runtime.require("this command")
    try:
        runtime.prepare()
    except runtime.UnavailableError as error:
        return [ProgramRun("unsupported", str(error))] * len(orders)
    workers = min(len(orders), os.cpu_count() or 1, MAX_WORKERS)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(_run, orders))


def run(order: Order) -> ProgramRun:
    """Carry out one order."""
    return run_all([order])[0]


def _run(order: Order) -> ProgramRun:
    if len(order.source) > MAX_PROGRAM:
        return ProgramRun("unsupported", f"the program is longer than {MAX_PROGRAM} characters")
    limits = order.limits
    message = {"kind": order.kind, "source": order.source, **msgspec.to_builtins(limits), **order.content}
    patience = limits.seconds * order.cases + STARTUP_SECONDS
    try:
        (outcome,) = killable.shared(TARGET, memory_mib=0).call([[message]], patience)
    except (UnicodeError, ValueError) as error:
        return ProgramRun("unsupported", f"a text that cannot be sent: {error}")
    if outcome.status != "ok":
        return ProgramRun("crashed", f"the worker: {outcome.message or outcome.status}")
    found = outcome.value
    return ProgramRun(
        found["status"], found["reason"], found.get("error", ""), tuple(map(_boxed, found.get("values", ())))
    )


def _encoded(call: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "args": [values.encode(item, _no_form) for item in call["args"]],
        "kwargs": {name: values.encode(item, _no_form) for name, item in call.get("kwargs", {}).items()},
    }


def _boxed(tree: Any) -> tuple[Any, ...]:
    try:
        return (values.decode(tree, _no_form),)
    except values.CannotCrossError:
        return ()


def _no_form(value: Any) -> Any:
    raise values.CannotCrossError(f"no plain value: {type(value).__name__}")
