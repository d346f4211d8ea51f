"""The `vllm` engine with vLLM itself, on its CPU build: rows, batches, adapters, scores, clean output (`make vllm`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mae_cli.errors import EngineError
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Sampling
from tests.servers.adapters import make_embedded_adapter
from tests.servers.contract import GREEDY, MODEL, differing, local, requests, samples
from tests.servers.vllm_server import environment
from tests.support import ROOT, mae, read_json_lines

pytest.importorskip("vllm.entrypoints", reason="make vllm runs it in an environment of its own")
# What vLLM leaves open when it ends is not ours.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600), pytest.mark.filterwarnings("ignore")]
SAMPLED = Sampling(16, temperature=1.0)


@pytest.fixture(scope="module")
def engine() -> Iterator[object]:
    from mae_cli.engines import vllm

    os.environ.update({name: value for name, value in environment().items() if name.startswith(("VLLM_", "HF_"))})
    opened = vllm.open_engine(Recipe(model=MODEL, engine="vllm", dtype="float32"), "max_model_len=1024")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedded_adapter(tmp_path_factory.mktemp("adapters") / "one", seed=3)


def texts(rows: list[Completion]) -> list[str | None]:
    return [row.raw for row in rows]


def test_greedy_rows_ids_and_policy_are_those_of_hf(engine) -> None:  # type: ignore[no-untyped-def]
    asked = requests(6)
    served, own = engine.generate(asked, GREEDY), local().generate(asked, GREEDY)

    assert engine.policy == local().policy
    assert differing(asked, own, served) == []
    assert [row.prompt_token_ids for row in own] == [row.prompt_token_ids for row in served]


def test_stop_strings_end_a_row_where_they_end_it_in_hf(engine) -> None:  # type: ignore[no-untyped-def]
    sampling = Sampling(24, temperature=0.0, stop=(".", " of"))
    asked = requests(4)

    assert differing(asked, local().generate(asked, sampling), engine.generate(asked, sampling)) == []


def test_a_seeded_row_is_the_same_in_any_batch_and_order(engine) -> None:  # type: ignore[no-untyped-def]
    asked = samples(24)
    whole = texts(engine.generate(asked, SAMPLED))
    parts = [text for start in range(0, 24, 5) for text in texts(engine.generate(asked[start : start + 5], SAMPLED))]
    reverse = texts(engine.generate(asked[::-1], SAMPLED))[::-1]

    assert sum(a == b == c for a, b, c in zip(whole, parts, reverse, strict=True)) >= 23
    assert len(set(whole)) >= 22


def test_many_seeded_rows_of_long_prompts_do_not_end_it(engine) -> None:  # type: ignore[no-untyped-def]
    from mae_cli.records import Message, Request

    long = [Request(f"l{n}", (Message("user", f"{n} " + "word " * 700),), n) for n in range(12)]

    assert all(row.status in ("ok", "truncated") for row in engine.generate(long, Sampling(2, temperature=1.0)))


def test_an_adapter_is_used_and_taken_off_and_one_beyond_the_rank_is_one_line(  # type: ignore[no-untyped-def]
    engine, adapter: Path, tmp_path: Path
) -> None:
    asked, own = requests(6), local()
    for on in (adapter, None):
        engine.attach(on)
        own.attach(on)
        assert engine.policy == own.policy
        assert differing(asked, own.generate(asked, GREEDY), engine.generate(asked, GREEDY)) == []
    with pytest.raises(EngineError, match="rank 32, vllm was started for up to 16"):
        engine.attach(make_embedded_adapter(tmp_path / "wide", seed=4, rank=32))
    engine.attach(None)


def test_scores_are_those_of_hf_with_and_without_an_adapter(engine, adapter: Path) -> None:  # type: ignore[no-untyped-def]
    asked, options = requests(3), [["<score>1</score>", "<score>2</score>", " Yes, it is"]] * 3
    own = local()
    for on in (None, adapter):
        engine.attach(on)
        own.attach(on)
        for mine, theirs in zip(engine.score(asked, options), own.score(asked, options), strict=True):
            assert mine == pytest.approx(theirs, abs=0.01)
    engine.attach(None)
    own.attach(None)


def test_only_an_allowed_reply_is_written(engine) -> None:  # type: ignore[no-untyped-def]
    choices = ("<score>1</score>", "<score>2</score>")
    rows = engine.generate(requests(4), Sampling(4, temperature=0.7, stop=("<",), choices=choices))

    assert all(row.completion in choices and row.status == "ok" for row in rows)


def test_prefixes_are_cached(engine) -> None:  # type: ignore[no-untyped-def]
    assert engine._llm.llm_engine.vllm_config.cache_config.enable_prefix_caching


def test_standard_output_holds_rows_and_nothing_else(tmp_path: Path) -> None:
    lines = (ROOT / "data" / "arithmetic_heldout.jsonl").read_bytes().splitlines(keepends=True)[:2]
    sampling = ("--rollouts-per-problem", 1, "--max-new-tokens", 6, "-T", 0)
    done = mae(
        *("solve", "-", "-o", "-", "--engine", "vllm:max_model_len=512,kv_cache_gib=1", "-m", MODEL, *sampling),
        stdin=b"".join(lines),
    )

    assert done.returncode == 0, done.stderr[-2000:]
    out = tmp_path / "out.jsonl"
    out.write_bytes(done.stdout)
    assert len(read_json_lines(out)) == 2
