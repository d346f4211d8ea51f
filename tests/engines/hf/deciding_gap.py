"""What tells rounding from a real difference where two texts of one row differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mae_cli.engines.hf.sampling import noise_for, perturbed_logits
from mae_cli.records import Sampling


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
        noise = noise_for(device)
        noise.open(0, seed, len(prompt))
        for _ in range(position + 1):
            drawn = noise.draw([0], logits.shape[-1])
    best, second = perturbed_logits(logits, drawn, sampling).topk(2, dim=-1).values[0].tolist()
    return float(best - second)
