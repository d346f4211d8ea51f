"""Adapters that people bring, and layers PEFT cannot adapt: right, or refused in one line before the first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mae_cli.errors import CollapseError, ConfigError, EngineError
from mae_cli.models.adapter_checks import check_base, check_kind
from mae_cli.models.adapters import load_adapter, strip_adapter
from mae_cli.models.digests import model_digest
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records import Policy
from mae_cli.runs.export import run_export
from mae_cli.training import lora_tuning
from mae_cli.training.lora_targets import choose_targets

from .conftest import Tiny, load_tiny, make_rows, train_tiny
from .families import save_family

IDS = torch.tensor([[5, 6, 7, 8, 9]])
WHOLE = FinetuneSection(objective="sft", lora_r=4, learning_rate=1e-2, batch_size=4, epochs=3, save_every=0)


def opened(name: str, tmp_path: Path, **changes: Any) -> Tiny:
    try:
        return load_tiny(save_family(name, tmp_path / "model", **changes))
    except EngineError as error:
        if "scaled_dot_product_attention" in str(error):
            pytest.skip(f"{name} is not loaded yet")
        raise


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=IDS).logits
    return result


def made(tmp_path: Path, family: str = "llama", **options: Any) -> tuple[Tiny, Path]:
    """A model, and a random LoRA of PEFT's own making for it."""
    from peft import LoraConfig, get_peft_model

    tiny = opened(family, tmp_path)
    config = LoraConfig(**{"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options})
    policy = get_peft_model(tiny.model, config)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name or "trainable_tokens_delta" in name:
                parameter.normal_(std=0.1)
    policy.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    strip_adapter(tiny.model)
    return tiny, tmp_path / "adapter"


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


# --- targets


@pytest.mark.parametrize(
    ("family", "left_out", "adapted"),
    [
        ("mixtral", {"mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"}, "self_attn.q_proj"),
        ("qwen2_moe", {"mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"}, "shared_expert"),
        ("llama4", {"feed_forward.router"}, "shared_expert"),
        ("mamba", {"mixer.out_proj", "mixer.x_proj", "mixer.dt_proj"}, "mixer.in_proj"),
    ],
)
def test_all_linear_leaves_out_what_peft_cannot_adapt_and_names_it(
    family: str, left_out: set[str], adapted: str, tmp_path: Path
) -> None:
    targets = choose_targets(opened(family, tmp_path).model, "all-linear")

    assert left_out <= set(targets.left_out)
    assert any(adapted in name for name in targets.modules)
    assert not any(name.endswith(tuple(left_out)) for name in targets.modules)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "mistral", "granite", "cohere"])
