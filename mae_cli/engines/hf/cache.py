"""Key/value caches of the `hf` engine, built on the library's cache classes.

`PrefillLayer` takes a prompt behind a prefix that is stored once. `SlotLayer` (on a GPU `FixedLayer`) holds the rows
being decoded: a step writes one column, an ended row is overwritten by the last one, and a new row is written into a
free slot, right aligned to the column the others have reached. None of this copies the rows that stay.

Shapes: N prompts of a prefill, S slots, A <= S live rows, H key/value heads, T columns, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Columns of spare room a slot buffer gets when it is full. Larger wastes memory, smaller copies more often.
SPARE = 64


class PrefillLayer(DynamicLayer):  # type: ignore[misc]
    """One forward over N prompts whose first tokens are cached already, for one row, in `prefix`.

    Only what is new is kept, (N, H, T, D); the prefix is repeated for the attention of one layer at a time.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, prefix: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        super().__init__()
        self.prefix = prefix

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put (N, H, T, D) behind the prefix and return all keys and values."""
        self.keys, self.values = key_states, value_states
        self.is_initialized = True
        return self.whole()

    def whole(self, rows: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of all prompts or of some, prefix included."""
        new = (self.keys, self.values) if rows is None else (self.keys[rows], self.values[rows])
        if self.prefix is None:
            return new
        keys, values = (
            torch.cat([old.expand(len(part), -1, -1, -1), part], dim=-2)
            for old, part in zip(self.prefix, new, strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        """Columns of the prefix, and after the forward those of the prompts."""
        held = 0 if self.prefix is None else int(self.prefix[0].shape[-2])
        return held + (int(self.keys.shape[-2]) if self.is_initialized else 0)


class SlotLayer(DynamicLayer):  # type: ignore[misc]
    """Rows in decoding: buffers (S, H, capacity, D) of which rows [:A] and columns [start:end] are live."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = self.start = self.end = 0
        self.key_buffer = self.value_buffer = torch.empty(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column, (A, H, 1, D), and return the live keys and values."""
        self.key_buffer[: self.rows, :, self.end] = key_states[:, :, 0]
        self.value_buffer[: self.rows, :, self.end] = value_states[:, :, 0]
        self.end += 1
        return self.live(self.key_buffer), self.live(self.value_buffer)

    def live(self, buffer: torch.Tensor) -> torch.Tensor:
        """The live part of a buffer, a view."""
        return buffer[: self.rows, :, self.start : self.end]

    def get_seq_length(self) -> int:
        """Live columns."""
        return self.end - self.start

    def resize(self, slots: int, capacity: int, likes: tuple[torch.Tensor, torch.Tensor], end: int) -> None:
        """Buffers with room for `capacity` columns; the live part moves so that it ends at column `end`.

        `likes`: keys and values, (*, H, *, D), of this model; some models have them in two sizes.
        """
        width = self.end - self.start
        for name, like in zip(("key_buffer", "value_buffer"), likes, strict=True):
            # Columns left of a row's prompt are never read unmasked, but 0 * NaN would still be NaN.
            fresh = like.new_zeros((slots, like.shape[1], capacity, like.shape[3]))
            if self.rows:
                fresh[: self.rows, :, end - width : end] = self.live(getattr(self, name))
            setattr(self, name, fresh)
        self.start, self.end = end - width, end

    def restart(self, end: int) -> None:
        """No live column; the next prompts end at column `end` of the buffers there are: new ones must be cleared."""
        self.start = self.end = end

    def put(self, place: int, prompts: PrefillLayer, rows: torch.Tensor) -> None:
        """Prompts `rows` of a prefill into places [place, place + n), right aligned."""
        places = slice(place, place + len(rows))
        split = self.end - prompts.keys.shape[-2]
        left = self.end - prompts.get_seq_length()
        for buffer, old, new in zip(
            (self.key_buffer, self.value_buffer),
            prompts.prefix or (None, None),
            (prompts.keys, prompts.values),
            strict=True,
        ):
            buffer[places, :, split : self.end] = new[rows]
            if old is not None:
                buffer[places, :, left:split] = old
            # What the slot's last row left may be NaN, and 0 * NaN, too.
            buffer[places, :, :left] = 0

    def move(self, source: int, target: int) -> None:
        """One row over another."""
        for buffer in (self.key_buffer, self.value_buffer):
            buffer[target, :, self.start : self.end] = buffer[source, :, self.start : self.end]


class FixedLayer(SlotLayer):
    """As `SlotLayer`, with the same shapes at every step: all slots, all columns.

    The column to write is a number on the device, (1,); whoever owns it moves `end` on.
    """

    def __init__(self, column: torch.Tensor) -> None:
        super().__init__()
        self.column = column

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one column, (S, H, 1, D), and return the buffers."""
        self.key_buffer.index_copy_(2, self.column, key_states)
        self.value_buffer.index_copy_(2, self.column, value_states)
        return self.key_buffer, self.value_buffer

    def put(self, place: int, prompts: PrefillLayer, rows: torch.Tensor) -> None:
        """As `SlotLayer.put`; the columns to come are read, too, masked."""
        super().put(place, prompts, rows)
        for buffer in (self.key_buffer, self.value_buffer):
            buffer[place : place + len(rows), :, self.end :] = 0


def has_plain_layers(config: Any) -> bool:
    """Whether every layer keeps all its keys and values, so that prefixes and slots may be used.

    Sliding windows and recurrent states depend on more than a row's own columns, and ALiBi is made from a mask of two
    dimensions; such models are decoded batch by batch without sharing prefixes between prompts.
    """
    if getattr(config.get_text_config(decoder=True), "alibi", False):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def cache_of(config: Any, layers: Sequence[DynamicLayer]) -> Any:
    """A library cache made of these layers."""
    cache = DynamicCache(config=config)
    cache.layers = list(layers)
    return cache
