"""`mae eval`: the same held-out items for every policy, and what may be said about the difference.

An item is answered `samples` times; each answer is read strictly (only in the asked format) and flexibly (down to the
last number), and every reading is checked. A missing or cut-off answer is not correct; only a failing checker is
unknown, and then the item leaves both sides of a pair. Policies are compared on equal items by an exact paired test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.answers.stated import read_solution
from mae_cli.errors import ConfigError
from mae_cli.models.lineage import adapter_label
from mae_cli.plugins import contracts, registry
from mae_cli.prompts.prompt_files import solver_messages, solver_prompt_digests
from mae_cli.recipe.sections import Spec
from mae_cli.records import Policy, Row, new_row
from mae_cli.records.atomic import write_json
from mae_cli.records.file_names import STDIO, summary_path
from mae_cli.records.read import read_rows
from mae_cli.reports.accuracy import benchmark_of
from mae_cli.reports.eval_figures import by_policy, figures_of, plain
from mae_cli.reports.eval_report import power_lines
from mae_cli.stages.evaluation.benchmarks import Benchmark, load_benchmarks, spec_text, unreadable
from mae_cli.stages.evaluation.readings import check_readings, check_rows
from mae_cli.stages.generation.generate import generate
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary


def run_eval(
    job: Job,
    benchmarks: Sequence[Spec],
    output_path: Path,
    *,
    adapter: Path | None = None,
    with_base: bool = True,
) -> StageSummary:
    """Evaluate the base model, the adapter, or both, on the benchmarks' items.

    Args:
        job: its engine is switched between the policies and left on the last one.
        benchmarks: as `eval.benchmarks` names them; the recipe's where none is given.
        output_path: rows of all policies evaluated here; the summary goes beside it.
        adapter: what was trained, to evaluate: a LoRA's folder or a model's.
        with_base: whether the model without adapter is evaluated too.

    Raises:
        ConfigError: there is no such benchmark.
        DataError: an item that nothing can be checked against.
        TemporaryError: the hub cannot be reached.
    """
    section = job.recipe.eval
    specs = list(benchmarks) or section.benchmarks
    if section.via == "lm-eval":
        from mae_cli.stages.evaluation.lm_eval import run_lm_eval

        return run_lm_eval(job, [str(name) for name in specs], output_path, adapter=adapter, with_base=with_base)
    if not specs:
        raise ConfigError("no benchmark: give a problem file or a suite, or eval.benchmarks in a recipe")
    loaded = load_benchmarks(specs, section)
    attach(job, adapter)  # what cannot be used is refused before anything is said
    say_power(job, loaded, paired=with_base and adapter is not None)
    return evaluate(job, loaded, output_path, adapter=adapter, with_base=with_base)


def evaluate(
    job: Job,
    benchmarks: Sequence[Benchmark],
    output_path: Path,
    *,
    adapter: Path | None = None,
    with_base: bool = True,
) -> StageSummary:
    """The same on benchmarks that are loaded already."""
    section = job.recipe.eval
    check_readings(section.readings)
    # The limit holds for each benchmark, or only the first would be asked.
    wanted = {problem.id for benchmark in benchmarks for problem in benchmark.problems[: job.limit]}
    verifiers: dict[str, contracts.Verifier] = {
        benchmark.name: registry.build("verifiers", benchmark.verifier) for benchmark in benchmarks
    }
    policies = _plan_policies(job, benchmarks, adapter, with_base=with_base)
    paths = [benchmark.path for benchmark in benchmarks if benchmark.path is not None]
    with job.output("eval", output_path, _fingerprint(job, benchmarks, policies), *paths) as output:
        for notice in output.notices:
            job.progress.say(notice)

        def prepare(row: Row) -> contracts.Engine:
            attach(job, policies.folders[row.policy.weights])
            return job.engines.trained

        made = generate(
            job,
            output,
            policies.planned,
            finish=read_solution,
            prepare=prepare,
            limited=[row for row in policies.planned if row.problem is not None and row.problem.id in wanted],
            command=["eval", *map(spec_text, benchmarks), "--base" if with_base else "--no-base"],
        )
        for name, verifier in verifiers.items():
            rows = [row for row in made.rows if row.problem and benchmark_of(row.problem) == name]
            check_rows(rows, verifier, section.readings)
        if not output.is_current(made.rows):
            output.finish(made.rows)
    read = sum(len(benchmark.problems) for benchmark in benchmarks)
    summary = made.summary("eval", output_path, read=read, written=len(made.rows))
    fields = list(dict.fromkeys(field for benchmark in benchmarks for field in benchmark.group_by))
    summary.details = plain(figures_of(by_policy(made.rows, policies.labels), section.confidence, fields))
    if output_path != STDIO and job.shard is None:
        write_json(summary_path(output_path), summary.details)
    return summary


class EvaluatedPolicies(msgspec.Struct):
    """The policies of one evaluation; label and folder by what tells their weights apart (`Policy.weights`)."""

    first: Policy
    labels: dict[str, str] = {}
    folders: dict[str, Path | None] = {}
    """Of what was trained; null for the base model."""
    planned: list[Row] = []
    """The rows of all policies."""


def _plan_policies(
    job: Job, benchmarks: Sequence[Benchmark], adapter: Path | None, *, with_base: bool
) -> EvaluatedPolicies:
    """Put each policy on the engine once, to learn its digests and to plan its rows."""
    named: list[tuple[str, Path | None]] = [("base", None)] if with_base else []
    if adapter is not None:
        named.append((adapter_label(adapter), adapter))
    found: EvaluatedPolicies | None = None
    for label, folder in named:
        attach(job, folder)
        policy = job.engines.trained.policy
        found = found or EvaluatedPolicies(policy)
        found.planned += _plan(job, benchmarks)
        found.labels[policy.weights], found.folders[policy.weights] = label, folder
    return found or EvaluatedPolicies(job.engines.trained.policy)


def _fingerprint(job: Job, benchmarks: Sequence[Benchmark], policies: EvaluatedPolicies) -> dict[str, Any]:
    section, labels = job.recipe.eval, policies.labels
    return {
        "policies": {name if policies.folders[name] else "base": label for name, label in labels.items()},
        **job.engines.fingerprint(msgspec.structs.replace(policies.first, adapter=None)),
        "sampling": section.sampling(),
        "benchmarks": {benchmark.name: _asked(benchmark) for benchmark in benchmarks},
        "readings": section.readings,
        "samples": section.samples,
    }


def _asked(benchmark: Benchmark) -> dict[str, object]:
    return {
        **solver_prompt_digests(benchmark.prompt, benchmark.problems),
        "verifier": registry.resolved("verifiers", benchmark.verifier),
    }


def say_power(job: Job, benchmarks: Sequence[Benchmark], *, paired: bool) -> None:
    """Say what each set can show before anything is spent on it, and what would be spent in vain."""
    section = job.recipe.eval
    sizes = {b.name: len(b.problems[: job.limit]) for b in benchmarks}
    for line in power_lines(sizes, section.confidence, paired=paired):
        job.progress.say(line)
    for benchmark in benchmarks:
        lost = unreadable(benchmark)
        if lost is not None:
            job.progress.say(
                f"WARNING: {benchmark.name}: verifier {registry.spec_name(benchmark.verifier)} cannot read {lost[0]} "
                f"of the first {lost[1]} reference answers ({lost[2]}); such items stay unknown, whatever is answered: "
                f"name another with --verifier"
            )
    if section.samples > 1 and section.temperature == 0:
        job.progress.say(
            f"WARNING: temperature 0 is greedy: the {section.samples} samples of an item will be the same text; "
            f"set --temperature"
        )


def attach(job: Job, folder: Path | None) -> None:
    """Give the session's engine an adapter, or none; engines without weights have none to change."""
    job.engines.wear(folder)
    _ = job.engines.trained  # raises here, not in the middle of the work


def _plan(job: Job, benchmarks: Sequence[Benchmark]) -> list[Row]:
    section, policy = job.recipe.eval, job.engines.trained.policy
    return [
        new_row(
            "eval",
            role=job.recipe.solve.role,
            step=job.step or "",
            purpose="eval",
            round_number=job.round_number,
            run_seed=job.recipe.seed,
            messages=solver_messages(benchmark.prompt, problem),
            sampling=section.sampling(),
            policy=policy,
            problem=problem,
            sample_index=index,
        )
        for benchmark in benchmarks
        for problem in benchmark.problems
        for index in range(section.samples)
    ]


def load_eval(path: Path) -> list[Row]:
    """The rows of an eval file."""
    return [row for row in read_rows(path) if row.purpose == "eval"]
