"""Lock of a run folder: one `mae run` at a time, and who it is.

Place in the flow: `Run.go` holds it from its first write to its last. Contract: a second one is refused with the
owner's name and age (exit 5). What a dead process left is taken over with one notice; an owner on another machine, of
which nothing can be known here, never is, unless the user says so (`--take-over`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from mae_cli.errors import LockedError
from mae_cli.records.lock import Lock
from mae_cli.records.lock_owner import (
    Owner,
    duration,
    holder_of,
    read_owner,
    shares_kernel,
    whereabouts,
    write_owner,
)
from mae_cli.runs.layout import OWNER, STATE


class RunLock:
    """The lock of a run folder, with its owner in a file beside it."""

    def __init__(self, run_dir: Path, *, take_over: bool, say: Callable[[str], None]) -> None:
        self._run_dir, self._take_over, self._say = run_dir, take_over, say
        self._lock = Lock(run_dir / "run")

    def __enter__(self) -> Self:
        try:
            self._lock.__enter__()
        except LockedError as error:
            owner = owner_of(self._run_dir) or holder_of(self._lock.path)
            raise LockedError(f"{self._run_dir}: {_held(owner)}; this command changed nothing") from error
        try:
            self._look_at(read_owner(self._run_dir / OWNER))
            write_owner(self._run_dir / OWNER)
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        (self._run_dir / OWNER).unlink(missing_ok=True)
        self._lock.__exit__()

    def _look_at(self, left: Owner | None) -> None:
        """Judge an owner whose lock is free, as the file of one that was killed still names it."""
        if left is None:
            return
        place = whereabouts(left)
        if place == "this process":
            return
        # A lock that is free under the same kernel has no owner any more, whatever container it was in.
        if place == "dead" or (place == "elsewhere" and shares_kernel(left)):
            self._say(f"{self._run_dir}: taken over from {left.told()}; it ended without giving up its lock")
            return
        if place == "running":
            raise LockedError(f"{self._run_dir}: {_held(left)}; this command changed nothing")
        if not self._take_over:
            raise LockedError(
                f"{self._run_dir}: {_held(left)}{_last_sign(self._run_dir)}; whether it still runs cannot be seen from "
                f"this machine: where it is over, give --take-over"
            )
        self._say(f"{self._run_dir}: taken over from {left.told()} (--take-over)")


def owner_of(run_dir: Path) -> Owner | None:
    """Return the owner a run's file names, unless it is known to be dead."""
    owner = read_owner(run_dir / OWNER)
    return None if owner is not None and whereabouts(owner) == "dead" else owner


def _held(owner: Owner | None) -> str:
    return f"another mae run is working on it ({owner.told() if owner else 'its owner is not known'})"


def _last_sign(run_dir: Path) -> str:
    try:
        seconds = time.time() - (run_dir / STATE).stat().st_mtime
    except OSError:
        return ""
    return f", last sign of life {duration(seconds)} ago" if seconds >= 0 else ""
