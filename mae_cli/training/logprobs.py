"""Log-probabilities of completion tokens, with logits only where a token is trained.

The output layer is the widest of a small model (49,152 of 576 in SmolLM2) and prompts are most of a row, so the hidden
states are gathered before it. That happens in a hook on the output layer: whatever a model does to its logits
afterwards (Gemma's soft cap, Granite's scale) still happens. A prefix that all prompts of a micro-batch share goes
through the model once, and its gradient is the sum over the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mae_cli.models.shared_prefix import takes_common_cache
from mae_cli.training.batches import MicroBatch


class Logprobs(NamedTuple):
    """(B, T) in nats, 0 where masked; the entropy only where it was asked for."""

    logprobs: torch.Tensor
    entropy: torch.Tensor | None


def completion_logprobs(model: Any, batch: MicroBatch, *, entropy: bool = False) -> Logprobs:
    """Natural-log probabilities of the completion tokens under the model, at least float32, with gradient.

    Args:
        model: a causal language model of transformers, alone or inside a PEFT model.
        batch: B rows with N trained tokens.
        entropy: also compute the entropy of the distribution each token was drawn from.
    """
    cache = _prefix_cache(model, batch) if len(batch.prefix) else None
    with _gathered(model.get_output_embeddings(), batch.positions):
        output = model(input_ids=batch.input_ids, past_key_values=cache, use_cache=cache is not None)
    logits = output.logits[0]  # (N, V)
    if logits.dtype != torch.float64:
        logits = logits.float()
    chosen = -cross_entropy(logits, batch.targets, reduction="none")  # (N,)
    spread = _entropy(logits) if entropy else None
    return Logprobs(_scatter(chosen, batch.mask), None if spread is None else _scatter(spread, batch.mask))


def can_share_prefix(model: Any) -> bool:
    """Whether keys and values are all that later tokens need of a prefix, in every layer of this model.

    Not so with recurrent layers or sliding windows.
    """
    layers = DynamicCache(config=model.config).layers
    return takes_common_cache(model) and all(type(layer) is DynamicLayer for layer in layers)


def _prefix_cache(model: Any, batch: MicroBatch) -> Any:
    """Keys and values of the prefix for B rows, with gradient."""
    cache = DynamicCache(config=model.config)
    nothing = batch.positions[:0]
    with _gathered(model.get_output_embeddings(), nothing):
        model(input_ids=batch.prefix[None], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(batch.input_ids))
    return cache


@contextmanager
def _gathered(output_layer: torch.nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Let the output layer see (1, N, H) at the given positions of the flattened (B, S) instead of (B, S, H)."""

    def gather(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden, *rest = arguments
        return (hidden.flatten(0, 1)[positions].unsqueeze(0), *rest)

    handle = output_layer.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    """(N, V) to (N,), in nats: log sum exp(z) - sum p z."""
    probabilities = logits.softmax(-1)
    return logits.logsumexp(-1) - (probabilities * logits).sum(-1)


def _scatter(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(N,) to (B, T), 0 where masked."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
