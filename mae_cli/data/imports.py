"""`mae data import`: a file of any known form or a hub data set, written as a problem file.

Place in the flow: the first step with data of your own. Contract: the names of published sets are understood
(`records.problem_columns`), others are mapped by the user; each problem is written once, unknown fields are kept, and
one line says how many problems have an answer and which columns were not used. Left out: making problems (`data.make`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.data.hub import HUB, hub_rows
from mae_cli.errors import ConfigError, DataError, did_you_mean
from mae_cli.records import Problem
from mae_cli.records.atomic import write_atomically
from mae_cli.records.encodings import checked_encoding
from mae_cli.records.file_names import refuse_existing
from mae_cli.records.problem_tests import INPUT_OUTPUT, as_tests
from mae_cli.records.problems import MAPPED, ProblemReader
from mae_cli.records.read import is_record
from mae_cli.records.tables import read_trees

_TESTS = ("tests", "test", "test_list", INPUT_OUTPUT)
_MOST_COLUMNS_NAMED = 12


def import_set(
    source: str,
    output: Path,
    *,
    limit: int | None = None,
    replace: bool = False,
    fields: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> list[str]:
    """Write the rows of a file or a hub data set as a problem file; unknown fields are kept.

    Args:
        source: a file, or hub:ORG/NAME.
        output: the problem file.
        limit: take the first so many problems.
        replace: an existing output.
        fields: our name to the column of that meaning, as `parse_fields` gives it.
        encoding: of a text file that is not UTF-8.

    Returns:
        Notices, and one line about what was done at the end.

    Raises:
        DataError: a row has no question, or the file is unreadable.
        ConfigError: the output exists, or there is no such encoding.
        TemporaryError: the hub cannot be reached.
    """
    refuse_existing([output], replace)
    reader = ProblemReader(fields)
    problems: dict[str, Problem] = {}
    for where, tree in _rows(source, checked_encoding(encoding) if encoding else None):
        if is_record(tree):
            raise DataError(f"{where}: a record of a stage, no problem; give it to the stages as it is")
        problem = reader.read(tree, where)
        reader.note_again(problems.setdefault(problem.id, problem), problem, where)
        if limit is not None and len(problems) >= limit:
            break
    notices = reader.finish(source)
    if not problems:
        raise DataError(f"{source}: empty, expected at least one row")
    write_atomically(output, b"".join(_line(problem) for problem in problems.values()))
    return [*notices, _summary(reader, list(problems.values()), output)]


def parse_fields(mappings: Sequence[str]) -> dict[str, str]:
    """Our names to columns, of `question=COL,answer=COL` given once or several times.

    Raises:
        ConfigError: not of that form, an unknown name, or one twice.
    """
    found: dict[str, str] = {}
    for mapping in mappings:
        for part in mapping.split(","):
            name, equals, column = (text.strip() for text in part.partition("="))
            if not equals or not column:
                raise ConfigError(f"--map {mapping}: expected question=COLUMN,answer=COLUMN")
            if name not in MAPPED:
                raise ConfigError(f'--map {mapping}: nothing is called "{name}" here; {did_you_mean(name, MAPPED)}')
            if name in found:
                raise ConfigError(f"--map {mapping}: {name} is mapped twice")
            found[name] = column
    return found


def _rows(source: str, encoding: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    if source.startswith(HUB):
        return ((where, tree) for tree, where in hub_rows(source.removeprefix(HUB)))
    return read_trees(Path(source), encoding)


def _line(problem: Problem) -> bytes:
    own = {"question": problem.question, "answer": problem.reference_answer}
    more = {name: value for name, value in problem.meta.items() if name not in own}
    return msgspec.json.encode({**own, **more}, enc_hook=str) + b"\n"


def _is_test(name: str, value: Any) -> bool:
    return as_tests(value) is not None if name == INPUT_OUTPUT else bool(value)


def _summary(reader: ProblemReader, problems: Sequence[Problem], output: Path) -> str:
    answered = sum(problem.reference_answer is not None for problem in problems)
    tested = sum(any(_is_test(name, problem.meta.get(name)) for name in _TESTS) for problem in problems)
    tests = f", {tested} with tests" if tested else ""
    unused = [name or "(no heading)" for name in reader.unused]
    more = f" and {len(unused) - _MOST_COLUMNS_NAMED} more" if len(unused) > _MOST_COLUMNS_NAMED else ""
    named = ", ".join(unused[:_MOST_COLUMNS_NAMED]) + more if unused else "none"
    return (
        f"import: read {reader.read_rows}, written {len(problems)}, {answered} with an answer{tests}; "
        f"columns not used (kept as they are): {named} -> {output}"
    )
