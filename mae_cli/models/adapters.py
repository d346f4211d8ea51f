"""LoRA adapters put on a base model and taken off again.

Place in the flow: the `hf` engine, training and `export` use it. Contract: the weights of the base never change; an
adapter that does not fit is an error, and the base is then left without one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mae_cli.errors import EngineError, one_line
from mae_cli.models.adapter_checks import CONFIG, WEIGHTS, check_kind, tensor_names

__all__ = ["CONFIG", "WEIGHTS", "add_adapter", "load_adapter", "strip_adapter", "tensor_names"]


def load_adapter(model: Any, folder: Path, *, trainable: bool = False) -> Any:
    """The base with the adapter of a folder on it, as a PEFT model; `strip_adapter` gives the base back.

    Raises:
        EngineError: no adapter there, a broken one, or one for another base; the base is left without one.
    """
    from peft import PeftModel

    check_kind(folder)
    _check_weights(folder)
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
    check_kind(folder)
    _check_weights(folder)
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


def _check_weights(folder: Path) -> None:
    """Refuse a file whose numbers are no numbers: every text after it would be empty."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        bad = [name for name, value in load_file(path).items() if not bool(value.float().isfinite().all())]
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise EngineError(f"{path}: not a safetensors file: {one_line(error)}") from error
    if bad:
        raise EngineError(f"{path}: {bad[0]} holds values that are not finite ({len(bad)} tensors)")


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
    """Take every layer of an adapter out of a base, also those a failed load left there; its weights never changed.

    Layers that wrap layers (two stacked weights of one module) and modules trained as a whole included.
    """
    for name, child in list(model.named_children()):
        base = _under(child)
        if base is not child:
            setattr(model, name, base)
        strip_adapter(base)
    if hasattr(model, "peft_config"):
        del model.peft_config


def _under(module: Any) -> Any:
    """The base's own module under the wrappers of an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    while isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
        module = module.base_layer if isinstance(module, BaseTunerLayer) else module.original_module
    return module
