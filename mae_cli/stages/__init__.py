"""What the six stages share: one session per process, planned rows in, finished rows out.

A generating stage plans every row first (ids and seeds included), then `generate` works on the segments that are not
finished yet, stores each as it comes, and hands back all rows in planned order. Read this file, then `solve.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli import registry
from mae_cli.config import SECTIONS, Recipe
from mae_cli.errors import ConfigError, DataError
from mae_cli.models import adapter_digest, local_model
from mae_cli.progress import Progress
from mae_cli.prompting import load_prompt
from mae_cli.reading import STDIO, Input, beside, read_input
from mae_cli.records import Policy, Role, Row, complete_row, digest, request_of
from mae_cli.roles import LOADING_ENGINES, adapter_for, is_fixed, recipe_for
from mae_cli.shards import Shard, part_of
from mae_cli.stages.streaming import Answer, answered_segments
from mae_cli.stages.workers import Crew, WorkerReport
from mae_cli.store import Output

AUTO_BATCH_SIZE = 64
"""Micro-batch of `batch_size: auto`; more gains little on a CPU and fits every GPU for small models."""


class StageSummary(msgspec.Struct, kw_only=True):
    """What one command did; printed as its last line, and as its JSON."""

    stage: str
    path: str
    read: int = 0
    written: int = 0
    skipped: int = 0
    """Rows an earlier run of this command had finished already."""
    failed: int = 0
    """Rows with status error or too_long."""
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    workers: list[WorkerReport] = []
    """What each worker process of `--devices` did; empty where this process did the work."""
    notices: list[str] = []
    details: dict[str, Any] = {}

    def line(self) -> str:
        """The summary in one line."""
        speed = f", {self.tokens_per_second:,.0f} tokens/s" if self.tokens else ""
        skipped = f", skipped {self.skipped} (done before)" if self.skipped else ""
        failed = f", failed {self.failed}" if self.failed else ""
        return (
            f"{self.stage}: read {self.read}, written {self.written}{skipped}{failed}, "
            f"{self.seconds:.1f} s{speed} -> {self.path}"
        )


class Session:
    """What the stages of one process share: the recipe, the engines kept loaded, where progress goes.

    Attributes:
        adapter: what the trained policy has on now; the loop and `mae eval` change it between stages.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        progress: Progress | None = None,
        round_number: int = 1,
        limit: int | None = None,
        shard: Shard | None = None,
        crew: Crew | None = None,
        overwrite: bool = False,
        allow_incomplete: bool = False,
    ) -> None:
        self.recipe = recipe
        self.progress = progress or Progress()
        self.round_number = round_number
        self.limit = limit
        self.shard = shard
        self.crew = crew
        self.overwrite = overwrite
        self.allow_incomplete = allow_incomplete
        self.adapter = Path(recipe.adapter) if recipe.adapter else None
        self._engines: dict[str, registry.Engine] = {}

    @property
    def engine(self) -> registry.Engine:
        """The engine of the policy that is trained."""
        return self.engine_for(None)

    def engine_for(self, role: Role | None, *, weights: bool = False) -> registry.Engine:
        """The engine that plays a role (none: the trained policy), with its adapter on; opened at first use.

        Roles with the same model and settings share one loaded model; an adapter is swapped where it differs. Where
        workers generate, the engine only names its policy, unless its `weights` are wanted for training.
        """
        recipe, adapter = self.recipe, self.adapter
        if role is not None:
            recipe, adapter = recipe_for(recipe, role), adapter_for(recipe, role, adapter)
        name, _, argument = recipe.engine.partition(":")
        # A server or a script has no weights to spare, so such an engine is the same in parent and workers.
        names_only = self.crew is not None and name in LOADING_ENGINES and not weights
        key = digest(names_only, *(getattr(recipe, key) for key in _ENGINE_KEYS))
        if key in self._engines:
            _put_on(self._engines[key], adapter, recipe.engine)
            return self._engines[key]
        if name in LOADING_ENGINES:
            # A missing model must not show only after the seconds that loading torch takes.
            local_model(recipe.model, recipe.revision)
        recipe = msgspec.structs.replace(recipe, adapter=str(adapter) if adapter else None)
        engine: registry.Engine
        if names_only and self.crew is not None:
            from mae_cli.engines.hf_policy import PolicyEngine

            engine = PolicyEngine(recipe, self.crew.device_type)
        else:
            engine = registry.load("engines", name)(recipe, argument)
        if adapter and not hasattr(engine, "attach"):
            raise ConfigError(f'engine "{recipe.engine}" cannot use an adapter')
        if role is not None and is_fixed(self.recipe, role):
            model = "" if name in ("scripted", "replay") else f" {recipe.model}"
            self.progress.say(f"{role}: played by another policy than the trained one: {recipe.engine}{model}")
        self._engines[key] = engine
        return engine

    @property
    def batch_size(self) -> int:
        """The micro-batch that segments are cut by; not part of the fingerprint."""
        size = self.recipe.batch_size
        if size == "auto":
            return AUTO_BATCH_SIZE
        if size < 1:
            raise ConfigError(f"batch_size: {size}; expected at least 1, or auto")
        return size

    def close(self) -> None:
        """Free the engines."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def close_others(self, kept: registry.Engine | None) -> None:
        """Free every engine but one, which needs the memory."""
        for key, engine in list(self._engines.items()):
            if engine is not kept:
                engine.close()
                del self._engines[key]

    def read(self, path: Path) -> Input:
        """A stage's input, with its notices said."""
        data = read_input(path, allow_incomplete=self.allow_incomplete)
        for notice in data.notices:
            self.progress.say(notice)
        return data

    def output(
        self, stage: str, path: Path, options: Mapping[str, Any], *inputs: Path, companion: Path | None = None
    ) -> Output:
        """The stage's output; the fingerprint is what decides content: policy, seed, round and options."""
        fingerprint = {"seed": self.recipe.seed, "round": self.round_number, **options}
        return Output(
            path,
            stage=stage,
            fingerprint=fingerprint,
            inputs=inputs,
            companion=companion,
            overwrite=self.overwrite,
            shard=self.shard,
        )

    def policy_fingerprint(self, policy: Policy, role: Role | None = None) -> dict[str, Any]:
        """The digests of the policy that plays the role, and the engine where it is not the real one."""
        # Its options that change a text are in the policy; a delay or a file's place change none.
        name = (recipe_for(self.recipe, role) if role else self.recipe).engine.partition(":")[0]
        engine = {} if name == "hf" else {"engine": name}
        played = self.engine_for(role)
        numerics = str(getattr(getattr(played, "model", None), "dtype", "none"))
        if getattr(played, "paged", False):
            # Another noise than the engine's own decode loop has.
            numerics += " paged"
        if self.recipe.load_in_4bit and name == "hf":
            numerics += " 4bit"
        return {
            "policy": msgspec.to_builtins(policy),
            "deterministic": played.deterministic,
            "dtype": numerics,
            "think_tags": self.recipe.think_tags,
            **engine,
        }


