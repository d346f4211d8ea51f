"""Rounds of other shapes: no proposer, two solves, two trainings; killed, made by make, stopped early."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.stories.kill_driver import Fork, Launcher, Moment, Subject, drive, folder_content, table
from tests.support import ROOT, child_environment, here, read_json_lines, write_sums

TORCH = ("torch", "transformers", "peft", "datasets", "mae_cli.engines.hf.engine", "mae_cli.training.trainer")
SECTIONS = """
model: {model}
device: cpu
batch_size: 4
rounds: 2
seeds: {seeds}
solve: {{num_problems: 3, rollouts_per_problem: 2, max_new_tokens: 6}}
judge: {{verifier: numeric, judge: none, max_unparsed: 1.0, solver_reward: checked_solver, max_new_tokens: 6}}
filter: {{filters: [{{name: quality}}], decontaminate: false}} # the seeds are among the held-out items
finetune: {{objective: sft, batch_size: 2, lora_r: 2, target_modules: q_proj, save_every: 1}}
eval: {{benchmarks: [{held_out}], max_new_tokens: 6}}
"""
NO_PROPOSER = "pipeline: [solve, judge, filter, finetune, {eval: {every: 2}}]"
TWO_SOLVES = """pipeline:
  - solve
  - judge
  - {solve: {name: again, rollouts_per_problem: 1, temperature: 0.5}}
  - {judge: {name: gate, judge: rubric, answer_votes: 1}}
  - {filter: {from: [judge, gate]}}
  - finetune
  - eval
"""
TWO_TRAININGS = """pipeline:
  - solve
  - judge
  - {finetune: {name: first, from: judge}}
  - {solve: {name: again}}
  - {judge: {name: gate}}
  - {finetune: {name: second, from: gate}}
  - eval
