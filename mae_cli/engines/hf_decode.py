"""The decode loop of the `hf` engine: rows leave when they end, waiting rows take their slots.

Each distinct prompt is prefilled once for all its samples. A row's text is a function of the row: its noise is its
own (`hf_sampling.py`), and the batch it ran in shows in rounding only.

Shapes: S slots, A live rows, T columns, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from mae_cli.engines.hf_cache import SPARE, SlotLayer, cache_of
from mae_cli.engines.hf_prefill import Prefilled, Prefiller, take
from mae_cli.engines.hf_sampling import Noise, next_tokens
from mae_cli.records import Sampling

ENTER_SHARE = 0.25
"""Share of free slots at which waiting prompts are prefilled: a forward pass over few rows wastes the machine."""


class Ask(NamedTuple):
    """One row to decode: which prompt it continues, its noise and its token limit."""

    prompt: int
    seed: int
    max_new_tokens: int


class Decoded(NamedTuple):
    """Generated ids, the ending token included; `stopped` is false when the limit cut the row."""

    ids: list[int]
    stopped: bool


class Slots:
    """Live rows of a model whose layers are plain: any row may leave or enter at any step."""

    joins = True

    def __init__(self, model: Any, slots: int) -> None:
        self.model, self.slots = model, slots
        self.count = 0
        self.layers: list[SlotLayer] = []
        self.cache: Any = None
        self.mask = torch.zeros((slots, 0), dtype=torch.long, device=model.device)
        self.next_position = torch.zeros((slots, 1), dtype=torch.long, device=model.device)

    @property
    def end(self) -> int:
        """The column the next token will be written to."""
        return self.layers[0].end if self.layers else 0

    def enter(self, prefilled: Prefilled, sources: Sequence[int], room: int) -> None:
        """Rows of a prefill into free slots; `room` is how many columns the longest will need."""
        prompts = prefilled.cache.layers
        if not self.layers:
            self.layers = [SlotLayer() for _ in prompts]
            self.cache = cache_of(self.model.config, self.layers)
        width = prefilled.mask.shape[-1]
        live = self.layers[0].get_seq_length() if self.count else 0
        needed = max(width, live)
        if self.count == 0 and self.mask.shape[-1] >= needed + room:
            for layer in self.layers:
                layer.restart(needed)
        elif self.count == 0 or width > self.end or self.end == self.mask.shape[-1]:
            self._resize(needed, needed + max(room, SPARE), [layer.keys for layer in prompts])
        places = torch.tensor(sources, device=self.model.device)
        rows = slice(self.count, self.count + len(sources))
        for layer, prompt in zip(self.layers, prompts, strict=True):
            layer.put(self.count, prompt, places)
        self.mask[rows] = 0
        self.mask[rows, self.end - width : self.end] = prefilled.mask[places]
        self.next_position[rows, 0] = prefilled.mask[places].sum(-1)
        self.count += len(sources)
        self._set_window()

    def leave(self, places: Sequence[int]) -> list[int]:
        """End rows; returns which row each remaining place now holds (old places, in new order)."""
        order = list(range(self.count))
        for place in sorted(places, reverse=True):
            last = len(order) - 1
            if place != last:
                for layer in self.layers:
                    layer.move(last, place)
                self.mask[place] = self.mask[last]
                self.next_position[place] = self.next_position[last]
                order[place] = order[last]
            order.pop()
        self.count = len(order)
        self._set_window()
        return order

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed one token per live row, (A,); returns (A, V) float32 logits."""
        if self.end == self.mask.shape[-1]:
            width = self.layers[0].get_seq_length()
            self._resize(width, width + SPARE, [layer.key_buffer for layer in self.layers])
        self.mask[: self.count, self.end] = 1
        output = self.model(
            input_ids=tokens[:, None],
            position_ids=self.next_position[: self.count],
            attention_mask=self.mask[: self.count, self.layers[0].start : self.end + 1],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.next_position[: self.count] += 1
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _resize(self, end: int, capacity: int, likes: Sequence[torch.Tensor]) -> None:
        old_start, old_end = (self.layers[0].start, self.end) if self.count else (0, 0)
        for layer, like in zip(self.layers, likes, strict=True):
            layer.resize(self.slots, capacity, (like.shape[1], like.shape[3]), like, end)
        mask = self.mask.new_zeros((self.slots, capacity))
        mask[: self.count, end - (old_end - old_start) : end] = self.mask[: self.count, old_start:old_end]
        self.mask = mask

    def _set_window(self) -> None:
        """Columns that no live row uses are cut off on the left."""
        start = self.end
        if self.count:
            used = self.mask[: self.count, : self.end].any(0)
            start = int(used.to(torch.uint8).argmax())
        for layer in self.layers:
            layer.rows, layer.start = self.count, start


class _WholeBatch:
    """Live rows of any other model (sliding windows, recurrent layers): rows leave, and none enters before all left."""

    joins = False

    def __init__(self, model: Any, slots: int) -> None:
        self.model, self.slots = model, slots
        self.count = 0

    def enter(self, prefilled: Prefilled, sources: Sequence[int], room: int) -> None:
        """All rows of a prefill at once."""
        places = torch.tensor(sources, device=self.model.device)
        self.cache = prefilled.cache
        self.cache.reorder_cache(places)
        self.mask = prefilled.mask[places]
        self.next_position = self.mask.sum(-1, keepdim=True)
        self.count = len(sources)

    def leave(self, places: Sequence[int]) -> list[int]:
        """End rows; returns the old places of those that remain."""
        ended = set(places)
        order = [place for place in range(self.count) if place not in ended]
        if order:
            chosen = torch.tensor(order, device=self.model.device)
            self.cache.reorder_cache(chosen)
            self.mask, self.next_position = self.mask[chosen], self.next_position[chosen]
        self.count = len(order)
        return order

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed one token per live row, (A,); returns (A, V) float32 logits."""
        self.mask = torch.cat([self.mask, self.mask.new_ones((self.count, 1))], dim=-1)
        output = self.model(
            input_ids=tokens[:, None],
            position_ids=self.next_position,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.next_position = self.next_position + 1
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


class _Waiting:
    """Rows that have not started, prompt by prompt, and a prefilled chunk whose rows are being handed out."""

    def __init__(self, prefill: Prefiller, prompts: Sequence[Sequence[int]], asks: Sequence[Ask], slots: int) -> None:
        self._prefill, self._prompts, self._asks = prefill, prompts, asks
        rows: dict[int, list[int]] = {}
        for row, ask in enumerate(asks):
            rows.setdefault(ask.prompt, []).append(row)
        # Where no row can enter later, the samples of one prompt are cut to what the batch holds.
        size = len(asks) if prefill.shares else slots
        self._groups = deque(
            (prompt, members[start : start + size])
            for prompt, members in rows.items()
            for start in range(0, len(members), size)
        )
        self._limit = None if prefill.shares else slots
        self._chunk: Prefilled | None = None
        self._ready: deque[tuple[int, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._groups or self._ready)

    @property
    def is_prefilled(self) -> bool:
        """Whether some rows may enter without another forward pass."""
        return bool(self._ready)

    def next(self, free: int) -> tuple[Prefilled, list[int], list[int]]:
        """(prefill, its rows to use, the asks they belong to): at most `free` rows."""
        if not self._ready:
            ahead = list(self._groups)[: max(64, free)]
            count = take([self._prompts[prompt] for prompt, _ in ahead], [len(rows) for _, rows in ahead], free)
            if self._limit is not None:
                while sum(len(rows) for _, rows in ahead[:count]) > free:
                    count -= 1
            chosen = [self._groups.popleft() for _ in range(count)]
            self._chunk = self._prefill([self._prompts[prompt] for prompt, _ in chosen])
            self._ready.extend((place, row) for place, (_, rows) in enumerate(chosen) for row in rows)
        assert self._chunk is not None
        pairs = [self._ready.popleft() for _ in range(min(free, len(self._ready)))]
        chunk = self._chunk
        if not self._ready:
            self._chunk = None
        return chunk, [place for place, _ in pairs], [row for _, row in pairs]


@torch.inference_mode()
def decode(
    prefill: Prefiller,
    prompts: Sequence[Sequence[int]],
    asks: Sequence[Ask],
    sampling: Sampling,
    *,
    slots: int,
    end_ids: frozenset[int],
    hits_stop: Callable[[list[int]], bool] | None = None,
    done: Callable[[int, Decoded], None],
    entered: Callable[[int], None] | None = None,
) -> None:
    """Decode every row to an ending token, a stop string or its own limit.

    Args:
        prefill: of a causal LM in eval mode.
        prompts: distinct prompts of at least one token, in the order they should start (see `order_for_sharing`).
        asks: one per row; `prompt` indexes `prompts`.
        sampling: shared by all rows; its max_new_tokens is not used, each row has its own.
        slots: rows decoded at a time.
        end_ids: tokens that end a row.
        hits_stop: whether the ids so far end in a stop string.
        done: called with (row, what it became) as each row ends, so that what is finished outlives a failure.
        entered: called with the number of live rows whenever rows have entered.
    """
    model = prefill.model
    slots = min(slots, len(asks))
    batch = Slots(model, slots) if prefill.shares else _WholeBatch(model, slots)
    waiting = _Waiting(prefill, prompts, asks, slots)
    noise = Noise(model.device) if sampling.temperature > 0 else None
    rows: list[int] = []
    ids: dict[int, list[int]] = {}
    logits: torch.Tensor | None = None
    while rows or waiting:
        while waiting and _may_enter(batch, waiting):
            chunk, sources, new = waiting.next(batch.slots - batch.count)
            batch.enter(chunk, sources, max(asks[row].max_new_tokens for row in new))
            fresh = chunk.logits[torch.tensor(sources, device=model.device)]
            logits = fresh if logits is None else torch.cat([logits, fresh])
            rows += new
            for row in new:
                ids[row] = []
                if noise is not None:
                    noise.open(row, asks[row].seed)
            if entered is not None:
                entered(batch.count)
        assert logits is not None
        tokens = next_tokens(logits, rows, noise, sampling)
        ended = []
        for place, token in enumerate(tokens.tolist()):
            row = rows[place]
            ids[row].append(token)
            stopped = token in end_ids or (hits_stop is not None and hits_stop(ids[row]))
            if stopped or len(ids[row]) >= asks[row].max_new_tokens:
                ended.append(place)
                done(row, Decoded(ids.pop(row), stopped))
                if noise is not None:
                    noise.close(row)
        if ended:
            order = batch.leave(ended)
            rows = [rows[place] for place in order]
            tokens = tokens[torch.tensor(order, dtype=torch.long, device=tokens.device)]
        logits = batch.step(tokens) if rows else None


def _may_enter(batch: Slots | _WholeBatch, waiting: _Waiting) -> bool:
    free = batch.slots - batch.count
    if batch.count == 0:
        return True
    if not batch.joins or free == 0:
        return False
    return waiting.is_prefilled or free >= ENTER_SHARE * batch.slots
