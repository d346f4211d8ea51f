"""The engine against a stand-in of vLLM's interface that refuses what vLLM refuses; vLLM itself has never run here."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.engines import vllm
from mae_cli.engines.hf import engine as hf
from mae_cli.engines.hf.policy_only import PolicyEngine
from mae_cli.engines.vllm_setup import constraint
from mae_cli.errors import ConfigError, DataError, EngineError, MissingDependencyError, TemporaryError
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request, Sampling
from mae_cli.records.text_schema import TextSchema
from mae_cli.stages.generation.job import open_job
from tests.engines.fake_vllm import Calls, install
from tests.models.test_load import make_adapter
from tests.support import mae, write_sums

GREEDY = Sampling(max_new_tokens=12, temperature=0.0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return install(monkeypatch)


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    return msgspec.structs.replace(tiny_recipe, engine="vllm", dtype="bfloat16")


def request(text: str, seed: int = 0, limit: int | None = None) -> Request:
    return Request(f"{text}{seed}", (Message("user", text),), seed, limit)


REQUESTS = [request("what is " + "one plus " * count, count) for count in range(4)]


def test_greedy_rows_and_their_token_ids_are_those_of_hf(calls: Calls, recipe: Recipe) -> None:
    sampling = msgspec.structs.replace(GREEDY, stop=("th", "o"))
    exact = msgspec.structs.replace(recipe, dtype="float32")
    for settings in (GREEDY, sampling):
        ours = vllm.open_engine(exact, "lora=false").generate(REQUESTS, settings)

        assert ours == hf.open_engine(exact, "").generate(REQUESTS, settings)


def test_the_policy_is_the_hf_engines_so_its_rows_are_the_trained_policys_own(
    calls: Calls, recipe: Recipe, tmp_path: Path
) -> None:
    adapter = make_adapter(Path(recipe.model), tmp_path / "adapter")
    ours, theirs = vllm.open_engine(recipe, ""), hf.open_engine(recipe, "")
    for on in (None, adapter, None):
        ours.attach(on)
        theirs.attach(on)
        assert ours.policy == theirs.policy
    assert not ours.facts.deterministic


def test_every_row_has_its_own_seed_and_limit(calls: Calls, recipe: Recipe) -> None:
    sampling = Sampling(max_new_tokens=9, temperature=0.7, top_p=0.9, top_k=5, stop=("\n",))

    vllm.open_engine(recipe, "").generate([request("a", 11), request("b", 2**52 - 1, limit=3)], sampling)

    first, second = calls.generates[0]["params"]
    assert (first.seed, first.max_tokens) == (11, 9)
    assert (second.seed, second.max_tokens) == (2**52 - 1, 3)
    assert (first.temperature, first.top_p, first.top_k, first.stop, first.n) == (0.7, 0.9, 5, ["\n"], 1)


def test_an_adapter_goes_with_the_requests_under_a_number_of_its_own(
    calls: Calls, recipe: Recipe, tmp_path: Path
) -> None:
    one, two = (make_adapter(Path(recipe.model), tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    engine = vllm.open_engine(msgspec.structs.replace(recipe, adapter=str(one)), "")
    texts = []
    for adapter in (one, two, one, None):
        engine.attach(adapter)
        texts.append(engine.generate(REQUESTS[:1], GREEDY)[0].raw)

    loras = [call["lora"] for call in calls.generates]
    assert [lora and lora.lora_int_id for lora in loras] == [1, 2, 1, None]
    assert loras[0].lora_path == str(one.resolve())
    assert texts[0] == texts[2]
    assert len(set(texts)) == 3
    assert calls.engines[0]["enable_lora"] is True
    assert calls.engines[0]["max_lora_rank"] == 16  # the recipe's default rank


def test_scores_are_those_of_hf(calls: Calls, recipe: Recipe) -> None:
    options = [["yes", "no", " a first second third"], ["one"], [], ["two", "three"]]

    exact = msgspec.structs.replace(recipe, dtype="float32")

    ours = vllm.open_engine(exact, "lora=false").score(REQUESTS, options)

    theirs = hf.open_engine(exact, "").score(REQUESTS, options)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, abs=1e-4)


def test_an_empty_option_is_refused_and_one_without_room_is_unknown(calls: Calls, recipe: Recipe) -> None:
    engine = vllm.open_engine(recipe, "")

    with pytest.raises(DataError, match="an option to score is empty"):
        engine.score(REQUESTS[:1], [[""]])
    assert engine.score([request("x " * 300)], [["yes", "no"]]) == [[None, None]]
    assert calls.generates == []


def test_a_prompt_that_is_too_long_never_reaches_vllm(calls: Calls, recipe: Recipe) -> None:
    long, short = vllm.open_engine(recipe, "").generate([request("x " * 300), REQUESTS[0]], GREEDY)

    assert (long.status, long.finish_reason, long.completion) == ("too_long", "error", None)
    assert "the model takes 256" in (long.error or "")
    assert short.status in ("ok", "truncated")
    assert calls.generates[0]["count"] == 1


def test_a_request_that_vllm_refuses_does_not_lose_the_others(calls: Calls, recipe: Recipe) -> None:
    engine = vllm.open_engine(recipe, "")
    alone = [engine.generate([one], GREEDY)[0] for one in REQUESTS]
    calls.refused = {len(alone[2].prompt_token_ids or [])}

    answers = engine.generate(REQUESTS, GREEDY)

    assert (answers[2].status, answers[2].error) == ("error", "vllm: The decoder prompt is refused")
    assert [answers[place] for place in (0, 1, 3)] == [alone[place] for place in (0, 1, 3)]


def test_a_fault_of_the_call_is_no_row_of_any_file(calls: Calls, recipe: Recipe) -> None:
    engine = vllm.open_engine(recipe, "")
    calls.misfits = True
    for requests in (REQUESTS, REQUESTS[:1]):
        with pytest.raises(EngineError, match=r"called in another way: .* unexpected keyword argument 'lora_request'"):
            engine.generate(requests, GREEDY)

    calls.misfits, calls.refused = False, set(range(256))
    with pytest.raises(EngineError, match="vllm refused each of 4 requests, last with vllm: The decoder prompt is ref"):
        engine.generate(REQUESTS, GREEDY)


def test_the_fingerprint_holds_what_changes_a_text_with_and_without_the_weights(calls: Calls, recipe: Recipe) -> None:
    for argument, dtype, expected in (
        ("", "auto", "bfloat16"),
        ("lora=false", "float32", "float32"),
        ("max_model_len=128", "bfloat16", "bfloat16 max_model_len 128"),
    ):
        told = msgspec.structs.replace(recipe, engine=f"vllm:{argument}".rstrip(":"), dtype=dtype)
        job = open_job(told)
        found = job.engines.fingerprint(job.engines.trained.policy)

        assert (found["dtype"], found["engine"]) == (expected, "vllm")
        assert PolicyEngine(told, "cpu").facts.numerics == expected


def test_an_aborted_row_is_an_error_and_a_dead_engine_is_temporary(calls: Calls, recipe: Recipe) -> None:
    engine = vllm.open_engine(recipe, "")
    calls.finish = "abort"
    row = engine.generate(REQUESTS[:1], GREEDY)[0]
    assert (row.status, row.error, row.completion) == ("error", "vllm ended the row with abort", None)

    calls.dies = True
    with pytest.raises(TemporaryError, match=r"vllm failed: EngineCore encountered an issue\.; what is done is kept"):
        engine.generate(REQUESTS, GREEDY)


def test_its_engine_process_is_spawned_because_a_fork_cannot_use_the_gpu(
    calls: Calls, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_WORKER_MULTIPROC_METHOD", raising=False)
    vllm.open_engine(recipe, "")
    assert os.environ.pop("VLLM_WORKER_MULTIPROC_METHOD") == "spawn"

    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "forkserver")
    vllm.open_engine(recipe, "")
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "forkserver"


def test_options_reach_vllm(calls: Calls, recipe: Recipe) -> None:
    vllm.open_engine(recipe, "gpu_memory_utilization=0.5,tensor_parallel_size=2,max_model_len=128,lora=false")

    told = calls.engines[0]
    assert (told["gpu_memory_utilization"], told["tensor_parallel_size"], told["max_model_len"]) == (0.5, 2, 128)
    assert (told["enable_lora"], told["dtype"], told["trust_remote_code"]) == (False, "bfloat16", False)


def test_adapters_in_float32_are_refused_before_vllm_dies_of_them(calls: Calls, recipe: Recipe) -> None:
    exact = msgspec.structs.replace(recipe, dtype="float32")

    with pytest.raises(ConfigError, match=r"no LoRA kernels for float32.*--dtype bfloat16.*lora=false"):
        vllm.open_engine(exact, "")
    vllm.open_engine(exact, "lora=false")

    assert [told["dtype"] for told in calls.engines] == ["float32"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("gpu_memory=0.5", 'did you mean "gpu_memory_utilization"'),
        ("gpu_memory_utilization=2", "<= 1.0"),
        ("lora", "expected option=value"),
    ],
)
def test_wrong_options_are_refused(argument: str, message: str, recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=message):
        vllm.open_engine(recipe, argument)


def test_an_adapter_beyond_the_rank_it_was_started_for_is_one_line(
    calls: Calls, recipe: Recipe, tmp_path: Path
) -> None:
    small = msgspec.structs.replace(recipe, finetune=msgspec.structs.replace(recipe.finetune, lora_r=2))
    adapter = make_adapter(Path(recipe.model), tmp_path / "adapter")
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 9'))

    with pytest.raises(EngineError, match=r"rank 9, vllm was started for up to 8; set finetune\.lora_r to 9"):
        vllm.open_engine(small, "").attach(adapter)


def test_without_vllm_the_command_says_how_to_install_it(
    tmp_path: Path, tiny_model_dir: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingDependencyError, match="engine vllm needs the package vllm: pip install"):
        vllm.open_engine(tiny_recipe, "")

    problems = write_sums(tmp_path / "problems.jsonl")
    result = mae("solve", problems, "-o", tmp_path / "o.jsonl", "-m", tiny_model_dir, "--engine", "vllm")
    assert result.returncode == 2
    assert result.stderr.count(b"\n") == 1


def test_segments_are_several_micro_batches_with_equal_prompts_side_by_side(calls: Calls, recipe: Recipe) -> None:
    requests: list[Any] = [request("ab"[index % 2], index) for index in range(20)]

    segments = vllm.open_engine(recipe, "").plan(requests, 4)

    assert segments == [[*range(0, 20, 2), *range(1, 12, 2)], [*range(13, 20, 2)]]


def test_its_log_goes_to_standard_error(calls: Calls, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_LOGGING_STREAM", raising=False)
    vllm.open_engine(recipe, "")

    assert os.environ.pop("VLLM_LOGGING_STREAM") == "ext://sys.stderr"


def test_on_a_cpu_it_starts_with_settings_that_it_survives(
    calls: Calls, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.is_cpu = True
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "all")
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    names = ("enforce_eager", "enable_chunked_prefill", "max_num_batched_tokens")

    vllm.open_engine(recipe, "")
    assert [calls.engines[-1][name] for name in names] == [True, False, 4096]
    assert os.environ.pop("VLLM_CPU_KVCACHE_SPACE") == "4"

    # What the user sets stands, here and on a GPU.
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    told = "enforce_eager=false,enable_chunked_prefill=true,max_num_batched_tokens=512,kv_cache_gib=2"
    vllm.open_engine(recipe, told)
    assert [calls.engines[-1][name] for name in names] == [False, True, 512]
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "2"
    calls.is_cpu = False
    vllm.open_engine(recipe, told)
    assert [calls.engines[-1][name] for name in names] == [False, True, 512]
    vllm.open_engine(recipe, "")
    assert [calls.engines[-1][name] for name in names] == [False, None, None]


def test_on_a_cpu_adapters_in_float32_are_used_and_scores_asked_for_one_by_one(
    calls: Calls, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "all")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    calls.is_cpu = True
    exact = msgspec.structs.replace(recipe, dtype="float32")
    adapter = make_adapter(Path(recipe.model), tmp_path / "adapter")
    ours, theirs = vllm.open_engine(exact, ""), hf.open_engine(exact, "")
    ours.attach(adapter)
    theirs.attach(adapter)

    assert ours.generate(REQUESTS, GREEDY) == theirs.generate(REQUESTS, GREEDY)
    options = [["yes", "no"], ["one", "two three"]]
    for mine, other in zip(ours.score(REQUESTS[:2], options), theirs.score(REQUESTS[:2], options), strict=True):
        assert mine == pytest.approx(other, abs=1e-4)


def test_one_of_the_allowed_replies_is_written_whole(calls: Calls, recipe: Recipe) -> None:
    engine = vllm.open_engine(recipe, "")
    sampling = Sampling(2, stop=("<",), choices=("<score>1</score>", "<score>2</score>"))

    answer = engine.generate(REQUESTS[:1], sampling)[0]

    assert engine.facts.constrains
    assert (answer.completion, answer.status) == ("<score>2</score>", "ok")
    (params,) = calls.generates[0]["params"]
    assert params.structured_outputs.choice == ["<score>1</score>", "<score>2</score>"]
    assert params.stop is None


@pytest.mark.parametrize(
    ("name", "key"), [("StructuredOutputsParams", "structured_outputs"), ("GuidedDecodingParams", "guided_decoding")]
)
def test_a_schema_becomes_the_parameter_that_this_version_has(
    calls: Calls, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, name: str, key: str
) -> None:
    params = types.ModuleType("vllm.sampling_params")
    setattr(params, name, dict)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    for schema, told in (
        (TextSchema("json", {"type": "null"}), {"json": {"type": "null"}}),
        (TextSchema("regex", "a+"), {"regex": "a+"}),
        (TextSchema("choices", ["a"]), {"choice": ["a"]}),
    ):
        assert constraint(Sampling(8, schema=schema.text())) == {key: told}
    assert constraint(Sampling(8)) == {}
