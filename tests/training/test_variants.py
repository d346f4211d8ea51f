"""Variants of the adapter, the budget of tokens, trackers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from mae_cli.models.adapters import load_adapter, strip_adapter
from mae_cli.models.lineage import read_lineage
from mae_cli.models.load import load_model
from mae_cli.plugins.registry import build
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.runs.export import run_export
from mae_cli.training.logs import TrainReport
from mae_cli.training.lora_tuning import LoraTuning
from tests.support import here, read_json_lines, write_rows

from .conftest import Tiny, load_tiny, make_rows, train_tiny

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def run(tiny: Tiny, output: Path, *, start: Path | None = None, **options: Any) -> TrainReport:
    section = FinetuneSection(**{"learning_rate": 1e-2, "lora_r": 4, "lora_alpha": 8, "batch_size": 3, **options})
    return train_tiny(
        tiny, make_rows(tiny.chat, 6), section, output, objective=build("objectives", "sft"), start_adapter=start
    )


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=IDS).logits
    return result


@pytest.mark.parametrize("variant", ["dora", "rslora"])
def test_a_variant_trains_goes_on_and_exports_like_plain_lora(
    variant: str, tiny: Tiny, tiny_model_dir: Path, tmp_path: Path
) -> None:
    before = logits(tiny.model)
    run(tiny, tmp_path / "first", **{variant: True})
    run(tiny, tmp_path / "second", start=tmp_path / "first")

    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text("utf-8"))
    lineage = read_lineage(tmp_path / "second")
    assert torch.equal(logits(tiny.model), before)
    assert (config[f"use_{variant}"], config["lora_alpha"]) == (True, 8)
    assert lineage is not None
    assert lineage.settings[f"use_{variant}"] is True
    policy = load_adapter(tiny.model, tmp_path / "second")
    assert (logits(policy) - before).abs().max() > 1e-2
    strip_adapter(tiny.model)
    report = run_export(tmp_path / "second", tmp_path / "merged", model=str(tiny_model_dir)).comparison
    assert report is not None
    assert report["from_adapter"] < 1e-4 < report["from_base"]


def test_rslora_scales_by_the_root_of_the_rank(tiny: Tiny, tmp_path: Path) -> None:
    run(tiny, tmp_path / "plain")
    run(tiny, tmp_path / "rs", rslora=True)

    # alpha 8, rank 4: 8 / 4 = 2 and 8 / sqrt(4) = 4
    for name, scale in (("plain", 2.0), ("rs", 4.0)):
        policy = load_adapter(tiny.model, tmp_path / name)
        assert policy.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"] == scale
        strip_adapter(tiny.model)


def test_a_budget_of_tokens_ends_with_the_step_that_reaches_it_and_the_rate_with_it(tiny: Tiny, tmp_path: Path) -> None:
    whole = run(tiny, tmp_path / "whole", epochs=4, schedule="linear")
    notes = [note for note in read_json_lines(tmp_path / "whole" / "train_log.jsonl") if note["step"]]
    budget = sum(note["tokens"] for note in notes[:2]) + 1

    short = run(tiny, tmp_path / "short", epochs=4, schedule="linear", max_trained_tokens=budget)

    assert (whole.steps, short.steps) == (8, 3)
    rates = [note["learning_rate"] for note in read_json_lines(tmp_path / "short" / "train_log.jsonl") if note["step"]]
    # Linear over 3 steps: 3/3, 2/3 and 1/3 of the peak.
    assert rates == pytest.approx([1e-2, 1e-2 * 2 / 3, 1e-2 / 3])
    assert run(tiny, tmp_path / "ample", epochs=4, max_trained_tokens=10**6).steps == 8


def test_a_base_in_four_bits_is_prepared_and_comes_back_as_it_was(
    tiny_model_dir: Path,
) -> None:
    """Stands in for a quantised base, which needs CUDA: the flag that PEFT looks at, on bfloat16 weights."""
    model = load_model(tiny_model_dir, device=torch.device("cpu"), dtype=torch.bfloat16)
    model.is_loaded_in_4bit = True
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with LoraTuning(FinetuneSection(lora_r=4)).attached(model, seed=0) as policy:
        seen = [p.dtype for name, p in policy.named_parameters() if "norm" in name]

    assert set(seen) == {torch.float32}
    assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == dict.fromkeys(before, torch.bfloat16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ---- trackers


class Recorder:
    """A tracker as accelerate has them."""

    requires_logging_directory = True
    calls: ClassVar[list[Any]] = []

    def __init__(self, run: str, folder: Path) -> None:
        self.calls.append((run, folder.name))

    def start(self) -> None:
        self.calls.append("start")

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append((step, values["loss"]))

    def finish(self) -> None:
        self.calls.append("finish")


def test_a_tracker_gets_every_step_and_changes_no_byte(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import accelerate.tracking

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Recorder)
    monkeypatch.setattr("mae_cli.stages.finetune.require_tracker", lambda name: None)
    Recorder.calls.clear()
    rows = write_rows(tmp_path / "rows.jsonl", make_rows(load_tiny(tiny_model_dir).chat, 6))
    common = ("finetune", rows, "-m", tiny_model_dir, "--device", "cpu", "-q", "--set", "finetune.batch_size=3")

    assert here(*common, "-o", tmp_path / "plain") == 0
    assert Recorder.calls == []
    assert here(*common, "-o", tmp_path / "told", "--report-to", "tensorboard") == 0

    notes = [note for note in read_json_lines(tmp_path / "told" / "train_log.jsonl") if note["step"]]
    run_and_folder = (tmp_path.name, "told.tracking")
    assert Recorder.calls == [run_and_folder, "start", *((note["step"], note["loss"]) for note in notes), "finish"]
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "told" / path.name).read_bytes(), path.name
    # The tracker is none of the settings that make an adapter.
    assert here(*common, "-o", tmp_path / "told") == 0


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_exit_2_with_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Tiny
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None)
    rows = write_rows(tmp_path / "rows.jsonl", make_rows(tiny.chat, 3))

    assert here("finetune", rows, "-o", tmp_path / "out", "--report-to", name, "-m", "no/model") == 2
    assert f"pip install {name}" in capsys.readouterr().err
    assert not (tmp_path / "out.meta.json").exists()
