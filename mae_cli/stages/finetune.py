"""`mae finetune`: the kept rows train a LoRA adapter, or the whole model.

Rows of the trained purposes that no filter dropped are trained, on the token ids that were generated. The adapter
continues from a start adapter or begins anew, always relative to the base model, with a fresh optimizer; a full
fine-tuning goes on from the weights of the model it starts with. An interrupted training goes on from its checkpoint.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from mae_cli.data.formats import read_foreign, rows_of
from mae_cli.data.held_out import TrainedQuestions, asked_by, read_trained_questions
from mae_cli.data.sample_readers import FORMATS
from mae_cli.errors import ConfigError, DataError, GateError, MissingDependencyError
from mae_cli.models.adapters import CONFIG
from mae_cli.models.digests import is_whole_model, reference_identity
from mae_cli.plugins import contracts, registry
from mae_cli.recipe.fields import is_free
from mae_cli.recipe.roles import fixed_roles
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Policy, Row, digest
from mae_cli.records.file_names import STDIO, beside
from mae_cli.records.read import Input, read_json
from mae_cli.records.resumable_folder import FolderOutput
from mae_cli.stages.evaluation.held_out import HELD_OUT, held_out_of
from mae_cli.stages.generation.generate import limit_rows
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary
from mae_cli.stages.tuning.served_policies import check_trains, unknown_writers
from mae_cli.training.eligible_rows import own_rows, retokenised, trainable
from mae_cli.training.examples import RefusedRowError

if TYPE_CHECKING:
    from mae_cli.training.logs import TrainReport


def run_finetune(
    job: Job, inputs: Sequence[Path], output_dir: Path, *, start_adapter: Path | None = None
) -> StageSummary:
    """Train on the input's kept rows.

    Raises:
        GateError: no row is left to train on.
        ConfigError: the engine has no weights to train, the start is of the other kind than what is trained, or the
            output was made with other settings.
    """
    section = job.recipe.finetune
    check_tuning(job.recipe)
    check_trains(job.recipe)
    objective: contracts.Objective = registry.build("objectives", section.objective)
    data = read_to_train(job, inputs)
    require_tracker(section.report_to)
    job.engines.wear(start_adapter)
    engine, chosen = _choose(job, inputs, data, objective)
    _say_off_policy(job, engine.policy, chosen.rows, objective)
    fingerprint = _fingerprint(job, engine, chosen.rows)
    start = time.monotonic()
    summary = StageSummary(stage="finetune", path=str(output_dir), read=len(data.rows))
    _say_choice(job, chosen, objective)
    from mae_cli.stages.tuning.training import train_rows
    from mae_cli.training.processes import joined

    output = FolderOutput(output_dir, stage="finetune", fingerprint=fingerprint, overwrite=job.overwrite, inputs=inputs)
    # The first of several processes owns the folder; the others only read its checkpoint.
    with joined() as world, output if world.is_main else nullcontext(), _rows_named(inputs):
        if world.from_main(output.is_done):
            summary.skipped = len(chosen.rows)
            return summary
        questions = _trained_questions(job, inputs, chosen, start_adapter)
        report = train_rows(
            job, engine, output, chosen.rows, objective, start_adapter=start_adapter, world=world, questions=questions
        )
    _tell(summary, report, chosen.left_out)
    summary.seconds = round(time.monotonic() - start, 3)
    return summary


def try_finetune(job: Job, inputs: Sequence[Path]) -> None:
    """Do what comes before the first step and say what would be trained: every row is rendered, nothing is written.

    Raises:
        DataError: a row that the chat template refuses, by file and line.
        GateError: no row is left to train on.
        ConfigError: the engine has no weights to train.
    """
    section = job.recipe.finetune
    check_tuning(job.recipe)
    objective: contracts.Objective = registry.build("objectives", section.objective)
    engine, chosen = _choose(job, inputs, read_to_train(job, inputs), objective)
    _say_choice(job, chosen, objective)
    from mae_cli.stages.tuning.training import try_rows

    with _rows_named(inputs):
        try_rows(job, engine, chosen.rows, objective)


@contextmanager
def _rows_named(inputs: Sequence[Path]) -> Iterator[None]:
    """Name a row that the chat template refuses by its file and line, where it came from another tool's file."""
    try:
        yield
    except RefusedRowError as error:
        line = error.row.policy.model.rpartition(" line ")[2] if error.row.stage == "import" else ""
        if line.isdigit() and len(inputs) == 1:
            raise DataError(f"{inputs[0]}:{line}: {error.reason}") from error
        raise


