"""The guest of the program under test: loads it, then answers what the tests ask of it.

Place in the flow: `guests` starts it; it waits for one order from the host: a program to load as a module, or one to
run as a script with the given standard input. Contract: nothing here is trusted: whatever the program does to this
file's code, it can only answer questions wrongly. The tests and the comparisons run in another guest or on the host.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
import types
from collections.abc import Callable
from typing import Any

from mae_cli.checking.code.guest.peer import Peer
from mae_cli.checking.code.guest.single_thread import make_room
from mae_cli.checking.code.guest.values import CannotCrossError

MAX_PRINTED = 1_000_000
"""Most characters a program may print."""
RECURSION = 1010
"""CPython's default, and the frames of this file."""
_UNHELPFUL = (
    "os",
    "posix",
    "signal",
    "socket",
    "_socket",
    "select",
    "subprocess",
    "multiprocessing",
    "resource",
    "fcntl",
)


class PrintedTooMuchError(BaseException):
    """More than `MAX_PRINTED` characters."""


class _Bytes(io.BytesIO):
    """What a program has printed since it was last taken."""

    total = 0

    def write(self, data: Any) -> int:
        self.total += len(data)
        if self.total > MAX_PRINTED:
            raise PrintedTooMuchError
        return super().write(data)


class _Printed(io.TextIOWrapper):
    """Standard output of a program: kept until the next answer takes it."""

    def __init__(self) -> None:
        super().__init__(_Bytes(), encoding="utf-8", errors="surrogateescape", newline="", write_through=True)

    def take(self) -> str:
        kept: Any = self.buffer
        text = kept.getvalue().decode("utf-8", "replace")
        kept.seek(0)
        kept.truncate()
        return str(text)


class _Asked:
    """Standard input of a program that tests call: each line is asked of the tests."""

    encoding = "utf-8"

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def readline(self, size: int = -1) -> str:
        return str(self._peer.ask("read line"))

    def read(self, size: int = -1) -> str:
        return "".join(self)

    def __iter__(self) -> Any:
        return iter(self.readline, "")

    @property
    def buffer(self) -> io.BytesIO:
        return io.BytesIO(self.read().encode())

    def readlines(self) -> list[str]:
        return list(self)

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        return


def lack_of(error: BaseException) -> str | None:
    """What the sandbox lacks, where an exception is its fault and not the program's."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, CannotCrossError):
        return f"a value that cannot be shown to the tests: {error}"
    if isinstance(error, PrintedTooMuchError):
        return "output"
    if isinstance(error, ModuleNotFoundError):
        return f"no module {error.name}"
    if isinstance(error, ImportError):
        top = (error.name or "").partition(".")[0]
        return None if not top or top in sys.stdlib_module_names else f"no module {error.name}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"no files, network or processes: {error}"
    owner = getattr(error.obj, "__name__", None) if isinstance(error, AttributeError) else None
    if owner in _UNHELPFUL:
        return f"{owner}.{getattr(error, 'name', '')} is not there"
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return "no threads"
    if isinstance(error, io.UnsupportedOperation):
        return f"no files: {error}"
    return None


def prepare(source: str, seed: int) -> None:
    """Set the interpreter up for a program: depth of calls, chance, sleep, and what needs threads."""
    sys.setrecursionlimit(RECURSION)
    time.sleep = lambda seconds: None
    make_room(source)
    if "random" in source:
        import random

        random.seed(seed)
        if "numpy" in source:
            import numpy

            numpy.random.seed(seed)


def load(source: str, imports: str, seed: int) -> tuple[types.ModuleType, BaseException | None]:
    """The module of a program, and what it raised while it was loaded; `imports` are those of its tests."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        prepare(source, seed)
        exec(compile(imports, "<imports>", "exec"), module.__dict__)
        exec(compile(source, "<program>", "exec"), module.__dict__)
    except BaseException as error:
        return module, error
    return module, None


def serve(send: Callable[[bytes], bytes], order: dict[str, Any]) -> None:
    """Load a program and answer questions about it until the guest is ended."""
    peer = Peer(send, guarded=False, lacks=lack_of)
    printed = _Printed()
    # Kept alive: the interpreter flushes it at its end.
    sys.stdout, sys.stdin = printed, _Asked(peer)
    module, error = load(order["source"], order["imports"], order["seed"])
    peer.printed = printed.take
    peer.extra = {
        "find": lambda name: getattr(module, name),
        "has": lambda names: [name for name in names if hasattr(module, name)],
        "method": lambda name: _function_named(module, name),
    }
    printed.take()
    told = ["loaded"] if error is None else ["failed", *summary(error)]
    peer.serve_for_ever(told)


def _function_named(module: types.ModuleType, name: str) -> Any:
    """The function a call-based test names: of the module, else a method of its class `Solution`."""
    if hasattr(module, name):
        return getattr(module, name)
    return getattr(module.Solution(), name)


def summary(error: BaseException) -> list[str | None]:
    """An exception's name and text, and what the sandbox lacks where it is that."""
    try:
        text = str(error)[:300]
    except Exception:
        text = ""
    return [type(error).__name__, text, lack_of(error)]


def run_script(send: Callable[[bytes], bytes], order: dict[str, Any]) -> None:
    """Run a program as a script on the guest's own standard input and output; its end is told to the host."""
    main = sys.modules["__main__"]
    for name in [name for name in vars(main) if not name.startswith("__")]:
        delattr(main, name)
    told: list[Any] = ["ended"]
    try:
        prepare(order["source"], order["seed"])
        exec(compile(order["source"], "<program>", "exec"), main.__dict__)
    except SystemExit as error:
        told = ["ended"] if error.code in (None, 0) else ["failed", "SystemExit", str(error.code)[:300], None]
    except BaseException as error:
        told = ["failed", *summary(error)]
    # What a program that closed its output had not written is missing there, and compared as missing.
    with contextlib.suppress(ValueError, OSError, AttributeError):
        sys.stdout.flush()
    send(json.dumps(told).encode())


def main(send: Callable[[bytes], bytes]) -> None:
    """Wait for one order and carry it out."""
    order = json.loads(send(b'["ready"]'))
    (run_script if order["kind"] == "script" else serve)(send, order)
