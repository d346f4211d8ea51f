"""What only a CUDA device can show; `pytest -m gpu` runs it where there is one."""

import msgspec
import pytest
import torch

from mae_cli.engines.hf import open_engine
from mae_cli.records import Message, Request, Sampling

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def requests() -> list[Request]:
    texts = [" ".join(["how many apples has sam"] * (1 + index % 4)) for index in range(12)]
    return [Request(f"r{i}", (Message("user", text),), seed=i) for i, text in enumerate(texts)]


def test_greedy_and_sampled_rows_on_cuda_do_not_depend_on_the_micro_batch_in_float32(tiny_recipe):
    recipe = msgspec.structs.replace(tiny_recipe, device="cuda", dtype="float32")
    engine = open_engine(recipe, "")
    for temperature in (0.0, 1.0):
        texts = []
        for size in (1, 4, 12):
            engine.batch_size = size
            answers = engine.generate(requests(), Sampling(24, temperature=temperature))
            texts.append([answer.completion_token_ids for answer in answers])
        assert texts[0] == texts[1] == texts[2]


def test_auto_takes_cuda_with_bfloat16(tiny_recipe):
    engine = open_engine(msgspec.structs.replace(tiny_recipe, device="auto", dtype="auto"), "")

    assert (engine.model.device.type, engine.model.dtype) == ("cuda", torch.bfloat16)
    assert all(answer.status in ("ok", "truncated") for answer in engine.generate(requests(), Sampling(8)))
