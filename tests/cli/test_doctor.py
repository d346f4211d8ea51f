"""Broken set-ups, each with the line that `mae doctor` says of it; most come from what users of such tools report."""

from __future__ import annotations

import errno
import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.recipe.files import shipped_dir
from mae_cli.stages.doctor import environment, weights
from mae_cli.stages.doctor.examine import Wanted, examine
from mae_cli.stages.doctor.findings import Finding, exit_code, guarded, problem
from tests.conftest import CHAT_TEMPLATE
from tests.engines.openai.fault_server import running
from tests.support import ROOT, child_environment, command, here, write_json_lines, write_sums

Break = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without what the machine happens to have: its load, its disk, its keys."""
    monkeypatch.setattr(environment, "available_memory", lambda: (1 << 36, 1 << 36))
    monkeypatch.setattr(weights, "available_memory", lambda: (1 << 36, 1 << 36))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def told(**wanted: Any) -> list[Finding]:
    return examine(Wanted(**wanted))


def said(found: list[Finding], level: str) -> list[str]:
    return [one.line() for one in found if one.level == level]


def assert_says(found: list[Finding], level: str, pattern: str) -> None:
    lines = [one.line() for one in found]
    assert any(line.startswith(level) and re.search(pattern, line) for line in lines), "\n".join(lines)


# ---- models


def edit_json(name: str, **changes: Any) -> Break:
    def edit(folder: Path) -> None:
        path = folder / name
        tree = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in tree.items() if value != "-"}))

    return edit


def write(name: str, text: str) -> Break:
    return lambda folder: (folder / name).write_text(text)


def remove(*names: str) -> Break:
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def edit_weights(change: Callable[[dict[str, Any]], object]) -> Break:
    def edit(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def longer_lm_head(tensors: dict[str, Any]) -> None:
    import torch

    tensors["lm_head.weight"] = torch.zeros(1000, 64)


def stray(tensors: dict[str, Any]) -> None:
    import torch

    tensors["model.spare.weight"] = torch.zeros(2)


def index_of_two(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    named = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / weights.INDEX).write_text(json.dumps({"weight_map": named}))


def second_of_three(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00002-of-00003.safetensors")


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def added_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(str(folder))
    tokens.add_tokens(["<extra>"])
    tokens.save_pretrained(str(folder))


def no_end(folder: Path) -> None:
    edit_json("config.json", eos_token_id=None)(folder)
    edit_json("generation_config.json", eos_token_id=None)(folder)
    edit_json("tokenizer_config.json", eos_token="-")(folder)


BROKEN_MODELS: dict[str, tuple[Break, str, str]] = {
    "no_config": (remove("config.json"), "problem", r"model: .*config\.json is missing; fix: "),
    "adapter_for_a_model": (
        lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"),
        "problem",
        r"holds a LoRA adapter: use --adapter",
    ),
    "pickled": (as_pickle, "problem", r"pytorch_model\.bin is pickled"),
    "no_weights": (remove("model.safetensors"), "problem", r"\*\.safetensors is missing"),
    "config_is_no_json": (write("config.json", "{"), "problem", r"config\.json: not JSON"),
    "unknown_family": (
        edit_json("config.json", model_type="llama9"),
        "problem",
        r'transformers [\d.]+ does not know model_type "llama9"',
    ),
    "code_of_its_own": (
        edit_json("config.json", model_type="own", auto_map={"AutoConfig": "own.Config"}),
        "problem",
        r"needs code from its folder \(auto_map\), which mae never runs|does not know model_type",
    ),
    "shard_of_the_index_missing": (
        index_of_two,
        "problem",
        r"model files: 1 weights files are missing, the first model-00002-of-00002\.safetensors: an interrupted",
    ),
    "shard_without_index_missing": (
        second_of_three,
        "problem",
        r"model files: 2 weights files are missing, the first model-00001-of-00003",
    ),
    "cut_off": (cut, "problem", r"model\.safetensors: \d+ bytes, its header promises \d+: cut off or damaged"),
    "lfs_pointer": (
        write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
        "problem",
        r"model\.safetensors: a git-lfs pointer, not the weights; fix: git lfs pull",
    ),
    "html_for_weights": (write("model.safetensors", "<!DOCTYPE html>" * 9), "problem", r"not a safetensors file"),
    "empty_weights": (write("model.safetensors", ""), "problem", r"not a safetensors file, or cut off"),
    "tensor_missing": (
        edit_weights(lambda tensors: tensors.pop("lm_head.weight")),
        "problem",
        r"model weights: 1 tensors are missing and would be random, the first lm_head\.weight",
    ),
    "layer_missing": (
        edit_json("config.json", num_hidden_layers=3, layer_types="-"),
        "problem",
        r"model weights: 9 tensors are missing and would be random, the first model\.layers\.2\.",
    ),
    "other_shape": (
        edit_weights(longer_lm_head),
        "problem",
        r"1 tensors have another shape than config\.json says, the first lm_head\.weight: \(1000, 64\) in the file",
    ),
    "spare_tensor": (edit_weights(stray), "note", r"1 tensors are not used, the first model\.spare\.weight"),
    "too_many_tokens": (
        added_tokens,
        "problem",
        r"tokenizer: 1 tokens have no row in the embedding \(\d+ rows\), e\.g\. '<extra>' \(\d+\)",
    ),
    "no_tokenizer": (remove("tokenizer.json"), "problem", r"tokenizer: .*no usable tokenizer"),
    "end_out_of_range": (
        edit_json("generation_config.json", eos_token_id=[1, 99999]),
        "problem",
        r"special ids: generation_config\.json: eos_token_id is 99999, the embedding has \d+ rows",
    ),
    "pad_below_zero": (
        edit_json("config.json", pad_token_id=-1),
        "problem",
        r"special ids: config\.json: pad_token_id is -1, the embedding has",
    ),
    "no_end": (no_end, "problem", r"special ids: neither config\.json, generation_config\.json nor the tokenizer"),
    "no_template": (remove("chat_template.jinja"), "note", r"template: the model ships none \(a base model\)"),
    "template_is_no_jinja": (
        write("chat_template.jinja", "{% for m in messages %}"),
        "problem",
        r"template: the chat template is not valid Jinja: line 1",
    ),
    "template_refuses_system": (
        write("chat_template.jinja", "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
              + CHAT_TEMPLATE),
        "note",
        r"template: takes no system role: system text is put before the first user turn",
    ),
    "template_drops_system": (
        write("chat_template.jinja", CHAT_TEMPLATE.replace("messages %}", "messages if message.role != 'system' %}")),
        "note",
        r"template: takes no system role",
    ),
    "no_generation_prompt": (
        write("chat_template.jinja", CHAT_TEMPLATE.partition("{% if add")[0]),
        "note",
        r"template: has no generation prompt",
    ),
    "no_end_of_turn": (
        write("chat_template.jinja", "{% for message in messages %}{{ message.role }}: {{ message.content }}\n"
              "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"),
        "note",
        r"template: no special token ends an assistant turn: trained rows do not teach where to stop",
    ),
    "doubled_bos": (
        write("chat_template.jinja", "{{ bos_token }}{{ bos_token }}{{ bos_token }}" + CHAT_TEMPLATE),
        "note",
        r"template: it writes BOS <\|endoftext\|> 3 times; prompts have it 1 times here",
    ),
    "other_think_tags": (
        write("chat_template.jinja", CHAT_TEMPLATE + "{# <reasoning> #}"),
        "problem",
        r"think tags: the template writes <reasoning>, the recipe names <think>",
    ),
    "opened_thinking": (
        write("chat_template.jinja", CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")),
        "ok",
        r"think tags: the prompt opens <think>: the answer begins with reasoning",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_a_broken_model_is_named_with_its_fix(name: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    damage, level, pattern = BROKEN_MODELS[name]
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    damage(folder)

    found = told(model=str(folder))

    assert_says(found, level, pattern)
    assert exit_code(found) == (2 if level == "problem" else 0)
    assert all(one.fix for one in found if one.level == "problem")


def test_a_whole_model_has_no_problem_and_shows_its_prompt(tiny_model_dir: Path) -> None:
    found = told(model=str(tiny_model_dir))

    assert said(found, "problem") == []
    assert_says(found, "ok", r"template: a prompt of \d+ tokens: <\|im_start\|>system\\nAnswer briefly\.<\|im_end\|>")
    assert_says(found, "ok", r"template: a turn ends on <\|im_end\|> \(3\)")


@pytest.mark.parametrize(
    ("wanted", "level", "pattern"),
    [
        ({"model": "smollm2-135"}, "problem", r'no model "smollm2-135": not an embedded model \(did you mean "smollm2'),
        ({"model": "nobody/nothing"}, "problem", r"nobody/nothing is not in the hub cache .*HF_HUB_OFFLINE is set"),
        ({"settings": ["device=cuda:7"]}, "problem", r'gpu: device "cuda:7" is not there'),
        ({"settings": ["device=tpu9"]}, "problem", r'device "tpu9" is unknown'),
        ({"settings": ["think_tags=[<think>]"]}, "problem", r"think tags: expected an opening and a closing tag"),
        ({"settings": ["solve.max_new_tokens=256"]}, "problem", r"lengths: solve: max_new_tokens 256 leaves no room"),
        ({"settings": ["dtype=float16"]}, "note", r"model: float16 is slow and inexact on a CPU"),
        ({"settings": ["solve.max_new_token=1"]}, "problem", r'unknown key "solve.max_new_token"; did you mean'),
        ({"settings": ["engine=skripted"]}, "problem", r'engine: unknown engine "skripted"; did you mean "scripted"'),
    ],
)  # fmt: skip
def test_a_wrong_wish_is_named(wanted: dict[str, Any], level: str, pattern: str, tiny_model_dir: Path) -> None:
    settings = wanted.get("settings", [])

    found = told(**{"model": str(tiny_model_dir), **wanted, "settings": ["max_concurrent=4", *_short(settings)]})

    assert_says(found, level, pattern)


def _short(settings: list[str]) -> list[str]:
    """Completions that fit the tiny model, but where the case is about them."""
    stages = ("propose", "solve", "judge", "eval")
    return [*(f"{stage}.max_new_tokens=8" for stage in stages), *settings]


def test_too_large_a_model_is_said_before_it_is_loaded(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "available_memory", lambda: (1000, 1 << 36))
    for_now = told(model=str(tiny_model_dir))
    monkeypatch.setattr(weights, "available_memory", lambda: (1000, 1000))
    forever = told(model=str(tiny_model_dir))

    assert_says(for_now, "problem", r"model: LlamaForCausalLM.* GiB are free now; fix: end other programs")
    assert_says(forever, "problem", r"model: LlamaForCausalLM.* do not fit into 0\.0 GiB; fix: a smaller model")
    assert [code_of_model(one) for one in (for_now, forever)] == [75, 2]


def code_of_model(found: list[Finding]) -> int:
    return exit_code([one for one in found if one.check == "model"])


# ---- adapters


@pytest.fixture(scope="module")
def adapter_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    model = AutoModelForCausalLM.from_pretrained(str(tiny_model_dir))
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).save_pretrained(str(folder))
    return folder


def with_lineage(digest: str) -> Break:
    def add(folder: Path) -> None:
        lineage = {
            **{"adapter": "a", "parent": None, "base": "other@1", "base_digest": digest, "data": "d", "rows": 1},
            **{"roles": {}, "trained_tokens": 1, "seed": 0, "objective": "sft", "steps": 1, "learning_rate": 1.0},
        }
        (folder / "lineage.json").write_text(json.dumps(lineage))

    return add


def other_layers(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    moved = {name.replace("model.layers", "model.h"): value for name, value in tensors.items()}
    save_file(moved, folder / "adapter_model.safetensors")


def other_width(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    name = min(name for name in tensors if "lora_A" in name)
    save_file({**tensors, name: torch.zeros(2, 999)}, folder / "adapter_model.safetensors")


BROKEN_ADAPTERS: dict[str, tuple[Break, str, str]] = {
    "whole": (lambda _: None, "ok", r"adapter tensors: 8 fit the layers"),
    "missing": (shutil.rmtree, "problem", r"adapter: .*: no such folder"),
    "no_weights": (remove("adapter_model.safetensors"), "problem", r"adapter_model\.safetensors is missing"),
    "config_is_no_json": (write("adapter_config.json", "["), "problem", r"adapter_config\.json: not JSON"),
    "other_kind": (edit_json("adapter_config.json", peft_type="IA3"), "problem", r"its kind is IA3"),
    "garbage": (write("adapter_model.safetensors", "x" * 50), "problem", r"not a safetensors file, or cut off"),
    "other_base": (with_lineage("0" * 20), "problem", r"adapter base: trained on .* with digest 0{20}, the model at"),
    "other_family": (other_layers, "problem", r"adapter tensors: it was trained on another model: model\.h\.0"),
    "other_size": (other_width, "problem", r"it was trained on another model: .*lora_A.* is \(2, 999\)"),
}


@pytest.mark.parametrize("name", BROKEN_ADAPTERS)
def test_an_adapter_is_compared_with_its_model(
    name: str, tiny_model_dir: Path, adapter_dir: Path, tmp_path: Path
) -> None:
    damage, level, pattern = BROKEN_ADAPTERS[name]
    folder = shutil.copytree(adapter_dir, tmp_path / "adapter")
    damage(folder)

    found = told(model=str(tiny_model_dir), adapter=str(folder), settings=_short([]))

    assert_says(found, level, pattern)
    assert exit_code(found) == (2 if level == "problem" else 0)


# ---- recipes


def seeds(folder: Path) -> Path:
    return write_sums(folder / "seeds.jsonl", 6)


BROKEN_RECIPES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown_key": ({"solv": {}}, "problem", r'recipe: .*unknown key "solv"; did you mean "solve"'),
    "unknown_plugin": ({"judge": {"verifier": "numerik"}}, "problem", r'plugins: unknown verifier "numerik"; did you'),
    "own_plugin_not_there": (
        {"judge": {"verifier": "my_checks:Units"}},
        "problem",
        r'plugins: verifiers "my_checks:Units": no module my_checks',
    ),
    "unknown_prompt": ({"solve": {"prompt": "slove"}}, "problem", r'no prompt "slove": not a file, and did you mean'),
    "prompt_wants_a_field": (
        {"solve": {"prompt": "FOLDER/passage.txt"}},
        "problem",
        r"prompts: solve\.prompt: prompt .* uses \{\{ passage \}\}; given: question",
    ),
    "prompt_without_question": (
        {"solve": {"prompt": "FOLDER/mute.txt"}},
        "problem",
        r"prompts: solve\.prompt: prompt .* does not show question",
    ),
    "no_seeds": (
        {"solve": {"num_problems": 4}},
        "problem",
        r"seeds: none, and the solver draws its problems from them",
    ),
    "seeds_missing": ({"seeds": "FOLDER/none.jsonl"}, "problem", r"seeds: .*none\.jsonl: no such file"),
    "seeds_empty": ({"seeds": "FOLDER/empty.jsonl"}, "problem", r"seeds: .*empty\.jsonl"),
    "seeds_broken": ({"seeds": "FOLDER/broken.jsonl"}, "problem", r"seeds: .*broken\.jsonl:2"),
    "too_few_seeds": ({"seeds": "FOLDER/seeds.jsonl", "num_seeds": 50}, "note", r"6 problems, .*num_seeds wants 50"),
    "no_benchmark": ({}, "note", r"benchmarks: none: whether a round helped is not measured"),
    "benchmark_missing": ({"eval": {"benchmarks": ["FOLDER/no.jsonl"]}}, "problem", r"benchmarks: .*no such file"),
    "benchmark_on_the_hub": ({"eval": {"benchmarks": ["gsm8k"]}}, "note", r"openai/gsm8k/main:test is on the hub"),
    "unreadable_answers": (
        {"eval": {"benchmarks": ["FOLDER/words.jsonl"], "verifier": "arithmetic"}},
        "problem",
        r"benchmarks: .*verifier arithmetic cannot read \d of the first 3 reference answers",
    ),
    "held_out_among_seeds": (
        {"seeds": "FOLDER/seeds.jsonl", "eval": {"benchmarks": ["FOLDER/seeds.jsonl"]}},
        "problem",
        r"overlap: 6 of 6 items of .*seeds\.jsonl are among the seeds",
    ),
    "gate_is_reported": (
        {"eval": {"benchmarks": ["FOLDER/seeds.jsonl"], "gate": "FOLDER/seeds.jsonl"}},
        "problem",
        r"gate: .*seeds\.jsonl: every item is among eval\.benchmarks|gate: .*every item",
    ),
    "verifier_does_not_fit": (
        {"seeds": "FOLDER/words.jsonl", "judge": {"verifier": "numeric"}},
        "problem",
        r"verifiers: judge: numeric has no verdict on 3 of 3 seeds with their own answers",
    ),
    "two_steps_of_one_name": ({"pipeline": ["solve", "solve"]}, "problem", r'a second step called "solve"'),
}


@pytest.mark.parametrize("name", BROKEN_RECIPES)
def test_a_broken_recipe_is_named_with_its_fix(name: str, tmp_path: Path) -> None:
    keys, level, pattern = BROKEN_RECIPES[name]
    seeds(tmp_path)
    words = [{"question": f"Who wrote book {n}?", "answer": "Jane Austen"} for n in range(3)]
    write_json_lines(tmp_path / "words.jsonl", words)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"question": "What is 1 + 1?", "answer": "2"}\n{"question": \n')
    (tmp_path / "passage.txt").write_text("[user]\n{{ passage }}\n{{ question }}\n")
    (tmp_path / "mute.txt").write_text("[user]\nWhat is it?\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"engine": "scripted", **keys}).replace("FOLDER", str(tmp_path)))

    found = told(recipe=str(recipe))

    assert_says(found, level, pattern)
    assert exit_code(found) == (2 if level == "problem" else 0)


@pytest.mark.parametrize("path", sorted(shipped_dir("recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_has_no_problem(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    seeds = ["seeds=data/arithmetic_train.jsonl"] if path.stem == "own_questions" else []

    found = told(recipe=path.stem, settings=["engine=scripted", *seeds])

    assert said(found, "problem") == []


# ---- servers


def test_a_server_is_asked_for_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(key="sesame") as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        monkeypatch.setenv("MY_KEY", "sesame")
        right = told(base_url=url, model="test-model", api_key_env="MY_KEY")
        other = told(base_url=url, model="tset-model", api_key_env="MY_KEY")
        probed = told(base_url=url, model="test-model", api_key_env="MY_KEY", probe=True)
        monkeypatch.setenv("MY_KEY", "open")
        refused = told(base_url=url, model="test-model", api_key_env="MY_KEY")
        lost = told(base_url=url.replace("/v1", "/api"), model="test-model")

    assert_says(right, "ok", r"server: http://127\.0\.0\.1:\d+/v1 answers, serves test-model")
    assert_says(right, "ok", r"server key: MY_KEY is set")
    assert_says(other, "problem", r'serves no "tset-model"; did you mean "test-model"')
    assert any(one.check == "server probe" and one.level != "problem" for one in probed)
    assert_says(refused, "problem", r"server key: .*refused \(HTTP 401\); fix: name the key's variable")
    assert_says(lost, "problem", r"server")
    everything = "\n".join(one.line() for one in (*right, *other, *probed, *refused))
    assert "sesame" not in everything
    assert "open" not in everything.replace("openai", "")


@pytest.mark.parametrize(
    ("wanted", "code", "pattern"),
    [
        (
            {"base_url": "http://127.0.0.1:9/v1"},
            75,
            r"server: http://127\.0\.0\.1:9/v1/models: no answer: .*; fix: start",
        ),
        ({"base_url": "localhost:8000"}, 2, r"--base-url localhost:8000: expected an address such as"),
        ({"base_url": "http://u:secret@h/v1"}, 2, r"an address with a password or a query would be stored"),
        (
            {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "NO_SUCH_KEY"},
            2,
            r"server key: --api-key-env: no envir",
        ),
        ({"base_url": "http://127.0.0.1:9/v1", "api_key_env": "sk-12345"}, 2, r"api_key_env: no environment variable"),
    ],
)
def test_a_server_that_cannot_be_asked_is_named(wanted: dict[str, Any], code: int, pattern: str) -> None:
    found = told(model="m", **wanted)

    assert_says(found, "problem", pattern)
    assert exit_code(found) == code
    assert not any(secret in one.line() for one in found for secret in ("secret", "sk-12345"))


# ---- the machine


def test_versions_are_those_of_the_project() -> None:
    pinned = dict(re.findall(r"^([\w_-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    project = (ROOT / "pyproject.toml").read_text()

    for name, (lowest, tested) in environment.TESTED.items():
        assert pinned[name] == tested
        assert f'"{name}>={lowest}"' in project


@pytest.mark.parametrize(
    ("version", "level", "pattern"),
    [
        (
            "0.16.1",
            "problem",
            r"packages: peft 0\.16\.1 is older than 0\.17, the lowest that works; fix: pip install -U",
        ),
        ("9.9.9", "note", r"other versions than this one was tested with: peft 9\.9\.9 \(0\.21\.2\)"),
        (None, "problem", r"packages: peft is not installed; fix: pip install 'peft>=0\.17'"),
    ],
)
def test_an_odd_version_is_named(
    version: str | None, level: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = environment.importlib.metadata.version

    def asked(name: str) -> str:
        if name != "peft":
            return str(real(name))
        if version is None:
            raise environment.importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(environment.importlib.metadata, "version", asked)

    assert_says(list(environment.packages()), level, pattern)


def test_a_cache_that_is_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("MAE_CACHE", str(tmp_path / "cache"))

    assert_says(list(environment.folders(tmp_path)), "problem", r"cache folder: .*cache is a file, not a folder; fix")


@pytest.mark.parametrize(
    ("variable", "value", "level", "pattern"),
    [
        (
            "TMPDIR",
            "/nowhere/at/all",
            "problem",
            r"temporary folder: TMPDIR is /nowhere/at/all, which cannot be written",
        ),
        ("HOME", "/nowhere/at/all", "problem", r"home folder: HOME is /nowhere/at/all, which is no folder"),
        ("HOME", "", "note", r"home folder: HOME is not set \(cron does that\)"),
    ],
)
def test_an_odd_folder_is_named(
    variable: str, value: str, level: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAE_CACHE", str(tmp_path))
    monkeypatch.setenv(variable, value)

    assert_says(list(environment.folders(tmp_path)), level, pattern)


def test_a_full_disk_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 0))

    found = list(environment.folders(tmp_path))

    assert_says(found, "problem", r"run folder: .*0\.0 GiB free: too little for a run")
    assert exit_code(found) == 75


def test_a_place_that_takes_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> object:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(environment.tempfile, "TemporaryFile", refuse)

    assert_says(list(environment.folders(tmp_path)), "problem", r"run folder: .* cannot be written: Read-only file")


def test_locks_that_do_not_hold_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    class Weak:
        def __init__(self, path: Path) -> None: ...

        def __enter__(self) -> Weak:
            return self

        def __exit__(self, *_: object) -> None: ...

        def acquire(self, timeout: int) -> None: ...

    assert_says(list(environment.locks(tmp_path)), "ok", r"locks: work in")
    monkeypatch.setattr(filelock, "FileLock", Weak)
    assert_says(
        list(environment.locks(tmp_path)), "problem", r"locks: in .* a second process could write the same file"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_number_of_threads_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "four")

    assert_says(list(environment.torch_threads()), "problem", r'torch: OMP_NUM_THREADS is "four"; fix: set it')


def test_little_memory_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "available_memory", lambda: (1 << 20, 1 << 33))

    found = list(environment.memory())

    assert_says(found, "problem", r"memory: 0\.0 of 8\.0 GiB free")
    assert exit_code(found) == 75


# ---- the command


def test_a_check_that_raises_is_a_problem_that_names_it() -> None:
    def broken() -> list[Finding]:
        raise ZeroDivisionError("by zero")

    (found,) = guarded("locks", broken)

    assert found.line().startswith("problem  locks: the check itself failed: ZeroDivisionError: by zero; fix: ")


def test_exit_codes_follow_the_problems() -> None:
    lasting, passing = problem("a", "b", "c"), problem("a", "b", "c", temporary=True)

    assert [exit_code(one) for one in ([], [passing], [passing, lasting], [lasting])] == [0, 75, 2, 2]


def test_the_command_ends_on_the_code_and_tells_all_as_json(
    tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("doctor", "-m", tiny_model_dir / "none", "--json") == 2

    told_as_json = msgspec.json.decode(capsys.readouterr().out)
    assert told_as_json["exit_code"] == 2
    assert [one["check"] for one in told_as_json["findings"] if one["level"] == "problem"] == ["model"]


def test_quiet_says_problems_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("doctor", "-q", "--base-url", "http://127.0.0.1:9/v1", "-m", "m", "--run-dir", tmp_path) == 75

    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == ["problem  server"]
    assert shown.err == ""


def test_a_damaged_header_that_promises_too_much_reads_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")

    assert weights.file_fault(path) == "not a safetensors file, or cut off"


@pytest.mark.parametrize("arguments", [["doctor", "--help"], ["recipe", "show", "--help"], ["--help"]])
def test_help_loads_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom mae_cli.cli.app import run_app\n"
        f"run_app({arguments!r})\nsys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True)

    assert done.returncode == 0


def test_off_a_terminal_there_is_one_line_a_finding(tmp_path: Path) -> None:
    done = subprocess.run(
        command(["doctor", "nothing-of-that-name", "-m", tmp_path]), env=child_environment(), capture_output=True
    )

    assert done.returncode == 2
    assert b"\x1b" not in done.stdout
    assert b"\r" not in done.stdout
    assert {line.split()[0] for line in done.stdout.decode().splitlines()} <= {"ok", "note", "problem"}
