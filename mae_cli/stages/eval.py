"""`mae eval`: the same held-out items for every policy, and what may be said about the difference.

An item is answered `samples` times; each answer is read strictly (only in the asked format) and flexibly (down to the
last number), and both readings are checked. A missing or cut-off answer is not correct; only a failing checker is
unknown, and then the item leaves both sides of a pair. Policies are compared on equal items by an exact paired test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mae_cli import registry
from mae_cli.config import find_file
from mae_cli.errors import ConfigError, DataError
from mae_cli.extraction import STRICT_SOURCES
from mae_cli.prompting import load_prompt, question_with_choices
from mae_cli.reading import STDIO, read_problems, read_rows
from mae_cli.records import Problem, Row, choices_of, new_row
from mae_cli.report import READINGS, summarise
from mae_cli.stages import Session, StageSummary, generate, limit_rows
from mae_cli.stages.solve import read_solution
from mae_cli.store import write_json


def run_eval(
    session: Session,
    benchmark_paths: Sequence[Path],
    output_path: Path,
    *,
    adapter: Path | None = None,
    with_base: bool = True,
) -> StageSummary:
    """Evaluate the base model, the adapter, or both, on the benchmarks' items.

    Args:
        session: its engine is switched between the policies and left on the last one.
        benchmark_paths: problem files with reference answers; the recipe's where none is given.
        output_path: rows of all policies evaluated here; the summary goes beside it.
        adapter: LoRA folder to evaluate.
        with_base: whether the model without adapter is evaluated too.

    Raises:
        DataError: an item has no reference answer.
    """
    section = session.recipe.eval
    paths = list(benchmark_paths) or [find_file(name) for name in section.benchmarks]
    if not paths:
        raise ConfigError("no benchmark: give a problem file, or eval.benchmarks in a recipe")
    verifier: registry.Verifier = registry.build("verifiers", section.verifier)
    needs_reference = getattr(verifier, "needs_reference", True)
    problems = read_benchmarks(paths, section.limit, needs_reference=needs_reference)
    wanted = {problem.id for problem in limit_rows(session, problems)}
    policies: list[tuple[str, Path | None]] = [("base", None)] if with_base else []
    if adapter is not None:
        policies.append((adapter_label(adapter), adapter))
    planned: list[Row] = []
    labels: dict[str | None, str] = {}
    folders: dict[str | None, Path | None] = {}
    for label, folder in policies:
        attach(session, folder)
        planned += _plan(session, problems)
        labels[session.engine.policy.adapter], folders[session.engine.policy.adapter] = label, folder
    options = {
        "policies": {adapter or "base": label for adapter, label in labels.items()},
        **session.policy_fingerprint(msgspec.structs.replace(session.engine.policy, adapter=None)),
        "sampling": section.sampling(),
        "prompt": load_prompt(section.prompt).digest,
        "verifier": registry.resolved("verifiers", section.verifier),
        "samples": section.samples,
    }

    with session.output("eval", output_path, options, *paths) as output:
        for notice in output.notices:
            session.progress.say(notice)

        def prepare(row: Row) -> None:
            attach(session, folders[row.policy.adapter])

        limited = [row for row in planned if row.problem is not None and row.problem.id in wanted]
        made = generate(
            session,
            output,
            planned,
            finish=read_solution,
            prepare=prepare,
            limited=limited,
            command=["eval", *paths, "--base" if with_base else "--no-base"],
        )
        check_both(made.rows, verifier)
        if not output.is_current(made.rows):
            output.finish(made.rows)
    summary = made.summary("eval", output_path, read=len(problems), written=len(made.rows))
    summary.details = summarise(made.rows, labels, section.confidence)
    if output_path != STDIO and session.shard is None:
        write_json(summary_path(output_path), summary.details)
    return summary


def adapter_label(folder: Path) -> str:
    """What tables call an adapter: its round's name, or its folder's."""
    return folder.parent.name if folder.name == "5_adapter" else folder.name


def attach(session: Session, folder: Path | None) -> None:
    """Give the session's engine an adapter, or none; engines without weights have none to change."""
    session.adapter = folder
    _ = session.engine  # raises here, not in the middle of the work


def summary_path(output_path: Path) -> Path:
    """Where the figures of an eval file go."""
    name = output_path.name.removesuffix(".gz").removesuffix(".jsonl")
    return output_path.with_name(name + ".summary.json")


def read_benchmarks(paths: Sequence[Path], limit: int | None, *, needs_reference: bool = True) -> list[Problem]:
    """The items of all files, each marked with its file's name.

    Raises:
        DataError: an item has no reference answer, and the verifier cannot do without.
    """
    found: dict[str, Problem] = {}
    for path in paths:
        problems = read_problems(path)
        for problem in problems[: limit or None]:
            if needs_reference and problem.reference_answer is None:
                raise DataError(f'{path}: item "{problem.question[:50]}" has no reference answer to check against')
            meta = {**problem.meta, "benchmark": path.name.split(".")[0]}
            found.setdefault(problem.id, msgspec.structs.replace(problem, meta=meta))
    return list(found.values())


def _plan(session: Session, problems: Sequence[Problem]) -> list[Row]:
    section = session.recipe.eval
    prompt = load_prompt(section.prompt)
    return [
        new_row(
            "eval",
            role="solver",
            purpose="eval",
            round_number=session.round_number,
            run_seed=session.recipe.seed,
            messages=prompt.render(question=question_with_choices(p.question, choices_of(p))),
            sampling=section.sampling(),
            policy=session.engine.policy,
            problem=p,
            sample_index=index,
        )
        for p in problems
        for index in range(section.samples)
    ]


def check_both(rows: Sequence[Row], verifier: registry.Verifier) -> None:
    """Attach the verdicts on the strict and the flexible reading of every answer; a cut-off one counts as no answer.

    Rows of an earlier run keep theirs, unless answers have joined their group since.
    """
    grown = {_group(row) for row in rows if not row.verdicts}
    todo = [row for row in rows if _group(row) in grown]
    problems = [row.problem for row in todo if row.problem is not None]
    answers = [_strict_and_flexible(row) for row in todo]
    checked = [
        registry.check_answers(verifier, problems, [pair[index] for pair in answers], [_group(row) for row in todo])
        for index in range(len(READINGS))
    ]
    for row, *verdicts in zip(todo, *checked, strict=True):
        row.verdicts = [
            msgspec.structs.replace(verdict, name=f"{verdict.name}/{reading}")
            for reading, verdict in zip(READINGS, verdicts, strict=True)
        ]


def _group(row: Row) -> str:
    """The answers of one policy to one item."""
    return f"{row.group_id}/{row.policy.adapter}"


def _strict_and_flexible(row: Row) -> tuple[str | None, str | None]:
    assert row.problem is not None
    if row.status == "truncated":
        return None, None
    if choices_of(row.problem):
        return row.answer if row.answer_source == "answer_tag" else None, row.answer
    return row.answer if row.answer_source in STRICT_SOURCES else None, row.answer


def load_eval(path: Path) -> list[Row]:
    """The rows of an eval file."""
    return [row for row in read_rows(path) if row.purpose == "eval"]