# What decides which model is loaded and how: roles with the same values share an engine. Adapters are put on it later.
_ENGINE_KEYS = [
    *("model", "revision", "engine", "base_url", "api_key_env", "device", "dtype", "load_in_4bit"),
    *("chat_template", "chat_template_kwargs", "think_tags", "batch_size"),
]


def _put_on(engine: registry.Engine, adapter: Path | None, name: str) -> None:
    """Give an engine an adapter, or none, unless it has that one on."""
    attach = getattr(engine, "attach", None)
    if attach is None:
        if adapter is not None:
            raise ConfigError(f'engine "{name}" cannot use an adapter')
        return
    on = engine.policy.adapter
    # On a server an adapter may be a name, of which only the engine knows a digest.
    digest_of = getattr(engine, "adapter_digest", adapter_digest)
    if on != (digest_of(adapter) if adapter is not None else None):
        attach(adapter)


class Generated(msgspec.Struct):
    """The planned rows, finished, and what it took."""

    rows: list[Row]
    passed: list[Row] = []
    """The input rows that pass through, or the shard's part of them."""
    tokens: int = 0
    made: int = 0
    skipped: int = 0
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
        )


def generate(
    session: Session,
    output: Output,
    planned: Sequence[Row],
    *,
    passed: Sequence[Row] = (),
    finish: Callable[[Row], Row],
    role: Role | None = None,
    limited: Sequence[Row] | None = None,
    prepare: Callable[[Row], None] | None = None,
    answer: Answer | None = None,
    command: Sequence[object] = (),
) -> Generated:
    """Every planned row, finished; rows of an earlier or interrupted run are not generated again.

    Args:
        session: gives the engine and the micro-batch.
        output: entered; rows are appended to it segment by segment, in the order they are finished.
        planned: all rows of this command, whatever `--limit` says, each id once.
        passed: input rows that pass through; they may stand in the earlier output too.
        finish: parses a completed row (question, answer, score, status).
        role: whose engine generates; the trained policy's by default.
        limited: the planned rows to work on now; all by default.
        prepare: called with the first row of each run of segments with one policy, before they are generated.
        answer: answers the rows that it knows how to; the engine generates the others.
        command: the stage and its own arguments, as a worker process is given them.

    Raises:
        ConfigError: rows of the earlier output are not planned any more (input rows were removed or changed).
        DataError: the input holds rows of this very stage already.
    """
    start = time.monotonic()
    _check_plan(output, planned, passed)
    part = part_of(session.shard, passed, planned)
    wanted = planned if limited is None else limited
    finished = {**output.elsewhere, **output.known}
    done = {row.id: finished[row.id] for row in planned if row.id in part.ids and row.id in finished}
    todo = [row for row in wanted if row.id in part.ids and row.id not in done]
    result = Generated(rows=[], passed=part.passed, skipped=len(done))
    if todo and session.crew is not None:
        result.workers = _employ(session, session.crew, output, command, passed, planned, todo)
        made = [output.elsewhere[row.id] for row in todo]
        done.update((row.id, row) for row in made)
        result.made, result.tokens, todo = len(made), _tokens(made), []
    engine = session.engine_for(role) if todo else None
    segments = _segments(session, engine, todo) if engine is not None else []
    whole = [segment for segment in segments if all(row.id in output.partial for row in segment)]
    recovered = [row.id for segment in whole for row in segment]
    if todo or not output.was_complete:
        output.begin(recovered)
    done.update((identity, output.partial[identity]) for identity in recovered)
    result.skipped += len(recovered)
    with session.progress.task(output.stage, len(todo)) as task:
        task.advance(len(recovered))
        asked = [segment for segment in segments if segment[0].id not in done]
        for segment, completions in answered_segments(engine, asked, prepare, answer):
            rows = [finish(complete_row(row, completion)) for row, completion in zip(segment, completions, strict=True)]
            output.append(rows)
            done.update((row.id, row) for row in rows)
            tokens = _tokens(rows)
            result.tokens += tokens
            result.made += len(rows)
            task.advance(len(rows), tokens)
    # Rows an earlier run made beyond this one's --limit stay: nothing made is lost.
    result.rows = [done[row.id] for row in planned if row.id in done]
    if session.shard is not None:
        output.place = part.place(result.rows, total=len(passed) + len(wanted), limit=session.limit)
    result.seconds = time.monotonic() - start
    return result