class Chosen(msgspec.Struct, frozen=True):
    """The rows to train on, and how many others there are for each reason."""

    rows: list[Row]
    left_out: dict[str, int]


def _choose(
    job: Job, inputs: Sequence[Path], data: Input, objective: contracts.Objective
) -> tuple[contracts.TrainableEngine, Chosen]:
    """The engine to train, and the rows that no filter, purpose or other policy takes away.

    Raises:
        GateError: none is left.
        ConfigError: the engine has no weights to train.
    """
    section = job.recipe.finetune
    rows, left_out = trainable(limit_rows(job, data.rows), section.purposes, objective)
    rows, num_held_out = _without_held_out(job, rows)
    left_out |= {HELD_OUT: num_held_out} if num_held_out else {}
    fixed = [] if section.other_models else fixed_roles(job.recipe)
    # Known from the recipe alone, so that a round without a row of the policy's own loads no model to say so.
    rows, others = own_rows(rows, None, fixed)
    if not rows:
        _nothing_left(inputs, {**left_out, **others})
    engine = job.engines.of(None, weights=True)
    if not contracts.can_train(engine):
        raise ConfigError(f'engine "{job.recipe.engine}" has no weights to train; use --engine hf')
    if section.other_models:
        rows = [retokenised(row, engine.policy) for row in rows]
    else:
        rows, foreign = own_rows(rows, engine.policy, [])
        others = {reason: others.get(reason, 0) + foreign.get(reason, 0) for reason in (*others, *foreign)}
    left_out |= others
    if not rows:
        _nothing_left(inputs, left_out)
    return engine, Chosen(rows, left_out)


def _without_held_out(job: Job, rows: list[Row]) -> tuple[list[Row], int]:
    """The rows that ask no held-out item, and how many others there are: a pipeline may have no filter."""
    held_out = held_out_of(job)
    if held_out is None:
        return rows, 0
    kept = [row for row in rows if (problem := asked_by(row)) is None or not held_out.holds(problem)]
    return kept, len(rows) - len(kept)


def _trained_questions(
    job: Job, inputs: Sequence[Path], chosen: Chosen, start_adapter: Path | None
) -> TrainedQuestions | None:
    """What the adapter will have been trained on, for `eval`; null in a run that was begun without it."""
    if not job.sees_dress:
        return None
    metas = [meta for path in inputs if path != STDIO and (meta := beside(path, ".meta.json")).exists()]
    removed = sum(read_json(meta).get("figures", {}).get(HELD_OUT, 0) for meta in metas)
    earlier = read_trained_questions(start_adapter) if start_adapter is not None else None
    problems = [problem for row in chosen.rows if (problem := asked_by(row)) is not None]
    return TrainedQuestions.grown(earlier, problems, removed + chosen.left_out.get(HELD_OUT, 0))


def _say_off_policy(job: Job, policy: Policy, rows: Sequence[Row], objective: contracts.Objective) -> None:
    """Say where a policy gradient is not taken at the policy that wrote the rows, as in a round's second training.

    The log-probabilities from before the first update are those of the start, so the ratio begins at 1 although another
    policy drew the text.
    """
    other = sum(row.policy.weights != policy.weights for row in rows)
    if other and objective.needs.behaviour:
        job.progress.say(
            f"finetune: {other} of the {len(rows)} trained rows were written with another adapter than this training "
            "starts from; their behaviour log-probabilities are taken from the start (off-policy)"
        )


def _say_imitated(job: Job, rows: Sequence[Row]) -> None:
    """Say where the worse answers of another tool's file are imitated like the better ones."""
    objective = registry.build("objectives", job.recipe.finetune.objective)
    worse = sum(row.reward == 0.0 for row in rows)
    if worse and getattr(objective, "weights", None) == "equal":
        job.progress.say(
            f"finetune: the file calls {worse} of its {len(rows)} answers worse (rejected, or a label of false), and "
            "objective sft imitates them like the others; take --objective dpo or kto, or "
            "--set 'finetune.objective={name: sft, weights: reward}'"
        )


