"""Files of rows in the forms that data sets come in: JSON lines, JSON arrays, CSV, TSV and parquet.

Place in the flow: problem files, imports and training files are read here, each row as an object with its place in
words. Contract: the form goes by the file's ending and, for JSON, by its first character; cells of CSV are texts as
they stand; a byte that is not of the file's encoding is an error with file, line and a way out; an input is never
written. Left out: what the columns mean (`problems`, `data.formats`).
"""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import DataError, one_line
from mae_cli.records.encodings import bad_encoding
from mae_cli.records.file_names import STDIO
from mae_cli.records.lines import decode_object, name_of_input, other_file, read_lines

Trees = Iterator[tuple[str, dict[str, Any]]]
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_OTHER_FORMS = {
    ".xlsx": "a spreadsheet",
    ".xls": "a spreadsheet",
    ".ods": "a spreadsheet",
    ".arrow": "an Arrow file",
    ".feather": "a Feather file",
    ".pkl": "a pickle, which is never opened,",
    ".pickle": "a pickle, which is never opened,",
    ".zip": "an archive",
    ".tar": "an archive",
    ".zst": "compressed in another way than gzip",
    ".xz": "compressed in another way than gzip",
    ".bz2": "compressed in another way than gzip",
    ".yaml": "a YAML file",
    ".yml": "a YAML file",
}
_ROWS_KEYS = ("data", "rows", "examples", "instances", "questions", "items", "test", "train")
"""Where a file of one JSON object holds its rows."""
_BESIDE_ROWS = frozenset(
    {
        *("version", "name", "dataset", "license", "homepage", "split", "canary", "features", "partial"),
        *("num_rows_total", "num_rows_per_page"),
    }
)
"""What such a file says about itself."""


