"""The votes of all judges on one thing, made into the verdicts that its row carries.

Place in the flow: `judge` calls it when all replies are read. Contract: pure given the replies; an unknown vote never
counts, and without a known vote the verdict is unknown. Left out: rewards (`rewarding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mae_cli.records import Row, Verdict, mean_of_known, why_unknown
from mae_cli.stages.generation.job import Job
from mae_cli.stages.judging.panel import Panel
from mae_cli.stages.judging.questions import _are_equal, pairs_of

Aggregate = Literal["mean", "majority", "min"]


def aggregated(votes: Sequence[Verdict], how: Aggregate, target: Literal["problem", "answer"]) -> list[Verdict]:
    """The votes of all judges on one thing as the verdicts its row carries; unknown votes never count.

    mean: the votes themselves, which every reader averages over the known ones. majority: 1 where more known votes
    lie above 0.5 than below, 0 where fewer do, unsure where as many; a vote of 0.5 abstains. min: the lowest known
    vote. majority and min give one verdict named `judges/HOW`; the votes stand in the judges' own rows. Without a
    known vote it is unknown, with the commonest reason.
    """
    if how == "mean" or not votes:
        return list(votes)
    known = [vote.score for vote in votes if vote.score is not None]
    verdict = Verdict(f"judges/{how}", "judge", target, aggregate=how)
    told = f"{how} of {len(known)} known of {len(votes)} votes"
    if not known:
        verdict.status, verdict.reason = why_unknown((vote.status, vote.reason) for vote in votes)
        return [verdict]
    if how == "min":
        verdict.score, verdict.reason = min(known), told
        return [verdict]
    above, below = sum(score > 0.5 for score in known), sum(score < 0.5 for score in known)
    if above == below:
        verdict.status, verdict.reason = "unsure", f"{told}: {above} for, {below} against"
        return [verdict]
    verdict.score, verdict.reason = float(above > below), f"{told}: {above} for, {below} against"
    return [verdict]


def combined_score(votes: Sequence[Verdict], how: Aggregate, target: Literal["problem", "answer"]) -> float | None:
    """The one score that the votes amount to, in [0, 1], or null."""
    return mean_of_known(verdict.score for verdict in aggregated(votes, how, target))


def add_verdicts(passed: Sequence[Row], made: Sequence[Row], panel: Panel, job: Job) -> int:
    """Put the judges' verdicts on the rows they are about; pure given the replies.

    Returns: number of compared pairs whose verdict depends on which answer was shown first.
    """
    by_id = {row.id: row for row in passed}
    proposals: dict[str, list[Row]] = {}
    for row in passed:
        if row.is_proposal and row.problem is not None:
            proposals.setdefault(row.problem.id, []).append(row)
        row.verdicts = [v for v in row.verdicts if v.kind != "judge" or not _is_replaced(v, panel)]
    votes: dict[str, list[Verdict]] = {}
    comparisons: dict[tuple[int | None, frozenset[str]], list[Row]] = {}
    for row in made:
        target = by_id.get(row.parents[0])
        if row.purpose != "grade" or target is None:
            continue
        if row.asked is not None and row.asked.about == "pair":
            comparisons.setdefault((panel.judge_of(row), frozenset(row.parents)), []).append(row)
        else:
            votes.setdefault(target.id, []).append(panel.verdict(row, _about(target)))
    for target_id, cast_votes in votes.items():
        target = by_id[target_id]
        verdicts = aggregated(cast_votes, job.recipe.judge.aggregate, _about(target))
        is_proposal = target.is_proposal and target.problem is not None
        for row in proposals[target.problem.id] if is_proposal and target.problem else [target]:
            row.verdicts = [*row.verdicts, *verdicts]
    if not panel.of("pair") or not job.recipe.judge.answer_votes:
        return 0
    disagreeing = 0
    for first, second in pairs_of(job, passed):
        for index in panel.of("pair"):
            rows = comparisons.get((index, frozenset((first.id, second.id))))
            for mine, other in ((first, second), (second, first)):
                if rows:
                    found = panel.comparison(index, rows, mine.id, other.id)
                    disagreeing += found.orders_disagree and mine is first
                    verdict = panel.pair_verdict(index, found, other.id)
                elif _are_equal(panel, index, first, second):
                    reason = f"against {other.id}: the same text"
                    verdict = Verdict(panel.names[index], "judge", "pair", 0.5, "ok", reason, opponent_id=other.id)
                else:
                    continue  # beyond --limit
                mine.verdicts = [*mine.verdicts, verdict]
    return disagreeing


def _is_replaced(verdict: Verdict, panel: Panel) -> bool:
    """Judged again: new verdicts take the place of these judges' old ones and of any aggregate, old votes in one."""
    return verdict.name in panel.names or (bool(panel.judges) and verdict.aggregate is not None)


def _about(target: Row) -> Literal["problem", "answer"]:
    return "problem" if target.is_proposal else "answer"
