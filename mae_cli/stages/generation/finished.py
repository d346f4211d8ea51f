"""Rows that earlier tries of a command finished, and those of them that are asked again.

Place in the flow: `generate` begins here. Contract: a row of the finished file, of a worker or of an interrupted retry
stands as it is, a mended one before the failed one; with `--retry-failed` rows of status `error` are asked again and no
other. Left out: rows of an interrupted first try, which count by whole segments (`generate`).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import msgspec

from mae_cli.records import Row
from mae_cli.records.resumable_file import Output

FAILED = "error"


class Finished(msgspec.Struct):
    """What earlier tries of a command left."""

    done: dict[str, Row]
    """Rows that stand as they are, by id."""
    failed: set[str]
    """Ids of rows that are asked again."""
    retried: list[str]
    """Ids of `done` that stand in the `.partial` of an interrupted retry."""


def finished_rows(output: Output, planned: Sequence[Row], ids: Container[str], *, retry: bool) -> Finished:
    """Return the planned rows that earlier tries finished.

    Args:
        output: entered.
        planned: all rows of the command.
        ids: of the rows that are this shard's.
        retry: whether failed rows are asked again.
    """
    found = Finished({}, set(), [])
    for row in planned:
        if row.id not in ids:
            continue
        made = _best(output.known.get(row.id), output.elsewhere.get(row.id))
        if made is None:
            continue
        again = output.partial.get(row.id)
        if made.status == FAILED and again is not None:
            made = again
        if retry and made.status == FAILED:
            found.failed.add(row.id)
            continue
        if made is again:
            found.retried.append(row.id)
        found.done[row.id] = as_planned(made, row)
    return found


def failed_among(rows: Mapping[str, Row], names: Sequence[str]) -> list[str]:
    """Return the ids of rows that ended in an error."""
    return [name for name in names if rows[name].status == FAILED]


def _best(known: Row | None, elsewhere: Row | None) -> Row | None:
    if known is None or (known.status == FAILED and elsewhere is not None):
        return elsewhere
    return known


def as_planned(made: Row, plan: Row) -> Row:
    """Give a row that an earlier version made what was planned about it and that version did not write."""
    if made.schema == 1:
        made.stage, made.step, made.asked = plan.stage, plan.step, plan.asked
    return made