def form_of(path: Path) -> str:
    """The ending that decides how a file is read, without `.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def is_table(path: Path) -> bool:
    """Whether a file is no text of JSON: its rows cannot be records."""
    return path != STDIO and form_of(path) in (*_SEPARATORS, ".parquet", *_OTHER_FORMS)


def read_trees(path: Path, encoding: str | None = None) -> Trees:
    """(place, row) of each row of a file of any form.

    Args:
        path: the file, or standard input for JSON.
        encoding: of its text, where it is not UTF-8 and has no mark that says which.

    Raises:
        DataError: the file cannot be read, is of a form that is not understood, or a row is no object.
    """
    form = form_of(path)
    if path != STDIO and form in _OTHER_FORMS:
        raise DataError(f"{path}: {_OTHER_FORMS[form]} is not read; save it as JSONL, CSV or parquet")
    if form in _SEPARATORS:
        yield from _cells(path, _SEPARATORS[form], encoding)
    elif form == ".parquet":
        yield from _parquet(path)
    else:
        yield from trees_of_lines(path, read_lines(path, encoding))


def trees_of_lines(path: Path, lines: Iterable[tuple[int, bytes]]) -> Trees:
    """(place, row) of JSON text: one object a line, or all of them in one array or object."""
    name, found = name_of_input(path), iter(lines)
    first = next(found, None)
    if first is None:
        return
    if _is_whole(first[1]):
        text = b"".join([first[1], *(line for _, line in found)])
        for place, tree in enumerate(_rows_of_whole(name, text), 1):
            yield f"{name}: item {place}", tree
        return
    yield f"{name}:{first[0]}", decode_object(path, *first)
    for number, line in found:
        yield f"{name}:{number}", decode_object(path, number, line)


def _is_whole(line: bytes) -> bool:
    """Whether a first line begins a value that goes on in the next lines, or holds all rows itself."""
    start = line.lstrip()
    return start.startswith(b"[") or start.rstrip() == b"{" or _holds_rows(start)


def _holds_rows(line: bytes) -> bool:
    if not line.startswith(b'{"'):
        return False
    with contextlib.suppress(msgspec.DecodeError, ValueError, RecursionError):
        tree = msgspec.json.decode(line)
        return isinstance(tree, dict) and _rows_in(tree) is not None
    return False


def _rows_in(tree: dict[str, Any]) -> list[Any] | None:
    """The rows of a file that is one object: under a usual key, with at most facts about the file."""
    if isinstance(tree.get("examples"), list) and "canary" in tree:  # a task of BIG-bench
        tree = {"examples": _with_prefix(tree["examples"], tree.get("task_prefix"))}
    lists = [value for key, value in tree.items() if key in _ROWS_KEYS and isinstance(value, list)]
    if len(lists) != 1 or len(tree.keys() - _BESIDE_ROWS) != 1:
        return None
    rows = [one["row"] if isinstance(one, dict) and isinstance(one.get("row"), dict) else one for one in lists[0]]
    return rows if rows and all(isinstance(one, dict) for one in rows) else None


def _with_prefix(examples: list[Any], prefix: Any) -> list[Any]:
    """The examples of a task, each with the text that stands before all of them."""
    if not isinstance(prefix, str) or not prefix.strip():
        return examples
    return [
        {**one, "input": f"{prefix}{one['input']}"}
        if isinstance(one, dict) and isinstance(one.get("input"), str)
        else one
        for one in examples
    ]


def _rows_of_whole(name: str, text: bytes) -> list[dict[str, Any]]:
    try:
        tree = msgspec.json.decode(text)
    except UnicodeDecodeError as error:
        raise bad_encoding(name, text, error) from error
    except RecursionError as error:
        raise DataError(f"{name}: lists or objects are nested too deeply to be read") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{name}: not JSON: {one_line(error)}; expected one object a line, or one array") from error
    rows = _rows_in(tree) or [tree] if isinstance(tree, dict) else tree
    for place, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{name}: item {place}: expected an object, found {type(row).__name__}")
    found: list[dict[str, Any]] = rows
    return found


def _cells(path: Path, separator: str, encoding: str | None) -> Trees:
    """Rows of a file with a heading; an empty cell is null.

    Its cells are texts: a reader that guesses types makes 7 of "007" and 5.0 of "5" where another cell is empty.
    """
    text = "".join(_decoded(path, number, line) for number, line in read_lines(path, encoding, with_blank=True))
    heading_line = text.partition("\n")[0]
    if separator == "," and "," not in heading_line:
        # Spreadsheets write semicolons where the comma is in numbers.
        separator = next((mark for mark in ";\t" if mark in heading_line), separator)
    limit = csv.field_size_limit(sys.maxsize)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        heading = next(rows, None)
        if heading is None:
            return
        _check_heading(path, heading)
        for cells in rows:
            place = f"{path}:{rows.line_num}"
            if not any(cells):
                continue
            if len(cells) != len(heading):
                raise DataError(f"{place}: {len(cells)} cells under {len(heading)} headings; quote cells with commas")
            yield place, {name: cell or None for name, cell in zip(heading, cells, strict=True)}
    except csv.Error as error:
        raise DataError(
            f"{path}:{rows.line_num}: not {form_of(path)[1:].upper()}: {error}; put a cell with quotes into "
            "quotes and double those in it"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _check_heading(path: Path, heading: list[str]) -> None:
    twice = sorted({name for name in heading if heading.count(name) > 1 and name})
    if twice:
        raise DataError(f'{path}:1: two columns are called "{twice[0]}"')


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_encoding(f"{path}:{number}", line, error) from error


def _parquet(path: Path) -> Trees:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as opened:
        start = opened.read(64)
    if not start.startswith(b"PAR1"):
        what = other_file(start) or "it does not begin like one; download it again"
        raise DataError(f"{path}: not a parquet file that can be read: {what}")
    from datasets import load_dataset

    try:
        rows = iter(load_dataset("parquet", data_files=str(path), split="train", streaming=True))
        number = 0
        while (row := next(rows, None)) is not None:
            number += 1
            yield f"{path}: row {number}", dict(row)
    except DataError:
        raise
    except Exception as error:  # the reader's library raises its own kinds
        raise DataError(f"{path}: not a parquet file that can be read: {one_line(error)}") from error
