from __future__ import annotations

import pytest
import torch

from mae_cli.training.batches import MicroBatch, collate
from mae_cli.training.examples import TrainingExample
from mae_cli.training.logprobs import can_share_prefix, completion_logprobs

from .conftest import Tiny

CPU = torch.device("cpu")
EXAMPLES = [
    TrainingExample("0", "solver", "g", 1.0, (5, 6, 7, 8), (9, 10, 3)),
    TrainingExample("1", "solver", "g", 1.0, (11, 12), (13, 14, 15, 16, 17, 3)),
    TrainingExample("2", "solver", "g", 1.0, (4,), (3,)),
]


def full_logits(tiny: Tiny, batch: MicroBatch) -> torch.Tensor:
    """Logits at every position, with an attention mask, as any other trainer computes them."""
    lengths = torch.tensor([[example.length] for example in EXAMPLES])
    attention = (torch.arange(batch.input_ids.shape[1]) < lengths).long()
    logits: torch.Tensor = tiny.model(input_ids=batch.input_ids, attention_mask=attention).logits
    return logits


def test_logprobs_equal_cross_entropy_over_full_logits(tiny: Tiny) -> None:
    batch = collate(EXAMPLES, [0, 1, 2], device=CPU)
    labels = torch.full_like(batch.input_ids, -100)
    for number, row in enumerate(EXAMPLES):
        labels[number, len(row.prompt) : row.length] = torch.tensor(row.completion)
    with torch.no_grad():
        logits = full_logits(tiny, batch)
        expected = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
        )

        values = completion_logprobs(tiny.model, batch).logprobs

    assert values.shape == (3, 6)
    assert -values.sum().item() == pytest.approx(expected.item(), abs=1e-4)
    assert values[0, 3:].tolist() == [0.0, 0.0, 0.0]


def test_each_logprob_stands_at_the_place_of_its_token(tiny: Tiny) -> None:
    batch = collate(EXAMPLES, [0, 1, 2], device=CPU)
    with torch.no_grad():
        logprobs = full_logits(tiny, batch).log_softmax(-1)

        values = completion_logprobs(tiny.model, batch).logprobs

    # Token j of a completion is predicted at place len(prompt) - 1 + j.
    for number, row in enumerate(EXAMPLES):
        for j, token in enumerate(row.completion):
            expected = logprobs[number, len(row.prompt) - 1 + j, token]
            assert values[number, j].item() == pytest.approx(expected.item(), abs=1e-5)


def test_entropy_equals_minus_the_sum_of_p_log_p(tiny: Tiny) -> None:
    batch = collate(EXAMPLES, [0, 1, 2], device=CPU)
    with torch.no_grad():
        logprobs = full_logits(tiny, batch)[1, 1].log_softmax(-1)

        entropy = completion_logprobs(tiny.model, batch, entropy=True).entropy

    assert entropy is not None
    assert entropy[1, 0].item() == pytest.approx(-(logprobs.exp() * logprobs).sum().item(), abs=1e-5)
    assert entropy[2, 1:].tolist() == [0.0] * 5


def test_gradients_reach_the_model_and_the_hook_is_gone_afterwards(tiny: Tiny) -> None:
    batch = collate(EXAMPLES, [0, 1, 2], device=CPU)

    completion_logprobs(tiny.model, batch, entropy=True).logprobs.sum().backward()

    assert tiny.model.model.embed_tokens.weight.grad.abs().sum() > 0
    assert full_logits(tiny, batch).shape[:2] == batch.input_ids.shape


def test_a_row_has_the_same_logprobs_alone_and_in_a_batch(tiny: Tiny) -> None:
    with torch.no_grad():
        together = completion_logprobs(tiny.model, collate(EXAMPLES, [0, 1, 2], device=CPU)).logprobs
        alone = completion_logprobs(tiny.model, collate(EXAMPLES, [0], device=CPU)).logprobs

    torch.testing.assert_close(together[0, :3], alone[0], atol=1e-5, rtol=0)


def test_a_shared_prefix_changes_neither_values_nor_gradients(tiny: Tiny) -> None:
    prompt = tuple(range(20, 40))
    rows = [
        TrainingExample("0", "solver", "g", 1.0, (*prompt, 5, 6), (9, 10, 3)),
        TrainingExample("1", "solver", "g", 1.0, (*prompt, 7), (13, 14, 15, 3)),
        TrainingExample("2", "solver", "g", 1.0, prompt, (3,)),
    ]
    results = []
    for shared_tokens in (0, 19):
        tiny.model.zero_grad()
        batch = collate(rows, [0, 1, 2], device=CPU, shared=shared_tokens)
        values = completion_logprobs(tiny.model, batch, entropy=True)
        assert values.entropy is not None
        (values.logprobs.sum() + values.entropy.sum()).backward()
        gradient = tiny.model.model.layers[0].self_attn.k_proj.weight.grad.clone()
        results.append((len(batch.prefix), values.logprobs.detach(), values.entropy.detach(), gradient))

    assert (results[0][0], results[1][0]) == (0, 19)
    for plain, shared in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(shared, plain, atol=1e-4, rtol=1e-4)


def test_models_whose_layers_need_more_than_keys_and_values_share_nothing(tiny: Tiny) -> None:
    assert can_share_prefix(tiny.model)

    tiny.model.config.sliding_window = 8
    tiny.model.config.layer_types = ["sliding_attention", "full_attention"]

    assert not can_share_prefix(tiny.model)
