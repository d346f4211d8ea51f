"""Benchmarks: problem files, data sets of the hub, and suites by name.

Place in the flow: `eval` and the loop read benchmarks with `load_benchmarks`; each item carries its benchmark's name
in its meta. A recipe names one by a file, `hub:ORG/NAME/CONFIG:SPLIT`, a suite's name, `SUITE=FILE` (a local file
stands in for the hub), or a mapping with the fields of `BenchmarkSpec`. Left out: which items decide about promotion.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.data.hub import HUB, hub_rows
from mae_cli.data.pools import write_questions
from mae_cli.errors import ConfigError, DataError, did_you_mean
from mae_cli.plugins import registry
from mae_cli.recipe.files import find_file
from mae_cli.recipe.sections import EvalSection, Spec
from mae_cli.records import Problem
from mae_cli.records.file_names import beside
from mae_cli.records.read import problems_of_rows, read_problems
from mae_cli.records.tables import read_trees
from mae_cli.stages.evaluation.fitting import fitting_verifier

LOOKED_AT = 20
"""Reference answers that are tried on the verifier before anything is generated."""


class Suite(msgspec.Struct, frozen=True):
    """A published benchmark: where it is, how its rows read, how it is asked and checked."""

    hub: str
    """ORG/NAME/CONFIG:SPLIT of the data set hub."""
    verifier: str
    prompt: str = "solve"
    fields: Mapping[str, str] = {}
    """Our field name to the data set's, where `reading.problem_from` would not find it."""
    group_by: tuple[str, ...] = ()


SUITES = {
    "gsm8k": Suite("openai/gsm8k/main:test", "numeric"),  # arXiv:2110.14168
    "math500": Suite("HuggingFaceH4/MATH-500:test", "math", group_by=("subject", "level")),  # arXiv:2305.20050
    "mmlu": Suite("cais/mmlu/all:test", "choice", "solve_choice", group_by=("subject",)),  # arXiv:2009.03300
    "arc": Suite("allenai/ai2_arc/ARC-Challenge:test", "choice", "solve_choice"),  # arXiv:1803.05457
    "arc_easy": Suite("allenai/ai2_arc/ARC-Easy:test", "choice", "solve_choice"),
    "mawps": Suite("MU-NLPC/Calc-mawps:test", "numeric", fields={"answer": "result"}),  # NAACL 2016, Koncel-Kedziorski
    "humaneval": Suite(  # arXiv:2107.03374
        "openai/openai_humaneval:test", "python_tests", "solve_code", fields={"question": "prompt", "tests": "test"}
    ),
}


class BenchmarkSpec(msgspec.Struct, forbid_unknown_fields=True):
    """A benchmark in a recipe: `suite`, `path` or `hub`, and what differs from its defaults."""

    suite: str | None = None
    path: str | None = None
    hub: str | None = None
    name: str | None = None
    """What tables call it; the suite's or the file's name by default."""
    prompt: str | None = None
    verifier: Spec | None = None
    group_by: list[str] | None = None
    limit: int | None = None


class Benchmark(msgspec.Struct):
    """Items and how they are asked and checked."""

    name: str
    source: str
    """The file, or the place on the hub."""
    path: Path | None
    spec: BenchmarkSpec
    """What it was made from, under the name it has here."""
    problems: list[Problem]
    prompt: str | None
    """Null: the one that fits each item, see `prompts.prompt_files.solver_messages`."""
    verifier: Spec
    group_by: tuple[str, ...] = ()


def load_benchmarks(specs: Sequence[Spec], section: EvalSection) -> list[Benchmark]:
    """The benchmarks with their items, each item in the first that has it.

    Args:
        specs: as in `eval.benchmarks`.
        section: its prompt and verifier hold for files and hub data sets, and over a suite's own where they are not
            the defaults; its limit is items per benchmark.

    Raises:
        ConfigError: no such file, suite or data set, or an unknown field.
        DataError: an item that nothing can be checked against.
        TemporaryError: the hub cannot be reached.
    """
    found: list[Benchmark] = []
    seen: set[str] = set()
    for spec in specs:
        benchmark = _load(spec_of(spec), section)
        if any(benchmark.name == other.name for other in found):
            benchmark.name = f"{benchmark.name}-{len(found) + 1}"
        benchmark.spec.name = benchmark.name
        benchmark.problems = [
            msgspec.structs.replace(problem, meta={**problem.meta, "benchmark": benchmark.name})
            for problem in benchmark.problems
            if problem.id not in seen
        ]
        seen.update(problem.id for problem in benchmark.problems)
        found.append(benchmark)
    return found


