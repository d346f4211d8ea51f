"""`--devices cpu:2` on real models: equal to one process in the sense of the records contract, and a whole run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.recipe.sections import Recipe
from mae_cli.records import Row
from mae_cli.records.read import read_rows
from tests.stages.generation.test_workers import children_of, start, wait_until, whole_lines
from tests.support import mae, read_json_lines, write_sums

pytestmark = pytest.mark.timeout(600)

MODEL = "smollm2-135m"


def differing(ours: list[Row], theirs: list[Row]) -> list[tuple[Row, Row]]:
    return [(one, other) for one, other in zip(ours, theirs, strict=True) if one.raw != other.raw]


def check_gaps(pairs: list[tuple[Row, Row]]) -> None:
    """Each pair differs from a token on whose deciding gap recomputes below 1e-3."""
    from mae_cli.engines.hf.engine import open_engine
    from tests.engines.hf.deciding_gap import deciding_gap

    if not pairs:
        return
    engine = open_engine(Recipe(model=MODEL, device="cpu"), "")
    for one, other in pairs:
        left, right = one.completion_token_ids or [], other.completion_token_ids or []
        place = next(i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
        prompt = one.prompt_token_ids or []
        gap = deciding_gap(engine.model, prompt, left, place, seed=one.seed, sampling=one.sampling)
        assert gap < 1e-3, f"{one.id}: token {place} was decided by {gap}"


@pytest.mark.slow
def test_two_workers_make_the_rows_of_one_process_though_one_is_killed(tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 6)
    more = ("-m", MODEL, "--rollouts-per-problem", 2, "--max-new-tokens", 12, "--batch-size", 2)
    single, out = tmp_path / "single.jsonl", tmp_path / "out.jsonl"
    assert mae("solve", problems, "-o", single, "--device", "cpu", *more).returncode == 0
    partial = tmp_path / "out.jsonl.shards" / "1-of-2.jsonl.partial"

    process = start(["solve", problems, "-o", out, "--devices", "cpu:2", "--json", *more])
    wait_until(lambda: whole_lines(partial) >= 2, process)
    victim = next(
        pid for pid in children_of(process.pid) if b"--shard\x001/2" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(victim, signal.SIGKILL)
    stood = whole_lines(partial)
    said, notices = process.communicate()

    assert process.returncode == 0, notices
    first, second = msgspec.json.decode(said)["workers"]
    assert (first["starts"], second["starts"]) == (2, 1)
    assert first["kept"] == stood // 2 * 2
    ours, theirs = read_rows(out), read_rows(single)
    assert [row.id for row in ours] == [row.id for row in theirs]
    assert [row.seed for row in ours] == [row.seed for row in theirs]
    pairs = differing(ours, theirs)
    print(f"{len(pairs)} of {len(ours)} rows differ from one process's; kept {first['kept']} of {stood} at the kill")
    check_gaps(pairs)
    meta = [path.with_name(path.name + ".meta.json").read_bytes() for path in (out, single)]
    assert meta[0] == meta[1]


@pytest.mark.long
def test_a_run_with_devices_makes_what_it_makes_without(tmp_path: Path, tiny_model_dir: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"""
model: {tiny_model_dir}
device: cpu
seeds: {write_sums(tmp_path / "seeds.jsonl", 6)}
propose: {{num_problems: 4, max_new_tokens: 8}}
solve: {{num_problems: 4, rollouts_per_problem: 2, max_new_tokens: 8, train_on_proposals: false}}
judge: {{verifier: numeric, judge: none, max_unparsed: 1.0, solver_reward: checked_solver}}
finetune: {{objective: sft, batch_size: 2, lora_r: 2, epochs: 1}}
filter: {{filters: [], decontaminate: false}} # the seeds are among the held-out items
eval: {{benchmarks: [{write_sums(tmp_path / "held_out.jsonl", 8)}], max_new_tokens: 8}}
"""
    )

    def rows_of(name: str, *more: str) -> dict[str, Any]:
        result = mae("run", recipe, "--run-dir", tmp_path / name, *more)
        assert result.returncode == 0, result.stderr
        return {
            str(path.relative_to(tmp_path / name)): read_json_lines(path)
            for path in sorted((tmp_path / name).glob("round-*/[0-46]_*.jsonl"))
        }

    one, many = rows_of("one"), rows_of("many", "--devices", "cpu:2")

    assert len(one) == 11, sorted(one)
    assert many == one
