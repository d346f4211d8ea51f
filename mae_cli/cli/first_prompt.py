"""The first prompt that a stage would ask, as its model would see it: shown with --dry-run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from mae_cli.records import Message, Problem, Row
    from mae_cli.stages.generation.job import Job


def first_prompt(job: Job, stage: str, inputs: Sequence[Path]) -> str | None:
    """Return a stage's first prompt, rendered where the engine renders it itself; null where it asks nothing.

    Args:
        job: of the command.
        stage: propose, solve, judge or eval.
        inputs: its input files; of solve also the pool.
    """
    from mae_cli.plugins.contracts import can_train

    messages = _messages(job, stage, inputs)
    if not messages:
        return None
    engine = job.engines.of(getattr(getattr(job.recipe, stage), "role", None))
    if not can_train(engine):
        return "\n".join(f"[{one.role}]\n{one.content}" for one in messages)
    return f"{engine.chat.text(messages)}\n({len(engine.chat.render(messages))} tokens)"


def _messages(job: Job, stage: str, inputs: Sequence[Path]) -> Sequence[Message]:
    from mae_cli.prompts.prompt_files import solver_messages
    from mae_cli.stages.evaluation.benchmarks import load_benchmarks

    if stage == "eval":
        found = load_benchmarks(job.recipe.eval.benchmarks, job.recipe.eval)
        return solver_messages(found[0].prompt, found[0].problems[0]) if found and found[0].problems else []
    rows, problems = _read(job, inputs)
    if stage == "solve":
        return solver_messages(job.recipe.solve.prompt, problems[0]) if problems else []
    planned = _proposals(job, problems) if stage == "propose" else _questions(job, rows)
    return planned[0].messages if planned else []


def _read(job: Job, inputs: Sequence[Path]) -> tuple[list[Row], list[Problem]]:
    """(rows, problems) of the input; of records the problems that they propose or are about."""
    data = job.read(*inputs) if inputs else None
    rows: list[Row] = data.rows if data is not None else []
    problems: list[Problem] = data.problems if data is not None else []
    return rows, problems or [row.problem for row in rows if row.problem is not None]


def _proposals(job: Job, pool: Sequence[Problem]) -> list[Row]:
    from mae_cli.stages.propose import plan_proposals

    one: Any = msgspec.structs.replace(job.recipe.propose, num_problems=min(1, job.recipe.propose.num_problems))
    return plan_proposals(job.with_recipe(msgspec.structs.replace(job.recipe, propose=one)), pool)


def _questions(job: Job, rows: Sequence[Row]) -> list[Row]:
    from mae_cli.stages.judging.panel import Panel
    from mae_cli.stages.judging.questions import _plan

    panel = Panel(job)
    return _plan(job, panel, rows, []) if panel.judges else []
