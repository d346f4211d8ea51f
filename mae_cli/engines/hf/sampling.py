"""Choosing the next token: a row's own noise, temperature, top-k and top-p.

A sampled token is the largest of `logits / temperature + Gumbel noise`, and the noise is the row's own, so a row's text
does not depend on which rows share its batch (up to fp32 rounding). On a CPU it comes from a
generator per row; on CUDA, where that would be a kernel per row, it is a hash of the row's seed, position and token id.

Shapes: A rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from mae_cli.records import Sampling

# A nucleus is looked for among this many likeliest tokens before the whole vocabulary is sorted.
NUCLEUS_CANDIDATES = 512
# Multipliers of MurmurHash3's 32-bit finaliser (Appleby 2011) as signed integers, and the golden ratio's 32 bits.
FIRST, SECOND, GOLDEN = 0x85EBCA6B - 2**32, 0xC2B2AE35 - 2**32, 0x9E3779B9 - 2**32


class Noise(Protocol):
    """Uniform numbers, V per row and step, for the rows it was opened for."""

    def open(self, row: int, seed: int, position: int) -> None:
        """Start a row's noise; `position` counts the tokens before the one to be drawn."""

    def close(self, row: int) -> None:
        """Forget a row."""

    def draw(self, rows: Sequence[int], vocabulary: int) -> torch.Tensor:
        """(A, V) for the given rows; advances exactly these by one position."""


class GeneratorNoise:
    """From one generator per row, on the CPU, in [0, 1)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._generators: dict[int, torch.Generator] = {}
        self._buffer = torch.empty(0)

    def open(self, row: int, seed: int, position: int) -> None:
        """Start a row's noise; it is the same at every position."""
        self._generators[row] = torch.Generator().manual_seed(seed)

    def close(self, row: int) -> None:
        """Forget a row; a generator holds 2.5 kB."""
        self._generators.pop(row, None)

    def draw(self, rows: Sequence[int], vocabulary: int) -> torch.Tensor:
        """(A, V) for the given rows; advances exactly their generators."""
        if self._buffer.shape != (len(rows), vocabulary):
            self._buffer = torch.empty((len(rows), vocabulary))
        for place, row in enumerate(rows):
            self._buffer[place].uniform_(generator=self._generators[row])
        return self._buffer.to(self._device)


class HashNoise:
    """From a hash on the device, in (0, 1); `hf:paged` adds the same noise."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rows: dict[int, tuple[int, int]] = {}

    def open(self, row: int, seed: int, position: int) -> None:
        """Start a row's noise at a position."""
        self._rows[row] = (seed, position)

    def close(self, row: int) -> None:
        """Forget a row."""
        self._rows.pop(row, None)

    def draw(self, rows: Sequence[int], vocabulary: int) -> torch.Tensor:
        """(A, V) for the given rows at their positions."""
        keys = torch.tensor([mix(*self._rows[row]) for row in rows], dtype=torch.int32)
        for row in rows:
            seed, position = self._rows[row]
            self._rows[row] = (seed, position + 1)
        return uniform(keys.to(self._device), vocabulary)


def noise_for(device: torch.device) -> Noise:
    """The noise that is cheapest on a device; MPS takes the CPU's."""
    return HashNoise(device) if device.type == "cuda" else GeneratorNoise(device)


def next_tokens(logits: torch.Tensor, rows: Sequence[int], noise: Noise | None, sampling: Sampling) -> torch.Tensor:
    """(A,) the next token of every row, from (A, V) float32 logits."""
    drawn = None if noise is None else noise.draw(rows, logits.shape[-1])
    # `max` finds the same place as `argmax`, in less than half the time on a CPU.
    return perturbed_logits(logits, drawn, sampling).max(dim=-1).indices


def perturbed_logits(logits: torch.Tensor, noise: torch.Tensor | None, sampling: Sampling) -> torch.Tensor:
    """Scores whose argmax is the next token.

    Args:
        logits: (A, V) float32; not changed.
        noise: (A, V) uniform in [0, 1); may be overwritten; none for temperature 0.
        sampling: temperature, top_k, top_p; filters apply in that order, as in transformers.
    Returns: (A, V) float32, -inf where filtered out.
    """
    if sampling.temperature == 0 or noise is None:
        return logits
    if sampling.top_k == 0 and sampling.top_p == 1.0:
        # Not `alpha=1 / temperature`: that rounds otherwise than the division, and so gives other texts.
        return gumbel(noise).add_(logits if sampling.temperature == 1 else logits / sampling.temperature)
    return filtered(logits / sampling.temperature, sampling.top_k, sampling.top_p).add_(gumbel(noise))


def mix(seed: int, position: int) -> int:
    """A signed 32-bit number from a row's seed and a position, by multiplication with a 64-bit odd constant."""
    value = (seed * 0x9E3779B97F4A7C15 + (position + 1) * 0xD1B54A32D192ED03) & (2**64 - 1)
    value = ((value ^ (value >> 29)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return ((value >> 32) & 0xFFFFFFFF) - 2**31


def uniform(keys: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """(A, V) float32 in (0, 1): a hash of each row's key and the token id, the same on every device."""
    place = torch.arange(vocabulary, dtype=torch.int32, device=keys.device)
    value = keys[:, None] ^ (place * GOLDEN)[None, :]
    value = (value ^ _shifted(value, 16)) * FIRST
    value = (value ^ _shifted(value, 13)) * SECOND
    value = value ^ _shifted(value, 16)
    # 23 bits and a half: the largest is below 1 in float32, and log(0) cannot come up.
    result: torch.Tensor = (_shifted(value, 9).float() + 0.5) * 2.0**-23
    return result


def _shifted(value: torch.Tensor, bits: int) -> torch.Tensor:
    # torch has signed integers only: the sign must not be shifted in.
    result: torch.Tensor = (value >> bits) & (2 ** (32 - bits) - 1)
    return result


def draw_one(scores: Sequence[float], seed: int, temperature: float) -> int:
    """Index of one score, drawn from softmax(scores / temperature) by a row's own noise; the largest at 0."""
    values = torch.tensor(scores, dtype=torch.float64)
    if temperature > 0:
        uniform = torch.rand(len(scores), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        values = values / temperature + gumbel(uniform)
    return int(values.argmax())


def gumbel(uniform: torch.Tensor) -> torch.Tensor:
    """Gumbel noise from uniform noise in [0, 1), in place.

    -log(-log(u)); the argmax of logits plus it is a draw from softmax(logits) (Gumbel 1954; Maddison et al. 2014).
    """
    return uniform.log_().neg_().log_().neg_()


def filtered(scores: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Scores, (A, V), with -inf outside the top_k likeliest (0: all) and then outside the nucleus; may be in place."""
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