def _tokens(rows: Sequence[Row]) -> int:
    return sum(row.usage.completion_tokens for row in rows if row.usage)


def _employ(
    session: Session,
    crew: Crew,
    output: Output,
    command: Sequence[object],
    passed: Sequence[Row],
    planned: Sequence[Row],
    todo: Sequence[Row],
) -> list[WorkerReport]:
    """Have the workers make the rows, and find them in `output.elsewhere`."""
    options: list[object] = ["--round", session.round_number]
    if session.limit is not None:
        options += ["--limit", session.limit]
    if session.allow_incomplete:
        options += ["--allow-incomplete"]
    recipe = msgspec.structs.replace(session.recipe, adapter=str(session.adapter) if session.adapter else None)
    reports = crew.work(
        output.path,
        command,
        recipe,
        shard=session.shard,
        passed=passed,
        planned=planned,
        todo=todo,
        options=options,
        progress=session.progress,
    )
    output.look_elsewhere()
    return reports


def _segments(session: Session, engine: registry.Engine, rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.policy, row.sampling), []).append(row)
    segments = []
    for group in groups.values():
        plan = engine.plan([request_of(row) for row in group], session.batch_size)
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


def check_plugins(recipe: Recipe) -> None:
    """Build every plugin and prompt that a recipe names, so that a wrong option shows before the first stage.

    Raises:
        ConfigError: an unknown plugin, option or prompt.
        MissingDependencyError: a plugin needs a package that is not installed.
    """
    kinds = {"proposer": "proposers", "verifier": "verifiers", "judge": "judges", "objective": "objectives"}
    for section in (getattr(recipe, name) for name in SECTIONS):
        for name in section.__struct_fields__:
            value = getattr(section, name)
            if name.startswith("prompt"):
                load_prompt(value)
            elif name.endswith("_reward"):
                registry.build("rewards", value)
            elif name == "filters":
                for spec in value:
                    registry.build("filters", spec)
            elif name in kinds and value is not None:
                for spec in value if isinstance(value, list) else [value]:
                    registry.build(kinds[name], spec)


def limit_rows(session: Session, rows: list[Any]) -> list[Any]:
    """The first `--limit` input rows, or all."""
    return rows if session.limit is None else rows[: session.limit]


def dropped_path_for(path: Path) -> Path:
    """Where the dropped rows of an output go unless the user says so."""
    return beside(path, ".dropped.jsonl")
