"""Reading JSONL: records of earlier stages, or problems of a user's own file.

Every error names file:line and field, and says what was expected; an input is never repaired or written.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import DataError
from mae_cli.records.file_names import STDIO, beside
from mae_cli.records.lines import bad_line, decode_object, name_of_input, place_of, read_lines
from mae_cli.records.problems import ProblemReader
from mae_cli.records.row import SCHEMA_VERSION, Problem, Row
from mae_cli.records.tables import is_table, read_trees, trees_of_lines

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


def _bad_field(path: Path, number: int, error: msgspec.ValidationError) -> DataError:
    message, _, place = str(error).partition(" - at ")
    missing = re.search(r"missing required field `(\w+)`", message)
    field = missing[1] if missing else place.strip("`$.") or "row"
    found = "is missing" if missing else message[:1].lower() + message[1:].replace("`", "")
    return DataError(
        f'{place_of(path, number)}: field "{field}": {found}; expected a record of schema {SCHEMA_VERSION}'
    )


def decode_row(path: Path, number: int, line: bytes) -> Row:
    """One record; unknown keys survive in `extra` and `problem.meta`."""
    try:
        return _ROW_DECODER.decode(line)
    except msgspec.ValidationError as error:
        if "unknown field" not in str(error):
            raise _bad_field(path, number, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_line(path, number, line, error) from error
    except RecursionError as error:
        raise DataError(f"{place_of(path, number)}: lists or objects are nested too deeply to be read") from error
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
            raise DataError(f'{place_of(path, number)}: field "schema": {row.schema} is newer than {SCHEMA_VERSION}')
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
    lines = iter(read_lines(path)) if not is_table(path) else iter(())
    first = next(lines, None)
    whole = itertools.chain([first] if first else [], lines)
    if first is not None and _is_record(path, *first):
        return _records(path, whole)
    found = problems_of_rows(name_of_input(path), read_trees(path) if is_table(path) else trees_of_lines(path, whole))
    if not found.problems:
        raise DataError(f"{name_of_input(path)}: empty, expected at least one row")
    return found


def _is_record(path: Path, number: int, line: bytes) -> bool:
    if not line.lstrip().startswith(b"{") or b'"schema"' not in line:
        return False
    return is_record(decode_object(path, number, line))


def is_record(tree: dict[str, Any]) -> bool:
    """Whether an object is a record of ours, and no problem or sample."""
    return "schema" in tree and "role" in tree


def _records(path: Path, lines: Iterator[tuple[int, bytes]]) -> Input:
    found = Input()
    seen: dict[str, int] = {}
    first = 0
    for number, line in lines:
        first = first or number
        # Decoding twice is spared where the line looks like a record.
        if b'"schema":' not in line and not is_record(decode_object(path, number, line)):
            raise DataError(f"{place_of(path, number)}: a problem, but line {first} is a record; one kind per file")
        row = decode_row(path, number, line)
        if row.schema > SCHEMA_VERSION:
            raise DataError(f'{place_of(path, number)}: field "schema": {row.schema} is newer than {SCHEMA_VERSION}')
        if row.id in seen:
            raise DataError(f'{place_of(path, number)}: field "id": {row.id} stands on line {seen[row.id]} too')
        seen[row.id] = number
        found.rows.append(row)
    return found


def problems_of_rows(name: str, trees: Iterator[tuple[str, dict[str, Any]]]) -> Input:
    """The problems of a set, each once, from its rows with their places.

    Args:
        name: of the set, for notices.
        trees: (place, row) of each.

    Raises:
        DataError: a row has no question, or a value of the wrong type.
    """
    reader, seen = ProblemReader(), dict[str, Problem]()
    found = Input()
    first = ""
    for place, tree in trees:
        first = first or place.removeprefix(f"{name}:").strip()
        if is_record(tree):
            begun = f"line {first}" if first.isdigit() else first
            raise DataError(f"{place}: a record, but {begun} is a problem; one kind per file")
        problem = reader.read(tree, place)
        reader.note_again(seen.setdefault(problem.id, problem), problem, place)
    found.problems += seen.values()
    found.notices += reader.finish(name)
    if (merged := reader.read_rows - len(found.problems)) > 0:
        found.notices.append(f"{name}: {merged} duplicate problems merged")
    return found


def read_problems(path: Path) -> list[Problem]:
    """The problems of a problem file, or those inside a record file, each once."""
    data = read_input(path)
    return data.problems or list({row.problem.id: row.problem for row in data.rows if row.problem}.values())
