from __future__ import annotations

import random

import pytest

from mae_cli.plugins.proposers.mixed import Mixed
from tests.support import a_problem

POOL = [a_problem(f"What is {n} + 1?") for n in range(5)]


@pytest.mark.parametrize(("p_reference", "low", "high"), [(0.0, 0, 0), (0.5, 440, 560), (1.0, 1000, 1000)])
def test_references_come_with_the_asked_probability(p_reference: float, low: int, high: int) -> None:
    rng = random.Random(0)

    prompts = [Mixed(p_reference=p_reference).draw(rng, POOL).prompt for _ in range(1000)]

    assert low <= prompts.count("reference") <= high


def test_an_empty_pool_is_written_from_nothing() -> None:
    assert Mixed(p_reference=1.0).draw(random.Random(0), []).prompt == "zero"
