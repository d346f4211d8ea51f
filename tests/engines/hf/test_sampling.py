"""Sampling: what may be drawn, and whose noise it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mae_cli.engines.hf.sampling import GeneratorNoise, HashNoise, perturbed_logits
from mae_cli.records import Sampling


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.6), (4, 0.5)])
def test_sampling_filters_keep_what_transformers_keeps(top_k: int, top_p: float) -> None:
    from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * 2
    expected = logits / 0.7
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)

    noise = torch.full((5, 40), 0.5)
    scores = perturbed_logits(logits, noise, Sampling(1, temperature=0.7, top_k=top_k, top_p=top_p))

    assert torch.equal(scores.isinf(), expected.isinf())


def test_a_nucleus_wider_than_the_candidates_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(3, 60, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(1, temperature=1.0, top_p=0.95)
    whole = perturbed_logits(logits, torch.full((3, 60), 0.5), sampling)

    monkeypatch.setattr("mae_cli.engines.hf.sampling.NUCLEUS_CANDIDATES", 5)

    assert torch.equal(perturbed_logits(logits, torch.full((3, 60), 0.5), sampling), whole)


@pytest.mark.parametrize("kind", [GeneratorNoise, HashNoise])
def test_noise_belongs_to_the_row_and_not_to_its_place_in_the_batch(kind: Any) -> None:
    together, alone = kind(torch.device("cpu")), kind(torch.device("cpu"))
    together.open(0, 5, 3)
    together.open(1, 6, 4)
    alone.open(7, 6, 4)

    first = together.draw([0, 1], 30)[1].clone()
    second = together.draw([1], 30)[0].clone()

    assert torch.equal(first, alone.draw([7], 30)[0])
    assert torch.equal(second, alone.draw([7], 30)[0])
    assert not torch.equal(first, second)
