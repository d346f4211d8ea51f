"""Training on a CUDA device; `pytest -m gpu` runs it where there is one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config

from mae_cli.models.load import end_token_ids, load_model, load_tokenizer
from mae_cli.prompts.chat_template import open_chat
from mae_cli.recipe.files import find_recipe
from mae_cli.recipe.load import load_recipe
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.training.full_tuning import ModelFolders
from mae_cli.training.logs import TrainReport
from tests.conftest import save_tiny_model
from tests.support import read_json_lines

from .conftest import Tiny, make_groups, make_row, make_rows, train_tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def load(folder: Path, device: str = "cuda", dtype: torch.dtype = torch.float32, **options: Any) -> Tiny:
    tokenizer = load_tokenizer(folder)
    chat = open_chat(tokenizer)
    model = load_model(folder, device=torch.device(device), dtype=dtype, **options)
    return Tiny(model, chat, end_token_ids(model, tokenizer, chat.template))


def run(
    tiny: Tiny, output: Path, *, rows: list[Any] | None = None, on_text: Any = None, source: Any = None, **options: Any
) -> TrainReport:
    section = FinetuneSection(**{"learning_rate": 1e-2, "lora_r": 4, "batch_size": 4, "epochs": 2, **options})
    return train_tiny(tiny, rows or make_groups(tiny.chat), section, output, on_text=on_text, folders=source)


def steps(folder: Path) -> list[float]:
    return [line["loss"] for line in read_json_lines(folder / "train_log.jsonl") if line.get("step")]


@pytest.mark.parametrize("objective", [{"name": "sft"}, {"name": "grpo", "kl_coefficient": 0.1}])
def test_losses_on_cuda_are_those_of_the_cpu_in_float32(
    objective: dict[str, Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    for device in ("cpu", "cuda"):
        run(load(tiny_model_dir, device), tmp_path / device, objective=objective)

    assert len(steps(tmp_path / "cpu")) == 6
    assert steps(tmp_path / "cuda") == pytest.approx(steps(tmp_path / "cpu"), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_adapter_in_bfloat16_learns_and_is_kept_in_float32(
    checkpointing: bool, tiny_model_dir: Path, tmp_path: Path
) -> None:
    tiny = load(tiny_model_dir, dtype=torch.bfloat16)

    run(tiny, tmp_path / "out", gradient_checkpointing=checkpointing, epochs=4)

    found = steps(tmp_path / "out")
    assert found[-1] < found[0] - 0.5
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_full_fine_tuning_on_cuda_learns_and_writes_a_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    tiny = load(tiny_model_dir, dtype=torch.bfloat16)
    source = ModelFolders(tiny_model_dir, tiny_model_dir)

    run(tiny, tmp_path / "out", source=source, full=True, learning_rate=1e-3, epochs=8)

    found = steps(tmp_path / "out")
    assert found[-1] < found[0] - 0.5
    assert load(tmp_path / "out").model.num_parameters() == tiny.model.num_parameters()


def test_an_adapter_learns_on_a_base_in_four_bits(tiny_model_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")

    run(load(tiny_model_dir, dtype=torch.bfloat16, load_in_4bit=True), tmp_path / "out", epochs=4)

    found = steps(tmp_path / "out")
    assert found[-1] < found[0] - 0.5


@pytest.mark.usefixtures("_all_memory")
def test_memory_that_really_runs_out_halves_the_micro_batch_and_keeps_the_losses(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "deep", layers=64)
    tiny = load(folder)
    rows = make_rows(tiny.chat, 96)
    run(tiny, tmp_path / "free", rows=rows, batch_size=96, epochs=2)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 100 * 2**20) / total)

    said: list[str] = []
    run(tiny, tmp_path / "capped", rows=rows, batch_size=96, epochs=2, on_text=said.append)

    assert any("out of memory" in text for text in said)
    assert steps(tmp_path / "capped") == pytest.approx(steps(tmp_path / "free"), rel=1e-3)


@pytest.mark.usefixtures("_all_memory")
def test_the_mae_recipes_train_a_model_of_3b_at_their_defaults_within_24_gib(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    # Qwen2.5-3B's shape with random weights: what memory a step takes depends on shapes only.
    config = Qwen2Config(
        hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
        vocab_size=151936, tie_word_embeddings=True, max_position_embeddings=32768,
    )  # fmt: skip
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(24 * 2**30 / total)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    small = load(tiny_model_dir, "cpu")
    section = load_recipe(find_recipe("mae_half_reference")).finetune
    rows = [
        make_row(small.chat, "how many " * 100, " ten" * (400 + 6 * index), reward=index % 10 / 10, index=index)
        for index in range(section.batch_size)
    ]
    torch.cuda.reset_peak_memory_stats()
    begin, said = time.monotonic(), list[str]()

    report = train_tiny(
        small._replace(model=model.eval()), rows, section, tmp_path / "out", base_name="random", on_text=said.append
    )

    assert report.first_loss is not None
    peak, seconds = torch.cuda.max_memory_reserved() / 2**30, time.monotonic() - begin
    tokens = sum(len(row.prompt_token_ids or ()) + len(row.completion_token_ids or ()) for row in rows)
    print(f"one step over {len(rows)} rows of {tokens} tokens: {seconds:.0f} s, peak {peak:.1f} GiB; {said}")
    assert peak <= 24
