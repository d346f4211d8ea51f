"""The probe finds a right way of decoding, tells where it is not the everyday one, and refuses what has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mae_cli.engines.hf import engine as hf
from mae_cli.engines.hf import probe
from mae_cli.engines.hf.cache import PrefillLayer, SlotLayer
from mae_cli.engines.hf.lengths import decode_by_length
from mae_cli.engines.hf.prefill import Prefiller
from mae_cli.engines.hf.probe import Probe, ProbeResult, find_way
from mae_cli.engines.hf.ways import Way, cache_name, first_way, longrope_switch, notice, run, smallest_window
from mae_cli.models.load import load_model, load_tokenizer
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request, Sampling
from tests.families.build import build, config_of
from tests.families.stages import WORDS


@pytest.fixture
def llama(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny Llama, probed as a class that nothing is known of."""
    monkeypatch.setattr(probe, "EVERYDAY", ())
    return load_model(tiny_model_dir, device=torch.device("cpu"), dtype=torch.float32)


def found(model: Any, folder: Path) -> ProbeResult:
    return Probe(model, load_tokenizer(folder), 0).find()


def test_a_plain_model_takes_the_fastest_way(llama: Any, tiny_model_dir: Path) -> None:
    result = found(llama, tiny_model_dir)

    assert result.way == Way()
    assert set(result.errors) == {"slots", "shared beginning", "options bool"}
    assert all(error is not None and error < 1e-5 for error in result.errors.values())


def test_bfloat16_is_not_taken_for_wrong(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "EVERYDAY", ())
    model = load_model(tiny_model_dir, device=torch.device("cpu"), dtype=torch.bfloat16)

    assert found(model, tiny_model_dir).way.rows == "slots"


@pytest.mark.parametrize(
    ("kind", "method", "way"),
    [
        (SlotLayer, "update", Way(rows="batch", prefix=False, tree="none")),
        (PrefillLayer, "whole", Way(rows="batch", prefix=False, tree="none")),
    ],
)
def test_a_way_that_changes_what_is_computed_is_not_taken(
    llama: Any, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, method: str, way: Way
) -> None:
    right = getattr(kind, method)

    def off(self: Any, *args: Any, **kwargs: Any) -> Any:
        keys, values = right(self, *args, **kwargs)
        return keys, values * 1.05

    monkeypatch.setattr(kind, method, off)

    assert found(llama, tiny_model_dir).way == way