def test_a_dense_family_keeps_peft_s_own_choice(family: str, tmp_path: Path) -> None:
    assert choose_targets(opened(family, tmp_path).model, "all-linear") == ("all-linear", None, [])


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "dense and sparse", "llama4", "mamba", "gpt2"])
def test_a_default_training_ends_with_an_adapter_that_loads_and_merges(family: str, tmp_path: Path) -> None:
    tiny = opened(family, tmp_path)
    before, names = logits(tiny.model), [name for name, _ in tiny.model.named_modules()]

    train_tiny(tiny, make_rows(tiny.chat, 4), WHOLE, tmp_path / "adapter")

    assert torch.equal(logits(tiny.model), before)
    assert [name for name, _ in tiny.model.named_modules()] == names
    assert (logits(load_adapter(tiny.model, tmp_path / "adapter")) - before).abs().max() > 1e-2
    report = run_export(tmp_path / "adapter", tmp_path / "merged", model=str(tmp_path / "model")).comparison
    assert report is not None
    assert report["from_adapter"] <= report["tolerance"] < report["from_base"]


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "qwen2_moe"])
def test_experts_that_are_named_are_trained_and_merged(family: str, tmp_path: Path) -> None:
    tiny = opened(family, tmp_path)
    before = logits(tiny.model)
    named = "q_proj,experts.gate_up_proj,experts.down_proj"

    train_tiny(
        tiny,
        make_rows(tiny.chat, 4),
        FinetuneSection(objective="sft", lora_r=2, learning_rate=1e-2, epochs=3, target_modules=named),
        tmp_path / "adapter",
    )

    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any(".experts." in name and value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    assert torch.equal(logits(tiny.model), before)
    report = run_export(tmp_path / "adapter", tmp_path / "merged", model=str(tmp_path / "model")).comparison
    assert report is not None
    assert report["from_adapter"] <= report["tolerance"] < report["from_base"]


@pytest.mark.parametrize(
    ("family", "names", "said"),
    [
        ("llama4", "q_proj,router", "router"),
        ("mamba", "in_proj,dt_proj", "dt_proj"),
        ("llama", "q_proj,query", "q_proj"),
        ("gpt2", "q_proj", "c_attn"),
        ("llama", "input_layernorm", "input_layernorm"),
    ],
)
def test_a_named_layer_that_cannot_be_adapted_is_refused_in_one_line(
    family: str, names: str, said: str, tmp_path: Path
) -> None:
    tiny = opened(family, tmp_path)
    section = FinetuneSection(objective="sft", target_modules=names)

    with pytest.raises(ConfigError, match=said) as told:
        train_tiny(tiny, make_rows(tiny.chat, 4), section, tmp_path / "adapter")

    assert "\n" not in str(told.value)
    assert not any("lora" in name for name, _ in tiny.model.named_modules())


# --- what is kept when something fails


def test_an_adapter_that_cannot_be_taken_off_is_whole_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Any) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    tiny, told = opened("llama", tmp_path), []
    monkeypatch.setattr(lora_tuning, "strip_adapter", fails)
    report = train_tiny(tiny, make_rows(tiny.chat, 4), WHOLE, tmp_path / "adapter", on_text=told.append)

    assert report.left_on == "maximum recursion depth exceeded"
    assert any("could not be taken off" in text for text in told)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_a_last_update_that_is_not_finite_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = opened("llama", tmp_path)
    real, calls = torch.optim.AdamW.step, []

    def breaks(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        calls.append(1)
        if len(calls) == 3:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("nan"))

    monkeypatch.setattr(torch.optim.AdamW, "step", breaks)
    with pytest.raises(CollapseError, match=r"weights after step 3 are not finite.*step 2 is kept"):
        train_tiny(tiny, make_rows(tiny.chat, 4), WHOLE, tmp_path / "adapter")

    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())


# --- kinds of adapters


@pytest.mark.parametrize(
    "kind",
    [
        *("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "IA3", "ADALORA", "LOHA", "LOKR", "OFT", "VERA"),
        *("ADAPTION_PROMPT", "XLORA", "BONE", None),
    ],
)
def test_another_kind_of_adapter_is_refused_by_its_name(kind: str | None, tmp_path: Path) -> None:
    _, folder = made(tmp_path)
    edited(folder, peft_type=kind)

    with pytest.raises(EngineError, match=f"peft_type is {kind or 'missing'}"):
        check_kind(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": "all"}, "biases"),
        ({"bias": "lora_only"}, "biases"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "repeats layers"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"alora_invocation_tokens": [1, 2]}, "activated"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
    ],
)
def test_a_lora_that_changes_more_than_its_layers_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    tiny, folder = made(tmp_path)
    edited(folder, **change)

    with pytest.raises(EngineError, match=said):
        load_adapter(tiny.model, folder)


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["input_layernorm"]},
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 3}},
        {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
        {"trainable_token_indices": [4, 5]},
        {"use_dora": True},
        {"use_rslora": True},
        {"lora_bias": True},
        {"layers_to_transform": [1]},
        {"target_modules": ["q_proj", "lm_head"]},
    ],
    ids=str,
)
def test_a_lora_of_this_kind_is_put_on_taken_off_and_goes_on(options: dict[str, Any], tmp_path: Path) -> None:
    tiny, folder = made(tmp_path, **options)
    before = logits(tiny.model)

    worn = logits(load_adapter(tiny.model, folder))
    strip_adapter(tiny.model)

    assert (worn - before).abs().max() > 1e-4
    assert torch.equal(logits(tiny.model), before)
    train_tiny(tiny, make_rows(tiny.chat, 4), WHOLE, tmp_path / "second", start_adapter=folder)
    assert torch.equal(logits(tiny.model), before)
    again = logits(load_adapter(tiny.model, tmp_path / "second"))
    assert (again - worn).abs().max() > 1e-4


