"""Loading options of a model whose weights are divided over the processes of one training (FSDP2).

Place in the flow: `models.load` asks for them; `training.sharding` sets the loaded model up. Contract: a process reads
its own part of every tensor and never holds the whole model; before the processes have found each other a model is an
outline, its modules without numbers. Left out: which launcher settings are taken (`models.launcher`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mae_cli.errors import ConfigError, EngineError
from mae_cli.models.launcher import num_processes

OUTLINE = {"device_map": {"": "meta"}}
"""Options of from_pretrained for a model without numbers."""
FREED = "free_full_weight"
"""What transformers calls a unit whose gathered weights are dropped after each use."""


def sharding_options(folder: Path, *, device: torch.device, load_in_4bit: bool) -> dict[str, Any]:
    """Options of from_pretrained for this process: its part of the weights, or an outline while it is still alone.

    Raises:
        ConfigError: four bits, or a CPU beside a GPU that the parts would be put on.
        EngineError: this version of transformers cannot load parts.
    """
    import torch.distributed as dist

    if load_in_4bit:
        raise ConfigError("load_in_4bit: weights in four bits cannot be split by FSDP; launch with --multi_gpu instead")
    if device.type != ("cuda" if torch.cuda.is_available() else "cpu"):
        raise ConfigError(f"device: FSDP puts the parts on cuda, found {device}; set CUDA_VISIBLE_DEVICES= for a CPU")
    if not dist.is_initialized():
        return dict(OUTLINE)
    try:
        from transformers.distributed.configuration_utils import DistributedConfig
    except ImportError as error:
        raise EngineError("FSDP needs transformers 5.23 or later, which loads a model in parts") from error
    return {"distributed_config": DistributedConfig(fsdp_size=num_processes(), fsdp_plan=_plan(folder, device))}


def _plan(folder: Path, device: torch.device) -> dict[str, str]:
    """The modules whose weights are gathered together, besides those that transformers names.

    On a GPU these are the blocks of the decoder: their weights travel while the block before is computed. On a CPU
    nothing travels meanwhile and memory is what counts, so the parts of a block are gathered one after the other.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder), local_files_only=True))
    found = {}
    for name, block in _blocks(model):
        found[name] = FREED
        if device.type == "cpu":
            parts = ((f"{name}.{part}", module) for part, module in block.named_children())
            found.update({part: FREED for part, module in parts if _has_matrix(module)})
    return {re.sub(r"\.\d+(?=\.|$)", ".*", name): style for name, style in found.items()}


def _blocks(model: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """The decoder blocks: members of the outermost lists of modules, or of the kinds the model says are never split."""
    kinds = set(model._no_split_modules or ())
    lists: list[str] = []
    for name, module in model.named_modules():
        parent = name.rpartition(".")[0]
        in_list = isinstance(model.get_submodule(parent), torch.nn.ModuleList) if parent else False
        if any(name.startswith(f"{outer}.") for outer in lists):
            continue
        if in_list or type(module).__name__ in kinds:
            lists.append(name)
            yield name, module


def _has_matrix(module: torch.nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())
