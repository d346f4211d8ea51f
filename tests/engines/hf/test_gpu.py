"""What only a CUDA device can show; `pytest -m gpu` runs it where there is one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec
import pytest
import torch

from mae_cli.engines.hf.engine import HfEngine, open_engine
from mae_cli.engines.hf.slots import GraphSlots
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Sampling
from tests.conftest import save_tiny_model
from tests.engines.hf.test_engine import GREEDY, SAMPLED, answers, requests_for
from tests.support import mae, read_json_lines, write_sums

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

FILTERED = msgspec.structs.replace(SAMPLED, top_k=20, top_p=0.9)


def on_gpu(recipe: Recipe, argument: str = "", **changes: object) -> HfEngine:
    changed = msgspec.structs.replace(recipe, **{"device": "cuda", "dtype": "float32", **changes})
    return open_engine(changed, argument)


def held_after(engine: HfEngine) -> int:
    """Bytes that stay with torch when an engine has ended its work, and something large beside it is gone, too."""
    block = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    del block
    engine.release_caches()
    return torch.cuda.memory_reserved()


@pytest.mark.usefixtures("_all_memory")
@pytest.mark.parametrize("argument", ["", "paged"])
def test_the_memory_of_a_generation_is_given_back_for_the_training_that_follows(
    argument: str, tiny_recipe: Recipe
) -> None:
    engine = on_gpu(tiny_recipe, argument)
    before = torch.cuda.memory_reserved()
    engine.generate(requests_for(6), SAMPLED)

    assert held_after(engine) - before < 2**29


@pytest.mark.parametrize("argument", ["", "paged"])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, FILTERED], ids=["greedy", "sampled", "filtered"])
def test_rows_on_cuda_do_not_depend_on_the_micro_batch_in_float32(
    argument: str, sampling: Sampling, tiny_recipe: Recipe
) -> None:
    engine = on_gpu(tiny_recipe, argument)
    requests = requests_for(12, samples=2)

    by_size = [answers(engine, requests, sampling, size) for size in (1, 4, 24)]

    assert by_size[0] == by_size[1] == by_size[2]
    assert len({completion.raw for completion in by_size[0]}) >= 12


def test_greedy_rows_on_cuda_are_those_of_the_cpu_and_of_continuous_batching_in_float32(tiny_recipe: Recipe) -> None:
    requests = requests_for(12)

    on_cpu = open_engine(tiny_recipe, "").generate(requests, GREEDY)

    assert on_gpu(tiny_recipe).generate(requests, GREEDY) == on_cpu
    assert on_gpu(tiny_recipe, "paged").generate(requests, GREEDY) == on_cpu


def test_sampled_rows_of_continuous_batching_are_those_of_the_own_loop_in_float32(tiny_recipe: Recipe) -> None:
    requests = requests_for(6, samples=2)

    own, paged = (on_gpu(tiny_recipe, argument).generate(requests, SAMPLED) for argument in ("", "paged"))

    assert own == paged


def test_a_captured_graph_gives_the_rows_of_the_steps_it_replaces(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = requests_for(20, samples=2)
    engine = on_gpu(tiny_recipe)
    engine.end_ids = engine.end_ids | set(range(0, 300, 7))
    captured = []
    capture = GraphSlots._capture
    monkeypatch.setattr(GraphSlots, "spare", 64)
    monkeypatch.setattr(GraphSlots, "_capture", lambda slots: (capture(slots), captured.append(slots._graph)))

    with_graph = answers(engine, requests, SAMPLED, 6)

    assert answers(on_gpu(tiny_recipe, "steps"), requests, SAMPLED, 6) == with_graph
    assert len(captured) > 1
    assert None not in captured


def test_a_model_that_cannot_be_captured_is_decoded_all_the_same(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = requests_for(6)
    engine = on_gpu(tiny_recipe)
    expected = answers(engine, requests, SAMPLED, 6)
    before = torch.cuda.memory_reserved()
    forward = GraphSlots._forward

    def asks_the_gpu(slots: GraphSlots) -> torch.Tensor:
        logits = forward(slots)
        assert float(logits.sum()) < float("inf")
        return logits

    monkeypatch.setattr(GraphSlots, "_forward", asks_the_gpu)

    assert answers(engine, requests, SAMPLED, 6) == expected
    assert held_after(engine) - before < 2**29


def test_scores_of_options_on_cuda_are_those_of_the_cpu_in_float32(tiny_recipe: Recipe) -> None:
    requests, options = requests_for(6), [[" ten", " sam has two", " no"]] * 6

    on_cpu = open_engine(tiny_recipe, "").score(requests, options)

    for row, other in zip(on_gpu(tiny_recipe).score(requests, options), on_cpu, strict=True):
        assert row == pytest.approx(other, abs=1e-3)


@pytest.mark.parametrize("argument", ["", "paged"])
def test_auto_takes_cuda_with_bfloat16(argument: str, tiny_recipe: Recipe) -> None:
    engine = on_gpu(tiny_recipe, argument, device="auto", dtype="auto")

    assert (engine.model.device.type, engine.model.dtype) == ("cuda", torch.bfloat16)
    assert all(answer.status in ("ok", "truncated") for answer in engine.generate(requests_for(12), SAMPLED))


@pytest.mark.usefixtures("_all_memory")
def test_memory_that_really_runs_out_halves_the_batch_and_changes_no_row(tiny_model_dir: Path, tmp_path: Path) -> None:
    # Keys and values of 16 kB a token, so that a cap 100 MB above what is held is reached by a few dozen rows.
    folder = save_tiny_model(tmp_path / "deep", layers=64)
    engine = on_gpu(Recipe(model=str(folder)))
    requests = requests_for(96)
    expected = answers(engine, requests, SAMPLED, 16)
    engine.release_caches()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 100 * 2**20) / total)

    found = answers(engine, requests, SAMPLED, 96)

    assert engine.batch_size < 96
    assert any("out of GPU memory" in notice for notice in engine.facts.notices)
    assert found == expected


def test_four_bits_answer_on_cuda(tiny_recipe: Recipe) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("no bitsandbytes")
    engine = on_gpu(tiny_recipe, load_in_4bit=True, dtype="bfloat16")

    assert all(answer.status in ("ok", "truncated") for answer in engine.generate(requests_for(12), SAMPLED))


def test_devices_all_gives_the_bytes_of_one_process(tiny_model_dir: Path, tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 12)
    line = ["solve", problems, "-m", tiny_model_dir, "--dtype", "float32", "--max-new-tokens", 8, "--batch-size", 4]

    for name, more in (("one", ["--device", "cuda"]), ("all", ["--devices", "all"])):
        done = mae(*line, "-o", tmp_path / f"{name}.jsonl", *more)
        assert done.returncode == 0, done.stderr

    assert len(read_json_lines(tmp_path / "one.jsonl")) == 96
    assert (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
