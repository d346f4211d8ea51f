"""The decode loop of the `hf` engine: each distinct prompt is prefilled once, then all its samples run together.

A sampled token is the largest of `logits / temperature + Gumbel noise`, and the noise comes from the row's own
generator, so a row's text does not depend on which rows share its batch (up to fp32 rounding, see `deciding_gap`).

Shapes: P distinct prompts, A rows still running, T tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mae_cli.records import Sampling

# Columns of spare room a cache buffer gets when it is full. Larger wastes memory, smaller copies more often.
SPARE = 64
# The share of ended rows in a batch at which copying the rest together is cheaper than carrying them along.
COMPACT_SHARE = 0.125
# A nucleus is looked for among this many likeliest tokens before the whole vocabulary is sorted.
NUCLEUS_CANDIDATES = 512


class Ask(NamedTuple):
    """One row to decode: which prompt it continues, its noise and its token limit."""

    prompt: int
    seed: int
    max_new_tokens: int


class Decoded(NamedTuple):
    """Generated ids, the ending token included; `stopped` is false when the limit cut the row."""

    ids: list[int]
    stopped: bool


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in a buffer with spare room: a step writes one column where `DynamicLayer` copies them all."""

    keys: torch.Tensor
    values: torch.Tensor
    _key_buffer: torch.Tensor | None = None
    _value_buffer: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (A, heads, new, dim) and return all keys and values, (A, heads, T, dim) each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        self._key_buffer, self.keys = _append(self._key_buffer, self.keys, key_states, length)
        self._value_buffer, self.values = _append(self._value_buffer, self.values, value_states, length)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep the rows of `beam_idx`, in its order, repeats allowed."""
        super().reorder_cache(beam_idx)
        self._key_buffer = self._value_buffer = None


def _append(
    buffer: torch.Tensor | None, held: torch.Tensor, new: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    total = length + new.shape[-2]
    if buffer is None or length == 0 or total > buffer.shape[-2]:
        batch, heads, _, size = new.shape
        # A first fill takes the prompt as it is: it is copied once anyway when it is handed out to its samples.
        room = total if length == 0 else total + SPARE
        buffer = new.new_empty((batch, heads, room, size))
        if length:
            buffer[:, :, :length] = held
    buffer[:, :, length:total] = new
    return buffer, buffer[:, :, :total]


def new_cache(config: Any) -> Any:
    """An empty cache that fits the model's layers (sliding windows and recurrent layers keep their own kind)."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt ids and their mask, both (P, T), padding on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def perturbed_logits(logits: torch.Tensor, noise: torch.Tensor | None, sampling: Sampling) -> torch.Tensor:
    """Scores whose argmax is the next token.

    Args:
        logits: (A, V) float32; not changed.
        noise: (A, V) uniform in [0, 1); none for temperature 0.
        sampling: temperature, top_k, top_p; filters apply in that order, as in transformers.
    Returns: (A, V) float32, -inf where filtered out.
    """
    if sampling.temperature == 0 or noise is None:
        return logits
    return _filtered(logits / sampling.temperature, sampling.top_k, sampling.top_p) + gumbel(noise)


def gumbel(uniform: torch.Tensor) -> torch.Tensor:
    """Gumbel noise from uniform noise in [0, 1): -log(-log(u)); argmax(logits + it) is a draw from softmax(logits)."""
    return uniform.log().neg_().log_().neg_()


