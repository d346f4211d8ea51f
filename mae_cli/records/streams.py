"""Standard input and output as bytes, also where a shell or a job manager has closed them.

Place in the flow: the entry point calls `prepare_streams` before anything is opened; readers and writers of `-` ask
here. Contract: a closed stream that a command needs is one error, one that it does not need is none; messages for
people never stop work. Python sets a closed stream to None, and its number goes to the next file that is opened: both
would send messages into a row file.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import BinaryIO, cast

from mae_cli.errors import ConfigError, DataError

_CLOSED: set[str] = set()
STANDARD_OUTPUT = "standard output"
"""The file name in its errors."""
_NAMES = ("stdin", "stdout", "stderr")


class _Messages(io.FileIO):
    """Standard error that loses what cannot be written (a reader that left, a full disk), as no work rests on it."""

    def write(self, data: object, /) -> int:
        """Write all of it or none; its length in any case."""
        rest = memoryview(cast(bytes, data))
        size = len(rest)
        try:
            while rest:
                rest = rest[super().write(rest) or 0 :]
        except OSError:
            pass
        return size


class _Results(io.FileIO):
    """Standard output whose errors say that they are its own."""

    def write(self, data: object, /) -> int:
        """Write some of it.

        Raises:
            OSError: with the stream's name where a file's would stand.
        """
        try:
            return super().write(cast(bytes, data)) or 0
        except OSError as error:
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error


def prepare_streams() -> None:
    """Open closed streams on the null device, and let neither messages nor an encoding stop a command."""
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # The lowest free number is the one just found closed.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            _CLOSED.add(name)
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    if "stderr" not in _CLOSED:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        sys.stderr = io.TextIOWrapper(
            cast(BinaryIO, _Messages(2, "w", closefd=False)), encoding, "backslashreplace", write_through=True
        )
    if isinstance(sys.stdout, io.TextIOWrapper) and "stdout" not in _CLOSED:
        bare = _Results(1, "w", closefd=False)
        is_unbuffered = isinstance(sys.stdout.buffer, io.RawIOBase)
        sys.stdout = io.TextIOWrapper(
            cast(BinaryIO, bare) if is_unbuffered else io.BufferedWriter(bare),
            sys.stdout.encoding,
            # A character that a terminal cannot show is no reason to fail; rows do not come this way.
            "backslashreplace",
            line_buffering=sys.stdout.line_buffering,
            write_through=is_unbuffered,
        )


def standard_input() -> BinaryIO:
    """Standard input as bytes.

    Raises:
        DataError: it is closed, or a folder.
    """
    if sys.stdin is None or "stdin" in _CLOSED:
        raise DataError("stdin: standard input is closed; give a file, or pipe the rows in")
    source = cast(BinaryIO, sys.stdin.buffer)
    try:
        is_folder = stat.S_ISDIR(os.fstat(source.fileno()).st_mode)
    except OSError:
        is_folder = False  # a test's stand-in
    if is_folder:
        raise DataError("stdin: standard input is a folder; give a file, or pipe the rows in")
    return source


def require_output() -> None:
    """Refuse to write rows to a standard output that is closed.

    Raises:
        ConfigError: it is closed.
    """
    if sys.stdout is None or "stdout" in _CLOSED:
        raise ConfigError("-o -: standard output is closed; give a file, or open it")


def write_output(data: bytes) -> None:
    """Write bytes to standard output, all of them.

    Raises:
        OSError: it cannot take them; the error names it.
    """
    # Unbuffered (PYTHONUNBUFFERED, python -u) this is the bare file, and one write to a pipe may be short.
    rest = memoryview(data)
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) or 0 :]
    sys.stdout.buffer.flush()
