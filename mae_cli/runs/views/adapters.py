"""FIXME mae_cli.runs.views.adapters."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.models.digests import adapter_digest, is_whole_model
from mae_cli.models.lineage import ADAPTER, read_lineage, trained_rows
from mae_cli.records.read import read_json
from mae_cli.reports.tables import table


class Entry(msgspec.Struct):
    """One adapter of a run, as `mae list adapters` shows it."""

    round: str
    adapter: str | None
    """Null where its weights were retired and no lineage was written."""
    parent: str | None
    data: str | None
    rows: int
    trained_tokens: int
    marks: list[str]
    """Of `latest`, `accepted`, `best`, `retired` (weights deleted), `whole model` (no adapter)."""


def rounds_of(run_dir: Path) -> list[Path]:
    """The round folders of a run, in order.

    Raises:
        ConfigError: no run there.
    """
    folders = sorted(run_dir.glob("round-*"))
    if not folders:
        raise ConfigError(f"{run_dir}: no run there (no round-NNN folder); give --run-dir")
    return folders


def adapters_of(run_dir: Path) -> list[Entry]:
    """Every adapter that the run trained, in order.

    Raises:
        ConfigError: no run there.
    """
    marked = {
        name: (run_dir / name).resolve().name for name in ("latest", "accepted", "best") if _is_link(run_dir, name)
    }
    entries = []
    for current in rounds_of(run_dir):
        folder = current / ADAPTER
        if not folder.is_dir():
            continue
        has_weights = any(folder.glob("*.safetensors"))
        marks = [name for name, label in marked.items() if label == current.name]
        marks += [] if has_weights else ["retired"]
        entries.append(_entry(folder, current.name, [*marks, *(["whole model"] if is_whole_model(folder) else [])]))
    return entries


def _is_link(run_dir: Path, name: str) -> bool:
    return (run_dir / name).is_symlink()


def _entry(folder: Path, label: str, marks: list[str]) -> Entry:
    lineage = read_lineage(folder)
    if lineage is not None:
        return Entry(label, lineage.adapter, lineage.parent, lineage.data, lineage.rows, lineage.trained_tokens, marks)
    # Written before there was a lineage: the completion marker tells what started it.
    meta = folder.with_name(folder.name + ".meta.json")
    told = read_json(meta).get("fingerprint", {}) if meta.is_file() else {}
    trained = trained_rows(folder)
    return Entry(
        label,
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
            entry.adapter or "-",
            entry.parent or "-",
            entry.data or "-",
            str(entry.rows),
            str(entry.trained_tokens),
            " ".join(entry.marks) or "-",
        )
        for entry in entries
    ]
    return table(("round", "adapter", "parent", "data", "rows", "tokens", "is"), lines)
