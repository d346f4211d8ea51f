"""`mae solve`: problems in, rollouts out.

Plain problems get `rollouts_per_problem` train rollouts each. Among records, the proposals are solved: with purpose
`difficulty` where only their difficulty is wanted (MAE), with purpose `train` where they are trained on at once.
Problems drawn from the question pool of the round join them. All input records pass through.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mae_cli.answers.stated import read_solution
from mae_cli.data import pools
from mae_cli.errors import DataError
from mae_cli.prompts.prompt_files import solver_messages, solver_prompt_digests
from mae_cli.records import Policy, Problem, Purpose, Row, Sampling, draw, new_row, verdicts_on
from mae_cli.records.read import Input
from mae_cli.stages.generation.generate import generate, limit_rows
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary, rollout_details


def run_solve(job: Job, inputs: Sequence[Path], output_path: Path, *, pool_path: Path | None = None) -> StageSummary:
    """Solve the inputs' problems, and some of the pool's; see `SolveSection` for the options.

    Args:
        job: gives recipe, round and engines.
        inputs: files of problems or records; none: the pool alone.
        output_path: file of the rollouts, behind the records that pass through.
        pool_path: question pool that `num_problems` are drawn from.

    Raises:
        DataError: there is no problem to solve.
    """
    section = job.recipe.solve
    data = job.read(*inputs) if inputs else Input()
    plan = _Planner(job, section.sampling(), job.engines.of(section.role).policy)
    pool = pools.read_questions(pool_path) if pool_path else []
    drawn = draw(pool, section.num_problems, job.recipe.seed, "solve", job.round_number, *job.draw_key)
    everything = _plan_all(plan, job, data.rows, data.problems, drawn)
    limited = None
    if job.limit is not None:
        rows, problems = limit_rows(job, data.rows), limit_rows(job, data.problems)
        limited = _plan_all(plan, job, rows, problems, drawn)
    if not everything and not data.rows:
        raise DataError(f"{', '.join(map(str, inputs)) or pool_path}: no problem to solve")
    options = {
        **job.engines.fingerprint(job.engines.of(section.role).policy, section.role),
        "sampling": section.sampling(),
        **solver_prompt_digests(section.prompt, [row.problem for row in everything if row.problem is not None]),
        "solve": {
            "rollouts_per_problem": section.rollouts_per_problem,
            "num_problems": section.num_problems,
            "difficulty_samples": section.difficulty_samples,
            "train_on_proposals": section.train_on_proposals,
            "checked_only": section.checked_only,
            "role": section.role,
            "purpose": section.purpose,
        },
    }
    with job.output("solve", output_path, options, *inputs) as output:
        for notice in output.notices:
            job.progress.say(notice)
        made = generate(
            job,
            output,
            everything,
            passed=data.rows,
            finish=read_solution,
            role=section.role,
            limited=limited,
            command=["solve", *inputs, *(["--pool", pool_path] if pool_path else [])],
        )
        rows = [*made.passed, *made.rows]
        if not output.is_current(rows):
            output.finish(rows)
        summary = made.summary("solve", output_path, read=len(data.rows) + len(data.problems), written=len(rows))
        summary.details = rollout_details(made.rows)
        return summary


class _Planner:
    """Plans rollouts of problems with one sampling and policy."""

    def __init__(self, job: Job, sampling: Sampling, policy: Policy) -> None:
        self._job, self._sampling, self._policy = job, sampling, policy

    def rollouts(self, problem: Problem, purpose: Purpose, count: int, parents: Sequence[str] = ()) -> list[Row]:
        messages = solver_messages(self._job.recipe.solve.prompt, problem)
        return [
            new_row(
                "solve",
                role=self._job.recipe.solve.role,
                step=self._job.step or "",
                purpose=purpose,
                round_number=self._job.round_number,
                run_seed=self._job.recipe.seed,
                messages=messages,
                sampling=self._sampling,
                policy=self._policy,
                problem=problem,
                sample_index=index,
                parents=parents,
            )
            for index in range(count)
        ]


def _plan_all(
    plan: _Planner, job: Job, rows: Sequence[Row], problems: Sequence[Problem], drawn: Sequence[Problem]
) -> list[Row]:
    section = job.recipe.solve
    planned: list[Row] = []
    proposed, parents = proposals(rows, checked_only=section.checked_only)
    for problem in proposed:
        planned += plan.rollouts(problem, "difficulty", section.difficulty_samples, parents[problem.id])
    trained = {problem.id: problem for problem in proposed} if section.train_on_proposals else {}
    for problem in (*problems, *drawn):
        # A proposal may repeat a seed; the seed's own row is the one with the reference answer.
        trained[problem.id] = problem
    for problem in trained.values():
        above = parents.get(problem.id, [])
        planned += plan.rollouts(problem, section.purpose, section.rollouts_per_problem, above)
    return planned


def proposals(rows: Sequence[Row], *, checked_only: bool) -> tuple[list[Problem], dict[str, list[str]]]:
    """The proposed problems, each once, and the proposer rows behind each; one question is solved once."""
    found: dict[str, Problem] = {}
    parents: dict[str, list[str]] = {}
    for row in rows:
        if not row.is_proposal or row.problem is None or row.kept is False:
            continue
        if checked_only and not any(verdict.score for verdict in verdicts_on(row, "problem")):
            continue
        found.setdefault(row.problem.id, row.problem)
        parents.setdefault(row.problem.id, []).append(row.id)
    return list(found.values()), parents
