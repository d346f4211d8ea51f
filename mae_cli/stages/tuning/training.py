"""The call of the trainer by `finetune`: engine and memory before and after it, progress, tracking, collapse.

Imports torch with the trainer, so it is imported only where a training begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mae_cli.data.held_out import TRAINED_QUESTIONS, TrainedQuestions
from mae_cli.errors import CollapseError
from mae_cli.models.digests import model_digest
from mae_cli.models.lineage import base_reference
from mae_cli.models.locate import local_model
from mae_cli.plugins.contracts import Objective, TrainableEngine
from mae_cli.records import Row
from mae_cli.records.atomic import write_json
from mae_cli.records.file_names import beside
from mae_cli.records.resumable_folder import FolderOutput
from mae_cli.stages.generation.job import Job
from mae_cli.stages.tuning.adapter_files import describe
from mae_cli.training.full_tuning import ModelFolders
from mae_cli.training.job import TrainingTask
from mae_cli.training.logs import StepNote, TrainReport
from mae_cli.training.processes import World
from mae_cli.training.tracking import tracker
from mae_cli.training.trainer import BaseModel, Callbacks, Start, TrainedFacts, announce, prepare, train


def train_rows(
    job: Job,
    engine: TrainableEngine,
    output: FolderOutput,
    rows: list[Row],
    objective: Objective,
    *,
    start_adapter: Path | None,
    world: World,
    questions: TrainedQuestions | None = None,
) -> TrainReport:
    """Train the engine's model on the rows and finish the output folder, described; `questions` go beside the weights.

    Raises:
        CollapseError: see `trainer.train`; it names the folder in which the last good weights are.
    """
    recipe, made = job.recipe, output.work_dir / "adapter"
    task = TrainingTask(rows, recipe.finetune, objective, recipe.seed)
    job.engines.close_others(engine)
    if recipe.finetune.full:
        base = local_model(recipe.model, recipe.revision)
        start = Start(folders=ModelFolders(engine.folder, base, recipe.revision), policy=engine.policy)
        base_name = base_reference(recipe.model, model_digest(base))
    else:
        engine.attach(None)
        start = Start(start_adapter, policy=engine.policy)
        base_name = base_reference(recipe.model, engine.policy.model)
    engine.release_caches()

    def on_saved(folder: Path, facts: TrainedFacts) -> None:
        describe(folder, facts, task, base_name=base_name, policy=start.policy, round_number=job.round_number)
        if facts.stopped is None:
            # Whole and in its place while the model still wears it: nothing that fails afterwards can harm it.
            if questions is not None:
                write_json(folder / TRAINED_QUESTIONS, questions)
            output.finish(folder)

    try:
        with _progress(job, output, world, on_saved) as callbacks:
            report = train(
                BaseModel(engine.model, engine.chat, engine.end_ids, base_name),
                task,
                made,
                start=start,
                checkpoint_dir=output.work_dir / "checkpoints",
                world=world,
                callbacks=callbacks,
            )
    except CollapseError as error:
        raise CollapseError(f"{error} (in {made})") from error
    finally:
        if recipe.finetune.full:
            job.engines.close_others(None)  # its weights are not those of its model any more
    if not recipe.finetune.full:
        engine.release_caches()
    if job.engines.crew is not None or report.left_on:
        job.engines.close_others(None)  # its memory is needed by the workers of the next stage
    return report


def try_rows(job: Job, engine: TrainableEngine, rows: list[Row], objective: Objective) -> None:
    """Turn the rows into token ids and say what would be trained; no step is taken.

    Raises:
        RefusedRowError: the chat template refuses a row.
        DataError, GateError: see `trainer.prepare`.
    """
    task = TrainingTask(rows, job.recipe.finetune, objective, job.recipe.seed)
    announce(prepare(task, engine.chat, end_ids=engine.end_ids, origin={}), engine.chat, job.progress.say)


@contextmanager
def _progress(
    job: Job, output: FolderOutput, world: World, on_saved: Callable[[Path, TrainedFacts], None]
) -> Iterator[Callbacks]:
    """Steps on the progress line and in the tracker that the recipe names."""
    report_to = job.recipe.finetune.report_to if world.is_main else "none"
    with (
        job.progress.task("finetune", 0) as task,
        tracker(report_to, run=output.path.resolve().parent.name, folder=beside(output.path, ".tracking")) as track,
    ):

        def on_step(note: StepNote, steps: int) -> None:
            task.total = steps
            task.advance(1, note.tokens)
            track(note)

        yield Callbacks(on_step, job.progress.say, on_saved)
