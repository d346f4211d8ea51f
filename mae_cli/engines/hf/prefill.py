"""Prefill of the `hf` engine: prompts that begin with the same tokens share the keys and values of that beginning.

Shapes: N prompts, P prefix tokens, T prompt tokens with padding, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from mae_cli.engines.hf.cache import PrefillLayer, cache_of
from mae_cli.engines.hf.ways import Way, first_way, new_cache, placed, run, run_cached
from mae_cli.models.shared_prefix import common_prefix_length

MIN_SHARED = 16
"""Tokens that prompts must have in common before their beginning is cached; fewer cost more than they save."""
PREFIX_GAIN = 64
"""Prompt tokens a new prefix must save at once: about what a forward pass over a single row costs beyond them."""
KEPT_PREFIXES = 4
"""Prefixes kept between batches: the stages of a round take turns with a few prompts."""
PREFILL_TOKENS = 2048
"""Prompt tokens of one forward pass on a CPU, padding included: larger passes pad more and miss the caches."""
GPU_PREFILL_TOKENS = 16384
"""On anything else, which many small passes would leave idle."""
LayerStates = list[tuple[torch.Tensor, torch.Tensor]]


class Prefilled(NamedTuple):
    """N prompts, ready to be continued."""

    cache: Any
    """With `PrefillLayer`s, unless the model's own layers are not plain."""
    mask: torch.Tensor
    """(N, T), 1 where a column holds a token."""
    lengths: list[int]
    logits: torch.Tensor
    """(N, V) float32, of the next token."""
    ids: torch.Tensor | None = None
    """(N, T), the tokens fed."""


class _Prefix(NamedTuple):
    ids: tuple[int, ...]
    states: LayerStates


class Prefiller:
    """Runs prompts through one model with one adapter; make a new one when either changes.

    Attributes:
        captures: whether steps behind these prompts may be captured as a CUDA graph.
        way: how the model's rows are decoded.
    """

    def __init__(self, model: Any, pad_id: int, *, captures: bool = True, way: Way | None = None) -> None:
        self.model, self.captures = model, captures
        self.way = first_way(model.config) if way is None else way
        self.reused_tokens = 0
        """Prompt tokens that were not computed again."""
        self.tokens_at_once = PREFILL_TOKENS if model.device.type == "cpu" else GPU_PREFILL_TOKENS
        self._pad_id = pad_id
        self._kept: list[_Prefix] = []

    @property
    def shares(self) -> bool:
        """Whether rows may enter and leave at any step, each with its own columns of the cache."""
        return self.way.rows == "slots"

    def on(self, way: Way) -> Prefiller:
        """Another one for the same model that goes another way, with nothing kept."""
        other = Prefiller(self.model, self._pad_id, captures=self.captures, way=way)
        other.tokens_at_once = self.tokens_at_once
        return other

    def forget(self) -> None:
        """Free the kept prefixes."""
        self._kept.clear()

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Sequence[int]]) -> Prefilled:
        """Prefill prompts of at least one token each; about `tokens_at_once` of them at most, see `take`."""
        if self.way.rows == "recompute":
            return self._read(prompts[0])
        prefix = self._prefix(prompts) if self.shares and self.way.prefix else None
        if prefix is None:
            layers = [PrefillLayer() for _ in range(_num_layers(self.model))] if self.shares else None
            return self._forward(prompts, 0, layers)
        shared = len(prefix.ids)
        self.reused_tokens += shared * len(prompts)
        return self._forward([prompt[shared:] for prompt in prompts], shared, _layers(prefix.states, shared))

    def behind(self, prompts: Sequence[Sequence[int]], shared: int) -> Prefilled:
        """Prefill prompts whose first `shared` tokens are equal, behind these; whatever that saves."""
        made = self._forward([prompts[0][:shared]], 0, [PrefillLayer() for _ in range(_num_layers(self.model))])
        states = [layer.whole() for layer in made.cache.layers]
        return self._forward([prompt[shared:] for prompt in prompts], shared, _layers(states, shared))

    def _read(self, prompt: Sequence[int]) -> Prefilled:
        """One prompt without any cache; its tokens stand in for one."""
        ids = torch.tensor([list(prompt)], device=self.model.device)
        output = run(self.model, input_ids=ids, use_cache=False)
        return Prefilled(None, torch.ones_like(ids), [len(prompt)], output.logits[:, -1].float(), ids)

    def _forward(self, rests: Sequence[Sequence[int]], shared: int, layers: list[PrefillLayer] | None) -> Prefilled:
        config = self.model.config
        cache = new_cache(config, own=self.way.own_cache) if layers is None else cache_of(config, layers)
        ids, mask = left_pad(rests, self._pad_id, self.model.device)
        # Padding gets the first position; nothing attends to it.
        positions = shared + (mask.cumsum(-1) - 1).clamp_(min=0)
        mask = torch.cat([mask.new_ones((len(rests), shared)), mask], dim=-1)
        output, cache = run_cached(
            *(self.model, cache), input_ids=ids, attention_mask=mask, logits_to_keep=1, **placed(self.way, positions)
        )
        return Prefilled(cache, mask, [shared + len(rest) for rest in rests], output.logits[:, -1].float(), ids)

    def _prefix(self, prompts: Sequence[Sequence[int]]) -> _Prefix | None:
        """What these prompts begin with, cached; none when that is too little."""
        common = list(prompts[0][: common_prefix_length(prompts)])
        best, usable = None, 0
        for kept in self._kept:
            length = common_length(kept.ids, common)
            if length > usable:
                best, usable = kept, length
        if len(common) - usable >= MIN_SHARED and (len(prompts) - 1) * (len(common) - usable) >= PREFIX_GAIN:
            layers = _layers(best.states, usable) if best else [PrefillLayer() for _ in range(_num_layers(self.model))]
            made = self._forward([common[usable:]], usable, layers)
            best, usable = _Prefix(tuple(common), [layer.whole() for layer in made.cache.layers]), len(common)
            self._kept.append(best)
        if best is None or usable < MIN_SHARED:
            return None
        others = [kept for kept in self._kept if kept is not best]
        self._kept = [*others[1 - KEPT_PREFIXES :], best]
        return best if usable == len(best.ids) else _Prefix(best.ids[:usable], best.states)


