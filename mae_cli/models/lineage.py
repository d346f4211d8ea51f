"""Lineage of an adapter: its base, its parent, and the rows it was trained on.

Place in the flow: training writes `lineage.json` into the adapter's folder, so that it moves with the folder; `mae list
adapters`, `mae trace`, `mae export` and the cards read it. Contract: no times, hosts or absolute paths, so equal
trainings write equal bytes. Adapters are named by `models.digests`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from mae_cli.errors import DataError
from mae_cli.models.embedded import EMBEDDED
from mae_cli.models.locate import HUB_ID
from mae_cli.records.lines import read_lines
from mae_cli.records.trained_row import TrainedRow

LINEAGE = "lineage.json"
TRAIN_ROWS = "train_rows.jsonl"
_STEP_FOLDER, _ROUND_FOLDER = re.compile(r"\d+_\w+"), re.compile(r"round-\d+")


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
    """Reason why the training ended before its last step; null where it did not."""


def adapter_label(folder: Path) -> str:
    """The name of an adapter in tables: its round's name, or its folder's."""
    in_round = _STEP_FOLDER.fullmatch(folder.name) and _ROUND_FOLDER.fullmatch(folder.parent.name)
    return folder.parent.name if in_round else folder.name


def base_reference(name: str, digest: str) -> str:
    """The name of a base in an adapter's files: a hub id as it stands, else a name with the content's digest.

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


def trained_rows(folder: Path) -> dict[str, TrainedRow]:
    """Lines of the adapter's train_rows.jsonl by id; empty where it has none.

    Raises:
        DataError: a line is not what it should be.
    """
    path = folder / TRAIN_ROWS
    if not path.is_file():
        return {}
    found: dict[str, TrainedRow] = {}
    for number, line in read_lines(path):
        try:
            row = msgspec.json.decode(line, type=TrainedRow)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise DataError(f"{path}:{number}: not a trained row: {error}") from error
        found[row.id] = row
    return found
