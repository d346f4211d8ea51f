"""Checkpoints of a training: everything the next step depends on, in one file that is replaced as a whole.

A checkpoint belongs to one training. Its fingerprint names rows, settings, seed and starting point; another
training's checkpoint is refused. The random state is not in it: it is seeded anew at each step from seed and step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import torch

from mae_cli.errors import DataError
from mae_cli.records.atomic import replacing, write_json
from mae_cli.records.fingerprint import compare_fingerprints
from mae_cli.training.parts import is_part, whole

STATE = "state.pt"
FROZEN = "frozen.pt"
SMALLER = "micro_batch_tokens.json"


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


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, is_main: bool = True) -> None:
    """Replace the folder's checkpoint; a kill at any moment leaves the old one or the new one.

    Divided tensors are gathered one after the other into the first process's file, which is that of a training in one
    process; all processes have to call it then.
    """
    state = {field: getattr(checkpoint, field) for field in checkpoint.__struct_fields__}
    state["fingerprint"] = _text(checkpoint.fingerprint)
    parts = [tensor for tensor in _tensors(state) if is_part(tensor)]
    if is_main:
        _save(folder / STATE, state, gathered=bool(parts))
    else:
        for part in parts:
            whole(part)


def load_checkpoint(folder: Path, fingerprint: Mapping[str, Any], *, mapped: bool = False) -> Checkpoint | None:
    """The folder's checkpoint, if there is one; `mapped` reads a tensor from the file only when it is used.

    Raises:
        ConfigError: it belongs to a training with other settings; names each with both values.
        DataError: the file cannot be read.
    """
    state = _load(folder / STATE, mapped=mapped)
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


def note_smaller(folder: Path, micro_batch_tokens: int) -> None:
    """Keep the micro-batch that a training begins again with, because a larger one did not fit."""
    write_json(folder / SMALLER, micro_batch_tokens)


def noted_smaller(folder: Path) -> int | None:
    """The micro-batch that `note_smaller` kept."""
    path = folder / SMALLER
    return int(path.read_text("utf-8")) if path.is_file() else None


def _save(path: Path, state: dict[str, Any], *, gathered: bool = False) -> None:
    # Straight into the file: the state of a whole model is several times its size.
    with replacing(path) as file:
        try:
            if gathered:
                _gather_into(file, state)
            else:
                torch.save(state, file)
        except RuntimeError as error:
            # torch hides what the file said, a full disk for one.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _gather_into(file: BinaryIO, state: dict[str, Any]) -> None:
    """The file of torch.save with divided tensors in full, of which never more than one is in memory.

    The file is laid out with room for every tensor, then each is gathered and written where its room is.
    """
    # Only training divides tensors.
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        outline = _mapped(state, lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu"))
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(outline, file)
    file.flush()
    with mode:
        rooms = torch.load(file.name, weights_only=True)
    for tensor, room in zip(_tensors(state), _tensors(rooms), strict=True):
        numbers = whole(tensor.detach()).cpu().contiguous().reshape(-1)
        file.seek(room.untyped_storage()._checkpoint_offset or 0)
        file.write(numbers.view(torch.uint8).numpy().data)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in plain containers, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(member)


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same containers with every tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(member, change) for key, member in value.items()}
    return type(value)(_mapped(member, change) for member in value) if isinstance(value, list | tuple) else value


def _load(path: Path, *, mapped: bool = False) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        # Tensors and plain containers only: a checkpoint is never run as code.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # torch raises many types here, and each means that this is not a checkpoint of ours.
        first = str(error).splitlines()[0][:200]
        raise DataError(f"{path}: not a readable checkpoint ({first}); remove it to train from the start") from error
    return state
