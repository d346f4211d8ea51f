"""`mae data import`: a JSONL file or a hub data set, written as a problem file.

Place in the flow: the first step with data of your own. Contract: the usual field names are understood
(`records.problems`), each problem is written once, and unknown fields are kept. Left out: making problems
(`data.make`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.data.hub import HUB, hub_rows
from mae_cli.errors import DataError
from mae_cli.records.atomic import write_atomically
from mae_cli.records.file_names import refuse_existing
from mae_cli.records.problems import problem_from
from mae_cli.records.read import read_lines


def import_set(source: str, output: Path, *, limit: int | None, replace: bool) -> str:
    """Write the rows of a JSONL file or a hub data set as a problem file; unknown fields are kept.

    Raises:
        DataError: a row has no question, or the file is unreadable.
        TemporaryError: the hub cannot be reached.
    """
    refuse_existing([output], replace)
    rows = hub_rows(source.removeprefix(HUB)) if source.startswith(HUB) else _file_rows(Path(source))
    seen: dict[str, bytes] = {}
    read = 0
    for tree, where in rows:
        problem = problem_from(tree, where)
        read += 1
        entry = {"question": problem.question, "answer": problem.reference_answer, **problem.meta}
        seen.setdefault(problem.id, msgspec.json.encode(entry, enc_hook=str) + b"\n")
        if limit is not None and len(seen) >= limit:
            break
    if not seen:
        raise DataError(f"{source}: empty, expected at least one row")
    write_atomically(output, b"".join(seen.values()))
    return f"import: read {read}, written {len(seen)} -> {output}"


def _file_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    for number, line in read_lines(path):
        try:
            tree = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}; an import is JSONL, one object a line") from error
        if not isinstance(tree, dict):
            raise DataError(f"{path}:{number}: expected an object, found {type(tree).__name__}")
        yield tree, f"{path}:{number}"
