"""The kill driver on the embedded model, `make smoke`.

A start of the real command takes about seven seconds, and each kill needs two. So a server holds torch, its forks are
real processes, and a start costs the loading of the model. The counts are tiny: 8 problems, 2 samples, 12 new tokens.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mae_cli.errors import MaeError
from tests.stories import run_checks
from tests.stories.kill_driver import Fork, Landing, Launcher, Moment, Process, Subject, drive, folder_content, table
from tests.stories.kill_driver import moments_of_a_file as twenty_moments
from tests.stories.test_kills import TORCH, steps_done
from tests.support import ROOT, mae, write_sums

MODEL = "smollm2-135m"
REAL = ("-m", MODEL, "--device", "cpu", "--batch-size", "2")
SHORT = ("--max-new-tokens", "12")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", autouse=True)
def _model() -> None:
    from mae_cli.models.locate import local_model

    try:
        local_model(MODEL)
    except MaeError as error:
        pytest.fail(f"make smoke installs the model first: {error}")


@pytest.fixture(scope="module")
def fork() -> Iterator[Launcher]:
    server = Fork(ROOT, *TORCH)
    yield server
    server.close()


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sums(tmp_path_factory.mktemp("smoke") / "problems.jsonl", 8)


@pytest.fixture(scope="module")
def rollouts(problems: Path) -> Path:
    out = problems.with_name("rollouts.jsonl")
    assert mae("solve", problems, "-o", out, *REAL, *SHORT, "--rollouts-per-problem", 2).returncode == 0
    return out


def check(landings: Sequence[Landing], midway: int, segment: int = 2) -> None:
    print("\n" + table(landings))
    assert [str(item.moment) for item in landings if not item.equal] == []
    assert [str(item.moment) for item in landings if item.growth > 0.01] == []
    assert sum(item.is_midway for item in landings) >= midway
    assert any(item.done == item.total and not item.renamed for item in landings)
    assert all(item.done - item.reused < segment for item in landings)


def test_propose_on_the_real_model_survives_twenty_kills(tmp_path: Path, problems: Path, fork: Launcher) -> None:
    subject = Subject(
        lambda out: ["propose", str(problems), "-o", str(out), *REAL, *SHORT, "--num-problems", "16"], total=16
    )

    check(drive(subject, twenty_moments(8), tmp_path, fork), midway=15)


def test_solve_on_the_real_model_survives_twenty_kills(tmp_path: Path, problems: Path, fork: Launcher) -> None:
    subject = Subject(
        lambda out: ["solve", str(problems), "-o", str(out), *REAL, *SHORT, "--rollouts-per-problem", "4"], total=32
    )

    check(drive(subject, twenty_moments(16), tmp_path, fork), midway=15)


def test_solve_as_a_process_of_its_own_survives_a_kill_from_outside_and_a_torn_line(
    tmp_path: Path, problems: Path
) -> None:
    subject = Subject(
        lambda out: ["solve", str(problems), "-o", str(out), *REAL, *SHORT, "--rollouts-per-problem", "2"], total=16
    )
    moments = [
        Moment("outside", target="/out.jsonl", delay=0.3),
        Moment("torn", 4),
        Moment("before_replace", target="/out.jsonl"),
    ]

    check(drive(subject, moments, tmp_path, Process(tmp_path, ROOT)), midway=2)


def test_judge_on_the_real_model_survives_twenty_kills(tmp_path: Path, rollouts: Path, fork: Launcher) -> None:
    subject = Subject(
        lambda out: ["judge", str(rollouts), "-o", str(out), *REAL, *SHORT, "--max-unparsed", "1"], total=16
    )

    check(drive(subject, twenty_moments(8), tmp_path, fork), midway=15)


def test_eval_on_the_real_model_survives_twenty_kills(tmp_path: Path, problems: Path, fork: Launcher) -> None:
    subject = Subject(
        lambda out: ["eval", str(problems), "-o", str(out), *REAL, *SHORT, "--samples", "2", "--temperature", "1"],
        total=16,
    )

    check(drive(subject, twenty_moments(8), tmp_path, fork), midway=15)


def test_finetune_on_the_real_model_survives_twenty_kills(tmp_path: Path, rollouts: Path, fork: Launcher) -> None:
    subject = Subject(
        lambda out: [
            *("finetune", str(rollouts), "-o", str(out), "-m", MODEL, "--device", "cpu", "--lora-r", "2"),
            *("--batch-size", "1", "--set", "finetune.save_every=1"),
        ],
        output="adapter",
        total=16,
        done=steps_done,
        content=folder_content,
        reused=lambda summary: summary["skipped"] or summary["details"]["resumed_from"],
    )
    state = "/checkpoints/state.pt"
    moments = [
        *(Moment("after_replace", number, state) for number in (1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 15)),
        *(Moment("before_replace", number, state) for number in (2, 6, 9, 16)),
        *(Moment("outside", target="/adapter", delay=delay) for delay in (0.0, 0.5)),
        Moment("before_replace", target="/adapter"),
        Moment("after_replace", target="/adapter"),
        Moment("after_replace", 2, "/adapter.meta.json"),
    ]

    check(drive(subject, moments, tmp_path, fork), midway=15, segment=1)


def test_a_run_on_the_real_model_survives_twenty_kills(tmp_path: Path, fork: Launcher) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"""
model: {MODEL}
device: cpu
batch_size: 2
seeds: {write_sums(tmp_path / "seeds.jsonl", 6)}
propose: {{num_problems: 4, max_new_tokens: 8}}
solve: {{num_problems: 4, rollouts_per_problem: 1, max_new_tokens: 6, train_on_proposals: false}}
judge: {{verifier: numeric, votes: 1, answer_votes: 1, num_own_pairs: 2, max_new_tokens: 4, max_unparsed: 1.0,
  solver_reward: checked_solver}}