def spec_of(spec: Spec) -> BenchmarkSpec:
    """Return the parts of a benchmark as a recipe or the command line names it.

    Raises:
        ConfigError: an unknown field, or none of suite, path and hub.
    """
    if isinstance(spec, str) and spec.startswith("{"):
        try:
            spec = msgspec.json.decode(spec, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ConfigError(f"benchmark {spec}: not a JSON object: {error}") from error
    if isinstance(spec, dict):
        for key in spec:
            if key not in BenchmarkSpec.__struct_fields__:
                near = did_you_mean(str(key), BenchmarkSpec.__struct_fields__)
                raise ConfigError(f'eval.benchmarks: unknown field "{key}"; {near}')
        try:
            told = msgspec.convert(spec, BenchmarkSpec)
        except msgspec.ValidationError as error:
            raise ConfigError(f"eval.benchmarks: {str(error).replace('`', '')}") from error
        if told.suite is not None:
            _suite(told.suite)
        if told.suite is None and told.path is None and told.hub is None:
            raise ConfigError("eval.benchmarks: a mapping needs suite, path or hub")
        return told
    if spec.startswith(HUB):
        return BenchmarkSpec(hub=spec.removeprefix(HUB))
    suite, equals, path = spec.partition("=")
    if suite in SUITES and (equals or not Path(spec).is_file()):
        return BenchmarkSpec(suite=suite, path=path or None)
    return BenchmarkSpec(path=spec)


def spec_text(benchmark: Benchmark) -> str:
    """The benchmark as another process is told it on its command line."""
    told = {key: value for key, value in msgspec.structs.asdict(benchmark.spec).items() if value is not None}
    return msgspec.json.encode(told).decode()


def keep_items(benchmark: Benchmark, path: Path) -> Benchmark:
    """The benchmark with its items in a file of its own, so that a run's items are on record and stay what they were.

    Raises:
        ConfigError: the file stands and holds other items.
    """
    fresh = beside(path, ".new")
    write_questions(fresh, benchmark.problems)
    if path.exists() and path.read_bytes() != fresh.read_bytes():
        fresh.unlink()
        raise ConfigError(f"{path}: holds other items than {benchmark.source} has now; give another --run-dir")
    os.replace(fresh, path)
    spec = BenchmarkSpec(
        path=str(path),
        name=benchmark.name,
        prompt=benchmark.prompt,
        verifier=benchmark.verifier,
        group_by=list(benchmark.group_by),
        limit=len(benchmark.problems),
    )
    return msgspec.structs.replace(benchmark, path=path, spec=spec)


def _suite(name: str) -> Suite:
    if name not in SUITES:
        raise ConfigError(f'no suite "{name}"; {did_you_mean(name, SUITES)}')
    return SUITES[name]


def _load(spec: BenchmarkSpec, section: EvalSection) -> Benchmark:
    suite = _suite(spec.suite) if spec.suite else None
    problems, source, path = _items(spec, suite)
    defaults = EvalSection()
    own_prompt = suite.prompt if suite and section.prompt is None else section.prompt
    own_verifier = section.verifier
    if own_verifier == defaults.verifier:
        own_verifier = suite.verifier if suite else fitting_verifier(problems, own_verifier)
    benchmark = Benchmark(
        name=spec.name or spec.suite or (path.name.split(".")[0] if path else source.partition(":")[2].split("/")[1]),
        source=source,
        path=path,
        spec=spec,
        problems=list({problem.id: problem for problem in reversed(problems)}.values())[::-1],
        prompt=spec.prompt or own_prompt,
        verifier=spec.verifier or own_verifier,
        group_by=tuple(spec.group_by or section.group_by or (suite.group_by if suite else ())),
    )
    limit = spec.limit or section.limit
    benchmark.problems = benchmark.problems[: limit or None]
    verifier = registry.build("verifiers", benchmark.verifier)
    for problem in benchmark.problems:
        if problem.reference_answer is None and getattr(verifier, "needs_reference", True):
            raise DataError(f'{source}: item "{problem.question[:50]}" has no reference answer to check against')
    return benchmark


def _items(spec: BenchmarkSpec, suite: Suite | None) -> tuple[list[Problem], str, Path | None]:
    """(items, where they are from, their file) of a benchmark."""
    fields = suite.fields if suite else {}
    if spec.path is not None:
        path = _file(spec.path)
        return _mapped_file(path, fields) if fields else read_problems(path), str(path), path
    source = HUB + (spec.hub or (suite.hub if suite else ""))
    trees = ((where, _renamed(tree, fields)) for tree, where in hub_rows(source.removeprefix(HUB)))
    return problems_of_rows(source, trees).problems, source, None


def items_of(spec: Spec) -> list[Problem]:
    """All items of a benchmark, whatever its limit, unchecked.

    Raises:
        MaeError: they cannot be read.
    """
    told = spec_of(spec)
    return _items(told, _suite(told.suite) if told.suite else None)[0]


def unreadable(benchmark: Benchmark) -> tuple[int, int, str] | None:
    """(how many, of how many looked at, why) reference answers the verifier cannot read; null where it reads them.

    Such an item stays unknown whatever is answered. The first `LOOKED_AT` items are looked at; a verifier that needs no
    reference answer has nothing to look at.
    """
    verifier = registry.build("verifiers", benchmark.verifier)
    if not getattr(verifier, "needs_reference", True):
        return None
    shown = benchmark.problems[:LOOKED_AT]
    found = [verifier.check(problem, problem.reference_answer) for problem in shown]
    unknown = [verdict for verdict in found if verdict.score is None]
    return (len(unknown), len(shown), unknown[0].reason or unknown[0].status) if unknown else None


def _file(name: str) -> Path:
    try:
        return find_file(name)
    except ConfigError as error:
        if "/" in name or "." in name:
            raise
        raise ConfigError(f"{error}; and no suite of that name: {did_you_mean(name, SUITES)}") from error


def _mapped_file(path: Path, fields: Mapping[str, str]) -> list[Problem]:
    return problems_of_rows(str(path), ((where, _renamed(tree, fields)) for where, tree in read_trees(path))).problems


def _renamed(tree: dict[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """A row under our field names; a row that has them already stays as it is."""
    for ours, theirs in fields.items():
        if ours not in tree and theirs in tree:
            tree[ours] = tree.pop(theirs)
    return tree
