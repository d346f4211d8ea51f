"""The adapters of a run with parent, data and state, as `mae list adapters` shows them.

Contract: reads the round folders and their lineage files; writes nothing.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from mae_cli.models.digests import adapter_digest, is_whole_model
from mae_cli.models.lineage import read_lineage, trained_rows
from mae_cli.records.read import read_json
from mae_cli.reports.tables import table
from mae_cli.runs.layout import LINKS, adapters_in, rounds_of


class Entry(msgspec.Struct):
    """One adapter of a run, as `mae list adapters` shows it."""

    round: str
    folder: str
    """Name of its folder in the round's."""
    adapter: str | None
    """Null where its weights were retired and no lineage was written."""
    parent: str | None
    data: str | None
    rows: int
    trained_tokens: int
    marks: list[str]
    """Of `latest`, `accepted`, `best`, `verified`, `retired` (weights deleted), `whole model` (no adapter)."""


def adapters_of(run_dir: Path) -> list[Entry]:
    """Every adapter that the run trained, in order.

    Raises:
        ConfigError: no run there.
    """
    marked = {name: (run_dir / name).resolve().name for name in LINKS if _is_link(run_dir, name)}
    entries = []
    for current in rounds_of(run_dir):
        folders = adapters_in(current)
        for folder in folders:
            # A round stands for the last adapter it trained.
            marks = [name for name, label in marked.items() if label == current.name and folder == folders[-1]]
            marks += [] if any(folder.glob("*.safetensors")) else ["retired"]
            entries.append(_entry(folder, current.name, [*marks, *(["whole model"] if is_whole_model(folder) else [])]))
    return entries


def _is_link(run_dir: Path, name: str) -> bool:
    return (run_dir / name).is_symlink()


def _entry(folder: Path, label: str, marks: list[str]) -> Entry:
    lineage = read_lineage(folder)
    if lineage is not None:
        return Entry(
            label,
            folder.name,
            lineage.adapter,
            lineage.parent,
            lineage.data,
            lineage.rows,
            lineage.trained_tokens,
            marks,
        )
    # Written before there was a lineage: the completion marker tells what started it.
    meta = folder.with_name(folder.name + ".meta.json")
    told = read_json(meta).get("fingerprint", {}) if meta.is_file() else {}
    trained = trained_rows(folder)
    return Entry(
        label,
        folder.name,
        None if "retired" in marks else adapter_digest(folder),
        (told.get("policy") or {}).get("adapter"),
        told.get("texts"),
        len(trained),
        sum(row.tokens for row in trained.values()),
        marks,
    )


def descends_from(entries: list[Entry], adapter: str | None) -> list[Entry]:
    """The adapters that continue another, directly or over several rounds."""
    family = {adapter}
    found = []
    for entry in entries:
        if entry.parent is not None and entry.parent in family:
            family.add(entry.adapter)
            found.append(entry)
    return found


def adapters_table(entries: list[Entry]) -> str:
    """The adapters of a run as text."""
    lines = [
        (
            entry.round,
            entry.folder,
            entry.adapter or "-",
            entry.parent or "-",
            entry.data or "-",
            str(entry.rows),
            str(entry.trained_tokens),
            " ".join(entry.marks) or "-",
        )
        for entry in entries
    ]
    return table(("round", "folder", "adapter", "parent", "data", "rows", "tokens", "is"), lines)
