"""Budgets and signals in the steps that load a model: solve and finetune, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stories.kill_driver import folder_content
from tests.support import PATIENT_SECONDS, here, start, wait_until, write_sums

VOLATILE = (
    *("events.jsonl", "summary.json", "run.state.json", "run.lock", "manifest.json", "recipe.resolved.yaml"),
    "report.html",
)
CHECKPOINT = "round-001/4_adapter.partial/checkpoints/state.pt"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(
        f"""
model: {tiny_model_dir}
device: cpu
batch_size: 2
seeds: {write_sums(tmp_path / "seeds.jsonl", 4)}
pipeline: [solve, judge, filter, finetune]
solve: {{num_problems: 4, rollouts_per_problem: 2, max_new_tokens: 8}}
judge: {{verifier: numeric, judge: none, max_unparsed: 1.0, solver_reward: checked_solver}}
filter: {{filters: [{{name: quality}}], decontaminate: false}}
finetune: {{objective: sft, batch_size: 2, lora_r: 2, save_every: 2, epochs: 6}}
"""
    )
    return path


def content(run: Path) -> bytes:
    return folder_content(run, without=VOLATILE)


def test_a_training_in_pieces_by_its_budget_is_the_training_in_one(tmp_path: Path, recipe: Path) -> None:
    assert here("run", recipe, "--run-dir", tmp_path / "whole", "--quiet") == 0
    run, codes, resumed = tmp_path / "run", [], set()
    budget = 0

    while not codes or codes[-1] == 6:
        budget += 60
        codes.append(here("run", recipe, "--run-dir", run, "--quiet", "--max-tokens", budget))
        state = json.loads((run / "run.state.json").read_bytes())
        if codes[-1] == 6:
            resumed.add((state["step"]["step"], state["step"]["done"] % 2))

    assert codes[-1] == 0
    assert ("finetune", 0) in resumed  # at a checkpoint, so that no step is trained twice
    assert ("finetune", 1) not in resumed
    assert content(run) == content(tmp_path / "whole")


@pytest.mark.parametrize("waits_for", ["round-001/1_rollouts.jsonl.partial", CHECKPOINT])
def test_sigterm_in_a_step_with_a_model_ends_it_in_order(tmp_path: Path, recipe: Path, waits_for: str) -> None:
    assert here("run", recipe, "--run-dir", tmp_path / "whole", "--quiet", "--set", "finetune.epochs=40") == 0
    run = tmp_path / "run"
    process = start(["run", recipe, "--run-dir", run, "--json", "--set", "finetune.epochs=40"])
    # One after the other: each may take its time on a busy machine.
    marks = ["run.state.json", "round-001/1_rollouts.jsonl.partial", "round-001/1_rollouts.jsonl", CHECKPOINT]
    for place in range(marks.index(waits_for) + 1):
        wait_until(lambda place=place: any((run / mark).exists() for mark in marks[place:]), process)  # type: ignore[misc]

    process.terminate()
    out, _ = process.communicate(timeout=PATIENT_SECONDS)

    assert process.returncode == 143
    assert json.loads(out)["state"] == "terminated"
    assert here("run", recipe, "--run-dir", run, "--quiet", "--set", "finetune.epochs=40") == 0
    assert content(run) == content(tmp_path / "whole")
