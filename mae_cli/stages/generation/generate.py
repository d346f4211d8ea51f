"""Generation of planned rows: what the stages that ask a model share.

A generating stage plans every row first (ids and seeds included), then `generate` works on the segments that are not
finished yet, stores each as it comes, and hands back all rows in planned order. Read this file, then `solve.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import ConfigError, DataError
from mae_cli.plugins import contracts
from mae_cli.records import Role, Row, complete_row, request_of
from mae_cli.records.file_names import STDIO, beside
from mae_cli.records.resumable_file import Output
from mae_cli.records.shards import part_of
from mae_cli.stages.generation.finished import as_planned, failed_among, finished_rows
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.schema_check import check_engine, check_schemas, checked
from mae_cli.stages.generation.segments import Answer, answered_segments
from mae_cli.stages.generation.summary import StageSummary, WorkerReport
from mae_cli.stages.generation.workers import Crew


class Generated(msgspec.Struct):
    """The planned rows, finished, and what it took."""

    rows: list[Row]
    passed: list[Row] = []
    """The input rows that pass through, or the shard's part of them."""
    tokens: int = 0
    made: int = 0
    skipped: int = 0
    retried: int | None = None
    """Failed rows that were asked again; null where that was not wanted."""
    still_failing: int = 0
    seconds: float = 0.0
    workers: list[WorkerReport] = []

    def summary(self, stage: str, path: Path, *, read: int, written: int) -> StageSummary:
        """The stage's summary."""
        return StageSummary(
            stage=stage,
            path="stdout" if path == STDIO else str(path),
            read=read,
            written=written,
            skipped=self.skipped,
            failed=sum(row.status in ("error", "too_long") for row in self.rows),
            tokens=self.tokens,
            seconds=round(self.seconds, 3),
            tokens_per_second=round(self.tokens / self.seconds, 1) if self.seconds else 0.0,
            workers=self.workers,
            retried=self.retried,
            mended=None if self.retried is None else self.retried - self.still_failing,
            still_failing=None if self.retried is None else self.still_failing,
        )


def generate(
    job: Job,
    output: Output,
    planned: Sequence[Row],
    *,
    passed: Sequence[Row] = (),
    finish: Callable[[Row], Row],
    role: Role | None = None,
    limited: Sequence[Row] | None = None,
    prepare: Callable[[Row], contracts.Engine] | None = None,
    answer: Answer | None = None,
    command: Sequence[object] = (),
) -> Generated:
    """Every planned row, finished; rows of an earlier or interrupted run are not generated again.

    Args:
        job: gives the engine and the micro-batch.
        output: entered; rows are appended to it segment by segment, in the order they are finished.
        planned: all rows of this command, whatever `--limit` says, each id once.
        passed: input rows that pass through; they may stand in the earlier output too.
        finish: parses a completed row (question, answer, score, status).
        role: whose engine generates; the trained policy's by default.
        limited: the planned rows to work on now; all by default.
        prepare: called with the first row of each run of segments with one policy, before they are generated; gives the
            engine that answers them.
        answer: answers the rows that it knows how to; the engine generates the others.
        command: the stage and its own arguments, as a worker process is given them.

    Raises:
        ConfigError: rows of the earlier output are not planned any more (input rows were removed or changed).
        DataError: the input holds rows of this very stage already.
    """
    start = time.monotonic()
    _check_plan(output, planned, passed)
    part = part_of(job.shard, passed, planned)
    wanted = planned if limited is None else limited
    work = _Work(job, output, planned, [row for row in wanted if row.id in part.ids], part.ids)
    done, todo = work.finished.done, work.todo
    result = Generated(rows=[], passed=part.passed, skipped=len(done))
    if todo and job.engines.crew is not None:
        result.workers = _employ(job, job.engines.crew, output, command, passed, planned, todo)
        made = [output.elsewhere[row.id] for row in todo]
        done.update((row.id, row) for row in made)
        result.made, result.tokens, todo = len(made), _tokens(made), []
    if todo:
        check_schemas(todo, job.recipe.engine)
    engine = job.engines.of(role) if todo else None
    if engine is not None:
        check_engine(engine, job.recipe.engine, todo, job.progress)
    segments = work.segments(engine) if engine is not None else []
    beyond = work.beyond(part.ids)
    if todo or not output.was_complete:
        output.begin([*work.finished.retried, *beyond, *work.recovered])
    known = {row.id: row for row in planned}
    done.update((name, as_planned(output.partial[name], known[name])) for name in (*beyond, *work.recovered))
    result.skipped += len(beyond) + len(work.recovered)
    with job.progress.task(output.stage, len(todo)) as task:
        task.advance(len(work.recovered))
        for segment, completions in answered_segments(engine, segments, prepare, answer):
            answered = (complete_row(row, told) for row, told in zip(segment, completions, strict=True))
            rows = [checked(finish(row)) for row in answered]
            output.append(rows)
            done.update((row.id, row) for row in rows)
            tokens = _tokens(rows)
            result.tokens += tokens
            result.made += len(rows)
            task.advance(len(rows), tokens)
    if job.retry_failed:
        result.retried = len(work.again)
        result.still_failing = len(failed_among(done, [name for name in work.again if name in done]))
    # Rows an earlier run made beyond this one's --limit stay: nothing made is lost.
    result.rows = [done[row.id] for row in planned if row.id in done]
    if job.shard is not None:
        output.place = part.place(result.rows, total=len(passed) + len(wanted), limit=job.limit)
    result.seconds = time.monotonic() - start
    return result


