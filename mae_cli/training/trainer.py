"""Training as one call: rows in, a folder out, with a LoRA adapter (the base untouched) or with a whole model.

An optimizer step sees `batch_size` units (rows, or pairs), its loss is a weighted sum over them with the objective's
own weights, and cutting it into micro-batches changes nothing but memory. Everything is a function of rows,
settings, seed and starting adapter, so a training killed and taken up from its checkpoint writes the same bytes (on
one CPU). Written are weights, tokenizer, trained rows and log. Not here: which rows are picked and how the folder is
described to others (the stage), what rows are worth (the objective).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import CollapseError, GateError
from mae_cli.models.digests import reference_identity
from mae_cli.models.load import context_length
from mae_cli.plugins.contracts import Objective, Unit
from mae_cli.recipe.fields import is_free
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records import Policy, digest
from mae_cli.training.base_noise import noise_of, without_base_noise
from mae_cli.training.batches import num_steps, steps
from mae_cli.training.examples import Examples, Renderer, TrainingExample, marked, read_examples
from mae_cli.training.full_tuning import FullTuning, ModelFolders
from mae_cli.training.job import TrainingJob, TrainingTask
from mae_cli.training.logs import (
    LOG,
    ROWS,
    StepNote,
    TrainReport,
    data_note,
    line,
    require_rows,
    trained_rows,
    write_lines,
)
from mae_cli.training.lora_tuning import LoraTuning
from mae_cli.training.optimization import Loop
from mae_cli.training.processes import World
from mae_cli.training.sharding import sharded_full, sharded_lora
from mae_cli.training.tuning import Origin, Tuning, save_tokenizer, trainable


class BaseModel(msgspec.Struct, frozen=True):
    """A loaded model to be trained."""

    model: Any
    """Without an adapter, on its device and in its dtype."""
    chat: Renderer
    """Its tokenizer and template."""
    end_ids: frozenset[int]
    """Ids that end a completion."""
    name: str
    """What adapter_config.json calls it."""


class Start(msgspec.Struct, frozen=True):
    """What a training begins with, and what its fingerprint says of it."""

    adapter: Path | None = None
    """A LoRA adapter to continue, with a fresh optimizer; null begins a new one."""
    folders: ModelFolders | None = None
    """Needed for a full fine-tuning: where the model and the base lie."""
    policy: Policy | None = None
    """Digests of model and template."""


class TrainedFacts(msgspec.Struct, frozen=True):
    """Everything about a finished training that does not stand in its task: for those who describe the folder."""

    parent: str | None
    """Digest of the adapter, or model, that was continued."""
    base_digest: str | None
    """Of the base of a full fine-tuning; null: the policy's model."""
    base_revision: str | None
    data: str
    """Digest of the rows with their tokens, rewards and weights."""
    rows: int
    roles: dict[str, int]
    """Trained rows of each role."""
    trained_tokens: int
    """Of one pass."""
    steps: int
    settings: dict[str, Any]
    """Rank, scale, targets and variant of a LoRA; of a whole model, how many parameters were trained."""
    stopped: str | None
    """Why the training ended before its last step."""


class Callbacks(msgspec.Struct, frozen=True):
    """Functions that a training calls."""

    on_step: Callable[[StepNote, int], None] | None = None
    """After each step, with its note and the number of steps."""
    on_text: Callable[[str], None] | None = None
    """With each text for people: notices and the examples of `show_batch`."""
    on_saved: Callable[[Path, TrainedFacts], None] | None = None
    """In the process that writes, once the folder is written, also where the training stopped early."""


