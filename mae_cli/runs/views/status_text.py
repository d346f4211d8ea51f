"""Status of a run in words: one screen for one run, one table line each for many. Plain text, no control characters."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mae_cli.records.lock_owner import duration
from mae_cli.reports.tables import percent, table
from mae_cli.runs.budgets import size_text
from mae_cli.runs.views.run_files import StepFile
from mae_cli.runs.views.scores import ScoreOfRound
from mae_cli.runs.views.status import BudgetUse, RunStatus, silence

SHOWN_ROUNDS = 3
"""Rounds whose steps are listed: the newest."""


def status_text(status: RunStatus) -> str:
    """One run on one screen."""
    lines = [f"{status.run_dir}: {_life(status)}", f"rounds      {_rounds(status)}"]
    lines += _step_lines(status.steps)
    if status.pace is not None:
        lines.append(f"progress    {_pace(status)}")
    if status.rounds_done < status.rounds_wanted:
        left = status.seconds_left
        told = f"about {duration(left)}" if left is not None else "not known before a round is finished"
        lines.append(f"time left   {told}")
    lines += [
        f"accepted    {_score(status.accepted)}",
        f"best        {_score(status.best)}",
        f"used        {_used(status)}",
    ]
    quiet = silence(status)
    if status.life != "finished" and quiet is not None:
        lines.append(f"last sign   {duration(quiet)} ago")
    if status.ending is not None:
        why = f": {status.reason}" if status.reason else ""
        lines.append(f"last end    {status.ending} (exit {status.exit_code}){why}")
    lines.append(f"next start  {status.next_start}")
    return "\n".join(lines)


def watch_line(status: RunStatus) -> str:
    """One run in one line, with the time, for a log."""
    parts = [time.strftime("%Y-%m-%d %H:%M:%S"), status.life, _rounds(status)]
    if status.pace is not None:
        parts.append(_pace(status))
    if status.seconds_left:
        parts.append(f"run: about {duration(status.seconds_left)} left")
    return ", ".join(parts)


def status_table(found: Sequence[RunStatus]) -> str:
    """Many runs, a line each."""
    rows = []
    for status in found:
        pace, best = status.pace, status.best or status.accepted
        rows.append(
            [
                status.run_dir,
                status.life,
                f"{status.rounds_done}/{status.rounds_wanted}",
                f"{pace.round} {pace.step} {_share(pace.done, pace.total)}" if pace else "-",
                duration(status.seconds_left) if status.seconds_left else "-",
                f"{best.round} {percent(best.share)}" if best and best.share is not None else "-",
                f"{status.tokens:,}" if status.tokens is not None else "-",
                size_text(status.disk),
                f"{status.ending} ({status.exit_code})" if status.ending else "-",
            ]
        )
    return table(["run", "is", "rounds", "step", "left", "best", "tokens", "disk", "last end"], rows)


def _life(status: RunStatus) -> str:
    owner = status.owner
    if owner is None:
        return status.life
    if status.life == "running elsewhere":
        return f"locked by {owner.told()}; whether it runs cannot be seen from this machine"
    if status.life == "running":
        return f"running: {owner.told()}"
    return f"killed: was {owner.told()}"


def _rounds(status: RunStatus) -> str:
    return f"{status.rounds_done} of {status.rounds_wanted} rounds done"


def _step_lines(steps: Sequence[StepFile]) -> list[str]:
    """The newest rounds with their steps: what is finished has its rows, what waits a dash."""
    rounds: dict[str, list[str]] = {}
    for step in steps:
        rows = f" {step.rows:,}" if step.rows is not None else ""
        told = {"done": f"{step.step}{rows}", "begun": f"[{step.step}{rows}]", "waiting": f"{step.step} -"}[step.state]
        rounds.setdefault(step.round, []).append(told)
    return [f"{label}   {', '.join(told)}" for label, told in list(rounds.items())[-SHOWN_ROUNDS:]]


def _pace(status: RunStatus) -> str:
    pace = status.pace
    assert pace is not None
    told = [f"{pace.round} {pace.step}: {_share(pace.done, pace.total)} {pace.unit}"]
    if pace.units_per_second is not None:
        told.append(f"{pace.units_per_second:.3g} {pace.unit}/s")
    if pace.tokens_per_second is not None:
        told.append(f"{pace.tokens_per_second:,.0f} tokens/s")
    if pace.seconds_left is not None:
        told.append(f"step: about {duration(pace.seconds_left)} left")
    return ", ".join(told)


def _share(done: int, total: int) -> str:
    return f"{done:,} of {total:,} ({100 * done // total} %)" if total else f"{done:,}"


def _score(score: ScoreOfRound | None) -> str:
    if score is None:
        return "none"
    if score.share is None:
        return f"{score.round}, not evaluated"
    interval = (
        f" ({percent(score.low)} to {percent(score.high)})" if score.low is not None and score.high is not None else ""
    )
    base = f", base {percent(score.base)}" if score.base is not None else ""
    return f"{score.round}: {percent(score.share)}{interval} of {score.items} items, {score.reading}{base}"


def _used(status: RunStatus) -> str:
    told = []
    if status.tokens is not None and status.seconds is not None and status.starts is not None:
        starts = f"{status.starts} start{'' if status.starts == 1 else 's'}"
        told.append(f"{status.tokens:,} tokens and {duration(status.seconds)} of work in {starts}")
    told.append(f"{size_text(status.disk)} of disk")
    told += [f"{budget.name} {_budget(budget)}" for budget in status.budgets]
    return "; ".join(told)


def _budget(budget: BudgetUse) -> str:
    if budget.name == "max_disk":
        return f"{size_text(budget.used)} of {size_text(budget.limit)}"
    return f"{budget.used:,g} of {budget.limit:,g}"