def rewrite(folder: Path, change: Any) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(path)).items()}, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: {name: value * float("nan") for name, value in held.items()}, "not finite"),
        (lambda held: {}, "no tensor"),
        (lambda held: {name: value[:2] if "lora_A" in name else value for name, value in held.items()}, "size"),
        (lambda held: {name.removeprefix("base_model."): value for name, value in held.items()}, "one side only"),
        (lambda held: {**held, "base_model.model.model.embed_tokens.weight": torch.zeros(461, 64)}, "vocabulary"),
        (lambda held: {name: value for name, value in held.items() if "layers.1" not in name}, "one side only"),
        (lambda held: {**held, "base_model.model.model.embed_tokens.weight": torch.zeros(9, 64)}, "vocabulary"),
    ],
    ids=["nan", "empty", "rank", "prefix", "embedding of the same size", "layer missing", "embedding"],
)
def test_weights_that_do_not_fit_are_refused_in_one_line_and_leave_the_base_alone(
    change: Any, said: str, tmp_path: Path
) -> None:
    tiny, folder = made(tmp_path)
    before = logits(tiny.model)
    rewrite(folder, change)

    with pytest.raises(EngineError, match=said) as told:
        load_adapter(tiny.model, folder)

    assert "\n" not in str(told.value)
    assert torch.equal(logits(tiny.model), before)


def test_a_pickled_or_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    _, folder = made(tmp_path)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(EngineError, match="not a safetensors file"):
        check_kind(folder)

    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(EngineError, match="pickle"):
        check_kind(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_adapters_are_right(dtype: torch.dtype, tmp_path: Path) -> None:
    tiny, folder = made(tmp_path)
    exact = logits(load_adapter(tiny.model, folder))
    strip_adapter(tiny.model)
    rewrite(folder, lambda held: {name: value.to(dtype) for name, value in held.items()})

    assert (logits(load_adapter(tiny.model, folder)) - exact).abs().max() < 0.1


def test_keys_of_a_newer_or_older_peft_change_nothing(tmp_path: Path) -> None:
    tiny, folder = made(tmp_path)
    exact = logits(load_adapter(tiny.model, folder))
    strip_adapter(tiny.model)
    edited(folder, of_a_newer_version={"a": 1}, corda_config=None, eva_config=None)

    assert torch.equal(logits(load_adapter(tiny.model, folder)), exact)


# --- base and template


def test_an_adapter_belongs_to_the_base_and_template_of_its_lineage(tmp_path: Path) -> None:
    tiny = opened("llama", tmp_path)
    train_tiny(tiny, make_rows(tiny.chat, 4), WHOLE, tmp_path / "adapter")
    digest = model_digest(tmp_path / "model")
    path = tmp_path / "adapter" / "lineage.json"
    told = {**json.loads(path.read_text("utf-8")), "base": "tiny", "base_digest": digest, "template": "a"}
    path.write_text(json.dumps(told), "utf-8")

    same = check_base(tmp_path / "adapter", Policy(model=digest, template="a"), "model")
    other = check_base(tmp_path / "adapter", Policy(model=digest, template="b"), "model")

    assert same == []
    assert "another chat template" in other[0]
    with pytest.raises(EngineError, match="was trained on tiny"):
        check_base(tmp_path / "adapter", Policy(model="0" * 20, template="a"), "merged")


def test_another_tool_s_adapter_is_told_by_the_name_of_its_base(tmp_path: Path) -> None:
    _, folder = made(tmp_path)
    policy = Policy(model="0" * 20)
    edited(folder, base_model_name_or_path="meta-llama/Llama-3.2-1B")

    assert check_base(folder, policy, "meta-llama/Llama-3.2-1B") == []
    assert check_base(folder, policy, "/models/Llama-3.2-1B") == []
    assert "Llama-3.2-1B" in check_base(folder, policy, "Qwen/Qwen3-0.6B")[0]
    edited(folder, base_model_name_or_path="HuggingFaceTB/SmolLM2-135M-Instruct")
    assert check_base(folder, policy, "smollm2-135m") == []
