"""Decoding of a model whose positions depend on the longest row of a batch (LongRoPE): rows are sorted by length.

Rows that stay below the switch share batches and beginnings as those of any model. Rows whose prompt is beyond it share
batches with each other, but no beginning: alone, that would be read with the other positions. Rows that cross it are
decoded with prompts of their own length, and read anew when they cross. So a row's text is a function of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mae_cli.engines.hf.decode import Decoded, RowRequest, decode
from mae_cli.engines.hf.prefill import Prefiller
from mae_cli.records import Sampling


def decode_by_length(
    prefill: Prefiller,
    prompts: Sequence[Sequence[int]],
    asks: Sequence[RowRequest],
    sampling: Sampling,
    *,
    done: Callable[[int, Decoded], None],
    **options: Any,
) -> None:
    """`decode.decode` of rows of any lengths; the arguments are its own."""
    switch = prefill.way.switch
    if switch is None or prefill.way.rows in ("single", "recompute"):
        decode(prefill, prompts, asks, sampling, done=done, **options)
        return
    below: list[int] = []
    across: list[int] = []
    beyond: list[int] = []
    for row, ask in enumerate(asks):
        length = len(prompts[ask.prompt])
        (beyond if length > switch else below if length + ask.max_new_tokens <= switch else across).append(row)
    apart = msgspec.structs.replace(prefill.way, prefix=False)
    equal = msgspec.structs.replace(apart, rows="equal", tree="none")
    for rows, way in ((below, None), (beyond, apart), (across, equal)):
        if rows:
            _decode_some(prefill if way is None else prefill.on(way), prompts, asks, rows, sampling, done, options)


def _decode_some(
    prefill: Prefiller,
    prompts: Sequence[Sequence[int]],
    asks: Sequence[RowRequest],
    rows: Sequence[int],
    sampling: Sampling,
    done: Callable[[int, Decoded], None],
    options: dict[str, Any],
) -> None:
    used = list(dict.fromkeys(asks[row].prompt for row in rows))
    if prefill.way.rows == "equal":
        used.sort(key=lambda prompt: -len(prompts[prompt]))
    place = {prompt: number for number, prompt in enumerate(used)}
    chosen = [asks[row]._replace(prompt=place[asks[row].prompt]) for row in rows]
    # Rows of one prompt stand side by side in the order of the prompts that are left.
    order = sorted(range(len(rows)), key=lambda number: chosen[number].prompt)
    decode(
        prefill,
        [prompts[prompt] for prompt in used],
        [chosen[number] for number in order],
        sampling,
        done=lambda row, decoded: done(rows[order[row]], decoded),
        **options,
    )
