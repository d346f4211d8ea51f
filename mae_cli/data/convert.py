"""`mae data convert`: training files from one tool's format to another's, and records to any of them."""

from __future__ import annotations

from pathlib import Path

from mae_cli.data.formats import checked_format, read_foreign, written
from mae_cli.data.preference_pairs import make_pairs
from mae_cli.data.sample_readers import Format, Sample
from mae_cli.errors import DataError
from mae_cli.records import Message, Row, digest
from mae_cli.records.atomic import write_atomically
from mae_cli.records.file_names import refuse_existing
from mae_cli.records.read import read_input
from mae_cli.records.rewarded import Rewarded


def convert(source: Path, output: Path, to: str, *, replace: bool) -> str:
    """Write the samples of a file, or the trained rows of records, in another format.

    Returns:
        One line that says what was done.

    Raises:
        ConfigError: unknown format, or the output exists.
        DataError: a line that cannot be read or written without losing something, or nothing to write.
    """
    kind = checked_format(to)
    refuse_existing([output], replace)
    foreign = read_foreign(source)
    if foreign is not None:
        samples, places, before = foreign.samples, foreign.places, str(foreign.format)
        data = b"".join(written(samples, kind, where=lambda index: places[index]))
    else:
        records = read_input(source)
        if records.problems:
            raise DataError(f"{source}: plain problems: there is no answer of an assistant in them to write as {kind}")
        samples, before = _of_records(records.rows, kind), "records"
        data = b"".join(written(samples, kind, where=lambda index: f"{source}: row {samples[index].extra['id']}"))
    if not samples:
        raise DataError(f"{source}: nothing to write as {kind}: no row of it would be trained, or no pair differs")
    write_atomically(output, data)
    return f"convert: {before} -> {kind}: {len(samples)} samples -> {output}"


def _of_records(rows: list[Row], kind: Format) -> list[Sample]:
    chosen = [
        row
        for row in rows
        if row.purpose == "train" and row.kept is not False and row.status not in ("error", "too_long") and row.raw
    ]
    if kind != "preference":
        return [Sample((*row.messages, _answer(row)), extra={"id": row.id, "reward": row.reward}) for row in chosen]
    known = [
        Rewarded(row.role, row.group_id, row.reward, prompt=digest(row.messages), completion=row.raw or "", id=row.id)
        for row in chosen
    ]
    pairs, _ = make_pairs(known, "best_vs_worst", min_gap=0.0)
    return [
        Sample(
            tuple(chosen[pair.chosen].messages),
            (_answer(chosen[pair.chosen]),),
            (_answer(chosen[pair.rejected]),),
            {"id": chosen[pair.chosen].id, "rejected_id": chosen[pair.rejected].id, "gap": pair.gap},
        )
        for pair in pairs
    ]


def _answer(row: Row) -> Message:
    # As generated: reasoning is part of what is trained.
    return Message("assistant", row.raw or "")
