"""`mae propose`: the policy writes problems.

Each proposal is prompted on its own: with references drawn from the question pool, or without. A completion without
a question is a row too (status unparsed, no problem): its reward is zero, which is what teaches the format. What a
proposer claims never becomes a reference answer; a program may check the problem itself (`propose.verifier`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from mae_cli.answers.questions import extract_question
from mae_cli.errors import ConfigError
from mae_cli.plugins import contracts, registry
from mae_cli.prompts.prompt_files import load_prompt, quoted
from mae_cli.records import Problem, Row, new_row, problem_id, seed_from
from mae_cli.records.file_names import STDIO
from mae_cli.stages.generation.generate import generate
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary, rollout_details


def run_propose(job: Job, input_path: Path | None, output_path: Path) -> StageSummary:
    """Write `num_problems` proposals, with references from the input where it is given."""
    section = job.recipe.propose
    pool = _pool(job, input_path)
    planned = plan_proposals(job, pool)
    verifier = registry.build("verifiers", section.verifier) if section.verifier else None
    if verifier is not None and not hasattr(verifier, "check_problem"):
        raise ConfigError(f'propose.verifier: "{section.verifier}" checks answers, not problems; known: arithmetic')

    def finish(row: Row) -> Row:
        read_proposal(row)
        if verifier is not None and row.problem is not None:
            row.verdicts = [verifier.check_problem(row.problem)]
        return row

    prompts = {"zero": load_prompt(section.prompt), "reference": load_prompt(section.prompt_reference)}
    options = {
        **job.engines.fingerprint(job.engines.of(section.role).policy, section.role),
        "sampling": section.sampling(),
        "prompts": {name: prompt.digest for name, prompt in prompts.items()},
        "propose": {
            "proposer": registry.resolved("proposers", section.proposer),
            "p_reference": section.p_reference,
            "references_per_prompt": section.references_per_prompt,
            "verifier": registry.resolved("verifiers", section.verifier) if section.verifier else None,
            "role": section.role,
            "purpose": section.purpose,
        },
    }
    inputs = [input_path] if input_path else []
    with job.output("propose", output_path, options, *inputs) as output:
        for notice in output.notices:
            job.progress.say(notice)
        limited = planned[: job.limit] if job.limit is not None else None
        made = generate(
            job, output, planned, finish=finish, role=section.role, limited=limited, command=["propose", *inputs]
        )
        if not output.is_current(made.rows):
            output.finish(made.rows)
        summary = made.summary("propose", output_path, read=len(pool), written=len(made.rows))
        summary.details = {**rollout_details(made.rows), **_problem_details(made.rows)}
        return summary


def _pool(job: Job, input_path: Path | None) -> list[Problem]:
    if input_path is None:
        return []
    if input_path != STDIO and input_path.exists() and not input_path.stat().st_size:
        return []  # a pool snapshot may be empty: MAE zero writes its own seeds
    data = job.read(input_path)
    return data.problems or list({row.problem.id: row.problem for row in data.rows if row.problem}.values())


def plan_proposals(job: Job, pool: Sequence[Problem]) -> list[Row]:
    """The rows to generate; proposal i is a function of (seed, round, i) and the pool."""
    section, recipe = job.recipe.propose, job.recipe
    proposer: contracts.Proposer = _proposer(job)
    prompts = {"zero": load_prompt(section.prompt), "reference": load_prompt(section.prompt_reference)}
    policy = job.engines.of(section.role).policy
    planned = []
    for index in range(section.num_problems):
        rng = random.Random(seed_from(recipe.seed, "propose", job.round_number, index, *job.draw_key))
        drawn = proposer.draw(rng, pool)
        references = [quoted(problem.question) for problem in drawn.references]
        messages = prompts[drawn.prompt].render(references=references)
        planned.append(
            new_row(
                "propose",
                role=section.role,
                step=job.step or "",
                purpose=section.purpose,
                round_number=job.round_number,
                run_seed=recipe.seed,
                messages=messages,
                sampling=section.sampling(),
                policy=policy,
                sample_index=index,
                group="proposals",
                parents=[problem.meta.get("from_row") or problem.id for problem in drawn.references],
            )
        )
    return planned


def _proposer(job: Job) -> contracts.Proposer:
    section = job.recipe.propose
    if isinstance(section.proposer, dict):
        built: contracts.Proposer = registry.build("proposers", section.proposer)
        return built
    # The two keys every script may rely on are options of the plugins that have them.
    plugin = registry.load("proposers", section.proposer)
    known = set(plugin.__struct_fields__)
    values = {"p_reference": section.p_reference, "references_per_prompt": section.references_per_prompt}
    options = {key: value for key, value in values.items() if key in known}
    built = registry.build("proposers", {"name": section.proposer, **options})
    return built


def read_proposal(row: Row) -> Row:
    """Read the question out of a proposal; without one the row is `unparsed` and has no problem."""
    question = extract_question(row.completion) if row.completion else None
    if question:
        row.problem = Problem(id=problem_id(question), question=question, meta={})
    elif row.status == "ok":
        row.status = "unparsed"
    return row


def _problem_details(rows: Sequence[Row]) -> dict[str, int]:
    problems = [row.problem.id for row in rows if row.problem]
    return {"with_question": len(problems), "distinct": len(set(problems))}
