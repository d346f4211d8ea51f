"""The slots hold what was put in, wherever rows move and however often the buffers grow."""

from __future__ import annotations

import pytest
import torch
from transformers import FalconConfig, LlamaConfig, MistralConfig

from mae_cli.engines.hf.cache import FixedLayer, PrefillLayer, SlotLayer, has_plain_layers


def states(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 1, width, 4, generator=torch.Generator().manual_seed(seed))


def prompts(keys: torch.Tensor) -> PrefillLayer:
    layer = PrefillLayer()
    layer.update(keys, -keys)
    return layer


def test_a_prefill_layer_repeats_the_prefix_before_every_prompt() -> None:
    prefix, new = states(1, 3, 0), states(2, 2, 1)
    layer = PrefillLayer((prefix, -prefix))
    before = layer.get_seq_length()

    keys, values = layer.update(new, -new)

    assert before == 3
    assert layer.get_seq_length() == 5
    assert torch.equal(keys, torch.cat([prefix.expand(2, -1, -1, -1), new], dim=2))
    assert torch.equal(values, -keys)


def test_slots_keep_each_row_through_entering_leaving_and_growing() -> None:
    layer = SlotLayer()
    first, second, step = states(2, 5, 0), states(1, 3, 1), states(3, 1, 2)

    layer.resize(3, 6, (first, first), 5)
    layer.put(0, prompts(first), torch.tensor([0, 1]))
    layer.rows, layer.start = 2, 0
    layer.put(2, prompts(second), torch.tensor([0]))
    layer.rows = 3
    keys, values = layer.update(step, -step)

    assert torch.equal(keys[:2], torch.cat([first, step[:2]], dim=2))
    assert torch.equal(keys[2, :, 2:], torch.cat([second, step[2:]], dim=2)[0])
    assert torch.equal(values, -keys)

    layer.move(2, 0)
    layer.rows = 2
    layer.start = 2
    layer.resize(3, 10, (first, first), 8)

    live = layer.live(layer.key_buffer)
    assert (layer.start, layer.end, layer.get_seq_length()) == (4, 8, 4)
    assert torch.equal(live[0], torch.cat([second, step[2:]], dim=2)[0])
    assert torch.equal(live[1], torch.cat([first, step[:2]], dim=2)[1, :, 2:])


def test_a_slot_gets_the_shared_prefix_and_its_own_prompt() -> None:
    prefix, new = states(1, 3, 0), states(2, 2, 1)
    source, layer = PrefillLayer((prefix, -prefix)), SlotLayer()
    source.update(new, -new)

    layer.resize(4, 9, (new, new), 7)
    layer.put(1, source, torch.tensor([1, 0, 1]))

    assert torch.equal(layer.key_buffer[1:4, :, 2:7], source.whole(torch.tensor([1, 0, 1]))[0])
    assert torch.equal(layer.value_buffer, -layer.key_buffer)
    assert not layer.key_buffer[0].any()


@pytest.mark.parametrize("fixed", [False, True])
def test_what_an_ended_row_left_in_a_slot_does_not_reach_the_next_one(fixed: bool) -> None:
    new = states(2, 2, 1)
    source = PrefillLayer()
    source.update(new, -new)
    layer = FixedLayer(torch.tensor([7])) if fixed else SlotLayer()
    layer.resize(4, 9, (new, new), 7)
    layer.key_buffer.fill_(torch.nan)
    layer.value_buffer.fill_(torch.inf)

    layer.restart(7)
    layer.put(1, source, torch.tensor([1, 0]))

    for buffer in (layer.key_buffer, layer.value_buffer):
        # Slots that shrink read up to the last column written.
        assert buffer[1:3, :, : 9 if fixed else 7].isfinite().all()
    assert torch.equal(layer.key_buffer[1:3, :, 5:7], new[[1, 0]])


def test_keys_and_values_may_differ_in_size() -> None:
    keys, values = states(2, 3, 0), states(2, 3, 1)[..., :2]
    source, layer = PrefillLayer(), SlotLayer()
    source.update(keys, values)

    layer.resize(2, 5, (keys, values), 3)
    layer.put(0, source, torch.tensor([0, 1]))

    assert torch.equal(layer.value_buffer[:, :, :3], values)


def test_only_layers_that_keep_everything_share_prefixes() -> None:
    small = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}

    assert has_plain_layers(LlamaConfig(**small))
    assert not has_plain_layers(MistralConfig(sliding_window=4, **small))
    assert has_plain_layers(FalconConfig(alibi=False, **small))
    assert not has_plain_layers(FalconConfig(alibi=True, **small))