def train(
    base: BaseModel,
    task: TrainingTask,
    output_dir: Path,
    *,
    start: Start | None = None,
    checkpoint_dir: Path | None = None,
    world: World | None = None,
    callbacks: Callbacks | None = None,
) -> TrainReport:
    """Train a LoRA adapter on the rows and write its folder; the model comes back as it was.

    With `section.full` every parameter is trained, the folder is a model's, and the model given here is used up.

    Args:
        base: the model.
        task: rows, settings, objective and seed.
        output_dir: a temporary folder; the caller renames it.
        start: an adapter to continue, or the folders of a full fine-tuning.
        checkpoint_dir: where checkpoints live; the caller removes them when all is done.
        world: the processes that train together; the first writes.
        callbacks: for progress, texts and the description of what was written.

    Raises:
        DataError: no row with a trained token.
        GateError: every row belongs to a role whose rewards hardly differ.
        ConfigError: the checkpoint belongs to other settings, or target_modules fits no module.
        EngineError: the start does not fit, or a single row does not fit into memory.
        CollapseError: loss or gradient is no longer finite, or the loss jumped; the last good adapter is in output_dir.
    """
    begin = time.monotonic()
    start, callbacks = start or Start(), callbacks or Callbacks()
    say = callbacks.on_text or _silent
    tuning = _tuning(base, task, start, world, say)
    origin = tuning.origin()
    determined_by = {
        "seed": task.seed,
        "dtype": str(base.model.dtype),
        **msgspec.to_builtins(origin),
        "reference": reference_identity(task.section.reference),
        **({"policy": msgspec.to_builtins(start.policy)} if start.policy else {}),
    }
    job = prepare(
        task, base.chat, end_ids=base.end_ids, origin=determined_by, context=context_length(base.model), say=say
    )
    announce(job, base.chat, say)
    _say_noise(base.model, say)
    with tuning.attached(base.model, seed=task.seed) as policy, without_base_noise(policy):
        if task.section.full:
            _say_size(policy, say)
        loop = Loop(policy, job, checkpoint_dir, say, world, tuning)
        loop.run(callbacks.on_step)
        if loop.world.is_main:
            _write(loop, base, output_dir)
            if callbacks.on_saved is not None:
                callbacks.on_saved(output_dir, _facts(loop, origin))
    if loop.collapse is not None:
        raise CollapseError(
            f"{loop.collapse}: training stopped, the {tuning.noun} of step {loop.step} is kept; a lower "
            "finetune.learning_rate or finetune.max_grad_norm may help"
        )
    return _report(loop, time.monotonic() - begin)


def _tuning(
    base: BaseModel, task: TrainingTask, start: Start, world: World | None, say: Callable[[str], None]
) -> Tuning:
    shards = world is not None and world.shards
    if not task.section.full:
        lora = LoraTuning(task.section, start.adapter, say)
        return sharded_lora(lora, base.model, task.section) if shards else lora
    if start.folders is None:
        raise ValueError("a full fine-tuning needs the folders of the model and of the base")
    if shards:
        return sharded_full(start.folders, base.model, task.section)
    return FullTuning(task.section, start.folders, base.model.dtype)


