"""Calls that may hang or eat memory, in processes that are killed from outside at the limit.

Place in the flow: the verifiers `math`, `regex` and `json_schema`. A helper process imports the function's module once
and forks a worker per caller, so a killed worker costs milliseconds, not the seconds of importing again. Contract:
`Workers.call` works from any thread, never hangs, keeps the order, and asks each item once; a worker over its memory
limit is replaced. When this process ends, however it ends, the helper sees its end of the socket close and takes its
workers with it. The other side of the sockets is `mae_cli.checking.killable_main`. Needs `fork`: not for Windows.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from mae_cli.errors import MaeError, MissingDependencyError
from mae_cli.records.python_process import module_command

START_SECONDS: Final = 120.0
"""Longest the helper may take to import its module."""
IDLE_WORKERS: Final = 4
"""Most workers kept for the next call."""
_BATCH: Final = 64
_LENGTH: Final = struct.Struct("!I")
_ORDER: Final = struct.Struct("!cQ")
OutcomeStatus = Literal["ok", "timeout", "memory", "crashed", "error"]


class CallOutcome(msgspec.Struct, frozen=True):
    """Result of one item: the function's value, or how it failed."""

    status: OutcomeStatus
    value: Any = None
    message: str = ""


class _Worker(msgspec.Struct, frozen=True):
    pid: int
    socket: socket.socket


class Workers:
    """Killable workers for one function, given as `module:function`; it takes and returns JSON values.

    Args:
        target: the function.
        memory_mib: most memory a worker may take beyond its start; 0 where the function sets its own limits.
    """

    def __init__(self, target: str, *, memory_mib: int = 1024) -> None:
        self.target, self.memory_mib = target, memory_mib
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._helper: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = os.getpid()
        atexit.register(self.close)

    def call(self, items: Sequence[Sequence[Any]], seconds: float) -> list[CallOutcome]:
        """Call the function on each item (its positional arguments), each within `seconds` of wall clock.

        Raises:
            MissingDependencyError: the function's module cannot be imported.
            MaeError: the helper process cannot be started.
        """
        outcomes: list[CallOutcome] = []
        worker: _Worker | None = None
        try:
            while len(outcomes) < len(items):
                worker = worker or self._checkout()
                batch = items[len(outcomes) : len(outcomes) + _BATCH]
                found, alive = self._ask(worker, batch, seconds)
                outcomes += found
                if not alive:
                    self._kill(worker)
                    worker = None
        except BaseException:
            if worker is not None:
                self._kill(worker)
            raise
        if worker is not None:
            self._give_back(worker)
        return outcomes

    def _ask(self, worker: _Worker, items: Sequence[Sequence[Any]], seconds: float) -> tuple[list[CallOutcome], bool]:
        """Outcomes of as many items as the worker lived for, and whether it lives on."""
        data = json.dumps(list(items)).encode()
        outcomes: list[CallOutcome] = []
        try:
            worker.socket.settimeout(seconds + 10.0)
            worker.socket.sendall(_LENGTH.pack(len(data)) + data)
            for _ in items:
                answer = _receive(worker.socket, time.monotonic() + seconds)
                outcomes.append(CallOutcome(answer["status"], answer.get("value"), answer.get("message", "")))
                if answer.get("last"):
                    return outcomes, False
        except TimeoutError:
            return [*outcomes, CallOutcome("timeout", message=f"more than {seconds:g} s")], False
        except (OSError, EOFError, ValueError):
            return [*outcomes, CallOutcome("crashed", message="the worker process died")], False
        return outcomes, True

    def _checkout(self) -> _Worker:
        with self._lock:
            if self._owner != os.getpid():  # a fork of ours: its workers are not ours
                self._idle, self._helper, self._control, self._owner = [], None, None, os.getpid()
            if self._helper is not None and self._helper.poll() is not None:
                self._stop()  # it was killed, and its workers with it
            if self._idle:
                return self._idle.pop()
            control = self._start()
            ours, theirs = socket.socketpair()
            try:
                socket.send_fds(control, [_ORDER.pack(b"w", self.memory_mib)], [theirs.fileno()])
                answer = _receive(control, time.monotonic() + START_SECONDS)
            except (OSError, EOFError, TimeoutError) as error:
                ours.close()
                self._stop()
                raise MaeError(f"the helper process for {self.target} died: {error}; run the command again") from error
            finally:
                theirs.close()
            return _Worker(int(answer["pid"]), ours)

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            if len(self._idle) < IDLE_WORKERS and self._helper is not None:
                self._idle.append(worker)
                return
        self._kill(worker)

    def _kill(self, worker: _Worker) -> None:
        worker.socket.close()
        with self._lock:
            if self._control is None:
                return
            # The helper kills its own child and waits for it, so no other process can have taken over the number.
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                self._control.sendall(_ORDER.pack(b"k", worker.pid))
                _receive(self._control, time.monotonic() + 10.0)

    def _start(self) -> socket.socket:
        if self._control is not None:
            return self._control
        ours, theirs = socket.socketpair()
        arguments = module_command("mae_cli.checking.killable_main", str(theirs.fileno()), self.target)
        try:
            # A session of its own: Ctrl-C is for us, and we take the helper along.
            self._helper = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            theirs.close()
            answer = _receive(ours, time.monotonic() + START_SECONDS)
        except (OSError, EOFError, TimeoutError) as error:
            ours.close()
            raise MaeError(f"the helper process for {self.target} did not start: {error}") from error
        if "missing" in answer:
            ours.close()
            raise MissingDependencyError(f"needs the package {answer['missing']}: pip install 'mae-cli[verify]'")
        self._control = ours
        return ours

    def pids(self) -> list[int]:
        """The helper and its idle workers, for tests and `ps`."""
        with self._lock:
            helper = [self._helper.pid] if self._helper is not None else []
            return helper + [worker.pid for worker in self._idle]

    def close(self) -> None:
        """End the helper and every worker; the next call starts new ones."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        for worker in self._idle:
            worker.socket.close()
        self._idle = []
        if self._control is not None:
            self._control.close()
            self._control = None
        helper, self._helper = self._helper, None
        if helper is not None and self._owner == os.getpid():
            try:
                helper.wait(5.0)
            except subprocess.TimeoutExpired:
                helper.kill()
                helper.wait()


def _receive(connection: socket.socket, deadline: float) -> dict[str, Any]:
    """One message: its length, then JSON.

    Raises:
        TimeoutError: not whole by the deadline.
        EOFError: the other side is gone.
    """
    (length,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size, deadline))
    answer: dict[str, Any] = json.loads(_receive_exactly(connection, length, deadline))
    return answer


def _receive_exactly(connection: socket.socket, length: int, deadline: float) -> bytes:
    data = b""
    while len(data) < length:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = connection.recv(length - len(data))
        if not chunk:
            raise EOFError("closed")
        data += chunk
    return data


_SHARED: dict[tuple[str, int], Workers] = {}
_SHARED_LOCK = threading.Lock()


def shared(target: str, *, memory_mib: int = 1024) -> Workers:
    """The workers of this process for a function, started at the first call."""
    with _SHARED_LOCK:
        if (target, memory_mib) not in _SHARED:
            _SHARED[target, memory_mib] = Workers(target, memory_mib=memory_mib)
        return _SHARED[target, memory_mib]
