"""The batch size of the `hf` engine for `batch_size: auto`: measured once on this machine, then remembered.

The measure is kept in `$MAE_CACHE/batch_sizes.json` by model, device, type and torch version, so that a resumed command
cuts the same segments as the one it resumes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mae_cli.engines.hf.prefill import Prefiller
from mae_cli.engines.hf.slots import slots_for
from mae_cli.models.load import context_length
from mae_cli.records import digest

SIZES = (8, 16, 32, 64, 128, 256)
DEFAULT = 32
"""Rows at a time where nothing was measured: small jobs, models whose layers are not plain."""
GAIN = 1.15
"""A doubled batch must give so many times the tokens per second; below that it only costs memory."""
PROMPT_TOKENS, STEPS = 128, 3
CPU_SHARE, GPU_SHARE = 0.25, 0.8
"""Share of the machine's memory that keys and values may take."""


def bytes_per_token(model: Any) -> int:
    """Memory of one cached token: keys and values of all layers."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def room_bytes(model: Any) -> int:
    """Memory for keys and values beside the weights.

    Of what the machine has, not of what is free now: a resumed command must cut the same segments, whatever else runs
    beside it. Where less is free on a GPU, the batch is halved until it fits.
    """
    if model.device.type == "cuda":
        weights: int = sum(parameter.nbytes for parameter in model.parameters())
        return max(0, int(GPU_SHARE * torch.cuda.get_device_properties(model.device).total_memory) - weights)
    with contextlib.suppress(OSError, ValueError):
        return int(CPU_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return 4 * 2**30


def fitting(size: int, tokens_per_row: int, model: Any) -> int:
    """The largest of `SIZES` up to `size` whose keys and values fit, at least 1."""
    most = room_bytes(model) // max(1, tokens_per_row * bytes_per_token(model))
    if size <= most:
        return size
    return max((known for known in SIZES if known <= most), default=max(1, most))


def best_size(prefill: Prefiller, folder: Path, model_digest: str) -> int:
    """The measured batch size of this model on this machine."""
    model = prefill.model
    key = digest(
        model_digest,
        torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else str(model.device),
        prefill.captures,
        str(model.dtype),
        str(torch.__version__),
        torch.get_num_threads(),
        os.cpu_count(),
    )
    path = folder / "batch_sizes.json"
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text())
    if isinstance(known.get(key), int):
        return known[key]
    size = measure(lambda rows: seconds_per_step(prefill, rows))
    # Two processes may write at once; either result is good.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        beside.write_text(json.dumps({**known, key: size}, indent=1))
        beside.replace(path)
    return size


def measure(seconds: Callable[[int], float]) -> int:
    """The batch size after which doubling the rows gains little; `seconds(rows)` times one step, inf without memory."""
    best, speed = SIZES[0], SIZES[0] / seconds(SIZES[0])
    if speed == 0:
        return best
    for size in SIZES[1:]:
        faster = size / seconds(size)
        if faster < GAIN * speed:
            return best
        best, speed = size, faster
    return best


@torch.inference_mode()
def seconds_per_step(prefill: Prefiller, rows: int) -> float:
    """The fastest of a few decoding steps of `rows` rows behind short prompts."""
    model = prefill.model
    if fitting(rows, 2 * PROMPT_TOKENS, model) < rows:
        return float("inf")
    slots = slots_for(model, rows, captures=prefill.captures and prefill.way.graph)
    # A learned table of positions may be shorter.
    length = max(1, min(PROMPT_TOKENS, (context_length(model) or 2 * PROMPT_TOKENS) - STEPS))
    try:
        slots.enter(prefill([[0] * length]), [0] * rows, STEPS)
        tokens = torch.zeros(rows, dtype=torch.long, device=model.device)
        best = float("inf")
        for _ in range(STEPS):
            start = time.perf_counter()
            slots.step(tokens).argmax(-1).tolist()
            best = min(best, time.perf_counter() - start)
    except torch.cuda.OutOfMemoryError:
        return float("inf")
    return best
