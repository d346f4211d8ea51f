"""Model families on the `hf` engine: whatever way they are decoded in, the plain library model's text and scores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.families.build import FAMILIES, build
from tests.families.stages import STAGES, cells
from tests.families.table import TABLE, markdown

EVERYDAY = {
    "gpt2": "ok",
    "bloom": "ok",
    "gptj": "ok",
    "mpt": "ok",
    "gemma2": "in whole batches",
    "mamba": "in whole batches",
    "rwkv": "one row at a time",
    "roberta/decoder": "in batches of prompts of one length",
    "openai-gpt": "one row at a time without a cache",
    "phi3/longrope": "ok",
}
"""One family of each kind with the way it is decoded."""
OF_THE_ENGINE = ("load", "greedy", "prefix", "seeds", "samples", "stop", "scores", "logprobs")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("family", EVERYDAY)
def test_a_family_gives_the_plain_models_text_and_scores(family: str, tmp_path: Path) -> None:
    found = dict(cells(family, tmp_path, OF_THE_ENGINE))

    assert found.pop("load") == EVERYDAY[family]
    assert found == dict.fromkeys(OF_THE_ENGINE[1:], "ok")


@pytest.mark.long
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - EVERYDAY.keys()))
def test_any_other_family_does_too_or_is_refused_when_it_is_loaded(family: str, tmp_path: Path) -> None:
    found = dict(cells(family, tmp_path, OF_THE_ENGINE))

    load = found.pop("load")
    assert not load.startswith(("WRONG", "not built"))
    assert load.startswith("refused") or found == dict.fromkeys(OF_THE_ENGINE[1:], "ok")


@pytest.mark.parametrize("family", ["bert", "roberta", "xlnet"])
def test_an_encoder_is_refused_when_it_is_loaded(family: str, tmp_path: Path) -> None:
    found = dict(cells(family, tmp_path))

    assert found.keys() == {"load"}
    assert re.fullmatch(r"refused: model: \w+ reads what comes behind a token, as an encoder does; .*", found["load"])


def test_the_table_counts_whole_refused_and_wrong_families() -> None:
    whole = dict.fromkeys(STAGES, "ok")
    found = {
        "a": whole,
        "b": {**whole, "load": "one row at a time"},
        "c": {**whole, "scores": "WRONG: 1, not 2"},
        "d": {"load": "refused: " + 20 * "no such "},
    }

    text = markdown(found, 90)

    assert "4 families in 2 min: 2 whole, 1 refused at load, 1 with a wrong cell: c." in text
    assert "| d | refused (1) |" in text
    assert "1. refused: no such no such" in text


def test_the_table_in_the_repository_has_every_family() -> None:
    listed = re.findall(r"^\| ([\w./-]+) \|", TABLE.read_text(), re.MULTILINE)

    assert set(listed) - {"family"} == set(FAMILIES)


def test_built_models_are_the_same_each_time(tmp_path: Path) -> None:
    one, other = (build("llama", tmp_path / name).lm_head.weight for name in ("one", "other"))

    assert bool((one == other).all())