class _Work:
    """What is left to do of a command, in segments.

    Attributes:
        finished: rows of earlier tries that stand as they are.
        todo: rows to be made now, those of an interrupted first try among them.
        recovered: ids of these that an interrupted first try has made already.
        again: ids of failed rows that are asked once more.
    """

    def __init__(
        self, job: Job, output: Output, planned: Sequence[Row], wanted: Sequence[Row], ids: Container[str]
    ) -> None:
        self._job, self._output, self._wanted = job, output, wanted
        self.finished = finished_rows(output, planned, ids, retry=job.retry_failed)
        asked_for = {row.id for row in wanted}
        for name in [name for name in self.finished.failed if name not in asked_for]:
            # Beyond --limit a failed row stays what it is.
            self.finished.failed.discard(name)
            self.finished.done[name] = output.known.get(name) or output.elsewhere[name]
        self.todo = [row for row in wanted if row.id not in self.finished.done]
        self.recovered: list[str] = []
        self.again = [row.id for row in self.todo if row.id in self.finished.failed]

    def segments(self, engine: contracts.Engine) -> list[list[Row]]:
        """Return the segments to ask for; those that an interrupted try finished whole are recovered instead."""
        failed, partial = self.finished.failed, self._output.partial
        fresh = _segments(self._job, engine, [row for row in self.todo if row.id not in failed])
        whole = [all(row.id in partial for row in segment) for segment in fresh]
        self.recovered = [row.id for segment, is_whole in zip(fresh, whole, strict=True) if is_whole for row in segment]
        if self._job.retry_failed:
            self.again += failed_among(partial, self.recovered)
            self.recovered = [name for name in self.recovered if name not in set(self.again)]
        again = set(self.again)
        left = [segment for segment, is_whole in zip(fresh, whole, strict=True) if not is_whole]
        return [*left, *_segments(self._job, engine, [row for row in self.todo if row.id in again])]

    def beyond(self, ids: Container[str]) -> list[str]:
        """What an interrupted run made beyond this one's --limit; without it the next one would make it again."""
        asked_for, done = {row.id for row in self._wanted}, self.finished.done
        return [name for name in self._output.partial if name in ids and name not in asked_for and name not in done]


def _tokens(rows: Sequence[Row]) -> int:
    return sum(row.usage.completion_tokens for row in rows if row.usage)


def _employ(
    job: Job,
    crew: Crew,
    output: Output,
    command: Sequence[object],
    passed: Sequence[Row],
    planned: Sequence[Row],
    todo: Sequence[Row],
) -> list[WorkerReport]:
    """Have the workers make the rows, and find them in `output.elsewhere`."""
    options: list[object] = ["--round", job.round_number, *(["--step", job.step] if job.step is not None else [])]
    if job.limit is not None:
        options += ["--limit", job.limit]
    if job.allow_incomplete:
        options += ["--allow-incomplete"]
    if job.retry_failed:
        options += ["--retry-failed"]
    recipe = msgspec.structs.replace(job.recipe, adapter=str(job.engines.adapter) if job.engines.adapter else None)
    reports = crew.work(
        output.path,
        command,
        recipe,
        shard=job.shard,
        passed=passed,
        planned=planned,
        todo=todo,
        options=options,
        progress=job.progress,
    )
    output.look_elsewhere()
    return reports


def _segments(job: Job, engine: contracts.Engine, rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.policy, row.sampling), []).append(row)
    segments = []
    for group in groups.values():
        plan = engine.plan([request_of(row) for row in group], job.batch_size)
        segments += [[group[index] for index in indices] for indices in plan]
    return segments


def _check_plan(output: Output, planned: Sequence[Row], passed: Sequence[Row]) -> None:
    known = {row.id: row for row in planned}
    if len(known) != len(planned):
        raise DataError("two planned rows have one id; are two input rows equal?")
    given = {row.id for row in passed}
    again = known.keys() & given
    if again:
        raise DataError(
            f"{len(again)} input rows are what {output.stage} would make from the others; "
            f"give it the file of the stage before"
        )
    lost = [
        row.id
        for row in (*output.known.values(), *output.partial.values(), *output.elsewhere.values())
        if row.id not in given and not _is_planned(row, known)
    ]
    if lost:
        raise ConfigError(
            f"{output.path}: {len(lost)} of its rows (first {lost[0]}) come from input rows that were removed or "
            f"changed; use --overwrite (moves it aside) or another -o"
        )


def _is_planned(made: Row, planned: Mapping[str, Row]) -> bool:
    """Whether a row of an earlier run is one of the planned, about the same problem with the same reference answer."""
    plan = planned.get(made.id)
    return plan is not None and (plan.problem is None or plan.problem == made.problem)


def limit_rows(job: Job, rows: list[Any]) -> list[Any]:
    """The first `--limit` input rows, or all."""
    return rows if job.limit is None else rows[: job.limit]


def dropped_path_for(path: Path) -> Path:
    """Return the file for the dropped rows of an output, unless the user names another."""
    return beside(path, ".dropped.jsonl")
