"""Reading JSONL: records of earlier stages, or problems of a user's own file.

Every error names file:line and field, and says what was expected; an input is never repaired or written.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import DataError
from mae_cli.records.file_names import STDIO, beside
from mae_cli.records.problems import problem_from
from mae_cli.records.row import SCHEMA_VERSION, Problem, Row

_ROW_DECODER = msgspec.json.Decoder(Row)
_ANY_DECODER = msgspec.json.Decoder()
_ROW_KEYS = {field.name for field in msgspec.structs.fields(Row)}
_PROBLEM_KEYS = {field.name for field in msgspec.structs.fields(Problem)}


class Input(msgspec.Struct):
    """Input of a stage: records of earlier stages, or plain problems of a user's file; never both."""

    rows: list[Row] = []
    problems: list[Problem] = []
    notices: list[str] = []


def read_json(path: Path) -> Any:
    """A small JSON file.

    Raises:
        DataError: unreadable or not JSON.
    """
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: {error}") from error


def refuse_incomplete(path: Path, allow_incomplete: bool = False) -> None:
    """Refuse a file whose meta says that its command has not finished."""
    meta_path = beside(path, ".meta.json")
    if path == STDIO or allow_incomplete or not meta_path.exists():
        return
    if not read_json(meta_path).get("complete", True):
        raise DataError(
            f"{path}: incomplete: its command was interrupted; run that again, or read it with --allow-incomplete"
        )


def _open_lines(path: Path) -> contextlib.AbstractContextManager[Iterable[bytes]]:
    if path == STDIO:
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rb")
        return path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of every line that is not blank; a byte order mark is passed over.

    Raises:
        DataError: the file cannot be read, or its last line is torn off inside a UTF-8 character or gzip member.
    """
    with _open_lines(path) as lines:
        number = 0
        try:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.isspace():
                    yield number, line
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(f"{path}:{number + 1}: cannot be read further: {error}") from error


def _name(path: Path) -> str:
    return "stdin" if path == STDIO else str(path)


def _at(path: Path, number: int) -> str:
    return f"{_name(path)}:{number}"


def _bad_line(path: Path, number: int, line: bytes, error: Exception) -> DataError:
    torn = not line.endswith(b"\n")
    what = "torn line (no line end and no complete JSON object)" if torn else f"not JSON: {error}"
    return DataError(f"{_at(path, number)}: {what}; mend or remove the line")


def _bad_field(path: Path, number: int, error: msgspec.ValidationError) -> DataError:
    message, _, place = str(error).partition(" - at ")
    missing = re.search(r"missing required field `(\w+)`", message)
    field = missing[1] if missing else place.strip("`$.") or "row"
    found = "is missing" if missing else message[:1].lower() + message[1:].replace("`", "")
    return DataError(f'{_at(path, number)}: field "{field}": {found}; expected a record of schema {SCHEMA_VERSION}')


def decode_row(path: Path, number: int, line: bytes) -> Row:
    """One record; unknown keys survive in `extra` and `problem.meta`."""
    try:
        return _ROW_DECODER.decode(line)
    except msgspec.ValidationError as error:
        if "unknown field" not in str(error):
            raise _bad_field(path, number, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad_line(path, number, line, error) from error
    # Foreign fields survive: they move to `extra` (of a record) and `problem.meta` (of its problem).
    tree = _ANY_DECODER.decode(line)
    foreign = {key: tree.pop(key) for key in list(tree) if key not in _ROW_KEYS}
    if foreign:
        tree["extra"] = {**(tree.get("extra") or {}), **foreign}
    problem = tree.get("problem")
    if isinstance(problem, dict):
        inner = {key: problem.pop(key) for key in list(problem) if key not in _PROBLEM_KEYS}
        if inner:
            problem["meta"] = {**(problem.get("meta") or {}), **inner}
    try:
        return msgspec.convert(tree, Row)
    except msgspec.ValidationError as error:
        raise _bad_field(path, number, error) from error


def iterate_rows(path: Path) -> Iterator[Row]:
    """The records of a file, one at a time.

    Raises:
        DataError: a line is torn, is not a record, or was written by a newer schema.
    """
    for number, line in read_lines(path):
        row = decode_row(path, number, line)
        if row.schema > SCHEMA_VERSION:
            raise DataError(f'{_at(path, number)}: field "schema": {row.schema} is newer than {SCHEMA_VERSION}')
        yield row


def read_rows(path: Path) -> list[Row]:
    """All records of a file; see `iterate_rows`."""
    return list(iterate_rows(path))


def read_input(path: Path, *, allow_incomplete: bool = False) -> Input:
    """A stage's input, records or plain problems, told apart by the first line.

    Duplicate problems are merged with a notice. An empty file is an error: a stage has nothing to do with it.

    Raises:
        DataError: missing, torn, mixed, empty or incomplete file; each names where.
    """
    refuse_incomplete(path, allow_incomplete)
    found = Input()
    seen: dict[str, int] = {}
    merged = 0
    first_kind: tuple[bool, int] | None = None
    for number, line in read_lines(path):
        # Decoding twice is spared only where a record is expected and the line looks like one.
        is_record = first_kind is not None and first_kind[0] and b'"schema":' in line
        tree: dict[str, Any] = {}
        if not is_record:
            tree = decode_object(path, number, line)
            is_record = "schema" in tree and "role" in tree
        if first_kind is None:
            first_kind = (is_record, number)
        elif first_kind[0] != is_record:
            kinds = ("a record" if first_kind[0] else "a problem", "a record" if is_record else "a problem")
            raise DataError(
                f"{_at(path, number)}: {kinds[1]}, but line {first_kind[1]} is {kinds[0]}; one kind per file"
            )
        if is_record:
            row = decode_row(path, number, line)
            if row.schema > SCHEMA_VERSION:
                raise DataError(f'{_at(path, number)}: field "schema": {row.schema} is newer than {SCHEMA_VERSION}')
            if row.id in seen:
                raise DataError(f'{_at(path, number)}: field "id": {row.id} stands on line {seen[row.id]} too')
            seen[row.id] = number
            found.rows.append(row)
        else:
            problem = problem_from(tree, _at(path, number))
            if problem.id in seen:
                merged += 1
                continue
            seen[problem.id] = number
            found.problems.append(problem)
    if not seen:
        raise DataError(f"{_name(path)}: empty, expected at least one row")
    if merged:
        found.notices.append(f"{_name(path)}: {merged} duplicate problems merged")
    return found


def read_problems(path: Path) -> list[Problem]:
    """The problems of a problem file, or those inside a record file, each once."""
    data = read_input(path)
    return data.problems or list({row.problem.id: row.problem for row in data.rows if row.problem}.values())


def decode_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """One line as a JSON object of any kind.

    Raises:
        DataError: torn, not JSON, or another JSON value; the message names file and line.
    """
    try:
        tree = _ANY_DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad_line(path, number, line, error) from error
    if not isinstance(tree, dict):
        raise DataError(f"{_at(path, number)}: expected an object, found {type(tree).__name__}")
    return tree
