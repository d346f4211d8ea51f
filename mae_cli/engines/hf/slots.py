"""The batch of rows being decoded: one forward pass over all of them adds a token to each.

`Slots` reads the live rows and columns only. `GraphSlots` keeps every shape, so that a GPU replays one captured graph
instead of waiting for Python to start a thousand kernels. `WholeBatch` is for models whose layers are not plain.

Shapes: S slots, A live rows, T columns, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from mae_cli.engines.hf.cache import SPARE, FixedLayer, SlotLayer, cache_of
from mae_cli.engines.hf.prefill import Prefilled
from mae_cli.engines.hf.ways import Way, placed, run, run_cached
from mae_cli.errors import EngineError

log = logging.getLogger(__name__)
GRAPH_SPARE = 256
"""Columns that full buffers grow by with a graph: it is captured anew then, at the price of a dozen steps."""


class Slots:
    """Live rows of a model whose layers are plain: any row may leave or enter at any step."""

    joins = True
    spare = SPARE

    def __init__(self, model: Any, slots: int) -> None:
        self.model, self.slots = model, slots
        self.count = 0
        self.layers: list[Any] = []
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
            self.layers = [self._layer() for _ in prompts]
            self.cache = cache_of(self.model.config, self.layers)
        width = prefilled.mask.shape[-1]
        live = self.layers[0].get_seq_length() if self.count else 0
        needed = max(width, live)
        if self.count == 0 and self.mask.shape[-1] >= needed + room:
            for layer in self.layers:
                layer.restart(needed)
        elif self.count == 0 or width > self.end or self.end == self.mask.shape[-1]:
            self._resize(needed, needed + max(room, SPARE), [(layer.keys, layer.values) for layer in prompts])
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
        self._make_room()
        self.mask[: self.count, self.end] = 1
        output = run(
            self.model,
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

    def _layer(self) -> SlotLayer:
        return SlotLayer()

    def _make_room(self) -> None:
        """A free column for the next token."""
        if self.end == self.mask.shape[-1]:
            width = self.layers[0].get_seq_length()
            likes = [(layer.key_buffer, layer.value_buffer) for layer in self.layers]
            self._resize(width, width + self.spare, likes)

    def _resize(self, end: int, capacity: int, likes: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        old_start, old_end = (self.layers[0].start, self.end) if self.count else (0, 0)
        for layer, like in zip(self.layers, likes, strict=True):
            layer.resize(self.slots, capacity, like, end)
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


class GraphSlots(Slots):
    """Slots whose forward pass always has S rows and the whole buffers, so that it can be captured once and replayed.

    Free slots go through it too, and nobody reads them. Where the model cannot be captured (its forward pass asks the
    GPU for a number, say), the same shapes are computed step by step.
    """

    spare = GRAPH_SPARE

    def __init__(self, model: Any, slots: int) -> None:
        super().__init__(model, slots)
        self._tokens = torch.zeros((slots, 1), dtype=torch.long, device=model.device)
        self._column = torch.zeros(1, dtype=torch.long, device=model.device)
        self._captures = model.device.type == "cuda"
        self._has_run = False
        self._graph: Any = None
        self._logits: torch.Tensor | None = None

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed one token per live row, (A,); returns (A, V) float32 logits, good until the next step."""
        self._make_room()
        self._tokens[: self.count, 0] = tokens
        self._column.fill_(self.end)
        # What a first forward pass sets up (workspaces, lazy modules) must not be set up inside a capture.
        if self._graph is None and self._captures and self._has_run:
            self._capture()
        if self._graph is None:
            logits = self._forward()
            self._has_run = True
        else:
            self._graph.replay()
            assert self._logits is not None
            logits = self._logits
        self.next_position[: self.count] += 1
        for layer in self.layers:
            layer.end += 1
        return logits[: self.count]

    def _forward(self) -> torch.Tensor:
        # Free slots see this column at least: a row that sees nothing would be NaN, and its keys would stay.
        self.mask.index_fill_(1, self._column, 1)
        bias = torch.zeros_like(self.mask, dtype=self.layers[0].key_buffer.dtype)
        bias = bias.masked_fill_(self.mask == 0, float("-inf"))[:, None, None]
        output = run(
            self.model,
            input_ids=self._tokens,
            position_ids=self.next_position,
            attention_mask=bias,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _capture(self) -> None:
        """Record the forward pass, unless it asks the GPU for something on its way."""
        if not self._runs_without_waiting():
            self._captures = False
            log.info("decoding without a CUDA graph: the model's forward pass waits for the GPU")
            return
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._logits = self._forward()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise EngineError(f"no CUDA graph of the decoding step ({reason}): use --engine hf:steps") from error
        self._graph = graph

    def _runs_without_waiting(self) -> bool:
        # A capture that is broken off leaves torch's allocator and generator believing they are still in it.
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            self._forward()
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            return False
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        return True

    def _layer(self) -> SlotLayer:
        return FixedLayer(self._column)

    def _resize(self, end: int, capacity: int, likes: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        # The old graph's memory can be taken again, and attention kernels like rows of 64.
        self._graph = self._logits = None
        self._has_run = False
        super()._resize(end, -(-capacity // 64) * 64, likes)

    def _set_window(self) -> None:
        super()._set_window()
        # A free slot's position must not run away: some models look it up in a table.
        self.next_position[self.count :] = 0


def slots_for(model: Any, slots: int, *, captures: bool) -> Slots:
    """Slots as they are fastest on the model's device; without `captures` those that take every step by itself."""
    return GraphSlots(model, slots) if captures and model.device.type == "cuda" else Slots(model, slots)


class WholeBatch:
    """Live rows of any other model (sliding windows, recurrent layers): rows leave, and none enters before all left."""

    joins = False

    def __init__(self, model: Any, slots: int, way: Way) -> None:
        self.model, self.slots, self.way = model, slots, way
        self.count = 0

    def enter(self, prefilled: Prefilled, sources: Sequence[int], room: int) -> None:
        """All rows of a prefill at once."""
        places = torch.tensor(sources, device=self.model.device)
        self.cache = _reordered(prefilled.cache, list(sources), len(prefilled.lengths), places)
        self.mask = prefilled.mask[places]
        self.next_position = self.mask.sum(-1, keepdim=True)
        self.ids = None if prefilled.ids is None else prefilled.ids[places]
        self.count = len(sources)

    def leave(self, places: Sequence[int]) -> list[int]:
        """End rows; returns the old places of those that remain."""
        ended = set(places)
        order = [place for place in range(self.count) if place not in ended]
        if order:
            chosen = torch.tensor(order, device=self.model.device)
            self.cache = _reordered(self.cache, order, self.count, chosen)
            self.mask, self.next_position = self.mask[chosen], self.next_position[chosen]
            self.ids = None if self.ids is None else self.ids[chosen]
        self.count = len(order)
        return order

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed one token per live row, (A,); returns (A, V) float32 logits."""
        self.mask = torch.cat([self.mask, self.mask.new_ones((self.count, 1))], dim=-1)
        inputs = {"input_ids": tokens[:, None], **placed(self.way, self.next_position)}
        if self.ids is not None:
            self.ids = torch.cat([self.ids, tokens[:, None]], dim=-1)
            if self.mask.shape[-1] - 1 == self.way.switch:
                # Rows of one length, and all of them count their positions anew from here.
                self.cache = None if self.way.own_cache else DynamicCache(config=self.model.config)
                inputs = {"input_ids": self.ids, **placed(self.way, (self.mask.cumsum(-1) - 1).clamp_(min=0))}
        mask = self.mask if self.way.step_mask or inputs["input_ids"].shape[-1] > 1 else None
        output, self.cache = run_cached(self.model, self.cache, attention_mask=mask, logits_to_keep=1, **inputs)
        self.next_position = self.next_position + 1
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


def _reordered(kept: Any, order: list[int], held: int, places: torch.Tensor) -> Any:
    """A cache with those rows of the `held` it has, in that order."""
    if order == list(range(held)):
        return kept
    if isinstance(kept, list | tuple):
        return [part.index_select(0, places) for part in kept]
    kept.reorder_cache(places)
    return kept


class Recomputed:
    """One row of a model whose cache changes its text: each step reads the whole row again."""

    joins = False

    def __init__(self, model: Any, slots: int) -> None:
        self.model, self.slots, self.count = model, slots, 0

    def enter(self, prefilled: Prefilled, sources: Sequence[int], room: int) -> None:
        """The row."""
        assert prefilled.ids is not None
        self.ids, self.count = prefilled.ids, 1

    def leave(self, places: Sequence[int]) -> list[int]:
        """End it."""
        self.count = 0
        return []

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed the row with one token more; returns (1, V) float32 logits."""
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=-1)
        logits: torch.Tensor = run(self.model, input_ids=self.ids, use_cache=False).logits[:, -1].float()
        return logits


def batch_for(model: Any, slots: int, way: Way, *, captures: bool) -> Slots | WholeBatch | Recomputed:
    """The batch that goes this way."""
    if way.rows == "slots":
        return slots_for(model, slots, captures=captures and way.graph)
    return Recomputed(model, slots) if way.rows == "recompute" else WholeBatch(model, slots, way)
