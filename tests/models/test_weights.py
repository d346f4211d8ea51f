"""Folders whose weights, config or token ids do not make a causal language model: one line that names what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mae_cli.engines.hf import engine as hf
from mae_cli.errors import EngineError
from mae_cli.models.load import context_length, end_token_ids, load_model, load_tokenizer, pad_token_id
from mae_cli.models.locate import local_model
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request, Sampling
from tests.conftest import build_tokenizer

CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be spoilt."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    changed = change(load_file(folder / "model.safetensors"))
    save_file(
        {name: value.contiguous() for name, value in changed.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def change_config(folder: Path, name: str = "config.json", **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder: Path, notices: list[str] | None = None) -> Any:
    return load_model(folder, device=CPU, dtype=torch.float32, notices=notices)


def opened(folder: Path) -> hf.HfEngine:
    return hf.open_engine(Recipe(model=str(folder), device="cpu"), "")


SPOILT: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "a wrapper's prefix": (
        lambda told: {f"_orig_mod.{name}": value for name, value in told.items()},
        r"no weights for 2\d tensors \(lm_head.weight.*\) of the model; the files have _orig_mod.lm_head.*instead",
    ),
    "DDP's prefix": (
        lambda told: {f"module.{name}": value for name, value in told.items()},
        "the files have module.lm_head.weight",
    ),
    "a layer is missing": (
        lambda told: {name: value for name, value in told.items() if "layers.1." not in name},
        r"no weights for 9 tensors \(model.layers.1.input_layernorm.weight",
    ),
    "one norm is missing": (
        lambda told: {name: value for name, value in told.items() if name != "model.norm.weight"},
        r"no weights for 1 tensor \(model.norm.weight\) of the model",
    ),
    "the output layer is missing": (
        lambda told: {name: value for name, value in told.items() if name != "lm_head.weight"},
        r"no weights for 1 tensor \(lm_head.weight\) of the model",
    ),
    "a layer more than the config says": (
        lambda told: {
            **told,
            **{n.replace("layers.1.", "layers.2."): v.clone() for n, v in told.items() if "layers.1." in n},
        },
        r"has no place for 9 tensors \(model.layers.2",
    ),
    "biases that the config switches off": (
        lambda told: {**told, "model.layers.0.self_attn.q_proj.bias": torch.ones(64)},
        r"has no place for 1 tensor \(model.layers.0.self_attn.q_proj.bias\)",
    ),
    "another shape": (
        lambda told: {**told, "model.norm.weight": torch.ones(32)},
        r"1 tensor \(model.norm.weight\) of another shape",
    ),
    "adapter layers that were not merged": (
        lambda told: {**told, "model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 64)},
        "no place for 1 tensor .*lora_A",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_weights_that_do_not_fit_their_config_are_refused_by_name(folder: Path, case: str) -> None:
    change, line = SPOILT[case]
    change_weights(folder, change)

    with pytest.raises(EngineError, match=line) as caught:
        load(folder)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "vision_tower.patch.weight",
        "multi_modal_projector.linear.weight",
        "mtp.layers.0.weight",
        "v_head.summary.weight",
    ],
)
def test_tensors_not_needed_for_text_are_counted_by_name(folder: Path, name: str) -> None:
    change_weights(folder, lambda told: {**told, name: torch.ones(8)})
    notices: list[str] = []

    load(folder, notices)

    # The library leaves some of them out by itself.
    assert notices in ([], [f"1 tensor ({name}) of the weight files not needed for text: left out"])


def test_a_tied_output_layer_is_no_loss(folder: Path) -> None:
    change_config(folder, tie_word_embeddings=True)
    change_weights(folder, lambda told: {name: value for name, value in told.items() if name != "lm_head.weight"})

    model = load(folder)

    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_file_that_was_cut_off_is_named_with_its_sizes(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(EngineError, match=rf"model.safetensors: cut off: {len(whole) // 2} of {len(whole)} bytes"):
        load(folder)


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_holds_no_weights_is_named(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)

    with pytest.raises(EngineError, match=r"model.safetensors: not a safetensors file"):
        load(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {
        "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"}
    }
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(EngineError, match=r"1 of 2 weight files .*missing: model-00002-of-00002.safetensors"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification: .* writes no text"),
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM: that model writes no text"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "an encoder with a decoder"),
        ({"model_type": "nonesuch"}, 'model_type "nonesuch" is unknown'),
        (
            {"model_type": "nonesuch", "auto_map": {"AutoModelForCausalLM": "m.M"}},
            "own code .auto_map., which mae never",
        ),
        ({"model_type": None}, "model_type is missing"),
        ({"num_hidden_layers": "two"}, "cannot be loaded"),
    ],
)
def test_a_config_of_another_kind_of_model_is_refused(folder: Path, changes: dict[str, Any], line: str) -> None:
    change_config(folder, **changes)

    with pytest.raises(EngineError, match=line):
        load(folder)


@pytest.mark.parametrize(
    ("gone", "there", "line"),
    [
        ("model.safetensors", "pytorch_model.bin", r"pickled and can run code; .*save_pretrained"),
        ("model.safetensors", "model-Q4_K_M.gguf", r"model-Q4_K_M.gguf is for llama.cpp"),
        ("config.json", "adapter_config.json", "use --adapter"),
    ],
)
def test_a_folder_without_what_a_model_needs_says_what_it_holds(folder: Path, gone: str, there: str, line: str) -> None:
    (folder / gone).unlink()
    (folder / there).write_text("{}")

    with pytest.raises(EngineError, match=line):
        local_model(str(folder))


def test_weights_that_give_no_numbers_are_refused(folder: Path) -> None:
    change_weights(
        folder, lambda told: {n: v * float("nan") if "layers.1.mlp.down" in n else v for n, v in told.items()}
    )

    with pytest.raises(EngineError, match=r"logits are not numbers \(NaN\) at \d+ of \d+ tokens"):
        opened(folder)


def test_a_row_whose_logits_stop_being_numbers_is_an_error(folder: Path) -> None:
    engine = opened(folder)
    ids = engine.texts.prompt((Message("user", "what is one"),)).ids
    forward, calls = engine.model.forward, []

    def broken(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        calls.append(1)
        if len(calls) == 3:
            output.logits[0] = float("nan")
        return output

    engine.model.forward = broken
    requests = [
        Request(str(n), (Message("user", f"what is {word}"),), n) for n, word in enumerate(("one", "two apples"))
    ]
    found = engine.generate(requests, Sampling(max_new_tokens=6, temperature=1.0))

    assert ids
    assert sorted(answer.status for answer in found) == ["error", "truncated"]
    failed = next(answer for answer in found if answer.status == "error")
    assert failed.error == "the model's logits are not numbers (NaN) behind 2 new tokens"
    assert len(failed.completion_token_ids or []) == 2


@pytest.mark.parametrize("pad", [-1, 100_000, None])
def test_a_padding_id_that_is_none_is_replaced(folder: Path, pad: int | None) -> None:
    for name in ("config.json", "generation_config.json"):
        change_config(folder, name, pad_token_id=pad)
    model, tokenizer = load(folder), load_tokenizer(folder)

    assert 0 <= pad_token_id(model, tokenizer, frozenset({5})) < model.config.vocab_size


@pytest.mark.parametrize(("value", "wanted"), [(7, {7}), ([7, 9], {7, 9}), (None, set()), (-1, set()), ([], set())])
def test_ending_ids_are_one_or_several_or_none(folder: Path, value: Any, wanted: set[int]) -> None:
    for name in ("config.json", "generation_config.json"):
        change_config(folder, name, eos_token_id=value)
    model, tokenizer = load(folder), load_tokenizer(folder)

    assert end_token_ids(model, tokenizer, "") == wanted | {tokenizer.eos_token_id}


def test_a_model_without_a_token_that_ends_rows_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("config.json", "generation_config.json"):
        change_config(folder, name, eos_token_id=100_000)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = build_tokenizer(chat_template=None)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(str(folder))

    engine = opened(folder)

    line = "no token of this model ends a row: every row runs to its limit or to a stop string"
    assert engine.facts.notices[-1] == line
    assert line in caplog.text


def test_more_tokens_than_embeddings_are_refused_with_both_numbers(folder: Path) -> None:
    tokenizer = build_tokenizer()
    rows = len(tokenizer)
    tokenizer.add_tokens(["pens", "answer"])
    tokenizer.save_pretrained(str(folder))

    with pytest.raises(
        EngineError, match=rf"has {rows + 2} tokens, the model's embedding {rows}: 2 tokens .*2 of them added"
    ):
        opened(folder)


def test_special_tokens_without_an_embedding_are_told_and_refused_in_a_prompt(folder: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]}, replace_extra_special_tokens=False)
    tokenizer.save_pretrained(str(folder))
    engine = opened(folder)

    plain = Request("0", (Message("user", "what is one"),), 0)
    found = engine.generate([plain], Sampling(max_new_tokens=2, temperature=0.0))

    assert any("a prompt that holds one is refused" in notice for notice in engine.facts.notices)
    assert found[0].status in ("ok", "truncated")


def test_padding_of_the_output_layer_is_never_chosen(folder: Path) -> None:
    rows = len(build_tokenizer())
    change_config(folder, vocab_size=rows + 64)

    def padded(told: Tensors) -> Tensors:
        names = ("lm_head.weight", "model.embed_tokens.weight")
        # Rows of padding that would win every step.
        more = torch.randn(64, 64) * 5
        return {**told, **{name: torch.cat([told[name], more]) for name in names}}

    change_weights(folder, padded)
    engine = opened(folder)
    requests = [Request(str(n), (Message("user", f"what is {n}"),), n) for n in range(4)]

    for sampling in (Sampling(max_new_tokens=12, temperature=0.0), Sampling(max_new_tokens=12, temperature=1.0)):
        ids = [token for answer in engine.generate(requests, sampling) for token in answer.completion_token_ids or []]
        assert ids
        assert max(ids) < rows


def test_learned_positions_end_a_row_before_their_table_does(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM, RobertaConfig, RobertaForCausalLM

    small = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    gpt2 = GPT2LMHeadModel(GPT2Config(n_positions=40, n_embd=16, n_layer=1, n_head=2, vocab_size=99))
    opt = OPTForCausalLM(OPTConfig(max_position_embeddings=40, ffn_dim=16, word_embed_proj_dim=16, **small))
    roberta = RobertaForCausalLM(RobertaConfig(max_position_embeddings=40, is_decoder=True, pad_token_id=1, **small))

    assert context_length(gpt2) == 40
    assert context_length(opt) == 40
    # Its first two rows are those of padding.
    assert context_length(roberta) == 38
