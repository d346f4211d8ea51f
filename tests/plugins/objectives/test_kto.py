from __future__ import annotations

import math

import pytest
import torch

from mae_cli.plugins.contracts import ObjectiveBatch, Unit
from mae_cli.plugins.objectives.kto import Kto
from mae_cli.records.rewarded import Rewarded


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def batch(divergence: float) -> tuple[ObjectiveBatch, torch.Tensor]:
    """A desirable row with log-ratio 2 * 0.5 = 1, and an undesirable one with log-ratio -2 (one token)."""
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    logprobs = torch.tensor([[-0.5, -0.5], [-3.0, 0.0]], requires_grad=True)
    given = ObjectiveBatch(
        logprobs=logprobs,
        mask=mask,
        values=torch.tensor([1.0, -1.0]),
        reference_logprobs=-mask,
        divergence=torch.tensor(divergence),
    )
    return given, logprobs


def test_losses_by_hand() -> None:
    losses = Kto(desirable_weight=1.5).loss(batch(0.4)[0]).losses

    # 1.5 * (1 - sigmoid(0.1 * (1 - 0.4))), 1 - sigmoid(0.1 * (0.4 + 2))
    assert losses.tolist() == pytest.approx([1.5 * (1 - sigmoid(0.06)), 1 - sigmoid(0.24)], abs=1e-6)


def test_a_negative_divergence_counts_as_none() -> None:
    assert Kto().loss(batch(-3.0)[0]).losses.tolist() == Kto().loss(batch(0.0)[0]).losses.tolist()


def test_desirable_rows_go_up_and_undesirable_ones_down() -> None:
    given, logprobs = batch(0.0)

    Kto().loss(given).losses.sum().backward()

    assert logprobs.grad is not None
    assert logprobs.grad[0].max() < 0.0 < logprobs.grad[1, 0]
    assert logprobs.grad[1, 1] == 0.0


def test_rows_over_the_bar_are_desirable() -> None:
    rows = [Rewarded("solver", "a", reward) for reward in (0.4, 0.5, 0.6)]

    assert Kto().plan(rows, min_spread=1.0).units == (Unit((0,), -1.0), Unit((1,), -1.0), Unit((2,), 1.0))


def test_metrics_tell_the_sides_apart() -> None:
    metrics = Kto().loss(batch(0.4)[0]).metrics

    assert [value.item() for value in metrics["desirable_score"]] == [1.0, 1]
    assert [value.item() for value in metrics["undesirable_score"]] == [-2.0, 1]
