"""Which layers of a model get a LoRA: those that PEFT can adapt, and what is left out, by name.

PEFT takes every `Linear` for "all-linear". Three kinds are none for it: a layer whose class returns something else than
one tensor (Llama 4's router), a layer whose weight its parent reads directly, so that an adapter on it does nothing or
is refused (the projections of Mamba mixers), and the stacked weights of a mixture of experts, which are no layers.
Experts and routers can be named (`finetune.target_modules`) and are then adapted as parameters.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import torch
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers.pytorch_utils import Conv1D

from mae_cli.errors import ConfigError

ALL_LINEAR = "all-linear"
_STOCK = (torch.nn.Linear.forward, Conv1D.forward)
_LAYER = re.compile(r"^.*?\.\d+\.")


class Targets(NamedTuple):
    """Values of a LoraConfig, and what a user should know."""

    modules: str | list[str]
    parameters: list[str] | None
    left_out: list[str]
    """Kinds of weights that "all-linear" leaves out, each once, without the number of its layer."""


def choose_targets(model: Any, wanted: str) -> Targets:
    """The layers that `finetune.target_modules` stands for in this model.

    Raises:
        ConfigError: a name that is nowhere in the model, or a layer that PEFT cannot adapt.
    """
    linear = _linear_layers(model)
    unfit = {name for name, module in linear.items() if not _fits(model, name, module)}
    if wanted != ALL_LINEAR:
        return _named(model, [name.strip() for name in wanted.split(",") if name.strip()], unfit)
    stacked = _stacked_weights(model)
    taken = [name for name in linear if name not in unfit]
    # In some mixtures PEFT reads the name of a dense layer as that of the experts, which have it on disk.
    kept = _after_conversion(model, taken)
    lost = [name for name in taken if name not in kept]
    if not (unfit or lost or stacked):
        return Targets(ALL_LINEAR, None, [])
    return Targets([name for name in taken if name in kept], None, _kinds([*unfit, *lost, *stacked]))


def _linear_layers(model: Any) -> dict[str, torch.nn.Module]:
    """Every linear layer but the output layer, by name."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }


def _fits(model: Any, name: str, module: torch.nn.Module) -> bool:
    """Whether an adapter on the layer changes what the model computes, and only that."""
    forward = type(module).forward
    is_stock = forward in _STOCK or type(module).__module__.startswith(("bitsandbytes", "torch."))
    parent, _, leaf = name.rpartition(".")
    kind: type = type(model.get_submodule(parent))
    return is_stock and leaf not in _read_directly(kind)


@cache
def _read_directly(kind: type) -> frozenset[str]:
    """Names of the layers whose weight a class uses in place of calling them."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        return frozenset()
    # A look at the type or device of a weight is no use of it.
    return frozenset(re.findall(r"self\.(\w+)\.weight\b(?!\.(?:dtype|device|shape|size)\b)", source))


def _stacked_weights(model: Any) -> list[str]:
    """Weights of experts (three axes: expert, in, out) and routers that stand in a module as plain parameters."""
    found = []
    for name, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            is_router = parameter.ndim == 2 and any(word in type(module).__name__ for word in ("Router", "Gate"))
            is_convolution = isinstance(module, torch.nn.modules.conv._ConvNd)
            if (parameter.ndim == 3 and not is_convolution) or (
                is_router and not isinstance(module, torch.nn.Linear | Conv1D)
            ):
                found.append(f"{name}.{leaf}")
    return found


def _after_conversion(model: Any, names: Iterable[str]) -> set[str]:
    """The names that PEFT still takes for layers after its renaming for fused experts."""
    try:
        return set(_converted(model, names).target_modules or ())
    except ValueError:  # gate_proj without up_proj
        leaves = {name.rpartition(".")[2] for name in names}
        single = {leaf for leaf in leaves if _is_kept(model, leaf)}
        return {name for name in names if name.rpartition(".")[2] in single}


def _is_kept(model: Any, leaf: str) -> bool:
    try:
        return leaf in (_converted(model, [leaf]).target_modules or ())
    except ValueError:
        return False


def _converted(model: Any, names: Iterable[str]) -> Any:
    config = copy.deepcopy(LoraConfig(target_modules=list(names)))
    convert_peft_config_for_transformers(config, model, None)
    return config


def _named(model: Any, names: list[str], unfit: set[str]) -> Targets:
    """The layers and parameters that a user names by the end of their path."""
    modules = [name for name, _ in model.named_modules() if name]
    parameters = [name for name, _ in model.named_parameters()]
    layers, plain = [], []
    for name in names:
        at = [one for one in modules if _ends(one, name)]
        bad = next((one for one in at if one in unfit), None)
        if bad is not None:
            raise ConfigError(
                f'finetune.target_modules "{name}": {bad} ({type(model.get_submodule(bad)).__name__}) cannot take a '
                "LoRA: its class returns several values, or the layer around it reads its weight directly; leave it out"
            )
        if at or not _is_kept(model, name):
            layers.append(name)
        elif any(_ends(one, name) for one in parameters):
            plain.append(name)
        else:
            known = sorted({one.rpartition(".")[2] for one in _linear_layers(model) if one not in unfit})
            raise ConfigError(
                f'finetune.target_modules "{name}": nothing in this model has that name; its linear layers are '
                f"{', '.join(known)}"
            )
    return Targets(layers, plain or None, [])


def _ends(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _kinds(names: Iterable[str]) -> list[str]:
    """Each path without the number of its layer, once."""
    return sorted({_LAYER.sub("", name) for name in names})
