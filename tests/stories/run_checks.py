"""What must hold of every finished run folder; `python tests/stories/run_checks.py runs/demo-0` prints it for one."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from mae_cli.answers.questions import question_key
from mae_cli.records import Row
from mae_cli.records.read import read_json, read_lines, read_problems, read_rows


def rounds(run_dir: Path) -> list[Path]:
    """The folders of the trained rounds, in order."""
    return sorted(path for path in run_dir.glob("round-*") if (path / "5_adapter" / "train_rows.jsonl").exists())


def trained_ids(folder: Path) -> list[str]:
    """Ids of the rows this round's adapter was trained on."""
    listing = folder / "5_adapter" / "train_rows.jsonl"
    return [msgspec.json.decode(line)["id"] for _, line in read_lines(listing)]


def rollouts(folder: Path) -> dict[str, Row]:
    """Everything generated in a round, by id, as stored by propose, solve and judge before anything was selected."""
    found: dict[str, Row] = {}
    for name in ("1_problems.jsonl", "2_rollouts.jsonl", "3_judged.jsonl"):
        for row in read_rows(folder / name):
            found.setdefault(row.id, row)
    return found


def check_trained_rows_are_stored_rollouts(run_dir: Path) -> dict[str, int]:
    """Every trained row is a stored rollout of its own round, made by the base or an earlier round's adapter."""
    allowed: set[str | None] = {None}
    counts: dict[str, int] = {}
    for folder in rounds(run_dir):
        stored = rollouts(folder)
        for identity in trained_ids(folder):
            row = stored[identity]  # a KeyError here is the failure this check looks for
            assert row.policy.adapter in allowed, f"{identity}: made by an adapter no earlier round trained"
            assert row.purpose == "train", f"{identity}: purpose {row.purpose}"
            assert row.completion_token_ids, f"{identity}: no generated token ids"
            counts[row.role] = counts.get(row.role, 0) + 1
        after = read_rows(folder / "6_eval.jsonl")
        allowed.add(after[0].policy.adapter)
    return counts


def own_share(run_dir: Path, train_file: Path) -> tuple[int, int]:
    """(trained solver problems the model wrote itself and no seed is, all trained solver problems), distinct."""
    seeds = {question_key(problem.question) for problem in read_problems(train_file)}
    own, everything = set(), set()
    for folder in rounds(run_dir):
        stored = rollouts(folder)
        for identity in trained_ids(folder):
            row = stored[identity]
            if row.role == "solver" and row.problem is not None:
                key = question_key(row.problem.question)
                everything.add(key)
                if key not in seeds:
                    own.add(key)
                    assert row.problem.reference_answer is None, "a proposal carries no reference answer"
    return len(own), len(everything)


def check_nothing_held_out_was_trained(run_dir: Path, held_out_file: Path) -> None:
    """No trained problem is a held-out item up to operand order, number words and template."""
    held_out = {question_key(problem.question) for problem in read_problems(held_out_file)}
    for folder in rounds(run_dir):
        stored = rollouts(folder)
        for identity in trained_ids(folder):
            problem = stored[identity].problem
            assert problem is None or question_key(problem.question) not in held_out, problem.question


def check_the_gate_decided_on_other_items(run_dir: Path) -> dict[str, int]:
    """No problem is in two of reported, gate and trained, in whatever words; the links follow the decisions."""
    reported, gate = (
        {question_key(problem.question) for path in folder.glob("*.jsonl") for problem in read_problems(path)}
        for folder in (run_dir / "benchmarks" / "reported", run_dir / "benchmarks" / "gate")
    )
    assert not reported & gate, sorted(reported & gate)[:3]
    for folder in rounds(run_dir):
        stored = rollouts(folder)
        trained = {question_key(p.question) for i in trained_ids(folder) if (p := stored[i].problem) is not None}
        assert not trained & (reported | gate), sorted(trained & (reported | gate))[:3]
        evaluated = [row for row in read_rows(folder / "6_gate.jsonl") if row.problem is not None]
        assert {question_key(row.problem.question) for row in evaluated if row.problem} <= gate
    decisions = [read_json(path) for path in sorted(run_dir.glob("round-*/promotion.json"))]
    for state in ("accepted", "best"):
        last = [decision["round"] for decision in decisions if decision[state]][-1:]
        link = run_dir / state
        assert ([link.readlink().name] if link.is_symlink() else []) == last, f"{state}: {last}"
    return {"reported": len(reported), "gate": len(gate)}


if __name__ == "__main__":
    run = Path(sys.argv[1])
    data = Path(__file__).parents[2] / "data"
    print("trained rows, all stored rollouts:", check_trained_rows_are_stored_rollouts(run))
    check_nothing_held_out_was_trained(run, data / "arithmetic_heldout.jsonl")
    print("no trained problem is held out")
    print("no problem in two of reported, gate and trained:", check_the_gate_decided_on_other_items(run))
    own, everything = own_share(run, data / "arithmetic_train.jsonl")
    print(f"own proposals among the trained problems: {own} of {everything} ({own / everything:.0%})")