def prepare(
    task: TrainingTask,
    chat: Renderer,
    *,
    end_ids: frozenset[int],
    origin: Mapping[str, Any],
    context: int | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainingJob:
    """Token ids, advantages and step plan of a training; needs no model, so `--dry-run` can use it.

    Args:
        task: rows, settings, objective and seed.
        chat: tokenizer and template.
        end_ids: ids that end a completion.
        origin: what else determines the result.
        context: positions of the model; a row with more tokens is dropped, whatever `max_length` allows.
        say: told where `context` is what rows were too long for.

    Raises:
        DataError: no row with a trained token.
        GateError: every row belongs to a role whose rewards hardly differ.
    """
    section, objective, seed = task.section, task.objective, task.seed
    needs = objective.needs
    longest = min(section.max_length, context or section.max_length)
    found = read_examples(task.rows, chat, ends=end_ids, max_length=longest, needs_reward=needs.reward)
    if say is not None and longest < section.max_length and found.dropped.get("too_long"):
        say(
            f"{found.dropped['too_long']} rows are longer than the model's {longest} positions and not trained "
            "(too_long)"
        )
    require_rows(found)
    # By id: the order of the file must not matter from here.
    order = sorted(range(len(found.examples)), key=lambda index: found.examples[index].id)
    found = Examples(
        [found.examples[index] for index in order],
        [found.rewarded[index] for index in order],
        found.dropped,
        found.retokenised,
    )
    plan = objective.plan(found.rewarded, min_spread=section.min_spread)
    units = list(plan.units)
    if not units:
        reasons = ", ".join(f"{number} {reason}" for reason, number in plan.dropped.items())
        raise GateError(
            f"nothing to learn: {len(order)} rows of {', '.join(plan.skipped)} give {type(objective).__name__} no row "
            f"or pair to train ({reasons}; rewards that differ by less than finetune.min_spread "
            f"({section.min_spread:g}) say nothing)"
        )
    total = num_steps(len(units), batch_size=section.batch_size, epochs=section.epochs, max_steps=section.max_steps)
    fingerprint = _fingerprint(section, objective, found.examples, units, origin)
    if section.max_trained_tokens:
        # As a number of steps, so that the learning rate falls to its end within the budget.
        total = _steps_within(section, found.examples, units, seed)
        section = msgspec.structs.replace(section, max_steps=total)
    return TrainingJob(
        examples=found.examples,
        units=units,
        section=section,
        objective=objective,
        seed=seed,
        fingerprint=fingerprint,
        data=data_note(found, units, steps=total, skipped=plan.skipped, dropped=plan.dropped),
    )


def _steps_within(
    section: FinetuneSection, examples: Sequence[TrainingExample], units: Sequence[Unit], seed: int
) -> int:
    """Optimizer steps up to the one that reaches `max_trained_tokens`."""
    planned = steps(
        examples,
        units,
        seed=seed,
        batch_size=section.batch_size,
        epochs=section.epochs,
        max_steps=section.max_steps,
    )
    needed = tokens = 0
    for needed, _, indices in planned:  # noqa: B007
        tokens += sum(len(examples[row].completion) for index in indices for row in units[index].rows)
        if tokens >= section.max_trained_tokens:
            break
    return needed


def _fingerprint(
    section: FinetuneSection,
    objective: Objective,
    examples: Sequence[TrainingExample],
    units: Sequence[Unit],
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that determines the adapter; a checkpoint is only taken up when all of it is equal."""
    settings = msgspec.to_builtins(section)
    for name in list(settings):
        if name == "reference" or is_free(f"finetune.{name}"):  # no result beyond float noise
            del settings[name]
    settings["objective"] = {"name": type(objective).__name__, **msgspec.to_builtins(objective)}
    return {"finetune": settings, "rows": digest(examples, units), **origin}


def announce(job: TrainingJob, chat: Renderer, say: Callable[[str], None]) -> None:
    """Say what will be trained, before the first step: a training on nothing must not look fine."""
    data = job.data
    sides = sum(len(unit.rows) == 2 for unit in job.units)
    pairs = f" in {sides} pairs" if sides else ""
    say(
        f"{data.rows} rows{pairs}, {data.trained_tokens} trained tokens ({data.trained_share:.0%} of all), "
        f"{data.steps} steps"
    )
    if data.dropped:
        say("not trained: " + ", ".join(f"{number} {reason}" for reason, number in data.dropped.items()))
    if data.skipped:
        say(f"skipped, the rewards hardly differ: {', '.join(data.skipped)}")
    if data.retokenised:
        say(f"{data.retokenised} rows without token ids were tokenised again from their text")
    first = next(iter(job.steps()), None)
    shown = [row for index in first[2] for row in job.units[index].rows] if first else []
    for row in shown[: job.section.show_batch]:
        say(marked(job.examples[row], chat.tokenizer))


def _say_noise(model: Any, say: Callable[[str], None]) -> None:
    """Say which rates of the model's config are not used."""
    noise = noise_of(model.config)
    if noise:
        rates = ", ".join(f"{key} {value:g}" for key, value in noise.items())
        say(f"the model's own dropout is off while it is trained ({rates} in its config)")


def _say_size(policy: Any, say: Callable[[str], None]) -> None:
    """Say how much memory a full fine-tuning takes besides activations, before the first step."""
    numbers = sum(parameter.numel() for _, parameter in trainable(policy))
    size = 16 * numbers / 2**30  # four float32 numbers each
    say(
        f"all {numbers:,} parameters are trained, in float32: {size:.2g} GiB for weights, gradients and optimizer, "
        f"{size / 4:.2g} GiB of main memory for the way back from a collapse, checkpoints of {size:.2g} GiB "
        "(finetune.save_every)"
    )


def _write(loop: Loop, base: BaseModel, folder: Path) -> None:
    """Weights, tokenizer, trained rows and log."""
    job = loop.job
    folder.mkdir(parents=True, exist_ok=True)
    loop.tuning.save(loop.policy, folder, base_name=base.name)
    save_tokenizer(base.chat, folder)
    done = [indices for step, _, indices in job.steps() if step <= loop.step]
    write_lines(folder / ROWS, (line(row) for row in trained_rows(job.examples, job.units, done)))
    stop = [msgspec.json.encode({"kept_step": loop.step, "collapse": loop.collapse}).decode()] if loop.collapse else []
    write_lines(folder / LOG, [line(job.data), *loop.notes, *stop])


def _facts(loop: Loop, origin: Origin) -> TrainedFacts:
    data = loop.job.data
    return TrainedFacts(
        parent=origin.adapter,
        base_digest=origin.base or None,
        base_revision=origin.base_revision or None,
        data=loop.job.fingerprint["rows"],
        rows=data.rows,
        roles={note.role: note.rows for note in data.roles},
        trained_tokens=data.trained_tokens,
        steps=loop.step,
        settings=loop.tuning.settings(loop.policy),
        stopped=loop.collapse,
    )


def _report(loop: Loop, seconds: float) -> TrainReport:
    notes = [msgspec.json.decode(text) for text in loop.notes]
    return TrainReport(
        steps=loop.step,
        resumed_from=loop.resumed_from,
        rows=loop.job.data.rows,
        trained_tokens=sum(note["tokens"] for note in notes),
        seconds=seconds,
        first_loss=notes[0]["loss"] if notes else None,
        last_loss=notes[-1]["loss"] if notes else None,
        data=loop.job.data,
        micro_batch_tokens=loop.forward.micro_batch_tokens,
        left_on=getattr(loop.tuning, "left_on", None),
    )


def _silent(_: str) -> None:
    """For callers who want no text."""