def _layers(states: LayerStates, length: int) -> list[PrefillLayer]:
    return [PrefillLayer((keys[:, :, :length], values[:, :, :length])) for keys, values in states]


def _num_layers(model: Any) -> int:
    return len(DynamicCache(config=model.config).layers)


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt ids and their mask, both (N, T), padding on the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens two sequences have in common at the start."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def order_for_sharing(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Indices of prompts so that neighbours share a beginning and are about as long: families, each longest first.

    Long prompts come first because a row that enters a running batch must not be wider than it.
    """
    families: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        families.setdefault(tuple(prompt[: 2 * MIN_SHARED]), []).append(index)
    loners = [members[0] for members in families.values() if len(members) == 1]
    groups = [*(members for members in families.values() if len(members) > 1), loners]
    groups.sort(key=lambda members: -max((len(prompts[index]) for index in members), default=0))
    return [index for members in groups for index in sorted(members, key=lambda index: (-len(prompts[index]), index))]


def take(prompts: Sequence[Sequence[int]], weights: Sequence[int], wanted: int, max_tokens: int) -> int:
    """Number of prompts, from the first, to prefill together: enough for `wanted` rows, at most `max_tokens` padded.

    `weights` are the rows each prompt is needed for. A prompt that would cost the others half of what they share
    waits for the next forward pass.
    """
    shared = len(prompts[0])
    longest = rows = 0
    for count, (prompt, weight) in enumerate(zip(prompts, weights, strict=True)):
        common = common_length(prompts[0][:shared], prompt)
        longest = max(longest, len(prompt))
        rest = longest - (common if common >= MIN_SHARED else 0)
        if count and (rows >= wanted or (count + 1) * rest > max_tokens):
            return count
        if count > 1 and shared >= MIN_SHARED and common < shared // 2:
            return count
        shared = common
        rows += weight
    return len(prompts)
