"""The encoding of a text file: known by its mark, told by the user, or named in the error.

Place in the flow: `records.lines` asks here before it reads a line. Contract: UTF-8 unless a mark at the start of the
file or the user says otherwise; nothing is guessed in silence.
"""

from __future__ import annotations

import codecs

from mae_cli.errors import ConfigError, DataError

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
LONGEST_MARK = 3


def marked_encoding(start: bytes) -> str | None:
    """The encoding that the first bytes of a file say it has; null where they say nothing."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), None)


def checked_encoding(name: str) -> str:
    """The name of an encoding as Python has it.

    Raises:
        ConfigError: there is no such encoding of text.
    """
    try:
        if "".encode(name) is not None:
            return codecs.lookup(name).name
    except (LookupError, UnicodeError) as error:
        raise ConfigError(f"--encoding {name}: no such encoding; e.g. cp1252, latin-1, utf-16, shift_jis") from error
    raise ConfigError(f"--encoding {name}: no such encoding")


def bad_encoding(place: str, line: bytes, error: UnicodeDecodeError) -> DataError:
    """The error about a byte that is no UTF-8, with what the file may be instead."""
    start = _first_bad(line)
    byte = f"byte 0x{line[start]:02x} at position {start + 1}" if start is not None else str(error)
    return DataError(
        f"{place}: not UTF-8: {byte}; the file seems to be in another encoding (cp1252 and latin-1 are the usual "
        f"ones): mae data import FILE -o OUTPUT --encoding cp1252 writes it anew in UTF-8"
    )


def has_zero_bytes(line: bytes) -> bool:
    """Whether a line looks like UTF-16 without its mark: JSON has no zero bytes."""
    return b"\x00" in line[:64]


def _first_bad(line: bytes) -> int | None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None
