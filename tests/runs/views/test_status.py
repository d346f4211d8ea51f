"""`mae status`: every state of a folder, from its files alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import msgspec
import pytest

from mae_cli.errors import ConfigError
from mae_cli.records.lock_owner import Owner
from mae_cli.runs.run_state import RunState, StepState, write_state
from mae_cli.runs.views import run_files, run_times
from mae_cli.runs.views.status import RunStatus, runs_in, status_of
from mae_cli.runs.views.status_text import status_table, status_text, watch_line
from tests.support import ROOT, child_environment, here, mae, paused, start, wait_until, write_sums

OLD_RUN = ROOT / "tests" / "stories" / "run_of_37c66da.tar.gz"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(
        f"""
engine: "scripted:accuracy=0.7"
batch_size: 2
rounds: 2
seeds: {write_sums(tmp_path / "seeds.jsonl", 6)}
pipeline: [propose, solve, judge, filter, eval]
propose: {{num_problems: 6}}
solve: {{num_problems: 4, rollouts_per_problem: 2}}
judge: {{verifier: arithmetic, max_unparsed: 1.0, votes: 1}}
filter: {{decontaminate: false}}
eval: {{benchmarks: [{write_sums(tmp_path / "held_out.jsonl", 8)}]}}
"""
    )
    return path


def run_it(recipe: Path, run: Path, *options: object) -> int:
    return here("run", recipe, "--run-dir", run, "--quiet", *options)


def states(status: RunStatus) -> dict[str, str]:
    return {f"{step.round} {step.step}": step.state for step in status.steps}


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    assert run_it(recipe, run) == 0

    status = status_of(run)

    assert (status.life, status.rounds_done, status.rounds_wanted) == ("finished", 2, 2)
    assert set(states(status).values()) == {"done"}
    assert {step.step: step.rows for step in status.steps if step.round == "round-001"}["propose"] == 6
    assert (status.pace, status.seconds_left, status.next_start) == (None, 0.0, "has nothing left to do")
    told = json.loads((run / "summary.json").read_bytes())
    assert (status.tokens, status.starts, status.ending) == (told["tokens"], 1, "finished")
    assert status.disk == sum(
        path.lstat().st_size for path in run.rglob("*") if path.is_file() and not path.is_symlink()
    )


def test_a_run_that_was_stopped_by_a_budget_tells_it_and_what_comes_next(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    assert run_it(recipe, run, "--max-rounds", 1, "--max-tokens", 100_000) == 6

    status = status_of(run)
    text = status_text(status)

    assert (status.life, status.rounds_done) == ("stopped", 1)
    assert states(status)["round-002 propose"] == "waiting"
    assert status.next_start == "goes on with round-002 propose, unless the budget is still used up"
    assert {budget.name: budget.limit for budget in status.budgets} == {"max_tokens": 100_000, "max_rounds": 1}
    assert "last end    budget (exit 6): budget reached (--max-rounds: 1 of 1 rounds" in text
    assert "max_tokens " in text
    assert status.seconds_left is not None  # round 1 told how long its steps take
    assert len(text.splitlines()) <= 24


def test_a_run_under_way_is_read_without_its_lock_and_a_killed_one_as_killed(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    process = start(["run", recipe, "--run-dir", run], **paused(tmp_path / "site", 2, "2_rollouts.jsonl.partial"))
    wait_until(lambda: (tmp_path / "site" / "2_rollouts.jsonl.partial.paused").exists(), process)

    status = status_of(run)

    assert (status.life, status.owner and status.owner.pid) == ("running", process.pid)
    assert status.pace is not None
    assert (status.pace.round, status.pace.step, status.pace.unit) == ("round-001", "solve", "rows")
    assert status.pace.total > 0
    assert states(status)["round-001 solve"] == "begun"
    assert {step.step: step.rows for step in status.steps if step.round == "round-001"}["solve"] == 4
    assert status.next_start == "is refused while this one works (exit 5)"
    assert f"running: process {process.pid} on " in status_text(status)
    process.kill()
    process.communicate()
    killed = status_of(run)
    assert (killed.life, killed.next_start) == ("killed", "goes on with round-001 solve")
    assert killed.pace is not None
    assert (killed.pace.done, killed.pace.seconds_left) == (4, None)
    assert status_text(killed).splitlines()[0].startswith(f"{run}: killed: was process {process.pid} on ")


def test_a_folder_of_another_machine_says_that_nothing_is_known_of_its_process(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    assert run_it(recipe, run, "--until", "solve") == 0
    far = Owner(pid=os.getpid(), host="node-17", since=time.time() - 60, boot="b", machine="m")
    (run / "run.owner.json").write_bytes(msgspec.json.encode(far))

    status = status_of(run)

    assert status.life == "running elsewhere"
    assert "--take-over" in status.next_start
    assert "whether it runs cannot be seen from this machine" in status_text(status)


def test_the_last_error_is_shown(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    assert run_it(recipe, run, "--until", "propose") == 0
    assert run_it(recipe, run, "--min-free-disk", "900TB") == 75

    status = status_of(run)

    assert (status.ending, status.exit_code, status.starts) == ("temporary", 75, 2)
    assert "min_free_disk is 900 TB" in str(status.reason)
    assert status.next_start == "goes on with round-001 solve"


def test_a_run_of_an_older_version_is_shown_by_its_files(tmp_path: Path) -> None:
    with tarfile.open(OLD_RUN) as archive:
        archive.extractall(tmp_path, filter="data")
    run = next(path.parent for path in tmp_path.rglob("manifest.json"))

    status = status_of(run)

    assert status.rounds_wanted >= 1
    assert (status.tokens, status.starts, status.owner) == (None, None, None)
    assert status.life in ("finished", "stopped")
    assert status_text(status)


@pytest.mark.parametrize("manifest", ['{"recipe": {"of_a_later_version": 1}}', "{", "[]", ""])
def test_a_recipe_that_is_not_understood_costs_the_plan_only(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "round-001").mkdir()
    (tmp_path / "round-001" / "promotion.json").write_text("{}")
    (tmp_path / "manifest.json").write_text(manifest)

    status = status_of(tmp_path)

    assert (status.rounds_done, status.steps) == (1, [])
    assert status_text(status)


def test_torn_and_foreign_files_are_no_obstacle(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    assert run_it(recipe, run, "--until", "solve") == 0
    (run / "run.state.json").write_bytes(b'{"state": "runn')
    (run / "run.owner.json").write_bytes(b"")
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-')
    (run / "round-001" / "3_judged.jsonl.partial").write_bytes(b'{"id": "a"}\n{"id": "b"}\n{"id')

    status = status_of(run)

    assert states(status)["round-001 judge"] == "begun"
    assert {step.step: step.rows for step in status.steps if step.round == "round-001"}["judge"] == 2
    assert status.tokens is None


def test_an_empty_folder_is_a_run_to_come_and_others_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")

    assert here("status", tmp_path / "empty") == 0
    assert "next start  begins the run" in capsys.readouterr().out
    for place in (tmp_path / "other", tmp_path / "other" / "notes.txt", tmp_path / "missing"):
        assert here("status", place) == 2
        assert capsys.readouterr().err.startswith(f"mae: {place}: ")


def test_all_runs_of_a_folder_are_one_table(tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    assert run_it(recipe, runs / "a") == 0
    assert run_it(recipe, runs / "b", "--until", "solve") == 0
    (runs / "notes").mkdir()

    assert here("status", runs) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [[str(runs / "a"), "finished"], [str(runs / "b"), "stopped"]]
    assert here("status", runs, "--json") == 0
    assert [one["life"] for one in json.loads(capsys.readouterr().out)] == ["finished", "stopped"]
    with pytest.raises(ConfigError, match="no run there"):
        runs_in(runs / "notes")


def test_rates_and_time_left_come_from_what_the_run_wrote(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    assert run_it(recipe, run, "--max-rounds", 1) == 6
    events = run / "events.jsonl"
    kept = [json.loads(line) for line in events.read_text().splitlines()]
    for event in kept:
        if "seconds" in event["details"]:
            event["details"]["seconds"] = {"propose": 10.0, "solve": 40.0, "judge": 20.0, "filter": 1.0}.get(
                event["event"], 5
            )
    events.write_text("".join(json.dumps(event) + "\n" for event in kept))
    step = StepState(round="round-002", step="propose", stage="propose", done=2, total=6, tokens=50, seconds=5.0)
    write_state(run, RunState(state="running", updated=time.time(), step=step))
    from mae_cli.records.lock_owner import write_owner

    write_owner(run / "run.owner.json")

    status = status_of(run)

    assert status.pace is not None
    assert (status.pace.units_per_second, status.pace.tokens_per_second, status.pace.seconds_left) == (0.4, 10.0, 10.0)
    # The step by its own rate, the others as in round 1, the evaluation (round 1 trained nothing) as of the base.
    assert status.seconds_left == 10 + 40 + 20 + 1 + 2 * 5
    assert "2 of 6 (33 %) rows, 0.4 rows/s, 10 tokens/s, step: about 10 s left" in status_text(status)
    assert "2 of 6 (33 %) rows" in watch_line(status)
    assert "round-002 propose 2 of 6 (33 %)" in status_table([status])


def test_mean_seconds_of_a_step_count_its_parts_of_a_round_together(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    told = [
        ("round-000", "eval", 9.0),
        ("round-001", "eval", 2.0),
        ("round-001", "eval", 1.0),
        ("round-002", "eval", 5.0),
    ]
    path.write_text(
        "".join(json.dumps({"round": r, "event": e, "details": {"seconds": s}}) + "\n" for r, e, s in told)
        + json.dumps({"round": "round-001", "event": "judge", "details": {"step": "gate", "seconds": 3.0}}) + "\n"
        + json.dumps({"round": "round-001", "event": "not trained", "details": "no row"}) + "\n"
    )  # fmt: skip

    assert run_times.step_seconds(path) == {"eval": 4.0, "gate": 3.0}


def test_lines_of_a_large_growing_file_are_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.partial"
    path.write_bytes(b"x" * 99 + b"\n" + b"".join(b"y" * 99 + b"\n" for _ in range(999)))
    assert run_files.lines_in(path) == 1000

    monkeypatch.setattr(run_files, "COUNTED", 1000)
    assert run_files.lines_in(path) == 1000
    assert run_files.lines_in(tmp_path / "none") is None


def test_watching_off_a_terminal_is_a_line_each_time_without_control_characters(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    process = start(["run", recipe, "--run-dir", run], **paused(tmp_path / "site", 2, "2_rollouts.jsonl.partial"))
    wait_until(lambda: (tmp_path / "site" / "2_rollouts.jsonl.partial.paused").exists(), process)

    with subprocess.Popen(
        [sys.executable, "-m", "mae_cli", "status", str(run), "--watch", "--interval", "0.2"],
        stdout=subprocess.PIPE, env=child_environment(),
    ) as watcher:  # fmt: skip
        assert watcher.stdout is not None
        lines = [watcher.stdout.readline() for _ in range(2)]
        process.kill()
        process.communicate()
        lines += watcher.stdout.read().splitlines(keepends=True)

    assert watcher.returncode == 0  # nothing works there any more
    assert all(b", running, 0 of 2 rounds done, round-001 solve: " in line for line in lines[:2])
    assert b", killed, " in lines[-1]
    assert not b"".join(lines).translate(None, b"\n").count(b"\x1b")


def test_it_loads_no_model_library_and_reads_no_whole_file(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    assert run_it(recipe, run) == 0
    code = (
        "import sys\nfrom mae_cli.cli.app import run_app\n"
        f"assert run_app(['status', {str(run)!r}]) == 0\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'datasets', 'peft') if name in sys.modules])"
    )

    result = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, check=True)

    assert result.stdout.splitlines()[-1] == b"[]"
    assert mae("status", run, "--json").returncode == 0
