"""Lines of a text file, and one line as a JSON object.

Place in the flow: everything that reads JSONL, CSV or JSON begins here. Contract: gzip by the file's ending; UTF-8
unless a mark or the caller says otherwise, and then handed on as UTF-8; errors name file and line. Left out: records
and problems (`records.read`), other forms of files (`records.tables`).
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import DataError
from mae_cli.records.encodings import LONGEST_MARK, bad_encoding, has_zero_bytes, marked_encoding
from mae_cli.records.file_names import STDIO
from mae_cli.records.streams import standard_input

_ANY_DECODER = msgspec.json.Decoder()


def _open_lines(path: Path) -> contextlib.AbstractContextManager[Iterable[bytes]]:
    if path == STDIO:
        return contextlib.nullcontext(standard_input())
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rb")
        return path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def read_lines(path: Path, encoding: str | None = None, *, with_blank: bool = False) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of every line, in UTF-8; a byte order mark is passed over.

    Args:
        path: the file, or standard input.
        encoding: of its text; null: UTF-8, or what its mark says.
        with_blank: also lines of white space only.

    Raises:
        DataError: the file cannot be read, its last line is torn off inside a gzip member, or a byte is none of the
            encoding.
    """
    with _open_lines(path) as opened:
        number = 0
        try:
            for number, line in enumerate(_as_utf8(path, opened, encoding), 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if with_blank or not line.isspace():
                    yield number, line
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(f"{path}:{number + 1}: cannot be read further: {error}") from error


def _as_utf8(path: Path, lines: Iterable[bytes], encoding: str | None) -> Iterable[bytes]:
    """The lines of a file in UTF-8, whatever its encoding is."""
    if encoding is None and path != STDIO and isinstance(lines, io.BufferedReader | gzip.GzipFile):
        encoding = marked_encoding(lines.peek(LONGEST_MARK)[:LONGEST_MARK])
    if encoding in (None, "utf-8"):
        return lines
    return _decoded_lines(path, lines, encoding)


def _decoded_lines(path: Path, lines: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    try:
        text = b"".join(lines).decode(encoding)
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise DataError(f"{path}:{number}: not {encoding}: {byte} ({error.reason})") from error
    # Not splitlines: a JSON text may hold other line separators than these.
    for line in io.StringIO(text.removeprefix("\ufeff"), newline=None):
        yield line.encode()


def name_of_input(path: Path) -> str:
    """What errors call an input."""
    return "stdin" if path == STDIO else str(path)


def place_of(path: Path, number: int) -> str:
    """Return file and line as errors say them."""
    return f"{name_of_input(path)}:{number}"


def bad_line(path: Path, number: int, line: bytes, error: Exception) -> DataError:
    """The error about a line that is not JSON."""
    place = place_of(path, number)
    known = other_file(line)
    if known:
        return DataError(f"{place}: not JSON: {known}")
    torn = not line.endswith(b"\n")
    if isinstance(error, UnicodeDecodeError) and not (torn and _is_cut(line)):
        return bad_encoding(place, line, error)
    if has_zero_bytes(line):
        return DataError(
            f"{place}: not JSON: zero bytes, as UTF-16 without a byte order mark has them; "
            f"mae data import FILE -o OUTPUT --encoding utf-16-le (or utf-16-be) writes it anew in UTF-8"
        )
    if b"NaN" in line or b"Infinity" in line:
        return DataError(f"{place}: not JSON: NaN and Infinity are not JSON; write null, or the value as a text")
    what = "torn line (no line end and no complete JSON object)" if torn else f"not JSON: {error}"
    return DataError(f"{place}: {what}; mend or remove the line")


_OTHER_FILES = (
    (b"\x1f\x8b", "compressed with gzip; give it a name that ends in .gz"),
    (b"PK\x03\x04", "an archive or a spreadsheet; unpack it, or save it as JSONL, CSV or parquet"),
    (b"PAR1", "a parquet file; give it a name that ends in .parquet"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself; fetch it with git lfs pull"),
    (b"<!doctype html", "a web page and not the file itself; download the raw file"),
    (b"<html", "a web page and not the file itself; download the raw file"),
)


def other_file(start: bytes) -> str | None:
    """What a file is by its first bytes that was taken for text of rows, and what to do; null where they do not say."""
    return next((what for mark, what in _OTHER_FILES if start[:32].lower().startswith(mark.lower())), None)


def _is_cut(line: bytes) -> bool:
    """Whether all that is wrong with a text is that its last character is not whole."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def decode_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """One line as a JSON object of any kind.

    Raises:
        DataError: torn, not JSON, or another JSON value; the message names file and line.
    """
    try:
        tree = _ANY_DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_line(path, number, line, error) from error
    except RecursionError as error:
        raise DataError(f"{place_of(path, number)}: lists or objects are nested too deeply to be read") from error
    if not isinstance(tree, dict):
        raise DataError(f"{place_of(path, number)}: expected an object, found {type(tree).__name__}")
    return tree
