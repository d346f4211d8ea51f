"""Every stage killed at twenty moments and run again; `-s` prints where each kill landed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from tests.stories.kill_driver import (
    Fork,
    Landing,
    Launcher,
    Moment,
    Process,
    Subject,
    drive,
    folder_content,
    moments_of_a_file,
    partial_of,
    table,
    whole_lines,
)
from tests.support import ROOT, a_problem, a_row, here, read_json_lines, write_rows, write_sums

TORCH = ("torch", "transformers", "peft", "datasets", "mae_cli.engines.hf.engine", "mae_cli.training.trainer")
DELAYED = "scripted:delay=0.001"


@pytest.fixture(scope="module")
def fork() -> Iterator[Launcher]:
    server = Fork(ROOT)
    yield server
    server.close()


def check(landings: Sequence[Landing], *, midway: int = 15, segment: int | None = None) -> None:
    print("\n" + table(landings))
    assert [str(item.moment) for item in landings if not item.equal] == []
    assert [str(item.moment) for item in landings if item.growth > 0.01] == []
    assert sum(item.is_midway for item in landings) >= midway
    assert any(item.torn for item in landings)
    assert any(item.done == item.total and not item.renamed for item in landings)
    assert any(item.renamed and not item.marked for item in landings)
    assert any(item.marked for item in landings)
    if segment is not None:
        # Only the rows of the segment in flight may be made a second time.
        assert [str(item.moment) for item in landings if item.reused != item.done // segment * segment] == []


def check_ids(path: Path, total: int) -> None:
    ids = [row["id"] for row in read_json_lines(path)]
    assert len(set(ids)) == len(ids)
    assert len(ids) >= total


def test_propose_killed_at_twenty_moments_ends_with_the_same_bytes(tmp_path: Path, fork: Launcher) -> None:
    seeds = write_sums(tmp_path / "seeds.jsonl")
    subject = Subject(
        lambda out: [
            *("propose", str(seeds), "-o", str(out), "--engine", DELAYED),
            *("--num-problems", "40", "--batch-size", "2"),
        ],
        total=40,
    )

    landings = drive(subject, moments_of_a_file(20), tmp_path, fork)

    check(landings, segment=2)
    check_ids(tmp_path / "unbroken" / "out.jsonl", 40)


def test_solve_killed_at_twenty_moments_ends_with_the_same_bytes(tmp_path: Path, fork: Launcher) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 20)
    subject = Subject(
        lambda out: [
            *("solve", str(problems), "-o", str(out), "--engine", DELAYED),
            *("--rollouts-per-problem", "2", "--batch-size", "2"),
        ],
        total=40,
    )

    landings = drive(subject, moments_of_a_file(20), tmp_path, Process(tmp_path, ROOT), again=fork)

    check(landings, segment=2)
    check_ids(tmp_path / "unbroken" / "out.jsonl", 40)


def test_judge_killed_at_twenty_moments_ends_with_the_same_bytes(tmp_path: Path, fork: Launcher) -> None:
    problems, rollouts = write_sums(tmp_path / "problems.jsonl", 10), tmp_path / "rollouts.jsonl"
    assert here("solve", problems, "-o", rollouts, "--engine", "scripted", "--rollouts-per-problem", 2) == 0
    subject = Subject(
        lambda out: [
            *("judge", str(rollouts), "-o", str(out), "--engine", DELAYED, "--verifier", "numeric"),
            *("--answer-votes", "3", "--batch-size", "3"),
        ],
        total=60,
    )

    landings = drive(subject, moments_of_a_file(20), tmp_path, fork)

    check(landings, segment=3)
    check_ids(tmp_path / "unbroken" / "out.jsonl", 80)


def test_filter_killed_at_twenty_moments_ends_with_the_same_bytes(tmp_path: Path, fork: Launcher) -> None:
    problem = a_problem()
    rows = [
        a_row(problem=problem, index=index, finish_reason="stop" if index % 9 else "length") for index in range(3456)
    ]
    judged = write_rows(tmp_path / "judged.jsonl", rows)
    kept = sum(index % 9 > 0 for index in range(3456))
    subject = Subject(lambda out: ["filter", str(judged), "-o", str(out)], total=kept)
    # Rows of a filter come in one go, so outside kills land anywhere in it.
    moments = [moment for moment in moments_of_a_file(kept // 256) if moment.kind != "outside"]
    moments += [
        Moment("before_replace", target="/out.jsonl.dropped.jsonl"),
        Moment("after_replace", target="/out.jsonl.dropped.jsonl"),
    ]

    landings = drive(subject, moments, tmp_path, fork)

    check(landings)
    check_ids(tmp_path / "unbroken" / "out.jsonl", kept)


def test_eval_killed_at_twenty_moments_ends_with_the_same_bytes(tmp_path: Path, fork: Launcher) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 40)
    subject = Subject(
        lambda out: ["eval", str(problems), "-o", str(out), "--engine", DELAYED, "--batch-size", "2"],
        total=40,
        content=lambda out: out.read_bytes() + (out.parent / "out.summary.json").read_bytes(),
    )

    landings = drive(subject, moments_of_a_file(20), tmp_path, fork)

    check(landings, segment=2)
    check_ids(tmp_path / "unbroken" / "out.jsonl", 40)


@pytest.fixture(scope="module")
def fork_with_torch() -> Iterator[Launcher]:
    server = Fork(ROOT, *TORCH)
    yield server
    server.close()


def steps_done(out: Path) -> int:
    """Optimizer steps in the checkpoint of an interrupted training."""
    import torch

    state = partial_of(out) / "checkpoints" / "state.pt"
    return int(torch.load(state, weights_only=True)["step"]) if state.exists() else 0


def test_finetune_killed_at_twenty_moments_ends_with_the_same_bytes(
    tmp_path: Path, tiny_model_dir: Path, fork_with_torch: Launcher
) -> None:
    problems, rollouts = write_sums(tmp_path / "problems.jsonl", 8), tmp_path / "rollouts.jsonl"
    assert here("solve", problems, "-o", rollouts, "--engine", "scripted", "--rollouts-per-problem", 2) == 0
    subject = Subject(
        lambda out: [
            *("finetune", str(rollouts), "-o", str(out), "-m", str(tiny_model_dir), "--device", "cpu"),
            *("--batch-size", "1", "--set", "finetune.batch_size=1", "--set", "finetune.save_every=1"),
            *("--lora-r", "2"),
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
        # A whole or half new checkpoint beside the old one: what a torn line is to a file.
        *(Moment("before_replace", number, state) for number in (2, 6, 9, 16)),
        *(Moment("outside", target="/adapter", delay=delay) for delay in (0.0, 0.02)),
        Moment("before_replace", target="/adapter"),
        Moment("after_replace", target="/adapter"),
        Moment("after_replace", 2, "/adapter.meta.json"),
    ]

    landings = drive(subject, moments, tmp_path, fork_with_torch)

    print("\n" + table(landings))
    assert [str(item.moment) for item in landings if not item.equal] == []
    assert [str(item.moment) for item in landings if item.growth > 0.01] == []
    assert sum(item.is_midway for item in landings) >= 15
    assert any(item.renamed and not item.marked for item in landings), "none between the adapter and its marker"
    assert all(item.reused == item.done for item in landings)


def links_of(run: Path) -> list[tuple[str, str]]:
    return sorted((path.name, str(path.readlink())) for path in run.iterdir() if path.is_symlink())


def test_a_run_killed_in_every_stage_ends_with_the_same_files(
    tmp_path: Path, tiny_model_dir: Path, fork_with_torch: Launcher
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"""
model: {tiny_model_dir}
device: cpu
batch_size: 4
rounds: 2
seeds: {write_sums(tmp_path / "seeds.jsonl", 6)}
propose: {{num_problems: 4, max_new_tokens: 8}}
solve: {{num_problems: 4, rollouts_per_problem: 2, max_new_tokens: 8, train_on_proposals: false}}
judge: {{verifier: numeric, votes: 1, answer_votes: 1, num_own_pairs: 2, max_new_tokens: 8, max_unparsed: 1.0,
  solver_reward: checked_solver}}
