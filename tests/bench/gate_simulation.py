"""How often the promotion gate errs, over simulated runs: `python tests/bench/gate_simulation.py` prints the table.

A run has R rounds; every round's adapter is trained from the last accepted one and is truly `effect` better (or worse)
on every item. Items differ in difficulty. A training changes which items a policy has right: of each item's answer a
share is drawn anew, the rest is the parent's answer, so policies of one run resemble each other as real ones do. Every
decision uses the product's levels and its exact test, whose p-values are looked up by (wins, losses).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mae_cli.reports.statistics.paired_tests import binomial_tail, spent_level

REDRAWN = 0.5
"""Share of an item's answers that a round draws anew; with the difficulties below about a sixth of all change."""
HARM_ALPHA = BEST_ALPHA = 0.05


@dataclass(frozen=True)
class Loops:
    """What is simulated."""

    count: int
    rounds: int
    items: int
    effect: float
    """Nominal difference a round makes to the chance of a right answer, in [-1, 1]; chances stay within [0, 1]."""
    seed: int = 0


@dataclass(frozen=True)
class History:
    """One simulated run."""

    outcomes: np.ndarray
    """(R + 1, items): right or wrong, the base first."""
    accepted: list[bool]
    best: list[bool]


@dataclass(frozen=True)
class Result:
    """What became of the simulated runs."""

    loops: Loops
    outcomes: np.ndarray
    accepted: np.ndarray
    """(count, R): whether each round was accepted."""
    best: np.ndarray
    false: np.ndarray
    """(count, R): called best and truly no better than the best before it."""
    gain: np.ndarray
    """(count,): true accuracy of the last accepted round minus the base's."""

    @property
    def false_best(self) -> float:
        """Share of runs with at least one false claim."""
        return float(self.false.any(axis=1).mean())

    @property
    def found_best(self) -> float:
        """Share of runs with at least one true claim."""
        return float((self.best & ~self.false).any(axis=1).mean())

    def histories(self) -> Iterator[History]:
        """The runs one by one."""
        for index in range(self.loops.count):
            yield History(self.outcomes[index], self.accepted[index].tolist(), self.best[index].tolist())


def simulate(loops: Loops) -> Result:
    """Play the runs side by side."""
    random = np.random.RandomState(loops.seed)
    tails = tail_table(loops.items)
    shape = (loops.count, loops.items)
    difficulty = random.beta(1.0, 2.0, size=shape)  # a mean of one third right, from never to always
    outcomes = np.zeros((loops.count, loops.rounds + 1, loops.items), dtype=bool)
    outcomes[:, 0] = random.random_sample(shape) < difficulty
    level = np.zeros((loops.count, loops.rounds + 1))  # true effect of each policy against the base
    rows = np.arange(loops.count)
    accepted_at, best_at = np.zeros(loops.count, int), np.zeros(loops.count, int)
    accepted = np.zeros((loops.count, loops.rounds), dtype=bool)
    best, false = accepted.copy(), accepted.copy()
    for number in range(1, loops.rounds + 1):
        parent = outcomes[rows, accepted_at]
        level[:, number] = level[rows, accepted_at] + loops.effect
        outcomes[:, number] = _train(random, parent, difficulty, level[rows, accepted_at], level[:, number])
        candidate = outcomes[:, number]
        same = accepted_at == best_at
        alpha = np.where(same, HARM_ALPHA, HARM_ALPHA / 2)
        wins, losses = _counts(candidate, parent)
        best_wins, best_losses = _counts(candidate, outcomes[rows, best_at])
        harmed = (tails[losses, wins] <= alpha) | (tails[best_losses, best_wins] <= alpha)
        claimed = ~harmed & (tails[best_wins, best_losses] <= spent_level(BEST_ALPHA, number))
        accepted[:, number - 1], best[:, number - 1] = ~harmed, claimed
        false[:, number - 1] = claimed & (level[:, number] <= level[rows, best_at] + 1e-12)
        accepted_at = np.where(harmed, accepted_at, number)
        best_at = np.where(claimed, number, best_at)
    # A chance cannot leave [0, 1], so a run gains or loses less than the sum of its effects.
    after = np.clip(difficulty + level[rows, accepted_at][:, None], 0, 1)
    return Result(loops, outcomes, accepted, best, false, (after - difficulty).mean(axis=1))


def _train(
    random: np.random.RandomState, parent: np.ndarray, difficulty: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """Outcomes of a policy whose chance on every item is difficulty + after, given its parent's outcomes.

    The share that is not drawn anew keeps the parent's outcome, moved by the difference of the two chances.
    """
    chance_before = np.clip(difficulty + before[:, None], 0, 1)
    chance_after = np.clip(difficulty + after[:, None], 0, 1)
    fresh = random.random_sample(parent.shape) < chance_after
    up = np.where(chance_before < 1, (chance_after - chance_before) / np.maximum(1 - chance_before, 1e-9), 0)
    down = np.where(chance_before > 0, (chance_before - chance_after) / np.maximum(chance_before, 1e-9), 0)
    draw = random.random_sample(parent.shape)
    kept = np.where(parent, draw >= down, draw < up)
    return np.where(random.random_sample(parent.shape) < REDRAWN, fresh, kept)


def _counts(after: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (after & ~before).sum(axis=1), (before & ~after).sum(axis=1)


def tail_table(items: int) -> np.ndarray:
    """(items + 1, items + 1): the one-sided p-value of so many wins and losses, as the product computes it."""
    table = np.ones((items + 1, items + 1))
    for wins in range(items + 1):
        for losses in range(items + 1 - wins):
            table[wins, losses] = binomial_tail(wins + losses, wins)
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--items", type=int, nargs="+", default=[100, 200])
    options = parser.parse_args()
    print(f"{options.loops} runs of {options.rounds} rounds, harm level {HARM_ALPHA}, best level {BEST_ALPHA}")
    print("| gate items | true effect of a round | runs with a false best | with a true best | rounds accepted |"
          " last accepted round against the base |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    start = time.monotonic()
    for items in options.items:
        for effect in (0.0, -0.02, 0.02, 0.05):
            result = simulate(Loops(options.loops, options.rounds, items, effect))
            print(
                f"| {items} | {100 * effect:+.0f} points | {result.false_best:.2%} | {result.found_best:.1%} | "
                f"{result.accepted.mean():.1%} | {100 * result.gain.mean():+.1f} points |"
            )
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
