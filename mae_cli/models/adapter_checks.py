"""What the files of an adapter say before it is put on a model: its kind, and whether it belongs to this base.

Place in the flow: `models.adapters` asks for the kind wherever an adapter is loaded; the engines and `export` ask
whether it belongs. Contract: reads two small files and a header, no tensor; what would give wrong numbers is refused,
what may be right is told. A folder of ours says in `lineage.json` which base and template it was trained with; of
another tool's folder only the name of its base is known.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

from mae_cli.errors import EngineError, one_line
from mae_cli.models.embedded import EMBEDDED
from mae_cli.models.lineage import read_lineage
from mae_cli.records import Policy

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PICKLED = "adapter_model.bin"
_DIGEST = re.compile("[0-9a-f]{20}")
# Of `init_lora_weights`: every other way changes the base's own weights when the adapter is put on.
_KEEPS_BASE = (True, False, None, "gaussian", "eva", "orthogonal")
_CHANGES_MORE = {
    "layer_replication": "it repeats layers of the base",
    "alora_invocation_tokens": "it is switched on by a token (activated LoRA)",
    "arrow_config": "it routes between adapters (Arrow)",
    "megatron_config": "it is for Megatron's layers",
    "monteclora_config": "it draws its weights at random (MonteCLoRA)",
    "use_qalora": "it is a QALoRA",
    "use_bdlora": "it is a block-diagonal LoRA",
    "kasa_config": "it changes the base's weights (KaSA)",
    "velora_config": "it is a VeLoRA",
}


def check_kind(folder: Path) -> dict[str, Any]:
    """The config of a LoRA adapter that can be put on a model and taken off again.

    Raises:
        EngineError: no adapter there, a broken one, or a kind that is not supported.
    """
    config = _config(folder)
    kind, task = str(config.get("peft_type") or "").upper(), config.get("task_type")
    refused = None
    if kind != "LORA":
        refused = f"its peft_type is {kind or 'missing'}, and mae puts on LoRA adapters only"
    elif task not in (None, "CAUSAL_LM"):
        refused = f"its task_type is {task}, expected CAUSAL_LM"
    elif config.get("bias", "none") not in ("none", None):
        refused = f'it replaces the base\'s own biases (bias "{config["bias"]}"); expected bias "none"'
    elif config.get("init_lora_weights", True) not in _KEEPS_BASE:
        refused = (
            f'init_lora_weights "{config["init_lora_weights"]}" changes the base\'s own weights; save it as a plain '
            "LoRA (PEFT: path_initial_model_for_weight_conversion)"
        )
    else:
        refused = next((reason for key, reason in _CHANGES_MORE.items() if config.get(key)), None)
    if refused is not None:
        raise EngineError(f"{folder}: this adapter is not supported: {refused}")
    names = tensor_names(folder / WEIGHTS)
    if not names:
        raise EngineError(f"{folder / WEIGHTS}: holds no tensor")
    trained = [*(config.get("modules_to_save") or []), "trainable_tokens_delta"]
    whole = [name for name in names if ".lora_" not in name and not any(f".{part}" in name for part in trained)]
    if whole:
        # PEFT would write it over the base's own, which then stays changed.
        raise EngineError(
            f"{folder}: the adapter brings {min(whole)} as a whole (saved with a resized vocabulary, or with the "
            "embedding among its targets), which would replace the base's own; merge it where it was made, or save "
            "it with save_embedding_layers=False"
        )
    return config


def check_base(folder: Path, policy: Policy, model: str) -> list[str]:
    """Notices about an adapter that goes on the policy's base; empty where everything is known to fit.

    Args:
        folder: of the adapter.
        policy: the base with its template.
        model: the base as the user named it.

    Raises:
        EngineError: the adapter was trained on other weights.
        DataError: its lineage cannot be read.
    """
    lineage, notices = read_lineage(folder), []
    named = _config(folder).get("base_model_name_or_path") or ""
    told, _, digest = named.partition("@")
    trained_on = lineage.base_digest if lineage is not None else digest
    is_known = bool(trained_on and _DIGEST.fullmatch(trained_on) and _DIGEST.fullmatch(policy.model))
    if is_known and trained_on != policy.model:
        raise EngineError(
            f"{folder}: was trained on {lineage.base if lineage else named} (content {trained_on}), and {model} is "
            f"another model (content {policy.model}; one that has the adapter merged in is another one too); give the "
            "model it was trained on with -m"
        )
    if not is_known and told and _short(told) not in _names(model):
        notices.append(f"{folder}: {CONFIG} names the base {named}, and it is put on another: {model}")
    if lineage is not None and lineage.template and policy.template and lineage.template != policy.template:
        notices.append(
            f"{folder}: was trained behind another chat template (digest {lineage.template}) than the one in use "
            f"({policy.template}); its tokenizer's folder holds the one it knows"
        )
    return notices


def tensor_names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file, from its header alone.

    Raises:
        EngineError: not such a file.
    """
    try:
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(size))
    except (OSError, ValueError, struct.error, MemoryError, OverflowError) as error:
        raise EngineError(f"{path}: not a safetensors file: {one_line(error)}") from error
    return {name for name in header if name != "__metadata__"}


def _config(folder: Path) -> dict[str, Any]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            if name == WEIGHTS and (folder / PICKLED).is_file():
                raise EngineError(
                    f"{folder}: {PICKLED} is a pickle, which can run code and is never read; save it as {WEIGHTS}"
                )
            raise EngineError(f"{folder}: no adapter there: {name} is missing")
    try:
        tree = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{folder}: the adapter does not fit this model: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise EngineError(f"{folder / CONFIG}: expected an object, found {type(tree).__name__}")
    return tree


def _short(name: str) -> str:
    """The last part of a path or hub id, in lower case."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()


def _names(model: str) -> set[str]:
    """What the base may be called: as given, where it comes from, and what its own config says."""
    found = {_short(model)}
    if model in EMBEDDED:
        found.add(_short(EMBEDDED[model].gguf).partition(".q")[0])
    config = Path(model).expanduser() / "config.json"
    if config.is_file():
        found.add(_short(Path(model).expanduser().resolve().name))
        try:
            found.add(_short(str(json.loads(config.read_text("utf-8")).get("_name_or_path") or "")))
        except (OSError, ValueError, AttributeError):
            return found
    return found