def _filtered(scores: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    vocabulary = scores.shape[-1]
    if 0 < top_k < vocabulary:
        lowest = scores.topk(top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill_(scores < lowest, float("-inf"))
    if top_p < 1.0:
        lowest = _nucleus_edge(scores, top_p, NUCLEUS_CANDIDATES)
        scores = scores.masked_fill_(scores < lowest, float("-inf"))
    return scores


def _nucleus_edge(scores: torch.Tensor, top_p: float, candidates: int) -> torch.Tensor:
    """(A, 1): the lowest score in the smallest set of tokens whose mass reaches top_p."""
    size = min(candidates, scores.shape[-1])
    values = scores.topk(size, dim=-1).values  # (A, size), falling
    shares = (values - scores.logsumexp(dim=-1, keepdim=True)).exp()
    before = shares.cumsum(dim=-1) - shares
    inside = before < top_p
    if size < scores.shape[-1] and bool(inside[:, -1].any()):
        return _nucleus_edge(scores, top_p, scores.shape[-1])
    last = inside.sum(dim=-1, keepdim=True).clamp_(min=1) - 1
    return values.gather(-1, last)


class Noise:
    """Uniform numbers, V per row and step, from one generator per row."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        # MPS has generators of its own kind only; its noise comes from the CPU.
        self._device = device
        self._source = device if device.type == "cuda" else torch.device("cpu")
        self._generators = [torch.Generator(self._source).manual_seed(seed) for seed in seeds]
        self._buffer = torch.empty(0, device=self._source)

    def draw(self, rows: Sequence[int], vocabulary: int) -> torch.Tensor:
        """(A, V) for the given rows; advances exactly their generators."""
        if self._buffer.shape != (len(rows), vocabulary):
            self._buffer = torch.empty((len(rows), vocabulary), device=self._source)
        for place, row in enumerate(rows):
            self._buffer[place].uniform_(generator=self._generators[row])
        return self._buffer.to(self._device)


class _Batch:
    """Rows that are being decoded together, and the cache they share. `slots[i]` is the row in batch place i."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], owners: Sequence[int], pad_id: int, room: int):
        self.model = model
        self.device = model.device
        self.slots = list(range(len(owners)))
        self.cache = new_cache(model.config)
        ids, mask = left_pad(prompts, pad_id, self.device)
        # Padding gets position 0; nothing attends to it.
        positions = (mask.cumsum(-1) - 1).clamp_(min=0)
        self.width = ids.shape[1]
        self.logits = self._forward(ids, positions, mask)
        order = torch.tensor(owners, device=self.device)
        if list(owners) != list(range(len(prompts))):
            self.cache.reorder_cache(order)
            self.logits = self.logits[order]
        self.next_position = mask.sum(-1, keepdim=True)[order]
        self.mask = torch.cat([mask[order], mask.new_ones((len(owners), room))], dim=-1)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(A, V) float32 logits of the last position."""
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def keep(self, places: Sequence[int]) -> None:
        """Only the rows in these batch places go on."""
        chosen = torch.tensor(places, device=self.device)
        self.cache.reorder_cache(chosen)
        self.slots = [self.slots[place] for place in places]
        self.next_position = self.next_position[chosen]
        self.mask = self.mask[chosen]

    def step(self, tokens: torch.Tensor) -> None:
        """Feed one token per row, (A,)."""
        self.width += 1
        self.logits = self._forward(tokens[:, None], self.next_position, self.mask[:, : self.width])
        self.next_position = self.next_position + 1


@torch.inference_mode()
def decode_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    asks: Sequence[Ask],
    sampling: Sampling,
    *,
    end_ids: frozenset[int],
    pad_id: int,
    hits_stop: Callable[[list[int]], bool] | None = None,
) -> list[Decoded]:
    """Decode every row to an ending token, a stop string or its own limit.

    Args:
        model: a causal LM in eval mode.
        prompts: distinct prompts; each is prefilled once.
        asks: one per row; `prompt` indexes `prompts`.
        sampling: shared by all rows; its max_new_tokens is not used, each row has its own.
        end_ids: tokens that end a row.
        pad_id: any valid id.
        hits_stop: whether the ids so far end in a stop string.
    Returns: one per row, in order.
    """
    room = max(ask.max_new_tokens for ask in asks)
    batch = _Batch(model, prompts, [ask.prompt for ask in asks], pad_id, room)
    noise = Noise([ask.seed for ask in asks], batch.device) if sampling.temperature > 0 else None
    ids: list[list[int]] = [[] for _ in asks]
    stopped = [False] * len(asks)
    done = [False] * len(asks)
    while True:
        live = [place for place, row in enumerate(batch.slots) if not done[row]]
        tokens = _next_tokens(batch, live, noise, sampling)
        for place, token in zip(
            live, tokens[live].tolist() if len(live) < len(tokens) else tokens.tolist(), strict=True
        ):
            row = batch.slots[place]
            ids[row].append(token)
            stopped[row] = token in end_ids or (hits_stop is not None and hits_stop(ids[row]))
            done[row] = stopped[row] or len(ids[row]) >= asks[row].max_new_tokens
        live = [place for place in live if not done[batch.slots[place]]]
        if not live:
            return [Decoded(row_ids, row_stopped) for row_ids, row_stopped in zip(ids, stopped, strict=True)]
        if len(batch.slots) - len(live) >= max(1.0, COMPACT_SHARE * len(batch.slots)):
            tokens = tokens[torch.tensor(live, device=tokens.device)]
            batch.keep(live)
        batch.step(tokens)


def _next_tokens(batch: _Batch, live: Sequence[int], noise: Noise | None, sampling: Sampling) -> torch.Tensor:
    """(A,) next token of every batch place; those of ended rows mean nothing and are fed only to keep the shape."""
    logits = batch.logits
    if noise is None:
        return logits.argmax(dim=-1)
    if len(live) == len(batch.slots):
        drawn = noise.draw(batch.slots, logits.shape[-1])
        return perturbed_logits(logits, drawn, sampling).argmax(dim=-1)
    places = torch.tensor(live, device=logits.device)
    drawn = noise.draw([batch.slots[place] for place in live], logits.shape[-1])
    tokens = torch.zeros(len(batch.slots), dtype=torch.long, device=logits.device)
    tokens[places] = perturbed_logits(logits[places], drawn, sampling).argmax(dim=-1)
    return tokens


@torch.inference_mode()
def deciding_gap(
    model: Any, prompt: Sequence[int], completion: Sequence[int], position: int, *, seed: int, sampling: Sampling
) -> float:
    """How clearly token `position` of a completion was decided: best minus second best perturbed logit, >= 0.

    Recomputed without batch or cache. Two runs whose texts differ first at a token with a gap below 1e-3 differ by
    rounding; a larger gap means that something else changed.
    """
    device = model.device
    ids = torch.tensor([[*prompt, *completion[:position]]], device=device)
    logits = model(input_ids=ids, logits_to_keep=1, use_cache=False).logits[:, -1].float()
    drawn = None
    if sampling.temperature > 0:
        noise = Noise([seed], device)
        for _ in range(position + 1):
            drawn = noise.draw([0], logits.shape[-1])
    best, second = perturbed_logits(logits, drawn, sampling).topk(2, dim=-1).values[0].tolist()
    return float(best - second)
