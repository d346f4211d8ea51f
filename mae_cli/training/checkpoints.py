"""Checkpoints of a training: everything the next step depends on, in one file that is replaced as a whole.

A checkpoint belongs to one training. Its fingerprint names rows, settings, seed and starting point; another
training's checkpoint is refused. The random state is not in it: it is seeded anew at each step from seed and step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from mae_cli.errors import DataError
from mae_cli.records.atomic import replacing
from mae_cli.records.fingerprint import compare_fingerprints

STATE = "state.pt"
FROZEN = "frozen.pt"


class Checkpoint(msgspec.Struct):
    """The state after an optimizer step."""

    fingerprint: dict[str, Any]
    step: int
    micro_batch_tokens: int
    """Sums of floats depend on how they were grouped, so a resumed training keeps the grouping."""
    weights: dict[str, torch.Tensor]
    """The trained parameters, by name."""
    optimizer: dict[str, Any]
    log: list[str]
    """The step lines of train_log.jsonl so far."""
    before: dict[str, torch.Tensor] | None = None
    """The same before this step's update, which a collapse in the next step takes back."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint; a kill at any moment leaves the old one or the new one."""
    state = {field: getattr(checkpoint, field) for field in checkpoint.__struct_fields__}
    _save(folder / STATE, {**state, "fingerprint": _text(checkpoint.fingerprint)})


def load_checkpoint(folder: Path, fingerprint: Mapping[str, Any]) -> Checkpoint | None:
    """The folder's checkpoint, if there is one.

    Raises:
        ConfigError: it belongs to a training with other settings; names each with both values.
        DataError: the file cannot be read.
    """
    state = _load(folder / STATE)
    if state is None:
        return None
    state["fingerprint"] = msgspec.json.decode(state["fingerprint"])
    compare_fingerprints(state["fingerprint"], fingerprint, str(folder / STATE))
    return Checkpoint(**state)


def save_frozen(folder: Path, values: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> None:
    """Keep the log-probabilities from before the first update: after it they cannot be computed again."""
    _save(folder / FROZEN, {"fingerprint": _text(fingerprint), "values": dict(values)})


def load_frozen(folder: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Log-probabilities saved by the same training."""
    state = _load(folder / FROZEN)
    if state is None or state["fingerprint"] != _text(fingerprint):
        return None
    values: dict[str, Any] = state["values"]
    return values


def _text(fingerprint: Mapping[str, Any]) -> str:
    return msgspec.json.encode(fingerprint, order="deterministic").decode()


def _save(path: Path, state: dict[str, Any]) -> None:
    # Straight into the file: the state of a whole model is several times its size.
    with replacing(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # torch hides what the file said, a full disk for one.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _load(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        # Tensors and plain containers only: a checkpoint is never run as code.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises many types here, and each means that this is not a checkpoint of ours.
        first = str(error).splitlines()[0][:200]
        raise DataError(f"{path}: not a readable checkpoint ({first}); remove it to train from the start") from error
    return state
