"""Which round a run goes on from, and which it calls best: two states, decided on items that are reported nowhere.

Place in the flow: after each round `mae run` compares the new adapter on the gate set with the last accepted and the
best one. *Accepted*: no harm is shown, the next round starts from it. *Best*: shown better than the best so far, the
error rate spent over rounds. Contract: pure functions; a decision is a function of the gate rows, the round number and
two levels, so a resumed run decides the same. The gate set and the reported set share no problem, in whatever words;
p-values are printed for the reported set only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mae_cli.accuracy import readings_in
from mae_cli.benchmarks import Benchmark, keep_items, load_benchmarks
from mae_cli.comparison import Pair, Side, common_differences, known_pairs, paired_items
from mae_cli.config import EvalSection
from mae_cli.errors import ConfigError
from mae_cli.eval_report import main_reading
from mae_cli.filters.decontaminate import question_key
from mae_cli.records import digest
from mae_cli.significance import sign_flip_test, spent_level

SPLIT = "split"
NOT_TRAINED = "not trained"
"""The reason of a round that kept no row."""


class Outcome(msgspec.Struct, frozen=True):
    """A candidate against one earlier policy on the gate set."""

    against: str
    items: int
    """Pairs whose every verdict is known."""
    wins: int
    losses: int
    unknown: int = 0
    """Pairs left out because a checker failed; a round about which nothing is known shows no harm either."""


class Promotion(msgspec.Struct):
    """What was decided about one round."""

    round: str
    accepted: bool
    best: bool
    reason: str
    outcomes: list[Outcome] = []
    best_level: float | None = None
    """What this round could spend of the error rate; null without a gate."""


class Sets(msgspec.Struct):
    """The items that are reported and those that decide; no problem is in both."""

    reported: list[Benchmark]
    gate: list[Benchmark]
    removed: int = 0
    """Items of the gate that are reported too, and therefore left out of it."""


def read_sets(section: EvalSection) -> Sets:
    """The benchmarks of a run, apart; the gate is empty where `eval.gate` is none or there is nothing to split.

    Raises:
        ConfigError: the gate's file has no item that is not reported.
    """
    if section.via != "mae":
        raise ConfigError(f"eval.via: {section.via} is for mae eval; a run asks its benchmarks itself")
    everything = load_benchmarks(section.benchmarks, section)
    if section.gate is None or not everything:
        return Sets(everything, [])
    if section.gate == SPLIT:
        halves = [split(benchmark, section.gate_share) for benchmark in everything]
        everything, gates = [reported for reported, _ in halves], [gate for _, gate in halves]
        # Each benchmark has a border of its own, so a question that two of them hold may be on both sides.
        removed = _leave_out(gates, everything)
        return Sets(everything, [gate for gate in gates if gate.problems], removed)
    # The section's limit is for what is reported; a gate's own is written at the gate.
    gates = load_benchmarks([section.gate], msgspec.structs.replace(section, limit=0))
    removed = _leave_out(gates, everything)
    if not any(gate.problems for gate in gates):
        raise ConfigError(f"eval.gate: {gates[0].source}: every item is among eval.benchmarks; give other items")
    return Sets(everything, gates, removed)


def _leave_out(gates: Sequence[Benchmark], reported: Sequence[Benchmark]) -> int:
    """Take what is reported out of the gates; how many items that were."""
    keys = {question_key(problem.question) for benchmark in reported for problem in benchmark.problems}
    removed = 0
    for gate in gates:
        kept = [problem for problem in gate.problems if question_key(problem.question) not in keys]
        removed += len(gate.problems) - len(kept)
        gate.problems = kept
    return removed


def keep_sets(sets: Sets, folder: Path) -> Sets:
    """The sets with their items in files below the folder; see `keep_items`."""
    kept = [
        [keep_items(benchmark, folder / part / f"{benchmark.name}.jsonl") for benchmark in benchmarks]
        for part, benchmarks in (("reported", sets.reported), ("gate", sets.gate))
    ]
    return msgspec.structs.replace(sets, reported=kept[0], gate=kept[1])


def split(benchmark: Benchmark, gate_share: float) -> tuple[Benchmark, Benchmark]:
    """(reported, gate) part of a benchmark: the problems in the order of a hash, the first of them for the gate.

    A function of the problems alone; the same problem in other words falls into the same part.
    """
    keys = {problem.id: question_key(problem.question) for problem in benchmark.problems}
    ordered = sorted(set(keys.values()), key=lambda key: digest("gate", key))
    chosen = set(ordered[: int(len(ordered) * gate_share)])
    reported = [problem for problem in benchmark.problems if keys[problem.id] not in chosen]
    gate = [problem for problem in benchmark.problems if keys[problem.id] in chosen]
    return (
        msgspec.structs.replace(benchmark, problems=reported),
        msgspec.structs.replace(benchmark, problems=gate),
    )


def decide(
    candidate: Side, accepted: Side, best: Side, *, round_number: int, harm_alpha: float, best_alpha: float
) -> Promotion:
    """What becomes of a trained round.

    Harm is tested against the last accepted and, where that is another one, against the best: compared with its
    parent alone a run could sink by a little every round and never show it. The two tests share `harm_alpha`. Where the
    checker failed on every item nothing was tested, and nothing is accepted.

    Args:
        candidate: the round's label and gate rows.
        accepted: those of the round it was trained from.
        best: those of the best round so far, the base at first.
        round_number: >= 1; which part of `best_alpha` may be spent.
        harm_alpha: level of one round's test for harm.
        best_alpha: level of the claim "better than the best so far", for all rounds of a run together.

    Source: one-sided exact paired tests; spending as in `significance.spent_level`. Deciding on items of their own
    keeps the reported ones honest under repeated looks, cf. A. Blum and M. Hardt, arXiv:1502.04585.
    """
    earlier = [accepted] if accepted[0] == best[0] else [accepted, best]
    reading = main_reading(readings_in(candidate[1]))
    everything = [paired_items(side[1], candidate[1], reading) for side in earlier]
    pairs = [known_pairs(found) for found in everything]
    outcomes = [
        _outcome(side[0], known, len(found) - len(known))
        for side, known, found in zip(earlier, pairs, everything, strict=True)
    ]
    level = spent_level(best_alpha, round_number)
    promotion = Promotion(candidate[0], True, False, "", outcomes, level)
    for outcome, found in zip(outcomes, pairs, strict=True):
        if not found and outcome.unknown:
            promotion.accepted = False
            promotion.reason = f"the checker failed on every item, so nothing is known against {outcome.against}"
            return promotion
        if shows_harm(common_differences(found), harm_alpha / len(earlier)):
            promotion.accepted = False
            promotion.reason = f"worse than {outcome.against}"
            return promotion
    promotion.best = shows_gain(common_differences(pairs[-1]), level)
    shown = "better" if promotion.best else "not shown better"
    promotion.reason = f"no harm shown, {shown} than {outcomes[-1].against}"
    return promotion


def shows_harm(differences: Sequence[int], alpha: float) -> bool:
    """Whether the candidate is worse: one-sided exact paired test at level alpha."""
    return sign_flip_test([-difference for difference in differences], "greater") <= alpha


def shows_gain(differences: Sequence[int], alpha: float) -> bool:
    """Whether the candidate is better: one-sided exact paired test at level alpha."""
    return sign_flip_test(differences, "greater") <= alpha


def _outcome(against: str, pairs: Sequence[Pair], unknown: int) -> Outcome:
    return Outcome(
        against,
        len(pairs),
        sum(pair.difference > 0 for pair in pairs),
        sum(pair.difference < 0 for pair in pairs),
        unknown,
    )


def promotion_line(promotion: Promotion) -> str:
    """One round's decision for people, in counts."""
    state = "accepted" if promotion.accepted else "not accepted"
    counts = "; ".join(
        f"against {outcome.against} won {outcome.wins}, lost {outcome.losses} of {outcome.items}"
        + (f", {outcome.unknown} unknown" if outcome.unknown else "")
        for outcome in promotion.outcomes
    )
    return (
        f"gate: {promotion.round} {state}{', best' if promotion.best else ''}: {promotion.reason}"
        f"{f' ({counts})' if counts else ''}"
    )
