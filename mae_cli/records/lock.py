"""One writer per output."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from mae_cli.errors import LockedError
from mae_cli.records.file_names import beside


class Lock:
    """One writer per output; freed by the system when the process dies."""

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self.path = beside(path, ".lock")
        self._lock = FileLock(str(self.path))

    def __enter__(self) -> Self:
        from filelock import Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            from mae_cli.records.lock_owner import holder_of

            owner = holder_of(self.path)
            who = owner.told() if owner is not None else f"lock {self.path}"
            raise LockedError(
                f"{self.path.name.removesuffix('.lock')}: another process is writing it ({who})"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