"""
SHAPES = {"no proposer": NO_PROPOSER, "two solves": TWO_SOLVES, "two trainings": TWO_TRAININGS}


@pytest.fixture
def recipe(request: pytest.FixtureRequest, tmp_path: Path, tiny_model_dir: Path) -> Path:
    path = tmp_path / "r.yaml"
    seeds, held_out = write_sums(tmp_path / "seeds.jsonl", 6), write_sums(tmp_path / "held_out.jsonl", 8)
    path.write_text(SECTIONS.format(model=tiny_model_dir, seeds=seeds, held_out=held_out) + SHAPES[request.param])
    return path


@pytest.fixture(scope="module")
def fork() -> Iterator[Launcher]:
    server = Fork(ROOT, *TORCH)
    yield server
    server.close()


def outputs(folder: Path) -> list[str]:
    marked = sorted(path.name.removesuffix(".meta.json") for path in folder.glob("*.meta.json"))
    return [name for name in marked if (folder / name).exists()]


def adapters_that_wrote(path: Path) -> set[str | None]:
    return {row["policy"]["adapter"] for row in read_json_lines(path)}


@pytest.mark.parametrize("recipe", ["no proposer"], indirect=True)
def test_a_round_without_a_proposer_is_evaluated_every_second_time(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run, "--rounds", 3, "--json") == 0

    told = msgspec.json.decode(capsys.readouterr().out)
    assert outputs(run / "round-000") == ["5_eval.jsonl", "5_gate.jsonl"]
    rows = ["1_rollouts.jsonl", "2_judged.jsonl", "3_selected.jsonl", "4_adapter"]
    assert outputs(run / "round-001") == outputs(run / "round-003") == rows
    assert outputs(run / "round-002") == [*rows, "5_eval.jsonl", "5_gate.jsonl"]
    assert [(one["accepted"], one.get("verified", True), one["reason"]) for one in told["promotion"]] == [
        (True, False, "not evaluated in this round"),
        (True, True, told["promotion"][1]["reason"]),
        (True, False, "not evaluated in this round"),
    ]
    # The gate compares with the last verified round, and the level is that of the first decision.
    assert [one["against"] for one in told["promotion"][1]["outcomes"]] == ["base"]
    assert told["promotion"][1]["best_level"] == pytest.approx(0.05 * 6 / 3.141592653589793**2, rel=1e-9)
    assert [(run / name).readlink().name for name in ("accepted", "verified", "latest")] == [
        "round-003", "round-002", "round-003",
    ]  # fmt: skip


@pytest.mark.parametrize("recipe", ["no proposer"], indirect=True)
def test_harm_that_shows_late_goes_back_to_the_last_verified_round_which_keeps_its_weights(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mae_cli.runs import loop
    from mae_cli.runs.promotion import Promotion

    told = {"round-002": True, "round-004": False}
    asked: list[tuple[str, str]] = []

    def decide(candidate: Any, verified: Any, best: Any, **_: Any) -> Promotion:
        asked.append((candidate[0], verified[0]))
        return Promotion(candidate[0], told[candidate[0]], False, "as told")

    monkeypatch.setattr(loop, "decide", decide)
    run = tmp_path / "run"
    options = ("--rounds", 5, "--set", "keep_adapters=1")
    assert here("run", recipe, "--run-dir", run, *options) == 0

    assert asked == [("round-002", "base"), ("round-004", "round-002")]
    assert (run / "accepted").readlink().name == "round-005"
    assert (run / "verified").readlink().name == "round-002"
    kept = [path.parent.parent.name for path in sorted(run.glob("round-*/*_adapter/*.safetensors"))]
    assert kept == ["round-002", "round-005"]
    # Round 5 starts from round 2, not from the rejected rounds 3 and 4.
    second = adapters_that_wrote(run / "round-003" / "1_rollouts.jsonl")
    assert adapters_that_wrote(run / "round-005" / "1_rollouts.jsonl") == second
    assert here("run", recipe, "--run-dir", run, *options) == 0


@pytest.mark.parametrize("recipe", ["two solves"], indirect=True)
def test_two_solves_and_two_judges_have_rows_ids_and_groups_of_their_own(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run, "--rounds", 1) == 0

    first = read_json_lines(run / "round-001" / "2_judged.jsonl")
    second = read_json_lines(run / "round-001" / "4_gate.jsonl")
    assert {row["step"] for row in first} == {"solve"}
    assert {row["step"] for row in second} == {"again", "gate"}
    assert {row["sampling"]["temperature"] for row in second if row["step"] == "again"} == {0.5}
    for key in ("id", "rollout_id", "group_id"):
        assert not {row[key] for row in first} & {row[key] for row in second}
    selected = {row["id"] for row in read_json_lines(run / "round-001" / "5_selected.jsonl")}
    assert selected == {row["id"] for row in (*first, *second)}
    grading = next(row for row in second if row["step"] == "gate")
    assert (grading["asked"]["judge"], grading["asked"]["about"]) == ("rubric", "answer")
    assert grading["asked"]["settings"]["name"] == "rubric"


@pytest.mark.parametrize("recipe", ["two trainings"], indirect=True)
def test_the_second_training_goes_on_from_the_first_and_later_steps_play_with_it(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run) == 0

    lines = {}
    capsys.readouterr()
    assert here("list", "adapters", "--run-dir", run) == 0
    for line in capsys.readouterr().out.splitlines()[2:]:
        label, folder, adapter, parent, *_ = line.split()
        lines[label, folder] = (adapter, parent)
    assert list(lines) == [
        ("round-001", "3_first"), ("round-001", "6_second"), ("round-002", "3_first"), ("round-002", "6_second"),
    ]  # fmt: skip
    chain = list(lines.values())
    assert [parent for _, parent in chain] == ["-", *(adapter for adapter, _ in chain[:-1])]
    first, second = chain[0][0], chain[1][0]
    assert adapters_that_wrote(run / "round-001" / "1_rollouts.jsonl") == {None}
    assert adapters_that_wrote(run / "round-001" / "4_again.jsonl") == {first}
    assert adapters_that_wrote(run / "round-001" / "7_eval.jsonl") == {second}
    assert adapters_that_wrote(run / "round-002" / "1_rollouts.jsonl") == {second}
    trained = read_json_lines(run / "round-001" / "6_second" / "train_rows.jsonl")[0]["id"]
    assert here("trace", trained, "--run-dir", run) == 0
    told = capsys.readouterr().out
    assert "written by tiny" not in told
    assert f"trained by round-001 (adapter {second}" in told
    assert here("export", run / "round-001", "-o", tmp_path / "model", "--merge") == 0


def content(out: Path) -> bytes:
    links = [(path.name, path.readlink().name) for path in sorted(out.iterdir()) if path.is_symlink()]
    return folder_content(out, without=("events.jsonl", "summary.json", "run.state.json")) + repr(links).encode()


@pytest.mark.parametrize("recipe", list(SHAPES), indirect=True)
def test_killed_at_twenty_moments_a_run_of_any_shape_ends_with_the_same_files(
    recipe: Path, tmp_path: Path, fork: Launcher
) -> None:
    subject = Subject(
        lambda out: ["run", str(recipe), "--run-dir", str(out)],
        output="run",
        total=24,
        done=lambda out: sum(1 for _ in out.glob("round-*/[0-9]_*.jsonl")),
        stands=lambda out: (out / "summary.json").exists(),
        content=content,
        reused=lambda summary: 0,
    )
    moments = [
        *(Moment("append", number) for number in (1, 3, 4, 5, 6, 7)),
        *(Moment("torn", number) for number in (3, 5)),
        Moment("after_replace", target="/round-001/0_pairs.jsonl"),
        Moment("before_replace", target="/round-001/1_rollouts.jsonl"),
        Moment("after_replace", target="/round-001/2_judged.jsonl"),
        Moment("before_replace", target="/round-002/2_judged.jsonl"),
        Moment("after_replace", target="/checkpoints/state.pt"),
        Moment("after_replace", 2, target="/checkpoints/state.pt"),
        Moment("before_replace", target="/round-001/promotion.json"),
        Moment("after_replace", target="/round-002/promotion.json"),
        Moment("after_replace", target="/latest"),
        Moment("before_replace", target="/accepted"),
        Moment("after_replace", 2, target="/accepted"),
        Moment("after_replace", target="/summary.json"),
    ]

    landings = drive(subject, moments, tmp_path, fork)

    print("\n" + table(landings))
    assert len(landings) == 20
    assert [str(item.moment) for item in landings if not item.equal] == []
    assert sum(item.is_midway for item in landings) >= 12


@pytest.mark.parametrize("recipe", ["no proposer", "two solves"], indirect=True)
def test_until_stops_after_a_step_of_the_first_unfinished_round_and_the_run_goes_on(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert here("run", recipe, "--run-dir", run, "--until", "judge") == 0
    assert "round-001: stopped after judge (--until)" in capsys.readouterr().err
    assert outputs(run / "round-001") == ["1_rollouts.jsonl", "2_judged.jsonl"]
    before = content(run)

    assert here("run", recipe, "--run-dir", run, "--until", "judge") == 0
    assert content(run) == before

    assert here("run", recipe, "--run-dir", run) == 0
    assert here("run", recipe, "--run-dir", whole) == 0
    assert content(run).replace(b"run: run", b"run: whole") == content(whole)
    assert here("run", recipe, "--run-dir", run, "--until", "jugde") == 2
    assert "--until jugde: no such step; the steps of a round are solve, judge" in capsys.readouterr().err


def make(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # A virtual environment that make finds ready: this one.
    root = tmp_path / "checkout"
    if not root.exists():
        root.mkdir()
        shutil.copy(ROOT / "Makefile", root)
        for name in ("pyproject.toml", "constraints.txt", "mae_cli", "recipes", "data"):
            (root / name).symlink_to(ROOT / name)
        (root / ".venv" / "bin").mkdir(parents=True)
        script = f'#!/bin/sh\nexec "{os.sys.executable}" -m mae_cli "$@"\n'  # type: ignore[attr-defined]
        (root / ".venv" / "bin" / "mae").write_text(script)
        (root / ".venv" / "bin" / "mae").chmod(0o755)
        for mark in (".runs", ".installed"):
            (root / ".venv" / mark).touch()
    command = ["make", "--no-print-directory", *map(str, arguments)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, env=child_environment(), check=False)


@pytest.mark.parametrize("recipe", ["no proposer", "two solves"], indirect=True)
def test_make_iterate_follows_the_pipeline_and_makes_nothing_twice(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "made"
    options = ("iterate", f"RECIPE={recipe}", f"RUN={run}", "ROUNDS=2")

    first = make(tmp_path, *options)
    assert first.returncode == 0, first.stderr[-2000:]
    assert here("run", recipe, "--run-dir", tmp_path / "run") == 0

    for number in (1, 2):
        made, ran = run / f"round-{number:03d}", tmp_path / "run" / f"round-{number:03d}"
        names = [name for name in outputs(ran) if "gate" not in name.removeprefix("4_") and "eval" not in name]
        assert [
            name
            for name in names
            if name.endswith(".jsonl") and (made / name).read_bytes() != (ran / name).read_bytes()
        ] == []
    again = make(tmp_path, *options)
    assert again.returncode == 0
    assert "mae" not in again.stdout.replace("make", "")
    evaluated = [path.parent.name for path in sorted(run.glob("round-*/*_eval.jsonl"))]
    due = (0, 2) if "every: 2" in recipe.read_text() else (0, 1, 2)
    assert evaluated == [f"round-{number:03d}" for number in due]


@pytest.mark.parametrize("recipe", ["two solves"], indirect=True)
def test_workers_play_the_step_of_their_parent(recipe: Path, tmp_path: Path) -> None:
    given = ("--recipe", recipe, "--engine", "scripted", "--step", "again", "--pool", tmp_path / "seeds.jsonl")
    assert here("solve", "-o", tmp_path / "one.jsonl", *given) == 0
    assert here("solve", "-o", tmp_path / "two.jsonl", *given, "--devices", "cpu:2") == 0

    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


@pytest.mark.parametrize("recipe", ["two solves"], indirect=True)
def test_one_step_alone_writes_the_rows_of_the_run(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("run", recipe, "--run-dir", tmp_path / "run", "--rounds", 1) == 0
    done = tmp_path / "run" / "round-001"

    out = tmp_path / "again.jsonl"
    given = ("--recipe", recipe, "--round", 1, "--step", "again")
    assert here("solve", "-o", out, "--pool", done / "0_questions.jsonl", *given) == 0

    assert out.read_bytes() == (done / "3_again.jsonl").read_bytes()
    assert here("judge", out, "-o", tmp_path / "x.jsonl", "--recipe", recipe) == 2
    assert "2 judge steps (judge, gate); say which with --step" in capsys.readouterr().err
    assert here("list", "steps", "--recipe", recipe) == 0
    assert "2_judged.jsonl 4_gate.jsonl  5_selected.jsonl" in capsys.readouterr().out
