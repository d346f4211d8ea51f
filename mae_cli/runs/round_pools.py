"""Seeds and pools: what the question and pair pools of a round hold.

Place in the flow: `mae run` and `mae data pools` write the pools before a round's first step. Contract: a pool is
written once per round and is a function of the seeds and of what the round before stored; self seeds are written once
per run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mae_cli.data import pools
from mae_cli.data.held_out import Items
from mae_cli.errors import ConfigError, GateError
from mae_cli.recipe.files import find_file
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.steps import steps_of
from mae_cli.records import Problem, Row, draw, mean_score, verdicts_on
from mae_cli.records.lock import Lock
from mae_cli.records.read import read_problems, read_rows
from mae_cli.records.resumable_file import replace_aside
from mae_cli.runs.layout import Round
from mae_cli.runs.one_round import RoundWork
from mae_cli.stages.evaluation.benchmarks import Benchmark
from mae_cli.stages.generation.job import Job
from mae_cli.stages.judge import run_judge
from mae_cli.stages.propose import run_propose

SELF_SEED_FACTOR = 4
"""Proposals written for each self seed that is wanted."""


def file_seeds(recipe: Recipe, recipe_path: Path | None) -> list[Problem]:
    """The seeds of the recipe's file, or the drawn `num_seeds` of them."""
    if not recipe.seeds:
        return []
    problems = read_problems(find_file(recipe.seeds, beside=recipe_path.parent if recipe_path else None))
    return draw(problems, recipe.num_seeds, recipe.seed, "seeds") if recipe.num_seeds else problems


def snapshot(recipe: Recipe, current: Round, before: Round | None, seeds: Sequence[Problem]) -> None:
    """Write the pools of a round, unless they stand: the seeds at first, then what the round before stored."""
    if current.questions.exists() and current.pairs.exists():
        return
    questions, pairs = next_pools(recipe, before, seeds)
    pools.write_pairs(current.pairs, pairs)
    pools.write_questions(current.questions, questions)


def next_pools(
    recipe: Recipe, before: Round | None, seeds: Sequence[Problem]
) -> tuple[list[Problem], list[pools.Pair]]:
    """The questions and pairs a round starts from."""
    if before is None:
        questions = list(seeds)
        pairs = pools.seed_pairs(seeds) if recipe.seed_pairs else []
    else:
        rows = stored_rows(before)
        questions = pools.grow_questions(pools.read_questions(before.questions), rows, recipe.pool_limit)
        pairs = pools.grow_pairs(pools.read_pairs(before.pairs), rows, recipe.pool_limit)
    return questions, pairs


def write_pools(recipe: Recipe, recipe_path: Path, folder: Path, before: Path | None) -> None:
    """Write the pools of a round outside a run; a file that differs is moved aside.

    Args:
        recipe: gives the seeds and the pipeline.
        recipe_path: its file; seeds may stand beside it.
        folder: of the round.
        before: folder of the round before; null in round 1.

    Raises:
        ConfigError: the recipe's seeds are written by the model.
    """
    if recipe.self_seeds:
        raise ConfigError(f"{recipe_path}: self_seeds needs the model; use mae run")
    steps = steps_of(recipe)
    earlier = Round(before, 0, steps) if before else None
    questions, pairs = next_pools(recipe, earlier, file_seeds(recipe, recipe_path))
    current = Round(folder, 0, steps)
    with Lock(folder.parent / "run"):
        replace_aside(current.questions, lambda target: pools.write_questions(target, questions))
        replace_aside(current.pairs, lambda target: pools.write_pairs(target, pairs))


def stored_rows(before: Round) -> list[Row]:
    """Return the rows that the filter steps of a round left, each once."""
    files = [path for step in before.of_stage("filter") if (path := before.output(step)).exists()]
    return list({row.id: row for path in files for row in read_rows(path)}.values())


def best_seeds(rows: Sequence[Row], wanted: int) -> list[Problem]:
    """The distinct proposed questions with the highest known quality, best first, at most `wanted`."""
    quality: dict[str, tuple[float, int, Problem]] = {}
    for position, row in enumerate(rows):
        if not row.is_proposal or row.problem is None or row.problem.id in quality:
            continue
        score = mean_score(verdicts_on(row, "problem"))
        if score is not None:
            quality[row.problem.id] = (score, position, row.problem)
    best = sorted(quality.values(), key=lambda entry: (-entry[0], entry[1]))
    return [problem for _, _, problem in best[:wanted]]


def self_seeds(work: RoundWork, job: Job, base: Round) -> list[Problem]:
    """Return the seeds that the base model writes itself (MAE zero): the best distinct ones by its own judgement.

    Raises:
        ConfigError: the pipeline has no propose or no judge step.
        GateError: no question has a known quality.
    """
    if not base.self_seeds.exists():
        wanted = job.recipe.self_seeds
        proposing, judging = base.of_stage("propose"), base.of_stage("judge")
        if not proposing or not judging:
            raise ConfigError("self_seeds: the base model proposes and judges them, so the pipeline needs both steps")
        propose, judge = (job.of_step(step, round_number=0) for step in (proposing[0], judging[0]))
        section = msgspec.structs.replace(
            propose.recipe.propose, num_problems=wanted * SELF_SEED_FACTOR, proposer="zero"
        )
        propose = propose.with_recipe(msgspec.structs.replace(propose.recipe, propose=section))
        written, judged = base.output(proposing[0]), base.output(judging[0])
        work.play(base, propose, lambda: run_propose(propose, None, written))
        work.play(base, judge, lambda: run_judge(judge, [written], judged))
        seeds = best_seeds(read_rows(judged), wanted)
        if len(seeds) < wanted:
            job.progress.say(
                f"self seeds: only {len(seeds)} of {wanted} proposals are distinct questions with a known quality"
            )
        if not seeds:
            raise GateError("the base model wrote no seed question whose quality is known; give `seeds:` a file")
        pools.write_questions(base.self_seeds, seeds)
    return pools.read_questions(base.self_seeds)


def say_overlap(job: Job, seeds: Sequence[Problem], benchmarks: Sequence[Benchmark]) -> dict[str, int]:
    """Warn of held-out items among the seeds: they are trained on and then measure nothing.

    Returns: by source, how many of its items are among the seeds; sources without any are left out.
    """
    among = Items.of(seeds)
    items: dict[str, list[Problem]] = {}
    for benchmark in benchmarks:
        items.setdefault(benchmark.source, []).extend(benchmark.problems)
    found: dict[str, int] = {}
    for source, problems in items.items():
        both = sum(map(among.holds, problems))
        if both:
            found[source] = both
            job.progress.say(
                f"WARNING: {both} of the {len(problems)} held-out items of {source} are among the seeds: "
                f"what is measured on them is not held out"
            )
    return found
