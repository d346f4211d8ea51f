"""The commands of the stages: propose, solve, judge, calibrate, filter, finetune, eval; and review."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mae_cli.cli.command import In, MaybeIn, Out, Pool, is_dry_run, open_command, print_json, print_summary
from mae_cli.cli.options import Common, with_options
from mae_cli.recipe.sections import Recipe

if TYPE_CHECKING:
    from mae_cli.stages.generation.job import Job


@with_options("propose")
def propose(
    output: Out,
    seeds: Annotated[Path | None, typer.Argument(help="problems that proposals may vary", show_default=False)] = None,
    *,
    recipe: Recipe,
    common: Common,
) -> None:
    """The policy writes problems.

    Example: mae propose seeds.jsonl -o problems.jsonl -m smollm2-135m
    """
    from mae_cli.stages.propose import run_propose

    job = open_command(recipe, common, "propose", output)
    if not is_dry_run(job, common, seeds, stage="propose"):
        print_summary(run_propose(job, seeds, output), common)


@with_options("solve")
def solve(output: Out, problems: MaybeIn = None, pool: Pool = None, *, recipe: Recipe, common: Common) -> None:
    """The policy answers problems.

    Example: mae solve problems.jsonl -o rollouts.jsonl -m smollm2-135m
    """
    from mae_cli.stages.solve import run_solve

    job = open_command(recipe, common, "solve", output)
    if not is_dry_run(job, common, *(problems or []), *([] if problems else [pool]), stage="solve"):
        print_summary(run_solve(job, problems or [], output, pool_path=pool), common)


@with_options("judge")
def judge(rollouts: In, output: Out, pool: Pool = None, *, recipe: Recipe, common: Common) -> None:
    """Programs and the policy grade answers and problems.

    Example: mae judge rollouts.jsonl -o judged.jsonl --verifier numeric --solver-reward checked_solver
    """
    from mae_cli.stages.judge import run_judge

    job = open_command(recipe, common, "judge", output)
    if not is_dry_run(job, common, *rollouts, stage="judge"):
        print_summary(run_judge(job, rollouts, output, pool_path=pool), common)


@with_options("calibrate")
def calibrate(
    output: Out,
    problems: Annotated[Path | None, typer.Argument(help="problems with reference answers", show_default=False)] = None,
    rollouts: Annotated[Path | None, typer.Option("--rollouts", help="real answers to stand among the planted")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="what people said (mae review)")] = None,
    *,
    recipe: Recipe,
    common: Common,
) -> None:
    """Test the recipe's judges on answers of known worth; exit 3 below its bars.

    Example: mae calibrate heldout.jsonl -o calibration.jsonl -m smollm2-135m
    """
    from mae_cli.recipe.files import find_file
    from mae_cli.stages.calibrate import run_calibrate

    job = open_command(recipe, common, None, output)
    given = problems or (find_file(recipe.calibrate.problems) if recipe.calibrate.problems else None)
    if not is_dry_run(job, common, given, rollouts):
        print_summary(run_calibrate(job, given, output, rollouts_path=rollouts, labels_path=labels), common)


@with_options("filter")
def filter_command(
    judged: In,
    output: Out,
    dropped: Annotated[Path | None, typer.Option("--dropped", help="file for the rows that are not kept")] = None,
    *,
    recipe: Recipe,
    common: Common,
) -> None:
    """Decide what is trained and what is stored.

    Example: mae filter judged.jsonl -o selected.jsonl --filters finish_reason
    """
    from mae_cli.stages.filter import run_filter

    job = open_command(recipe, common, "filter", output)
    if not is_dry_run(job, common, *judged, with_model=False):
        print_summary(run_filter(job, judged, output, dropped_path=dropped), common)


@with_options("finetune")
def finetune(selected: In, output: Out, *, recipe: Recipe, common: Common) -> None:
    """Train a LoRA adapter, or with --full the model, on the kept rows or on another tool's training file.

    Example: mae finetune selected.jsonl -o adapter -m smollm2-135m
    """
    from mae_cli.errors import ConfigError
    from mae_cli.stages.finetune import run_finetune, try_finetune

    if output == Path("-"):
        raise ConfigError("-o -: an adapter is a folder; name one")
    start = Path(recipe.adapter) if recipe.adapter else None
    job = open_command(recipe, common, "finetune", joins=True)
    if common.dry_run:
        try_finetune(job, selected)
    if not is_dry_run(job, common):
        print_summary(run_finetune(job, selected, output, start_adapter=start), common)


@with_options("eval")
def eval_command(
    output: Out,
    benchmarks: Annotated[
        list[str] | None,
        typer.Argument(help="problem files with answers, suites (gsm8k), or hub:ORG/NAME/CONFIG:SPLIT"),
    ] = None,
    base: Annotated[bool, typer.Option("--base/--no-base", help="evaluate the model without adapter too")] = True,
    *,
    recipe: Recipe,
    common: Common,
) -> None:
    """Base against adapter on the same items.

    Example: mae eval heldout.jsonl --adapter adapter -o eval.jsonl -m smollm2-135m
    """
    from mae_cli.reports.eval_figures import EvalFigures
    from mae_cli.reports.eval_report import details_text
    from mae_cli.stages.eval import run_eval
    from mae_cli.stages.evaluation.benchmarks import load_benchmarks

    adapter = Path(recipe.adapter) if recipe.adapter else None
    job = open_command(recipe, common, "eval", output)
    if common.dry_run and recipe.eval.via == "mae":
        load_benchmarks(benchmarks or job.recipe.eval.benchmarks, job.recipe.eval)
    if is_dry_run(_asking(job, benchmarks), common, stage="eval" if recipe.eval.via == "mae" else None):
        return
    summary = run_eval(job, benchmarks or [], output, adapter=adapter, with_base=base or adapter is None)
    if not common.quiet:
        print(details_text(msgspec.convert(summary.details, EvalFigures)), file=sys.stderr)
    print_summary(summary, common)


def _asking(job: Job, benchmarks: list[str] | None) -> Job:
    """The job with the benchmarks of the command line in its recipe."""
    if not benchmarks:
        return job
    section = msgspec.structs.replace(job.recipe.eval, benchmarks=list(benchmarks))
    return job.with_recipe(msgspec.structs.replace(job.recipe, eval=section))


def review(
    judged: Annotated[Path, typer.Argument(help="output of mae judge, with a verifier and a judge")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="label file; goes on where it ends", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="end with one JSON object on standard output")] = False,
) -> None:
    """Settle what a program and a judge disagree about: right, wrong, skip, back, quit.

    Example: mae review judged.jsonl -o labels.jsonl
    """
    from mae_cli.stages.calibration.review import review_in_terminal

    summary = review_in_terminal(judged, output)
    print(summary.line(), file=sys.stderr)
    if as_json:
        print_json(summary)
