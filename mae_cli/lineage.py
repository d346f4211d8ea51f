"""Where an adapter comes from: its base, its parent, the rows it was trained on. And the adapters of a run.

Place in the flow: the trainer writes `lineage.json` into the adapter's folder, so that it moves with it; `mae list
adapters`, `mae trace`, `mae export` and the cards read it. Contract: no times, hosts or absolute paths, so equal
trainings write equal bytes. Adapters are named by `models.adapter_digest`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from mae_cli.errors import ConfigError, DataError
from mae_cli.models import EMBEDDED, HUB_ID, adapter_digest, is_whole_model
from mae_cli.reading import read_json, read_lines
from mae_cli.report import table

LINEAGE = "lineage.json"
TRAIN_ROWS = "train_rows.jsonl"
ADAPTER = "5_adapter"


class Lineage(msgspec.Struct, kw_only=True):
    """One adapter's origin; null is unknown."""

    schema: int = 1
    adapter: str
    """Its digest; of a model where the kind is full."""
    kind: Literal["lora", "full"] = "lora"
    """An adapter, or a whole model every parameter of which was trained."""
    parent: str | None
    """Digest of the adapter it continues; null: trained from the base alone."""
    base: str
    """As adapter_config.json names it: a hub id, or a name and a digest."""
    base_digest: str | None
    base_revision: str | None = None
    template: str | None = None
    round: int | None = None
    data: str
    """Digest of the rows with their tokens, rewards and weights."""
    rows: int
    roles: dict[str, int]
    trained_tokens: int
    """Of one pass."""
    seed: int
    objective: str
    steps: int
    learning_rate: float
    settings: dict[str, Any] = {}
    """Rank, scale, targets and variant of the LoRA; of a whole model, how many parameters were trained."""
    stopped: str | None = None
    """Why the training ended before its last step."""


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


def adapter_label(folder: Path) -> str:
    """What tables call an adapter: its round's name, or its folder's."""
    return folder.parent.name if folder.name == ADAPTER else folder.name


def base_reference(name: str, digest: str) -> str:
    """What an adapter calls its base: a hub id as it stands, else a name that moves, with the content's digest.

    A path of this machine says nothing elsewhere; the digest says whether a base found there is the right one.
    """
    is_hub = name not in EMBEDDED and not Path(name).expanduser().is_dir() and HUB_ID.fullmatch(name)
    return name if is_hub else f"{name if name in EMBEDDED else Path(name).expanduser().resolve().name}@{digest}"


def read_lineage(folder: Path) -> Lineage | None:
    """The lineage in an adapter's folder; null in one that an older version or another tool wrote.

    Raises:
        DataError: the file is not what it should be.
    """
    path = folder / LINEAGE
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lineage)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: not a lineage: {error}") from error


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
        sum(row["tokens"] for row in trained.values()),
        marks,
    )


def trained_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Lines of the adapter's train_rows.jsonl by id; empty where it has none."""
    path = folder / TRAIN_ROWS
    if not path.is_file():
        return {}
    rows = [msgspec.json.decode(line) for _, line in read_lines(path)]
    return {row["id"]: row for row in rows}


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
