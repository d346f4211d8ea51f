"""Full fine-tuning: every parameter by the same trainer, a model folder, and a run whose rounds go on from models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from mae_cli.errors import CollapseError, ConfigError, EngineError
from mae_cli.models.digests import model_digest
from mae_cli.models.gguf import missing_files
from mae_cli.models.lineage import read_lineage
from mae_cli.models.load import load_model
from mae_cli.plugins.registry import build
from mae_cli.recipe.sections import FinetuneSection, Recipe
from mae_cli.runs import loop
from mae_cli.runs.export import run_export
from mae_cli.runs.promotion import Promotion
from mae_cli.runs.views.adapters import adapters_of
from mae_cli.stages.finetune import check_tuning
from mae_cli.training.full_tuning import FullTuning, ModelFolders, put_weights
from mae_cli.training.job import TrainingTask
from mae_cli.training.logs import TrainReport
from mae_cli.training.optimization import Loop
from mae_cli.training.trainer import prepare
from mae_cli.training.tuning import trainable
from tests.conftest import save_tiny_model
from tests.support import here, read_json_lines, write_rows, write_sums

from .conftest import Tiny, load_tiny, make_groups, make_rows, train_tiny
from .test_trainer import Breaks

WEIGHTS = "model.safetensors"


def run(tiny: Tiny, folder: Path, output: Path, *, base: Path | None = None, **options: Any) -> TrainReport:
    """A full fine-tuning of the model in a folder, which `tiny` was loaded from."""
    objective, rows = options.pop("objective_", None), options.pop("rows", None)
    checkpoint_dir = options.pop("checkpoint_dir", None)
    section = FinetuneSection(**{"full": True, "learning_rate": 1e-3, "batch_size": 3, **options})
    return train_tiny(
        tiny,
        rows or make_groups(tiny.chat),
        section,
        output,
        objective=objective,
        folders=ModelFolders(folder, base or folder),
        checkpoint_dir=checkpoint_dir,
    )


def notes(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_json_lines(folder / "train_log.jsonl") if line.get("step")]


@pytest.fixture
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama's norms and our log-softmax without their rounding to float32."""

    def norm(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + layer.variance_epsilon)
        result: torch.Tensor = layer.weight * hidden * scale
        return result

    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.usefixtures("_exact")
def test_the_loss_and_every_gradient_are_those_of_plain_torch(tiny_model_dir: Path) -> None:
    tiny = load_tiny(tiny_model_dir)
    model = tiny.model.double()
    rows = make_rows(tiny.chat, 6)
    section = FinetuneSection(full=True, batch_size=6, save_every=0)
    objective = build("objectives", "sft")
    job = prepare(TrainingTask(rows, section, objective, 0), tiny.chat, end_ids=tiny.end_ids, origin={})
    tuning = FullTuning(section, ModelFolders(tiny_model_dir, tiny_model_dir), model.dtype)

    with tuning.attached(model, seed=0) as policy:
        ours = Loop(policy, job, None, lambda text: None, None, tuning)._accumulate(1, job.steps()[0][2]).loss
        gradients = {
            name: parameter.grad.clone() for name, parameter in trainable(policy) if parameter.grad is not None
        }
        policy.zero_grad()
        total, tokens = torch.zeros((), dtype=torch.float64), 0
        for row in rows:
            assert row.prompt_token_ids is not None
            assert row.completion_token_ids is not None
            ids = torch.tensor([[*row.prompt_token_ids, *row.completion_token_ids]])
            start = len(row.prompt_token_ids)
            scores = policy(input_ids=ids).logits[0, start - 1 : -1]
            total = total + torch.nn.functional.cross_entropy(scores, ids[0, start:], reduction="sum")
            tokens += len(row.completion_token_ids)
        (total / tokens).backward()
        expected = {name: parameter.grad for name, parameter in policy.named_parameters()}

    assert ours == pytest.approx(float(total.detach()) / tokens, rel=1e-10)
    # Two layers of nine tensors each, the last norm, and the embeddings of both ends.
    assert len(gradients) == len(expected) == 2 * 9 + 3
    for name, gradient in gradients.items():
        assert ((gradient - expected[name]).norm() / expected[name].norm()).item() < 1e-8, name


