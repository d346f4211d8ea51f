"""The files of one round, and the pools it starts from.

Place in the flow: `mae run` and `mae data pools` lay out a round with these; the names are the contract of README
"Files". Contract: a pool is written once per round and is a function of the seeds and of what the round before stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mae_cli import pools
from mae_cli.config import Recipe
from mae_cli.reading import read_problems, read_rows
from mae_cli.recipe_files import find_file
from mae_cli.records import Problem, Row, mean_score, verdicts_on


class Round:
    """The files of one round; names are the contract of README "A run"."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number, self.folder, self.label = number, folder, folder.name
        self.calibration = self.folder / "0_calibration.jsonl"
        self.questions = self.folder / "0_questions.jsonl"
        self.pairs = self.folder / "0_pairs.jsonl"
        self.problems = self.folder / "1_problems.jsonl"
        self.rollouts = self.folder / "2_rollouts.jsonl"
        self.judged = self.folder / "3_judged.jsonl"
        self.selected = self.folder / "4_selected.jsonl"
        self.dropped = self.folder / "4_dropped.jsonl"
        self.adapter = self.folder / "5_adapter"
        self.eval = self.folder / "6_eval.jsonl"
        self.gate = self.folder / "6_gate.jsonl"
        self.promotion = self.folder / "promotion.json"

    @property
    def name(self) -> str:
        """What tables call its policy."""
        return "base" if self.number == 0 else self.label


def file_seeds(recipe: Recipe, recipe_path: Path | None) -> list[Problem]:
    """The seeds of the recipe's file, or the drawn `num_seeds` of them."""
    if not recipe.seeds:
        return []
    problems = read_problems(find_file(recipe.seeds, beside=recipe_path.parent if recipe_path else None))
    return pools.draw(problems, recipe.num_seeds, recipe.seed, "seeds") if recipe.num_seeds else problems


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
        if row.role != "proposer" or row.problem is None or row.problem.id in quality:
            continue
        score = mean_score(verdicts_on(row, "problem"))
        if score is not None:
            quality[row.problem.id] = (score, position, row.problem)
    best = sorted(quality.values(), key=lambda entry: (-entry[0], entry[1]))
    return [problem for _, _, problem in best[:wanted]]
