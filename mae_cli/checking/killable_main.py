"""The helper process behind `checking.killable`: it imports one function and forks its workers.

Contract: the helper has one thread and does nothing but fork, kill and wait; when its control socket closes it kills
what it forked and ends. A worker answers items one by one and dies with the helper; it ends itself after an item that
ran out of memory, and when it has grown too large.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

_LENGTH = struct.Struct("!I")
_ORDER = struct.Struct("!cQ")
GROWTH_MIB = 200
"""A worker that holds this much more than at its start is replaced: memory goes back to the system."""


def main() -> None:
    """Serve one control socket: argv[1] is its number, argv[2] the function as `module:function`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    module, _, name = sys.argv[2].partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        _send(control, {"missing": error.name})
        return
    gc.freeze()  # what is imported stays shared between the workers
    _send(control, {"ready": True})
    children: set[int] = set()
    while True:
        order, handles, _, _ = socket.recv_fds(control, _ORDER.size, 1)
        if len(order) < _ORDER.size:
            break
        _reap(children)
        kind, number = _ORDER.unpack(order)
        if kind == b"w":
            child = os.fork()
            if child == 0:
                control.close()
                _work(socket.socket(fileno=handles[0]), function, number)
                os._exit(0)
            os.close(handles[0])
            children.add(child)
            _send(control, {"pid": child})
        else:
            _end(number, children)
            _send(control, {"killed": number})
    for child in list(children):
        _end(child, children)


def _reap(children: set[int]) -> None:
    for child in list(children):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG)[0]:
                children.discard(child)


def _end(child: int, children: set[int]) -> None:
    if child in children:
        children.discard(child)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            os._exit(0)


def _resident_mib() -> float:
    """Memory held now, in MiB; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return 0.0


def _limit_memory(memory_mib: int) -> None:
    """Let the address space grow by so much and no more; 0 sets no limit."""
    if not memory_mib:
        return
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + memory_mib * 2**20,) * 2)
    except (OSError, ValueError):
        return


def _work(connection: socket.socket, function: Callable[..., Any], memory_mib: int) -> None:
    _die_with_parent()
    _limit_memory(memory_mib)
    at_start = _resident_mib()
    while True:
        head = _read(connection, _LENGTH.size)
        if head is None:
            return
        body = _read(connection, _LENGTH.unpack(head)[0])
        if body is None:
            return
        for item in json.loads(body):
            answer = _answer(function, item)
            answer["last"] = answer["status"] == "memory" or (
                memory_mib > 0 and _resident_mib() - at_start > GROWTH_MIB
            )
            _send(connection, answer)
            if answer["last"]:
                return


def _answer(function: Callable[..., Any], item: list[Any]) -> dict[str, Any]:
    try:
        return {"status": "ok", "value": function(*item)}
    except MemoryError:
        return {"status": "memory"}
    except RecursionError:
        return {"status": "error", "message": "nested too deeply"}
    except Exception as error:  # noqa: BLE001 - whatever a library does to a model's text is an unknown verdict
        return {"status": "error", "message": f"{type(error).__name__}: {error}"[:300]}


def _read(connection: socket.socket, length: int) -> bytes | None:
    data = b""
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            return None
        data += chunk
    return data


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    connection.sendall(_LENGTH.pack(len(data)) + data)
