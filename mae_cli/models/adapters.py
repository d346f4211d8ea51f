"""LoRA adapters put on a base model and taken off again.

Place in the flow: the `hf` engine, training and `export` use it. Contract: the weights of the base never change; an
adapter that does not fit is an error, and the base is then left without one.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from mae_cli.errors import EngineError, one_line

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def load_adapter(model: Any, folder: Path, *, trainable: bool = False) -> Any:
    """The base with the adapter of a folder on it, as a PEFT model; `strip_adapter` gives the base back.

    Raises:
        EngineError: no adapter there, a broken one, or one for another base; the base is left without one.
    """
    from peft import PeftModel

    _check_files(folder)
    try:
        peft_model = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, local_files_only=True)
    except _load_errors() as error:
        strip_adapter(model)
        raise EngineError(f"{folder}: the adapter does not fit this model: {one_line(error)}") from error
    odd = _odd_name(peft_model, folder, "default")
    if odd is not None:
        strip_adapter(model)
        raise EngineError(f"{folder}: the adapter is for another base model: {odd} is on one side only")
    return peft_model if trainable else peft_model.eval()


def add_adapter(peft_model: Any, folder: Path, name: str) -> None:
    """A further adapter beside the one in use, which stays in use; `peft_model.delete_adapter` takes it off.

    Raises:
        EngineError: as `load_adapter`; the model is left as it was.
    """
    _check_files(folder)
    try:
        peft_model.load_adapter(str(folder), adapter_name=name, is_trainable=False, local_files_only=True)
    except _load_errors() as error:
        if name in peft_model.peft_config:
            peft_model.delete_adapter(name)
        raise EngineError(f"{folder}: the adapter does not fit this model: {one_line(error)}") from error
    odd = _odd_name(peft_model, folder, name)
    if odd is not None:
        peft_model.delete_adapter(name)
        raise EngineError(f"{folder}: the adapter is for another base model: {odd} is on one side only")


def _check_files(folder: Path) -> None:
    for path in (folder / CONFIG, folder / WEIGHTS):
        if not path.is_file():
            raise EngineError(f"{folder}: no adapter there: {path.name} is missing")
    tensor_names(folder / WEIGHTS)
    try:
        json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{folder}: the adapter does not fit this model: {one_line(error)}") from error


def _load_errors() -> tuple[type[Exception], ...]:
    from safetensors import SafetensorError

    return (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


def _odd_name(peft_model: Any, folder: Path, name: str) -> str | None:
    """A tensor that only the file or only the model has.

    PEFT only warns when names do not match, and the model would go on as if it had no (or a fresh) adapter.
    """
    from peft import get_peft_model_state_dict

    held = set(get_peft_model_state_dict(peft_model, adapter_name=name, save_embedding_layers=False))
    return min(held ^ tensor_names(folder / WEIGHTS), default=None)


def strip_adapter(model: Any) -> None:
    """Take the LoRA layers out of a base, also those a failed load left there; its weights never changed."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def tensor_names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file, from its header alone.

    Raises:
        EngineError: not such a file.
    """
    try:
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(size))
    except (OSError, ValueError, struct.error, MemoryError) as error:
        raise EngineError(f"{path}: not a safetensors file: {one_line(error)}") from error
    return {name for name in header if name != "__metadata__"}
