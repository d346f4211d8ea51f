"""QLoRA: an adapter on a base in four bits. bitsandbytes has a CPU backend; skipped where the package is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mae_cli.models.lineage import read_lineage
from mae_cli.models.load import end_token_ids, load_model, load_tokenizer
from mae_cli.prompts.chat_template import open_chat
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.training.logs import TrainReport
from tests.support import here, read_json_lines, write_rows, write_sums

from .conftest import Tiny, load_tiny, make_groups, train_tiny

bitsandbytes = pytest.importorskip("bitsandbytes")


def load_in_four_bits(folder: Path) -> Tiny:
    tokenizer = load_tokenizer(folder)
    chat = open_chat(tokenizer)
    model = load_model(folder, device=torch.device("cpu"), dtype=torch.float32, load_in_4bit=True)
    return Tiny(model, chat, end_token_ids(model, tokenizer, chat.template))


def run(tiny: Tiny, output: Path, **options: Any) -> TrainReport:
    section = FinetuneSection(**{"learning_rate": 1e-2, "lora_r": 4, "batch_size": 4, "epochs": 4, **options})
    return train_tiny(tiny, make_groups(tiny.chat), section, output, base_name="t")


def test_the_linear_layers_hold_four_bits_a_number(tiny_model_dir: Path) -> None:
    model = load_in_four_bits(tiny_model_dir).model

    layers = [part for part in model.modules() if isinstance(part, bitsandbytes.nn.Linear4bit)]
    # Seven in each of the two layers; the output layer stays as it is.
    assert len(layers) == 14
    assert {(part.weight.dtype, part.weight.quant_type) for part in layers} == {(torch.uint8, "nf4")}
    assert all(part.weight.numel() * 2 == part.in_features * part.out_features for part in layers)


def test_an_adapter_learns_on_it_and_the_base_comes_back_as_it_was(tiny_model_dir: Path, tmp_path: Path) -> None:
    tiny = load_in_four_bits(tiny_model_dir)
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}

    report = run(tiny, tmp_path / "out")
    whole = run(load_tiny(tiny_model_dir), tmp_path / "whole")

    after = tiny.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    lineage = read_lineage(tmp_path / "out")
    assert lineage is not None
    assert lineage.settings["load_in_4bit"] is True
    assert report.first_loss is not None
    assert report.last_loss is not None
    assert report.last_loss < report.first_loss - 1
    # Four bits round: near the model in full precision, and not it.
    assert report.first_loss == pytest.approx(whole.first_loss, rel=0.2)
    assert report.first_loss != whole.first_loss


def test_equal_trainings_write_equal_bytes(tiny_model_dir: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(load_in_four_bits(tiny_model_dir), tmp_path / name)

    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_policy_gradient_reads_its_reference_with_the_adapter_off(tiny_model_dir: Path, tmp_path: Path) -> None:
    objective = {"name": "grpo", "kl_coefficient": 0.1}

    run(load_in_four_bits(tiny_model_dir), tmp_path / "out", objective=objective, reference="base")

    kept = [line["metrics"] for line in read_json_lines(tmp_path / "out" / "train_log.jsonl") if line.get("step")]
    assert kept[0]["kl_reference"] == pytest.approx(0.0, abs=1e-6)
    assert kept[-1]["kl_reference"] > 1e-4


def test_the_adapter_answers_on_the_base_in_four_bits(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", make_groups(load_tiny(tiny_model_dir).chat))
    common = ("-m", tiny_model_dir, "--device", "cpu", "-q", "--set", "load_in_4bit=true")

    assert here("finetune", rows, "-o", tmp_path / "out", *common, "--set", "finetune.learning_rate=0.01") == 0
    asked = ("solve", write_sums(tmp_path / "sums.jsonl"), *common, "--max-new-tokens", 4)
    assert here(*asked, "-o", tmp_path / "with.jsonl", "--adapter", tmp_path / "out") == 0
    assert here(*asked, "-o", tmp_path / "without.jsonl") == 0

    with_it, without = (read_json_lines(tmp_path / name) for name in ("with.jsonl", "without.jsonl"))
    assert {row["status"] for row in with_it} <= {"ok", "unparsed", "truncated"}
    assert [row["raw"] for row in with_it] != [row["raw"] for row in without]
