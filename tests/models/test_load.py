"""Adapters on the hf engine, and what loading refuses."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from mae_cli.engines.hf import engine as hf
from mae_cli.errors import EngineError, MaeError, MissingDependencyError
from mae_cli.models.load import load_model, resolve_device, resolve_dtype
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request, Sampling
from tests.conftest import save_tiny_model

GREEDY = Sampling(max_new_tokens=16, temperature=0.0)
REQUESTS = [Request(str(seed), (Message("user", "what is " + "one plus " * seed),), seed) for seed in range(8)]


@pytest.fixture
def engine(tiny_recipe: Recipe) -> Any:
    opened = hf.open_engine(tiny_recipe, "")
    yield opened
    opened.close()


def make_adapter(base: Path, folder: Path, *, seed: int = 1) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(model, config).save_pretrained(folder)
    return folder


def test_detaching_an_adapter_restores_the_base_exactly(
    engine: hf.HfEngine, tiny_model_dir: Path, tmp_path: Path
) -> None:
    first = make_adapter(tiny_model_dir, tmp_path / "first")
    second = make_adapter(tiny_model_dir, tmp_path / "second", seed=2)
    ids = torch.tensor([engine.chat.render(REQUESTS[3].messages)])

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = engine.model(ids).logits
        return found

    base, names = logits(), [name for name, _ in engine.model.named_parameters()]
    seen, digests = [], []
    for folder in (first, second, first, None):
        engine.attach(folder)
        seen.append(logits())
        digests.append(engine.policy.adapter)

    assert torch.equal(seen[3], base)
    assert torch.equal(seen[0], seen[2])
    assert not torch.allclose(seen[0], base)
    assert not torch.allclose(seen[1], seen[0])
    assert digests[0] == digests[2] != digests[1]
    assert digests[3] is None
    assert [name for name, _ in engine.model.named_parameters()] == names


def test_rows_with_an_adapter_are_equal_for_every_micro_batch(
    engine: hf.HfEngine, tiny_model_dir: Path, tmp_path: Path
) -> None:
    engine.attach(make_adapter(tiny_model_dir, tmp_path / "adapter"))

    found = []
    for engine.batch_size in (1, 8):
        found.append(engine.generate(REQUESTS, Sampling(max_new_tokens=16)))

    assert found[0] == found[1]


@pytest.mark.parametrize("fault", ["empty", "no_weights", "torn", "other_width", "other_depth"])
def test_an_adapter_that_does_not_fit_is_one_line_and_leaves_the_base(
    engine: hf.HfEngine, tiny_model_dir: Path, tmp_path: Path, fault: str
) -> None:
    base = tiny_model_dir
    if fault == "other_depth":
        base = save_tiny_model(tmp_path / "deep", layers=3)
    if fault == "other_width":
        base = save_tiny_model(tmp_path / "wide", specials=("<more>", "<tokens>"))
    folder = make_adapter(base, tmp_path / "adapter")
    if fault == "other_width":
        reshape_adapter(folder)
    if fault == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    if fault == "no_weights":
        (folder / "adapter_model.safetensors").unlink()
    if fault == "torn":
        weights = folder / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-500])
    before = engine.generate(REQUESTS[:1], GREEDY)

    with pytest.raises(EngineError) as caught:
        engine.attach(folder)

    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert engine.policy.adapter is None
    assert engine.generate(REQUESTS[:1], GREEDY) == before


def reshape_adapter(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor.repeat(1, 2) for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def test_auto_means_float32_on_the_cpu_and_bfloat16_on_cuda() -> None:
    assert resolve_dtype("auto", torch.device("cpu")) is torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) is torch.bfloat16
    assert resolve_dtype("float16", torch.device("cpu")) is torch.float16


@pytest.mark.parametrize("name", ["gpu0", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(MaeError, match=name):
        resolve_device(name)


def test_four_bits_without_what_they_need_are_refused_in_one_line(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(MissingDependencyError, match="load_in_4bit needs the package bitsandbytes"):
            hf.open_engine(msgspec.structs.replace(tiny_recipe, load_in_4bit=True), "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(EngineError, match="bitsandbytes has no four-bit layers for mps; use cpu or cuda"):
        load_model(Path(tiny_recipe.model), device=torch.device("mps"), dtype=torch.float32, load_in_4bit=True)
