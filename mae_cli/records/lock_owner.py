"""Owner of a lock: which process of which machine holds it, since when, and whether it can still be running.

Place in the flow: the lock itself belongs to the system, which frees it when a process dies. The owner is written
beside it, so that whoever is refused can name it, and whoever finds one left over knows whose it was. Contract: a
process is called dead only on proof: its number is free, or belongs to a process that began at another moment, or the
machine was started anew since. What cannot be known is never called dead.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec

from mae_cli.records.atomic import write_json

Whereabouts = Literal["this process", "running", "dead", "elsewhere"]
SHOWN_COMMAND = 160
"""Characters of a command that are shown."""


class Owner(msgspec.Struct, kw_only=True):
    """The process that holds a lock."""

    pid: int
    host: str
    since: float
    """Unix seconds by its own clock."""
    command: str = ""
    started: int | None = None
    """When the process began, in clock ticks since the start of its machine; null where the system does not say."""
    boot: str | None = None
    """Name of this start of its machine: equal for two processes under one kernel, containers included."""
    machine: str | None = None
    """Name of the installed system, kept over starts."""
    namespace: str | None = None
    """Where its number counts: containers count on their own."""

    def age(self) -> float | None:
        """Seconds since it took the lock; null where its clock is ahead of ours."""
        seconds = time.time() - self.since
        return seconds if seconds >= 0 else None

    def told(self) -> str:
        """The owner in words: process, machine, how long ago, command."""
        age = self.age()
        ago = f"{duration(age)} ago" if age is not None else "at a time that is still to come by this clock"
        command = self.command if len(self.command) <= SHOWN_COMMAND else self.command[: SHOWN_COMMAND - 3] + "..."
        return f"process {self.pid} on {self.host}, begun {ago}{f': {command}' if command else ''}"


def this_owner() -> Owner:
    """Return what is to be written about this process."""
    return Owner(
        pid=os.getpid(),
        host=socket.gethostname(),
        since=time.time(),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else "",
        started=start_of(os.getpid()),
        boot=_text_of("/proc/sys/kernel/random/boot_id"),
        machine=_text_of("/etc/machine-id"),
        namespace=_link_of("/proc/self/ns/pid"),
    )


def read_owner(path: Path) -> Owner | None:
    """Return the owner a file names; null where there is none or the file cannot be read as one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (OSError, msgspec.DecodeError):
        return None


def write_owner(path: Path) -> Owner:
    """Write this process down as the owner."""
    owner = this_owner()
    write_json(path, owner)
    return owner


def whereabouts(owner: Owner, here: Owner | None = None) -> Whereabouts:
    """Whether an owner is this process, runs on this machine, is dead, or lives where nothing is known about it.

    Args:
        owner: read from a file.
        here: this process; for tests.
    """
    here = here or this_owner()
    if not _is_same_machine(owner, here):
        return "elsewhere"
    if owner.boot and here.boot and owner.boot != here.boot:
        return "dead"  # the machine was started anew
    if owner.namespace != here.namespace:
        return "elsewhere"
    began = start_of(owner.pid)
    is_same = owner.started is None or began is None or owner.started == began
    if owner.pid == here.pid and is_same:
        return "this process"
    return "running" if is_same and _exists(owner.pid) else "dead"


def shares_kernel(owner: Owner, here: Owner | None = None) -> bool:
    """Whether the owner ran under this very kernel, whose locks hold for all its processes and containers."""
    here = here or this_owner()
    return bool(owner.boot) and owner.boot == here.boot


def _is_same_machine(owner: Owner, here: Owner) -> bool:
    if shares_kernel(owner, here):
        return True
    # Two machines may have one name, "localhost" for one; and copies of one image have one machine id.
    return owner.host == here.host and owner.machine == here.machine


def start_of(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine's start; null where that is unknown."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The name, in brackets, may hold blanks and brackets itself; field 22 of proc(5) is the 20th behind it.
    fields = line.rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[19].isdigit() else None


def age_of_this_process() -> float:
    """Return the seconds since this process began, its imports included; 0 where the system does not say."""
    began = start_of(os.getpid())
    up = _text_of("/proc/uptime")
    if began is None or up is None:
        return 0.0
    return max(0.0, float(up.split()[0]) - began / os.sysconf("SC_CLK_TCK"))


def holder_of(lock_path: Path) -> Owner | None:
    """Return the process of this machine that holds a lock file, as the system lists it; null where it does not."""
    try:
        stat = lock_path.stat()
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    wanted = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[1] != "->" and fields[5] == wanted and int(fields[4]) > 0:
            return _owner_of(int(fields[4]))
    return None


def _owner_of(pid: int) -> Owner:
    began = start_of(pid)
    up = _text_of("/proc/uptime")
    age = float(up.split()[0]) - began / os.sysconf("SC_CLK_TCK") if up and began is not None else 0.0
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        words = []
    return Owner(
        pid=pid,
        host=socket.gethostname(),
        since=time.time() - max(0.0, age),
        command=shlex.join(word for word in words if word),
        started=began,
    )


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process is over and only waits to be counted by its parent."""
    line = _text_of(f"/proc/{pid}/stat")
    return line is not None and line.rpartition(")")[2].split()[:1] == ["Z"]


def _text_of(path: str) -> str | None:
    try:
        return Path(path).read_text("utf-8", "replace").strip() or None
    except OSError:
        return None


def _link_of(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def duration(seconds: float) -> str:
    """Return a duration in words of two units at most: `42 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
