"""The base's own dropout and other noise of its training mode, switched off while a policy is trained.

A ratio to the behaviour policy and a log-ratio to the reference compare one function with itself: with a mask drawn
anew in each pass the first ratio is not 1 and the first DPO loss is not ln 2 (arXiv:1909.08593 and arXiv:2305.18290
train without dropout for this). It holds for every objective, so that a mix of objectives has one forward pass. The
dropout of the adapter, `finetune.lora_dropout`, stays as it is set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def without_base_noise(policy: Any) -> Iterator[None]:
    """The policy with every module of its base in evaluation mode, so dropout, layer drop and jitter do nothing.

    Layers that recompute their activations still do so. The modes are put back at the end.
    """
    kept = _adapter_modules(policy)
    with same_modes_afterwards(policy):
        functions: list[tuple[Any, Any]] = []
        try:
            for module in policy.modules():
                recomputes = isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
                # A linear layer has no noise, and one in four bits packs its weights for inference in evaluation mode.
                module.training = recomputes or module in kept or isinstance(module, torch.nn.Linear)
                if recomputes:
                    functions.append((module, module._gradient_checkpointing_func))
                    module._gradient_checkpointing_func = _quiet(module, module._gradient_checkpointing_func)
            yield
        finally:
            for module, function in functions:
                module._gradient_checkpointing_func = function


@contextmanager
def same_modes_afterwards(policy: Any) -> Iterator[None]:
    """Put the mode of every module back at the end; `policy.train()` would give all of them one."""
    modes = [(module, module.training) for module in policy.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def noise_of(config: Any) -> dict[str, float]:
    """The rates in a model's config that its training mode would draw from, by key."""
    found = {}
    for key, value in config.get_text_config(decoder=True).to_dict().items():
        is_rate = any(word in key for word in ("drop", "jitter")) and "classif" not in key and "summary" not in key
        if is_rate and isinstance(value, float) and value > 0.0:
            found[key] = value
    return found


def _adapter_modules(policy: Any) -> set[torch.nn.Module]:
    """Every module of an adapter, without the layers of the base that it wraps."""
    kept: set[torch.nn.Module] = set()
    for layer in policy.modules():
        if isinstance(layer, BaseTunerLayer):
            kept.add(layer)
            for name, child in layer.named_children():
                if name != "base_layer":
                    kept.update(child.modules())
    return kept


def _quiet(layer: torch.nn.Module, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The function that recomputes a layer, with the layer in evaluation mode inside, in both of its passes.

    A layer recomputes only in training mode, and some draw their own dropout in it.
    """

    def run(function: Callable[..., Any], *arguments: Any) -> Any:
        def work(*inner: Any) -> Any:
            layer.training = False
            try:
                return function(*inner)
            finally:
                layer.training = True

        return checkpoint(work, *arguments)

    return run