def _fingerprint(job: Job, engine: contracts.Engine, rows: Sequence[Row]) -> dict[str, Any]:
    section = job.recipe.finetune
    return {
        **job.engines.fingerprint(engine.policy),
        "finetune": {
            name: getattr(section, name)
            for name in section.__struct_fields__
            if name not in _TOLD_APART and not is_free(f"finetune.{name}")
        },
        "reference": reference_identity(section.reference),
        "objective": registry.resolved("objectives", section.objective),
        "rows": digest([row.id for row in rows]),
        # An id never depends on what was generated, so what is trained on is told apart by its text.
        "texts": digest([row.raw for row in rows]),
        "rewards": digest([row.reward for row in rows]),
        # What else an objective may know of a row: whom a judge preferred, and what its problem says of itself.
        "preferences": digest([[verdict for verdict in row.verdicts if verdict.target == "pair"] for row in rows]),
        "meta": digest([row.problem.meta if row.problem else None for row in rows]),
        "seed": job.recipe.seed,
    }


def _say_choice(job: Job, chosen: Chosen, objective: contracts.Objective) -> None:
    if notice := unknown_writers(chosen.rows):
        job.progress.say(notice)
    for reason, count in chosen.left_out.items():
        job.progress.say(f"finetune: {count} rows not trained: {reason}")
    num_unrewarded = sum(not row.reward for row in chosen.rows)
    if num_unrewarded and not objective.needs.reward:
        job.progress.say(
            f"finetune: {num_unrewarded} of the {len(chosen.rows)} trained rows have reward 0 or none, and this "
            f"objective does not look at rewards; the filter best_of_k with min_reward keeps the good ones"
        )


def _tell(summary: StageSummary, report: TrainReport, left_out: dict[str, int]) -> None:
    """Put a training's figures into the summary of the command."""
    summary.written = report.rows
    summary.tokens = report.trained_tokens
    summary.tokens_per_second = round(report.trained_tokens / max(report.seconds, 1e-9), 1)
    summary.details = {
        "steps": report.steps,
        "resumed_from": report.resumed_from,
        "first_loss": report.first_loss,
        "last_loss": report.last_loss,
        "left_out": left_out,
        "data": msgspec.to_builtins(report.data),
    }


def read_to_train(job: Job, inputs: Sequence[Path]) -> Input:
    """Return records of one or several files, or the samples of another tool's file as rows; which of them is said.

    Raises:
        ConfigError: plain problems.
        DataError: a line that cannot be read, or of another format than the first.
    """
    path = inputs[0]
    foreign = read_foreign(path) if len(inputs) == 1 and path != STDIO else None
    if foreign is not None:
        rows = rows_of(foreign)
        job.progress.say(f"{path}: read as {foreign.format}: {len(foreign.samples)} samples, {len(rows)} rows")
        _say_imitated(job, rows)
        return Input(rows=rows)
    data = job.read(*inputs)
    if data.problems:
        raise ConfigError(
            f"{path}: plain problems cannot be trained on; expected rows of solve, judge or filter, or a file of one "
            f"of these formats: {', '.join(FORMATS)}"
        )
    return data


_TOLD_APART = {"objective", "reference", "other_models"}
"""Keys that stand in the fingerprint in another form: resolved, as a digest, or in the rows they let in."""


def check_tuning(recipe: Recipe) -> None:
    """Refuse a start or a reference that does not go with what is trained, before anything is loaded or generated.

    Raises:
        ConfigError: an adapter where a model is needed, the other way round, or a base in four bits.
    """
    section, start = recipe.finetune, recipe.adapter
    if not section.full:
        if start and is_whole_model(Path(start)):
            raise ConfigError(
                f"adapter: {start} holds a whole model; a LoRA is trained on it with -m {start}, and finetune.full "
                "goes on training all of it"
            )
        return
    if recipe.load_in_4bit:
        raise ConfigError("finetune.full: a model in four bits cannot be trained as a whole; leave out load_in_4bit")
    if start and (Path(start) / CONFIG).is_file():
        raise ConfigError(
            f"adapter: {start} is a LoRA adapter, and finetune.full trains a model; make one of it with "
            f"mae export {start} -o MODEL --merge, then -m MODEL"
        )
    if (Path(section.reference) / CONFIG).is_file():
        raise ConfigError(
            f"finetune.reference: {section.reference} is a LoRA adapter, and a model that is trained as a whole is no "
            "base for it; make a model of it with mae export --merge"
        )


def require_tracker(name: str) -> None:
    """Refuse a tracker that is not installed before a model is loaded for it.

    Raises:
        MissingDependencyError: its package is not installed.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise MissingDependencyError(f"finetune.report_to {name} needs the package {name}: pip install {name}")


def _nothing_left(inputs: Sequence[Path], left_out: dict[str, int]) -> NoReturn:
    counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    raise GateError(f"{', '.join(map(str, inputs))}: no row to train on ({counts})")