filter: {{filters: [{{name: quality}}], decontaminate: false}} # the seeds are among the held-out items
finetune: {{objective: sft, batch_size: 1, lora_r: 2, save_every: 1, max_steps: 3}}
eval: {{benchmarks: [{write_sums(tmp_path / "held_out.jsonl", 4)}], max_new_tokens: 6}}
"""
    )
    subject = Subject(
        lambda out: ["run", str(recipe), "--run-dir", str(out)],
        output="run",
        total=11,
        done=lambda out: sum(1 for _ in out.glob("round-*/[0-9]_*.jsonl")),
        stands=lambda out: (out / "summary.json").exists(),
        content=lambda out: folder_content(out, without=("events.jsonl", "summary.json", "run.state.json")),
        reused=lambda summary: 0,
    )
    state = "/checkpoints/state.pt"
    moments = [
        # The base's evals (reported items and the gate's) append first, then propose, solve and judge.
        *(Moment("append", number) for number in range(1, 10)),
        *(Moment("torn", number) for number in (3, 5, 7)),
        Moment("before_replace", target="/round-000/6_eval.jsonl"),
        Moment("after_replace", target="/round-001/0_pairs.jsonl"),
        Moment("before_replace", target="/round-001/3_judged.jsonl"),
        Moment("after_replace", target="/round-001/4_dropped.jsonl"),
        Moment("after_replace", 1, state),
        Moment("after_replace", 2, state),
        Moment("after_replace", target="/round-001/5_adapter"),
        Moment("after_replace", target="/latest"),
    ]

    landings = drive(subject, moments, tmp_path, fork)

    print("\n" + table(landings))
    assert [str(item.moment) for item in landings if not item.equal] == []
    assert sum(item.is_midway for item in landings) >= 15


def test_a_small_quickstart_keeps_its_promises_about_what_was_trained(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    small = [f"{key}.num_problems=40" for key in ("propose", "solve")] + ["judge.num_own_pairs=24", "eval.limit=20"]
    sets = [part for setting in small for part in ("--set", setting)]

    done = subprocess.run(
        [sys.executable, "-m", "mae_cli.cli", "run", "quickstart", "--run-dir", str(run_dir), "--device", "cpu", *sets],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("final: base ")
    counts = run_checks.check_trained_rows_are_stored_rollouts(run_dir)
    run_checks.check_nothing_held_out_was_trained(run_dir, ROOT / "data" / "arithmetic_heldout.jsonl")
    run_checks.check_the_gate_decided_on_other_items(run_dir)
    own, everything = run_checks.own_share(run_dir, ROOT / "data" / "arithmetic_train.jsonl")
    print(f"trained rows {counts}, own problems {own} of {everything}")
    assert set(counts) == {"proposer", "solver", "judge"}
    assert own / everything >= 0.15