filter: {{filters: [{{name: quality}}], decontaminate: false}} # the seeds are among the held-out items
finetune: {{objective: sft, batch_size: 2, lora_r: 2, save_every: 1, epochs: 1}}
eval: {{benchmarks: [{write_sums(tmp_path / "held_out.jsonl", 8)}], max_new_tokens: 8}}
"""
    )
    volatile = ("events.jsonl", "summary.json", "run.state.json")
    subject = Subject(
        lambda out: ["run", str(recipe), "--run-dir", str(out)],
        output="run",
        total=20,
        done=lambda out: sum(1 for _ in out.glob("round-*/[0-9]_*.jsonl")),
        stands=lambda out: (out / "summary.json").exists(),
        content=lambda out: folder_content(out, without=volatile) + repr(links_of(out)).encode(),
        reused=lambda summary: 0,
    )
    moments = [
        # Appends are counted over the whole run: the base's eval 1 and 2, then round 1's propose 3, solve 4 and 5,
        # judge from 6 on; the second half of them belongs to round 2.
        *(Moment("append", number) for number in (1, 3, 4, 5, 6, 7, 8, 12, 15)),
        *(Moment("torn", number) for number in (4, 6, 16)),
        Moment("before_replace", target="/round-000/6_eval.jsonl"),
        Moment("after_replace", target="/round-001/0_pairs.jsonl"),
        Moment("before_replace", target="/round-002/3_judged.jsonl"),
        Moment("after_replace", target="/round-001/4_dropped.jsonl"),
        Moment("after_replace", target="/checkpoints/state.pt"),
        Moment("after_replace", target="/round-002/5_adapter"),
        Moment("before_replace", target="/round-001/6_gate.jsonl"),
        Moment("before_replace", target="/round-001/promotion.json"),
        Moment("after_replace", target="/round-002/promotion.json"),
        Moment("before_replace", target="/gate/held_out.jsonl"),
        Moment("after_replace", target="/latest"),
        Moment("before_replace", target="/accepted"),
        Moment("after_replace", 2, target="/accepted"),
        Moment("after_replace", target="/summary.json"),
    ]

    landings = drive(subject, moments, tmp_path, fork_with_torch)

    print("\n" + table(landings))
    assert [str(item.moment) for item in landings if not item.equal] == []
    assert sum(item.is_midway for item in landings) >= 15


def test_a_command_killed_twenty_times_in_a_row_still_ends_with_the_same_bytes(tmp_path: Path, fork: Launcher) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 30)

    def arguments(name: str) -> list[str]:
        return ["solve", str(problems), "-o", str(tmp_path / name), "--engine", "scripted", "--batch-size", "8"]

    assert fork(arguments("unbroken.jsonl"), None).wait() == 0
    done = []
    for number in range(20):
        kind = "torn" if number % 3 == 2 else "append"
        fork(arguments("out.jsonl"), Moment("append" if kind == "append" else "torn", 1)).wait()
        done.append(whole_lines(tmp_path / "out.jsonl.partial"))

    assert fork(arguments("out.jsonl"), None).wait() == 0
    assert done == sorted(done), "an interruption lost rows of an earlier one"
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "unbroken.jsonl").read_bytes()
    meta = msgspec.json.decode((tmp_path / "out.jsonl.meta.json").read_bytes())
    assert (meta["complete"], meta["rows"]) == (True, 240)
