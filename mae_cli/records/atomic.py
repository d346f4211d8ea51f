"""Files written as a whole: a reader sees the old content or the new one, never a part.

Place in the flow: everything that replaces a file goes through here. Contract: the bytes are written to a temporary
file in the same folder, fsynced and renamed. A link stays one: the file it leads to is replaced. Row files that grow
are written by `resumable_file`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from mae_cli.records.file_names import followed


def sync(descriptor: int) -> None:
    """Have a file's bytes on the disk; a disk that cannot say so (FUSE, network) is taken at its word."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the path's place, fsynced, when the block ends well: never a part of it."""
    path = followed(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            sync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        # On a full disk the half-written file would take the room that the next try needs.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a whole file through a temporary one, fsynced, so that readers see the old or the new, never a part."""
    with replacing(path) as file:
        file.writelines([data] if isinstance(data, bytes) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a small JSON file, readable by people, atomically."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
