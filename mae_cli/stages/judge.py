"""`mae judge`: verdicts on problems and answers, then rewards.

Programs check answers; model judges grade proposed problems and answers, or compare the answers of a group (purpose
`grade`, never trained), and pairs drawn as training rows of the judge role (purpose `train`). Verdicts land on the rows
they are about. A verdict that cannot be read is unknown: null, left out of every mean, counted. Rewards are computed
last, for train rows (`rewarding.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mae_cli.data import pools
from mae_cli.errors import ConfigError
from mae_cli.records import draw
from mae_cli.records.worker_files import is_worker_file
from mae_cli.stages.generation.generate import generate, limit_rows
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary
from mae_cli.stages.judging.details import _details, _say_unknown, gate_unparsed, reading_details
from mae_cli.stages.judging.panel import Panel
from mae_cli.stages.judging.questions import _plan
from mae_cli.stages.judging.rewarding import Rewarder
from mae_cli.stages.judging.votes import add_verdicts


def run_judge(job: Job, inputs: Sequence[Path], output_path: Path, *, pool_path: Path | None = None) -> StageSummary:
    """Grade the inputs' rollouts and proposals; see `JudgeSection` for the options.

    Raises:
        GateError: more judgements are unparsed than `max_unparsed` allows; the file is written all the same.
    """
    section = job.recipe.judge
    # A worker's rewards are thrown away: its parent computes them over all rows.
    if job.shard is not None and section.shuffle_rewards and not is_worker_file(output_path):
        raise ConfigError("judge.shuffle_rewards shuffles among all rows, and a shard has only its own; no --shard")
    data = job.read(*inputs)
    if data.problems:
        raise ConfigError(f"{inputs[0]}: plain problems cannot be judged; expected records of propose or solve")
    panel, rewarder = Panel(job), Rewarder(job)
    rewarder.check(data.rows)
    pairs = pools.read_pairs(pool_path) if pool_path else []
    drawn = draw(pairs, section.num_pairs, job.recipe.seed, "judge", job.round_number, *job.draw_key)
    planned = _plan(job, panel, data.rows, drawn) if panel.judges else []
    limited = None
    if job.limit is not None:
        within = {row.id for row in limit_rows(job, data.rows)} | {pair.from_row for pair in drawn}
        limited = [row for row in planned if within.issuperset(row.parents)]
    options = _fingerprint(job, panel, rewarder)
    with job.output("judge", output_path, options, *inputs) as output:
        for notice in output.notices:
            job.progress.say(notice)
        made = generate(
            job,
            output,
            planned,
            passed=data.rows,
            finish=panel.finish,
            role=section.role,
            limited=limited,
            answer=panel,
            command=["judge", *inputs, *(["--pool", pool_path] if pool_path else [])],
        )
        disagreeing = add_verdicts(made.passed, made.rows, panel, job)
        rows = [*made.passed, *made.rows]
        rewarder.reward(rows, panel, drawn)
        if not output.is_current(rows):
            output.finish(rows)
        summary = made.summary("judge", output_path, read=len(data.rows), written=len(rows))
        graded = [panel.reading(row) for row in made.rows if row.purpose == "grade"]
        summary.details = {**_details(rows, disagreeing), **reading_details(graded)}
        _say_unknown(job, rows)
    if job.shard is None:
        gate_unparsed(job, summary)
    return summary


def _fingerprint(job: Job, panel: Panel, rewarder: Rewarder) -> dict[str, Any]:
    section = job.recipe.judge
    own = {
        **rewarder.fingerprint(),
        "judges": panel.fingerprint(),
        "aggregate": section.aggregate,
        "votes": section.votes,
        "answer_votes": section.answer_votes,
        "difficulty_votes": section.difficulty_votes,
        "num_opponents": section.num_opponents,
        "fallback_only": section.fallback_only,
        "num_pairs": section.num_pairs,
        "num_own_pairs": section.num_own_pairs,
        "shuffle_rewards": section.shuffle_rewards,
        "judge": {"role": section.role},
    }
    if not panel.judges:
        return own
    return {**job.engines.fingerprint(panel.policy, section.role), "sampling": section.sampling(), **own}
