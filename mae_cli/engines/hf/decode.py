"""The decode loop of the `hf` engine: rows leave when they end, waiting rows take their slots.

Each distinct prompt is prefilled once for all its samples. A row's text is a function of the row: its noise is its
own (`sampling.py`), and the batch it ran in (`slots.py`) shows in rounding only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

import torch

from mae_cli.engines.hf.constraints import Masks, NoMasks
from mae_cli.engines.hf.prefill import Prefilled, Prefiller, take
from mae_cli.engines.hf.sampling import next_tokens, noise_for
from mae_cli.engines.hf.slots import Recomputed, Slots, WholeBatch, batch_for
from mae_cli.records import Sampling

ENTER_SHARE = 0.25
"""Share of free slots at which waiting prompts are prefilled: a forward pass over few rows wastes the machine."""


class RowRequest(NamedTuple):
    """One row to decode: which prompt it continues, its noise and its token limit."""

    prompt: int
    seed: int
    max_new_tokens: int


class Decoded(NamedTuple):
    """Generated ids, the ending token included; `stopped` is false when the limit cut the row."""

    ids: list[int]
    stopped: bool
    failed: bool = False
    """The model's next logits are not numbers; the row ends before them."""


class _Waiting:
    """Rows that have not started, prompt by prompt, and a prefilled chunk whose rows are being handed out."""

    def __init__(
        self, prefill: Prefiller, prompts: Sequence[Sequence[int]], asks: Sequence[RowRequest], slots: int
    ) -> None:
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
            prompts, weights = [self._prompts[prompt] for prompt, _ in ahead], [len(rows) for _, rows in ahead]
            count = take(prompts, weights, free, self._prefill.tokens_at_once)
            if self._prefill.way.rows == "equal":
                count = sum(1 for _ in takewhile(lambda one: len(one) == len(prompts[0]), prompts[:count]))
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
    asks: Sequence[RowRequest],
    sampling: Sampling,
    *,
    slots: int,
    end_ids: frozenset[int],
    hits_stop: Callable[[list[int]], bool] | None = None,
    done: Callable[[int, Decoded], None],
    entered: Callable[[int], None] | None = None,
    known_ids: int | None = None,
    masks: Masks | None = None,
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
        known_ids: ids from here on are padding of the output layer, without a text, and are never chosen.
        masks: which tokens may come next, where rows are held to a schema.
    """
    model = prefill.model
    slots = 1 if prefill.way.rows in ("single", "recompute") else min(slots, len(asks))
    batch = batch_for(model, slots, prefill.way, captures=prefill.captures)
    waiting = _Waiting(prefill, prompts, asks, slots)
    noise = noise_for(model.device) if sampling.temperature > 0 else None
    held = masks or NoMasks()
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
                held.open(row)
                if noise is not None:
                    noise.open(row, asks[row].seed, len(prompts[asks[row].prompt]))
            if entered is not None:
                entered(batch.count)
        assert logits is not None
        if known_ids is not None:
            logits[:, known_ids:] = float("-inf")
        tokens = next_tokens(held.applied(logits, rows), rows, noise, sampling)
        told = _told(tokens, logits)
        held.accept(rows, told)
        ended = []
        for place, token in enumerate(told):
            row = rows[place]
            failed = token < 0
            if not failed:
                ids[row].append(token)
            stopped = not failed and (token in end_ids or (hits_stop is not None and hits_stop(ids[row])))
            if failed or stopped or len(ids[row]) >= asks[row].max_new_tokens:
                ended.append(place)
                done(row, Decoded(ids.pop(row), stopped, failed=failed))
                held.close(row)
                if noise is not None:
                    noise.close(row)
        if ended:
            order = batch.leave(ended)
            rows = [rows[place] for place in order]
            tokens = tokens[torch.tensor(order, dtype=torch.long, device=tokens.device)]
        logits = batch.step(tokens) if rows else None


def _told(tokens: torch.Tensor, logits: torch.Tensor) -> list[int]:
    """The chosen tokens as numbers, -1 in rows without any: not-a-number is the largest of a row, so it was chosen."""
    chosen = logits.gather(-1, tokens[:, None])[:, 0]
    numbers: list[int] = torch.where(chosen.isnan(), -1, tokens).tolist()
    return numbers


def _may_enter(batch: Slots | WholeBatch | Recomputed, waiting: _Waiting) -> bool:
    free = batch.slots - batch.count
    if batch.count == 0:
        return True
    if not batch.joins or free == 0:
        return False
    return waiting.is_prefilled or free >= ENTER_SHARE * batch.slots
