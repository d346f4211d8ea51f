from __future__ import annotations

import random

from mae_cli.plugins.contracts import Draw
from mae_cli.plugins.proposers.reference import Reference
from tests.support import a_problem

POOL = [a_problem(f"What is {n} + 1?") for n in range(5)]


def test_references_are_different_problems_of_the_pool() -> None:
    drawn = Reference(references_per_prompt=3).draw(random.Random(0), POOL)

    assert drawn.prompt == "reference"
    assert len({problem.id for problem in drawn.references}) == 3
    assert all(problem in POOL for problem in drawn.references)


def test_a_small_pool_gives_all_it_has() -> None:
    assert len(Reference(references_per_prompt=9).draw(random.Random(0), POOL).references) == 5


def test_an_empty_pool_is_written_from_nothing() -> None:
    assert Reference().draw(random.Random(0), []) == Draw(prompt="zero")


def test_every_problem_is_drawn_about_as_often_as_another() -> None:
    rng = random.Random(0)

    drawn = [Reference().draw(rng, POOL).references[0].id for _ in range(1000)]

    assert all(150 < drawn.count(problem.id) < 250 for problem in POOL)
