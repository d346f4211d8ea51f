"""One writer per output: a lock of the system, or a lock file where the disk has no locks.

Place in the flow: whoever writes an output or makes something shared (a model, the sandbox) holds one. Contract: a
lock of the system is free when its process dies; a lock file names its process, and one of a dead process of this
machine locks nobody out.
"""

from __future__ import annotations

import contextlib
import errno
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mae_cli.errors import LockedError
from mae_cli.records.file_names import beside

if TYPE_CHECKING:
    from filelock import BaseFileLock

# What flock answers on network and FUSE disks that have no locks; EBADF is NFS version 4.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF}
SOFT = "-file"
"""Behind the name of a lock, where it is a file that stands while its process lives."""


class Lock:
    """One writer per output; freed by the system when the process dies."""

    def __init__(self, path: Path) -> None:
        self.path = beside(path, ".lock")
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> Self:
        from filelock import Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = _acquired(self.path, 0)
        except Timeout as error:
            from mae_cli.records.lock_owner import holder_of

            held = Path(error.lock_file)
            owner = holder_of(self.path)
            who = owner.told() if owner is not None else f"lock {held}"
            advice = "" if held == self.path else "; where none is, delete that file"
            raise LockedError(
                f"{self.path.name.removesuffix('.lock')}: another process is writing it ({who}){advice}"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold a lock file of this name, after waiting for whoever has it."""
    lock = _acquired(path, -1)
    try:
        yield
    finally:
        lock.release()


def _acquired(path: Path, timeout: float) -> BaseFileLock:
    from filelock import FileLock, SoftFileLock, Timeout

    lock: BaseFileLock = FileLock(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library tells by a warning that it takes a lock file itself
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            lock = SoftFileLock(f"{path}{SOFT}")
            lock.acquire(timeout=timeout)
    return lock