def test_the_folder_is_a_complete_model_of_its_own_and_every_tensor_has_moved(
    tiny: Tiny, tiny_model_dir: Path, tmp_path: Path
) -> None:
    run(tiny, tiny_model_dir, tmp_path / "out", epochs=2)

    loaded = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    before = load_file(tiny_model_dir / WEIGHTS)
    after = load_file(tmp_path / "out" / WEIGHTS)
    assert missing_files(tmp_path / "out") == []
    assert after.keys() == before.keys()
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert [name for name in after if torch.equal(after[name], before[name])] == []
    assert all(torch.equal(tensor, after[name]) for name, tensor in loaded.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert tokenizer.chat_template == tiny.chat.template
    lineage = read_lineage(tmp_path / "out")
    assert lineage is not None
    assert (lineage.kind, lineage.parent) == ("full", None)
    assert (lineage.adapter, lineage.base_digest) == (model_digest(tmp_path / "out"), model_digest(tiny_model_dir))
    assert lineage.settings == {"trained": "all parameters", "parameters": sum(t.numel() for t in before.values())}
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert card.startswith('---\nbase_model: "tiny"\nbase_model_relation: finetune\nlibrary_name: transformers\n')
    assert "\n# tiny, every parameter fine-tuned\n" in card
    assert str(tmp_path) not in "".join(path.read_text("utf-8") for path in (tmp_path / "out").glob("*.json*"))


def test_equal_trainings_write_equal_bytes(tiny_model_dir: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(load_tiny(tiny_model_dir), tiny_model_dir, tmp_path / name, epochs=2)

    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_half_precision_weights_are_trained_and_kept_in_float32(tiny_model_dir: Path, tmp_path: Path) -> None:
    tiny = load_tiny(tiny_model_dir)
    tiny.model.to(torch.bfloat16)

    # 1e-7 on weights of about 0.2 is far below what bfloat16 (8 bits) could add to them.
    report = run(tiny, tiny_model_dir, tmp_path / "out", learning_rate=1e-7, max_steps=1)
    exact = run(load_tiny(tiny_model_dir), tiny_model_dir, tmp_path / "exact", learning_rate=1e-7, max_steps=1)

    before, after = load_file(tiny_model_dir / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    moved = max((after[name] - before[name]).abs().max().item() for name in after)
    assert 0 < moved < 2e-7
    assert report.first_loss == pytest.approx(exact.first_loss, rel=2e-2)
    assert report.first_loss != exact.first_loss


def test_a_loss_that_is_not_a_number_keeps_the_last_good_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = make_rows(load_tiny(tiny_model_dir).chat, 8)
    options = {"rows": rows, "batch_size": 1}
    run(load_tiny(tiny_model_dir), tiny_model_dir, tmp_path / "expected", max_steps=2, **options)

    with pytest.raises(CollapseError, match=r"loss of step 4 is not finite.* the model of step 2 is kept"):
        run(load_tiny(tiny_model_dir), tiny_model_dir, tmp_path / "out", objective_=Breaks([], 3), **options)

    expected, kept = load_file(tmp_path / "expected" / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in expected.items())


# ---- the reference policy


@pytest.fixture
def trained(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A model that was trained as a whole."""
    run(load_tiny(tiny_model_dir), tiny_model_dir, tmp_path / "trained", epochs=4, learning_rate=1e-2)
    return tmp_path / "trained"


def test_other_weights_take_the_place_of_a_models_own_and_leave_again(
    tiny: Tiny, tiny_model_dir: Path, trained: Path
) -> None:
    section = FinetuneSection(full=True)
    tuning = FullTuning(section, ModelFolders(tiny_model_dir, trained), torch.float32)
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    parameters = list(tiny.model.parameters())

    with tuning.attached(tiny.model, seed=0) as policy:
        with tuning.reference(policy, "start"):
            assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
        for reference in ("base", str(trained)):
            with tuning.reference(policy, reference):
                other = load_file(trained / WEIGHTS)
                assert all(torch.equal(tensor, other[name]) for name, tensor in policy.state_dict().items())
        # The same objects: what an optimizer holds.
        assert all(one is other for one, other in zip(parameters, policy.parameters(), strict=True))

    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.model.state_dict().items())


def test_the_reference_of_a_preference_loss_is_the_model_it_names(
    tiny_model_dir: Path, trained: Path, tmp_path: Path
) -> None:
    options = {"objective": "dpo", "batch_size": 100, "epochs": 2, "base": tiny_model_dir}
    first = {}

    for name, reference in (("start", "start"), ("base", "base"), ("folder", str(tiny_model_dir))):
        run(load_tiny(trained), trained, tmp_path / name, reference=reference, **options)
        first[name] = notes(tmp_path / name)[0]["loss"]

    # The policy is its own reference before the first update: -log sigmoid(0) = ln 2.
    assert first["start"] == pytest.approx(0.6931471805599453, abs=1e-6)
    assert first["base"] == first["folder"]
    assert abs(first["base"] - first["start"]) > 1e-3


def test_a_model_of_another_shape_is_no_reference(tiny: Tiny, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", layers=1)

    with pytest.raises(EngineError, match="not a model of the same shape as the trained one"):
        put_weights(tiny.model, other, torch.float32)


# ---- commands


@pytest.fixture
def rows(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", make_groups(load_tiny(tiny_model_dir).chat))


def test_what_was_trained_answers_as_the_model_and_in_place_of_one(
    rows: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums, folder = write_sums(tmp_path / "sums.jsonl"), tmp_path / "trained"
    common = ("--device", "cpu", "-q", "--max-new-tokens", 4)
    settings = ("--full", "--learning-rate", 1e-2, "--set", "finetune.batch_size=4")

    assert here("finetune", rows, "-o", folder, "-m", tiny_model_dir, *settings, "--device", "cpu") == 0
    assert "all 133,056 parameters are trained, in float32" in capsys.readouterr().err
    assert here("solve", sums, "-o", tmp_path / "base.jsonl", "-m", tiny_model_dir, *common) == 0
    assert here("solve", sums, "-o", tmp_path / "one.jsonl", "-m", folder, *common) == 0
    assert here("solve", sums, "-o", tmp_path / "two.jsonl", "-m", tiny_model_dir, "--adapter", folder, *common) == 0
    assert here("eval", sums, "-o", tmp_path / "e.jsonl", "-m", tiny_model_dir, "--adapter", folder, *common) == 0

    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    base, ours = (read_json_lines(tmp_path / name) for name in ("base.jsonl", "one.jsonl"))
    assert {row["policy"]["model"] for row in ours} == {model_digest(folder)}
    assert [row["raw"] for row in ours] != [row["raw"] for row in base]
    compared = read_json_lines(tmp_path / "e.jsonl")
    assert [row["policy"]["model"] for row in compared] == [model_digest(tiny_model_dir)] * 6 + [
        model_digest(folder)
    ] * 6
    assert here("diff", tmp_path / "e.jsonl") == 0
    assert "base -> trained (strict)" in capsys.readouterr().out
    # Its own rows train it further, and the folder says what it continues.
    again = ("finetune", tmp_path / "one.jsonl", "-o", tmp_path / "again", "--full", "--device", "cpu", "-q")
    assert here(*again, "-m", tiny_model_dir, "--adapter", folder) == 0
    lineage = read_lineage(tmp_path / "again")
    assert lineage is not None
    assert (lineage.parent, lineage.base_digest) == (model_digest(folder), model_digest(tiny_model_dir))
    # Done, and found done.
    assert here(*again, "-m", tiny_model_dir, "--adapter", folder) == 0


def test_export_writes_the_model_as_it_is_and_says_what_it_is(
    tiny: Tiny, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny, tiny_model_dir, tmp_path / "trained")

    exact = run_export(tmp_path / "trained", tmp_path / "exact")
    assert here("export", tmp_path / "trained", "-o", tmp_path / "half", "--merge", "--dtype", "bfloat16") == 0

    assert exact.comparison is not None
    assert (exact.comparison["from_adapter"], exact.comparison["from_base"]) == (0.0, None)
    assert "saved = fully fine-tuned model within 0 on 8 prompts" in exact.line()
    assert (tmp_path / "exact" / WEIGHTS).read_bytes() == (tmp_path / "trained" / WEIGHTS).read_bytes()
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / WEIGHTS).values()} == {torch.bfloat16}
    card = (tmp_path / "exact" / "README.md").read_text("utf-8")
    assert "# tiny, every parameter fine-tuned" in card
    assert "LoRA" not in card


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"adapter": "LORA", "finetune": {"full": True}}, "is a LoRA adapter, and finetune.full trains a model"),
        ({"adapter": "MODEL"}, "holds a whole model; a LoRA is trained on it with -m"),
        ({"load_in_4bit": True, "finetune": {"full": True}}, "a model in four bits cannot be trained as a whole"),
        ({"finetune": {"full": True, "reference": "LORA"}}, "finetune.reference: .* is a LoRA adapter"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    recipe: dict[str, Any], message: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    text = json.dumps(recipe).replace("LORA", str(tmp_path)).replace("MODEL", str(tiny_model_dir))

    with pytest.raises(ConfigError, match=message):
        check_tuning(msgspec.json.decode(text, type=Recipe))


# ---- two rounds


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_run_goes_on_from_the_accepted_model_and_retires_the_others(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"""
model: {tiny_model_dir}
device: cpu
rounds: 3
keep_adapters: 1
seeds: {write_sums(tmp_path / "seeds.jsonl", 4)}
propose: {{num_problems: 1, max_new_tokens: 4}}
solve: {{num_problems: 4, rollouts_per_problem: 1, max_new_tokens: 4}}
judge: {{verifier: numeric, judge: none, max_unparsed: 1.0, solver_reward: checked_solver}}
filter: {{filters: [{{name: quality}}], decontaminate: false}} # the seeds are among the held-out items
finetune: {{objective: sft, batch_size: 2, full: true, learning_rate: 0.01}}
eval: {{benchmarks: [{write_sums(tmp_path / "held_out.jsonl", 12)}], max_new_tokens: 4}}
"""
    )
    states = {"round-001": (True, True), "round-002": (False, False), "round-003": (True, False)}
    monkeypatch.setattr(
        loop, "decide", lambda candidate, *_, **__: Promotion(candidate[0], *states[candidate[0]], "told")
    )
    out = tmp_path / "run"

    assert here("run", recipe, "--run-dir", out, "-q") == 0

    def writers(label: str, name: str) -> set[str]:
        return {row["policy"]["model"] for row in read_json_lines(out / label / name)}

    base = model_digest(tiny_model_dir)
    first, second, third = (read_lineage(out / f"round-00{number}" / "5_adapter") for number in (1, 2, 3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert writers("round-000", "6_eval.jsonl") == writers("round-001", "2_rollouts.jsonl") == {base}
    assert writers("round-001", "6_eval.jsonl") == writers("round-001", "6_gate.jsonl") == {first.adapter}
    assert writers("round-002", "2_rollouts.jsonl") == writers("round-003", "2_rollouts.jsonl") == {first.adapter}
    assert [lineage.parent for lineage in (first, second, third)] == [None, first.adapter, first.adapter]
    assert {lineage.base_digest for lineage in (first, second, third)} == {base}
    kept = [path.parts[-3] for path in sorted(out.glob("round-*/5_adapter/*.safetensors"))]
    assert kept == ["round-001", "round-003"]
    assert [entry.marks for entry in adapters_of(out)] == [
        ["best", "whole model"],
        ["retired", "whole model"],
        ["latest", "accepted", "whole model"],
    ]
    capsys.readouterr()
    assert here("trace", read_json_lines(out / "round-003" / "2_rollouts.jsonl")[0]["id"], "--run-dir", out) == 0
    assert f"written by {first.adapter} with every parameter trained" in capsys.readouterr().out
    assert run_export(out, tmp_path / "exported").adapter == first.adapter
    # Done, and found done, though a round's weights are gone.
    before = (out / "round-003" / "6_eval.jsonl").read_bytes()
    assert here("run", recipe, "--run-dir", out, "-q") == 0
    assert (out / "round-003" / "6_eval.jsonl").read_bytes() == before


def test_another_dtype_is_loaded_as_asked(tiny_model_dir: Path) -> None:
    model = load_model(tiny_model_dir, device=torch.device("cpu"), dtype=torch.bfloat16)

    put_weights(model, tiny_model_dir, torch.float32)

    before = load_file(tiny_model_dir / WEIGHTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
