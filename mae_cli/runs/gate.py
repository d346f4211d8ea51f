"""The items of a run, divided into those that are reported and those that decide about promotion (the gate).

Place in the flow: `mae run` reads its benchmarks here before the first round. Contract: no problem is in both parts,
and the division is a function of the problems alone. Left out: the decision itself (`promotion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mae_cli.answers.questions import question_key
from mae_cli.errors import ConfigError
from mae_cli.recipe.sections import EvalSection
from mae_cli.records import digest
from mae_cli.stages.eval import say_power
from mae_cli.stages.evaluation.benchmarks import Benchmark, keep_items, load_benchmarks
from mae_cli.stages.generation.job import Job

SPLIT = "split"


class Sets(msgspec.Struct):
    """The items that are reported and those that decide; no problem is in both."""

    reported: list[Benchmark]
    gate: list[Benchmark]
    removed: int = 0
    """Items of the gate that are reported too, and therefore left out of it."""


def read_sets(section: EvalSection) -> Sets:
    """The benchmarks of a run, apart; the gate is empty where `eval.gate` is none or there is nothing to split.

    Raises:
        ConfigError: the gate's file has no item that is not reported.
    """
    if section.via != "mae":
        raise ConfigError(f"eval.via: {section.via} is for mae eval; a run asks its benchmarks itself")
    everything = load_benchmarks(section.benchmarks, section)
    if section.gate is None or not everything:
        return Sets(everything, [])
    if section.gate == SPLIT:
        halves = [split(benchmark, section.gate_share) for benchmark in everything]
        everything, gates = [reported for reported, _ in halves], [gate for _, gate in halves]
        # Each benchmark has a border of its own, so a question that two of them hold may be on both sides.
        removed = _leave_out(gates, everything)
        return Sets(everything, [gate for gate in gates if gate.problems], removed)
    # The section's limit is for what is reported; a gate's own is written at the gate.
    gates = load_benchmarks([section.gate], msgspec.structs.replace(section, limit=0))
    removed = _leave_out(gates, everything)
    if not any(gate.problems for gate in gates):
        raise ConfigError(f"eval.gate: {gates[0].source}: every item is among eval.benchmarks; give other items")
    return Sets(everything, gates, removed)


def _leave_out(gates: Sequence[Benchmark], reported: Sequence[Benchmark]) -> int:
    """Take what is reported out of the gates; how many items that were."""
    keys = {question_key(problem.question) for benchmark in reported for problem in benchmark.problems}
    removed = 0
    for gate in gates:
        kept = [problem for problem in gate.problems if question_key(problem.question) not in keys]
        removed += len(gate.problems) - len(kept)
        gate.problems = kept
    return removed


def keep_sets(sets: Sets, folder: Path) -> Sets:
    """The sets with their items in files below the folder; see `keep_items`."""
    kept = [
        [keep_items(benchmark, folder / part / f"{benchmark.name}.jsonl") for benchmark in benchmarks]
        for part, benchmarks in (("reported", sets.reported), ("gate", sets.gate))
    ]
    return msgspec.structs.replace(sets, reported=kept[0], gate=kept[1])


def split(benchmark: Benchmark, gate_share: float) -> tuple[Benchmark, Benchmark]:
    """(reported, gate) part of a benchmark: the problems in the order of a hash, the first of them for the gate.

    A function of the problems alone; the same problem in other words falls into the same part.
    """
    keys = {problem.id: question_key(problem.question) for problem in benchmark.problems}
    ordered = sorted(set(keys.values()), key=lambda key: digest("gate", key))
    chosen = set(ordered[: int(len(ordered) * gate_share)])
    reported = [problem for problem in benchmark.problems if keys[problem.id] not in chosen]
    gate = [problem for problem in benchmark.problems if keys[problem.id] in chosen]
    return (
        msgspec.structs.replace(benchmark, problems=reported),
        msgspec.structs.replace(benchmark, problems=gate),
    )


def say_sets(job: Job, sets: Sets, name: str, *, decides: bool) -> None:
    """Say what the sets of an eval step can show, and how many items decide, before anything is spent on them."""
    say_power(job, sets.reported, paired=True)
    if sets.gate:
        deciding = sum(len(benchmark.problems) for benchmark in sets.gate)
        reported = sum(len(benchmark.problems) for benchmark in sets.reported)
        removed = f" ({sets.removed} of its items are reported and left out)" if sets.removed else ""
        job.progress.say(f"gate{name}: {deciding} items decide about promotion{removed}, {reported} are reported")
    elif sets.reported and decides:
        job.progress.say("no gate set: every round is accepted and none is called best")
