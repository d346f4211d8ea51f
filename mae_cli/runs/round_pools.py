"""The question and pair pools that a round of a run starts from.

Place in the flow: `mae run` and `mae data pools` write them before `propose`. Contract: a pool is written once per
round; it is a function of the seeds and of the rows that the round before stored. Left out: the format of pool files
(`data.pools`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mae_cli.data import pools
from mae_cli.recipe.files import find_file
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Problem, Row, draw, mean_score, verdicts_on
from mae_cli.records.read import read_problems, read_rows
from mae_cli.runs.layout import Round

SELF_SEED_FACTOR = 4


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
        rows = read_rows(before.selected) if before.selected.exists() else []
        questions = pools.grow_questions(pools.read_questions(before.questions), rows, recipe.pool_limit)
        pairs = pools.grow_pairs(pools.read_pairs(before.pairs), rows, recipe.pool_limit)
    return questions, pairs


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