def test_a_way_that_breaks_off_is_not_taken(llama: Any, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("no cache here")

    monkeypatch.setattr(SlotLayer, "update", broken)
    monkeypatch.setattr("mae_cli.engines.hf.prefill.new_cache", broken)

    result = found(llama, tiny_model_dir)

    assert result.way.rows == "recompute"
    assert result.errors["slots"] is result.errors["single"] is None


def test_what_was_found_is_remembered_by_model_and_type(
    llama: Any, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(tiny_model_dir)
    first = find_way(llama, tokenizer, 0, folder=tmp_path, model_digest="a")
    monkeypatch.setattr(Probe, "find", lambda self: ProbeResult(Way(rows="single")))

    assert find_way(llama, tokenizer, 0, folder=tmp_path, model_digest="a") == first
    assert find_way(llama, tokenizer, 0, folder=tmp_path, model_digest="b").way.rows == "single"
    assert len(json.loads((tmp_path / "decoding.json").read_text())) == 2


def test_a_spoilt_memory_is_not_believed(llama: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model_dir)
    (tmp_path / "decoding.json").write_text("[1]")

    assert find_way(llama, tokenizer, 0, folder=tmp_path, model_digest="a").way == Way()


def test_another_way_than_the_everyday_one_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAE_CACHE", str(tmp_path / "cache"))
    build("rwkv", tmp_path / "model")

    engine = hf.open_engine(Recipe(model=str(tmp_path / "model"), device="cpu"), "")

    assert engine.facts.notices[-1] == (
        "this model (rwkv) is decoded one row at a time: other rows in the batch change its text"
    )


@pytest.mark.parametrize(
    ("way", "first", "line"),
    [
        (Way(), Way(), None),
        (Way(rows="batch"), Way(rows="batch"), None),
        (Way(prefix=False), Way(), "this model (x) is prefilled without shared beginnings: they change its text"),
        (Way(tree="none"), Way(), "this model (x) is scored option by option: a shared row changes its scores"),
        (Way(rows="batch", prefix=False, tree="none"), Way(), "this model (x) is decoded in whole batches"),
    ],
)
def test_a_notice_says_what_changed_and_why(way: Way, first: Way, line: str | None) -> None:
    assert notice("x", way, first) == line


def test_windows_and_switches_are_read_from_the_config() -> None:
    assert longrope_switch(config_of("phi3/longrope")) == 64
    assert longrope_switch(config_of("llama")) is None
    assert longrope_switch(config_of("llama/dynamic")) is None
    assert smallest_window(config_of("mistral")) == 16
    assert smallest_window(config_of("llama")) is None
    assert first_way(config_of("gemma2")).rows == "batch"
    assert first_way(config_of("llama")).rows == "slots"


def test_only_arguments_that_a_class_takes_are_given() -> None:
    class Old(torch.nn.Module):
        def forward(self, input_ids: Any, state: Any = None, use_cache: bool = False) -> str:
            return f"{input_ids} {state} {use_cache}"

    assert cache_name(Old) == "state"
    assert run(Old(), input_ids=1, position_ids=2, logits_to_keep=1, state=3, use_cache=True) == "1 3 True"


LENGTHS = (3, 20, 40, 70, 90)


def test_rows_around_the_switch_of_longrope_are_those_decoded_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAE_CACHE", str(tmp_path / "cache"))
    plain = build("phi3/longrope", tmp_path / "model")
    engine = hf.open_engine(Recipe(model=str(tmp_path / "model"), device="cpu"), "")
    texts = [" ".join(WORDS[:count]) for count in LENGTHS]
    requests = [Request(text, (Message("user", text),), place) for place, text in enumerate(texts)]
    greedy, sampled = (Sampling(max_new_tokens=30, temperature=heat) for heat in (0.0, 1.0))

    together = [engine.generate(requests, sampling) for sampling in (greedy, sampled)]
    alone = [[engine.generate([one], sampling)[0] for one in requests] for sampling in (greedy, sampled)]

    lengths = [len(answer.prompt_token_ids or []) for answer in together[0]]
    assert min(lengths) < 34 < max(lengths)
    assert any(34 < length <= 64 for length in lengths)
    assert together == alone
    for answer in together[0]:
        ids, tokens = list(answer.prompt_token_ids or []), list(answer.completion_token_ids or [])
        for place, token in enumerate(tokens):
            with torch.no_grad():
                logits = plain(torch.tensor([ids + tokens[:place]]), use_cache=False).logits[0, -1]
            assert float(logits.max() - logits[token]) < 1e-3


def test_rows_of_one_length_share_a_batch_where_padding_is_wrong(tiny_model_dir: Path) -> None:
    from mae_cli.engines.hf.decode import RowRequest

    model = load_model(tiny_model_dir, device=torch.device("cpu"), dtype=torch.float32)
    prefill = Prefiller(model, 0, way=Way(rows="equal", prefix=False, tree="none"))
    prompts = [[5, 6, 7], [8, 9, 10], [11, 12]]
    sizes: list[int] = []
    got: dict[int, list[int]] = {}

    decode_by_length(
        prefill,
        prompts,
        [RowRequest(place, 0, 3) for place in range(3)],
        Sampling(max_new_tokens=3, temperature=0.0),
        slots=3,
        end_ids=frozenset(),
        entered=sizes.append,
        done=lambda row, decoded: got.update({row: decoded.ids}),
    )

    assert sizes == [2, 1]
    assert {row: len(ids) for row, ids in got.items()} == {0: 3, 1: 3, 2: 3}
