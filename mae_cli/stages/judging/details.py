"""The figures that `mae judge` prints and stores: rewards by role, verdicts by status, unreadable judgements.

Place in the flow: the last step of the command, over the finished rows. It also holds the gate of
`judge.max_unparsed`. Contract: reads rows, changes none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mae_cli.errors import GateError
from mae_cli.plugins import contracts
from mae_cli.records import Row, Verdict, roles_in
from mae_cli.reports.statistics.spread import mean_and_spread
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary


def _details(rows: Sequence[Row], orders_disagree: int) -> dict[str, Any]:
    details: dict[str, Any] = {}
    for role in roles_in(rows):
        group = [row for row in rows if row.role == role and row.purpose == "train"]
        known = [row.reward for row in group if row.reward is not None]
        if group:
            mean, spread = mean_and_spread(known) if known else (None, None)
            details[role] = {
                "rows": len(group),
                "unknown": len(group) - len(known),
                "reward_mean": mean if mean is None else round(mean, 4),
                "reward_spread": spread if spread is None else round(spread, 4),
            }
    verdicts = [v for row in rows for v in row.verdicts if not row.is_judgement]
    for status in ("unparsed", "timeout", "unsupported", "unsure", "error"):
        count = sum(v.status == status for v in verdicts)
        if count:
            details[f"verdicts_{status}"] = count
    pairs = [v for v in verdicts if v.target == "pair"]
    if pairs:
        # Every pair stands on both of its rows.
        known_pairs = sum(v.score is not None for v in pairs)
        details["pairs"] = {"compared": len(pairs) // 2, "known": known_pairs // 2, "orders_disagree": orders_disagree}
    return details


def reading_details(readings: Sequence[contracts.Reading]) -> dict[str, Any]:
    """Return the number of judgements, and the share that says nothing that can be read."""
    if not readings:
        return {}
    silent = sum(reading.status in ("unparsed", "error") for reading in readings)
    return {"judgements": len(readings), "unparsed_share": round(silent / len(readings), 4)}


def _say_unknown(job: Job, rows: Sequence[Row]) -> None:
    """Name the commonest reason why rewards are unknown, role by role."""
    for role in roles_in(rows):
        group = [row for row in rows if row.role == role and row.purpose == "train"]
        unknown = [row for row in group if row.reward is None]
        if not unknown:
            continue
        reasons = Counter(_plain_reason(v) for row in unknown for v in row.verdicts if v.score is None)
        why = f", most often: {reasons.most_common(1)[0][0]}" if reasons else ", no verdict about them"
        job.progress.say(f"judge: the reward of {len(unknown)} of {len(group)} {role} rows is unknown{why}")


def _plain_reason(verdict: Verdict) -> str:
    reason = verdict.reason or verdict.status
    # Whom it was compared with, and with which votes, is each pair's own.
    return reason.partition(": ")[2].partition(":")[0] if verdict.target == "pair" else reason


def gate_unparsed(job: Job, summary: StageSummary) -> None:
    """Refuse a judge that mostly says nothing.

    Raises:
        GateError: the share of unreadable or failed judgements is above `judge.max_unparsed`.
    """
    share, limit = summary.details.get("unparsed_share", 0.0), job.recipe.judge.max_unparsed
    if share > limit:
        raise GateError(
            f"{summary.path}: {share:.0%} of the judgements are unparsed, the gate is {limit:.0%} "
            f"(judge.max_unparsed); the file is written, look at its rows with verdict status unparsed"
        )
