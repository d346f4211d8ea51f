"""The `openai` engine against vLLM's own server on a CPU: rows, seeds, scores, adapters, faults (`make vllm`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mae_cli.errors import EngineError
from mae_cli.models.digests import adapter_digest
from mae_cli.records import Message, Request, Sampling
from tests.servers.adapters import make_embedded_adapter
from tests.servers.contract import GREEDY, MODEL, differing, local, opened, requests, samples
from tests.servers.llama import NAME
from tests.servers.vllm_server import VllmServer, vllm_server
from tests.support import ROOT, here, mae, read_json_lines

pytest.importorskip("vllm.entrypoints", reason="make vllm runs it in an environment of its own")
# What vLLM leaves open when it ends is not ours.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    with vllm_server(tmp_path_factory.mktemp("vllm")) as running:
        yield running


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [make_embedded_adapter(folder / str(seed), seed=seed) for seed in (3, 4)]


# ---- rows


def test_greedy_rows_and_their_token_ids_are_those_of_hf(server: VllmServer) -> None:
    asked, sampling = requests(20), msgspec.structs.replace(GREEDY, max_new_tokens=48)
    with opened(server.url) as engine:
        served = engine.generate(asked, sampling)
    own = local().generate(asked, sampling)

    assert differing(asked, own, served) == []
    same = [(mine, theirs) for mine, theirs in zip(own, served, strict=True) if mine.raw == theirs.raw]
    assert len(same) >= 18
    for mine, theirs in same:
        assert mine.prompt_token_ids == theirs.prompt_token_ids
        assert mine.completion_token_ids == theirs.completion_token_ids
        assert mine.finish_reason == theirs.finish_reason


def test_stop_strings_end_a_row_where_they_end_it_in_hf(server: VllmServer) -> None:
    asked, sampling = requests(6), Sampling(24, temperature=0.0, stop=(".", " of"))
    with opened(server.url) as engine:
        served = engine.generate(asked, sampling)

    assert differing(asked, local().generate(asked, sampling), served) == []


def test_seeded_rows_are_the_same_at_16_and_at_3_in_flight(server: VllmServer) -> None:
    sampling = Sampling(24, temperature=1.0)
    found = []
    for number in (16, 3):
        with opened(server.url, max_concurrent=number) as engine:
            found.append([row.raw for row in engine.generate(samples(24), sampling)])

    assert sum(a == b for a, b in zip(*found, strict=True)) >= 23
    assert len(set(found[0])) >= 22


def test_n_gives_as_many_distinct_rows_as_asked_for_with_their_ids(server: VllmServer) -> None:
    with opened(server.url, "samples=together") as engine:
        rows = engine.generate(samples(8), Sampling(16, temperature=1.0))

    assert len({row.raw for row in rows}) >= 7
    assert all(row.completion_token_ids and row.prompt_token_ids for row in rows)


def test_a_prompt_beyond_the_context_is_too_long_and_one_near_it_gets_what_is_left(server: VllmServer) -> None:
    long, near = (Request(f"{n}", (Message("user", "word " * n),), 1) for n in (3000, 1980))
    with opened(server.url) as engine:
        refused, short = engine.generate([long, near], Sampling(256, temperature=0.0))

    assert (refused.status, refused.finish_reason) == ("too_long", "error")
    assert refused.usage is None or refused.usage.prompt_tokens == len(local().texts.prompt(long.messages).ids)
    assert short.status in ("ok", "truncated")
    assert short.usage is not None
    assert short.usage.prompt_tokens + short.usage.completion_tokens <= 2048


def test_scores_of_whole_texts_are_those_of_hf_with_and_without_an_adapter(
    server: VllmServer, adapters: list[Path]
) -> None:
    asked, options = requests(3), [["<score>1</score>", "<score>2</score>", " Yes, it is"]] * 3
    own = local()
    for adapter in (None, adapters[0]):
        own.attach(adapter)
        with opened(server.url, adapter=str(adapter) if adapter else None) as engine:
            served = engine.score(asked, options)
        for mine, theirs in zip(served, own.score(asked, options), strict=True):
            assert mine == pytest.approx(theirs, abs=0.01)
    own.attach(None)


def test_only_an_allowed_reply_is_written(server: VllmServer) -> None:
    choices = ("<score>1</score>", "<score>2</score>")
    with opened(server.url) as engine:
        rows = engine.generate(requests(4), Sampling(4, temperature=0.7, choices=choices))

    assert all(row.completion in choices and row.status == "ok" for row in rows)


def test_a_wrong_name_is_one_line_with_the_right_one(server: VllmServer) -> None:
    with opened(server.url, model="smollm2-153m") as engine, pytest.raises(EngineError, match=f'did you mean "{NAME}"'):
        engine.generate(requests(1), GREEDY)


# ---- adapters


def test_adapters_are_loaded_while_it_runs_and_the_base_comes_back(server: VllmServer, adapters: list[Path]) -> None:
    asked, own = requests(6), local()
    with opened(server.url) as engine:
        for adapter in (None, adapters[0], adapters[1], None):
            engine.attach(adapter)
            own.attach(adapter)
            assert differing(asked, own.generate(asked, GREEDY), engine.generate(asked, GREEDY)) == []
    own.attach(None)
    with opened(server.url, model=f"mae-{adapter_digest(adapters[1])}") as engine, pytest.raises(EngineError):
        engine.generate(asked[:1], GREEDY)


def test_an_adapter_that_is_lost_in_the_middle_is_loaded_again(adapters: list[Path], tmp_path: Path) -> None:
    import urllib.request

    asked, own = samples(24), local()
    sampling = Sampling(16, temperature=1.0)
    own.attach(adapters[0])
    with vllm_server(tmp_path) as mortal, opened(mortal.url, max_concurrent=4, adapter=str(adapters[0])) as engine:
        found = {}
        for number, answers in engine.stream(([one] for one in asked), sampling):
            found[number] = answers[0]
            if len(found) == 4:
                body = msgspec.json.encode({"lora_name": f"mae-{adapter_digest(adapters[0])}"})
                ask = urllib.request.Request(
                    f"{mortal.url}/unload_lora_adapter", body, {"Content-Type": "application/json"}
                )
                urllib.request.urlopen(ask, timeout=60).close()
            if len(found) == 12:
                mortal.kill()
                mortal.start()
        greedy = engine.generate(requests(3), GREEDY)
        assert differing(requests(3), own.generate(requests(3), GREEDY), greedy) == []
    own.attach(None)

    assert sorted(found) == list(range(24))
    assert all(row.status in ("ok", "truncated") for row in found.values())


def test_an_adapter_that_it_cannot_take_ends_the_command_at_once(server: VllmServer, tmp_path: Path) -> None:
    wide = make_embedded_adapter(tmp_path / "wide", seed=5, rank=32)
    gone = tmp_path / "gone"
    with opened(server.url, adapter=str(wide)) as engine, pytest.raises(EngineError, match="larger --max-lora-rank"):
        engine.generate(requests(1), GREEDY)
    with opened(server.url, adapter=str(gone)) as engine, pytest.raises(EngineError, match="no model"):
        engine.generate(requests(1), GREEDY)


def test_a_server_without_lora_says_how_to_start_it(adapters: list[Path], tmp_path: Path) -> None:
    with (
        vllm_server(tmp_path, lora=()) as bare,
        opened(bare.url, adapter=str(adapters[0])) as engine,
        pytest.raises(EngineError, match="--enable-lora"),
    ):
        engine.generate(requests(1), GREEDY)


# ---- whole commands


def test_rounds_are_generated_on_it_and_trained_here(server: VllmServer, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
model: {MODEL}
seeds: {ROOT / "data" / "arithmetic_train.jsonl"}
num_seeds: 4
rounds: 2
pipeline: [solve, filter, finetune]
roles:
  solver: {{engine: openai, base_url: "{server.url}", model: {NAME}, serves_policy: true}}
solve: {{num_problems: 4, rollouts_per_problem: 2, max_new_tokens: 12, prompt: sums_solve}}
filter: {{filters: []}}
finetune: {{objective: sft, max_steps: 2, batch_size: 4, lora_r: 8}}
"""
    )
    done = mae("run", recipe, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert b"played by the trained policy on" in done.stderr
    first, second = (read_json_lines(next((tmp_path / "run" / f"round-00{n}").glob("*rollouts.jsonl"))) for n in (1, 2))
    assert {row["policy"].get("adapter") for row in first} == {None}
    assert len({row["policy"]["adapter"] for row in second}) == 1
    assert all(row["completion_token_ids"] for row in (*first, *second))


def test_a_judge_reads_probabilities_and_keeps_to_allowed_replies(server: VllmServer, tmp_path: Path) -> None:
    problems, rollouts = tmp_path / "p.jsonl", tmp_path / "r.jsonl"
    problems.write_text("\n".join((ROOT / "data" / "arithmetic_heldout.jsonl").read_text().splitlines()[:4]) + "\n")
    at = ("-m", MODEL, "--engine", "openai", "--base-url", server.url)
    assert here("solve", problems, "-o", rollouts, "--rollouts-per-problem", 1, "--max-new-tokens", 12, *at) == 0
    for read in ("read: probability", "constrain: true"):
        judge = f"judge.judge={{name: rubric, scale: 3-band, {read}}}"
        out = tmp_path / f"{read[:4]}.jsonl"
        assert here("judge", rollouts, "-o", out, "--verifier", "none", "--set", judge, *at) == 0
        verdicts = [verdict for row in read_json_lines(out) for verdict in row.get("verdicts", [])]
        assert verdicts
        assert all(verdict["status"] == "ok" and verdict["score"] is not None for verdict in verdicts)
