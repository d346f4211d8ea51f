"""The vllm engine on a GPU with the embedded model, against `hf`; `pytest -m gpu` runs it where both are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from mae_cli.engines import vllm
from mae_cli.engines.hf import engine as hf
from mae_cli.errors import EngineError
from mae_cli.models.locate import resolve_model
from mae_cli.recipe.sections import FinetuneSection, Recipe
from mae_cli.records import Completion, Message, Request, Sampling

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

MODEL = "smollm2-135m"
GREEDY = Sampling(max_new_tokens=16, temperature=0.0)
REQUESTS = [
    Request(str(index), (Message("user", f"What is {index} plus {2 * index}? " + "Think. " * (index % 5)),), index)
    for index in range(12)
]


def recipe() -> Recipe:
    # vLLM's LoRA kernels know 16 bits only, and these decide near ties either way.
    return Recipe(model=MODEL, device="cuda", dtype="bfloat16", finetune=FinetuneSection(lora_r=8))


def agreement(theirs: list[Completion], ours: list[Completion]) -> float:
    """Share of rows whose first four tokens are equal."""
    firsts = [[(answer.completion_token_ids or [])[:4] for answer in side] for side in (theirs, ours)]
    return sum(one == other for one, other in zip(*firsts, strict=True)) / len(ours)


@pytest.fixture(scope="module")
def served() -> Iterator[vllm.VllmEngine]:
    pytest.importorskip("vllm")
    try:
        resolve_model(MODEL)
    except EngineError as error:
        pytest.skip(str(error))
    engine = vllm.open_engine(recipe(), "gpu_memory_utilization=0.3,max_model_len=1024")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def own() -> hf.HfEngine:
    return hf.open_engine(recipe(), "")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes the answers; its weights are random."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(str(resolve_model(MODEL)))
    made = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False))
    folder = tmp_path_factory.mktemp("adapter")
    made.save_pretrained(str(folder))
    return folder


def test_greedy_rows_are_those_of_hf(served: vllm.VllmEngine, own: hf.HfEngine) -> None:
    theirs, ours = (engine.generate(REQUESTS, GREEDY) for engine in (served, own))

    assert [answer.prompt_token_ids for answer in theirs] == [answer.prompt_token_ids for answer in ours]
    assert agreement(theirs, ours) >= 0.75


def test_rows_with_an_adapter_are_those_of_hf_and_the_base_comes_back(
    served: vllm.VllmEngine, own: hf.HfEngine, adapter: Path
) -> None:
    before = served.generate(REQUESTS, GREEDY)
    for engine in (served, own):
        engine.attach(adapter)
    theirs, ours = (engine.generate(REQUESTS, GREEDY) for engine in (served, own))
    for engine in (served, own):
        engine.attach(None)

    assert agreement(theirs, ours) >= 0.75
    assert agreement(theirs, before) < 0.5
    assert agreement(served.generate(REQUESTS, GREEDY), before) >= 0.75


def test_scores_of_options_are_those_of_hf(served: vllm.VllmEngine, own: hf.HfEngine) -> None:
    options = [["yes", "no", "a longer option"]] * len(REQUESTS)

    for row, other in zip(served.score(REQUESTS, options), own.score(REQUESTS, options), strict=True):
        assert row == pytest.approx(other, abs=0.3)


def test_a_sampled_row_follows_its_seed_and_a_stop_string_ends_it(served: vllm.VllmEngine) -> None:
    sampled = Sampling(max_new_tokens=16, temperature=1.0, top_p=0.95)
    first, second = (served.generate(REQUESTS, sampled) for _ in range(2))

    assert [answer.raw for answer in first] == [answer.raw for answer in second]
    text = first[0].raw or ""
    stop = text[2:5]
    (cut,) = served.generate(REQUESTS[:1], Sampling(max_new_tokens=16, temperature=1.0, top_p=0.95, stop=(stop,)))
    assert (cut.finish_reason, cut.raw) == ("stop", text[: text.index(stop)])
