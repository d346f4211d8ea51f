"""The command line: parse, call one stage, print one line; `exits.py` turns every exception into an exit code."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mae_cli import __version__
from mae_cli.cli_artifacts import export, trace
from mae_cli.cli_tools import data_app, diff, models_app, review
from mae_cli.config import Recipe
from mae_cli.exits import exit_code_of, on_terminate, quiet_libraries
from mae_cli.options import Common, with_options

if TYPE_CHECKING:
    from mae_cli.stages import Session, StageSummary

app = typer.Typer(
    name="mae",
    help="Improve a language model with its own work: propose, solve, judge, filter, finetune, eval, again.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(diff)
app.add_typer(data_app, name="data")
app.add_typer(models_app, name="models")
app.command()(review)

In = Annotated[Path, typer.Argument(help="JSONL file, or - for standard input", show_default=False)]
Out = Annotated[Path, typer.Option("-o", "--output", help="output file, or - for standard output", show_default=False)]
Pool = Annotated[Path | None, typer.Option("--pool", help="pool snapshot that training rows are drawn from")]


def _session(recipe: Recipe, common: Common, output: Path | None = None, *, joins: bool = False) -> Session:
    """The session of one command; `joins`: several processes of it may work together under a launcher."""
    from mae_cli.errors import ConfigError
    from mae_cli.progress import Progress
    from mae_cli.ranks import rank, refuse_launcher
    from mae_cli.shards import parse_shard
    from mae_cli.stages import Session
    from mae_cli.stages.devices import parse_devices
    from mae_cli.stages.workers import Crew

    if not joins:
        refuse_launcher("this command")
    elif rank():
        common.quiet, common.json = True, False  # the first process speaks for all
    if common.json and output == Path("-"):
        raise ConfigError("-o - and --json both want standard output; give a file, or leave out --json")
    shard = parse_shard(common.shard) if common.shard else None
    if shard is not None and output == Path("-"):
        raise ConfigError("-o -: a shard is merged from its file; name one")
    return Session(
        recipe,
        progress=Progress(quiet=common.quiet),
        round_number=common.round_number,
        limit=common.limit,
        shard=shard,
        crew=Crew(parse_devices(common.devices, recipe.engine)) if common.devices is not None else None,
        overwrite=common.overwrite,
        allow_incomplete=common.allow_incomplete,
    )


def _end(summary: StageSummary, common: Common) -> None:
    if not common.quiet:
        print(summary.line(), file=sys.stderr)
    if common.json:
        print(msgspec.json.encode(summary).decode())


def _dry(session: Session, common: Common, *inputs: Path | None, with_model: bool = True) -> bool:
    """With --dry-run: read the inputs, build the plugins, resolve the model, and stop there."""
    from mae_cli.stages import check_plugins

    if not common.dry_run:
        return False
    check_plugins(session.recipe)
    for path in inputs:
        if path is not None:
            session.read(path)
    policy = session.engine.policy if with_model else None
    if with_model and hasattr(session.engine, "check"):
        session.engine.check()
    if not common.quiet:
        print(f"dry run: inputs and recipe are sound{f'; policy {policy.model}' if policy else ''}", file=sys.stderr)
    if common.json:
        print(msgspec.json.encode({"dry_run": True, "policy": policy}).decode())
    return True


@app.command()
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

    session = _session(recipe, common, output)
    if not _dry(session, common, seeds):
        _end(run_propose(session, seeds, output), common)


@app.command()
@with_options("solve")
def solve(problems: In, output: Out, pool: Pool = None, *, recipe: Recipe, common: Common) -> None:
    """The policy answers problems.

    Example: mae solve problems.jsonl -o rollouts.jsonl -m smollm2-135m
    """
    from mae_cli.stages.solve import run_solve

    session = _session(recipe, common, output)
    if not _dry(session, common, problems):
        _end(run_solve(session, problems, output, pool_path=pool), common)


@app.command()
@with_options("judge")
def judge(rollouts: In, output: Out, pool: Pool = None, *, recipe: Recipe, common: Common) -> None:
    """Programs and the policy grade answers and problems.

    Example: mae judge rollouts.jsonl -o judged.jsonl --verifier numeric --solver-reward checked_solver
    """
    from mae_cli.stages.judge import run_judge

    session = _session(recipe, common, output)
    if not _dry(session, common, rollouts):
        _end(run_judge(session, rollouts, output, pool_path=pool), common)


@app.command("judge-calibrate")
@with_options("calibrate")
def judge_calibrate(
    output: Out,
    problems: Annotated[Path | None, typer.Argument(help="problems with reference answers", show_default=False)] = None,
    rollouts: Annotated[Path | None, typer.Option("--rollouts", help="real answers to stand among the planted")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="what people said (mae review)")] = None,
    *,
    recipe: Recipe,
    common: Common,
) -> None:
    """Test the recipe's judges on answers of known worth; exit 3 below its bars.

    Example: mae judge-calibrate heldout.jsonl -o calibration.jsonl -m smollm2-135m
    """
    from mae_cli.recipe_files import find_file
    from mae_cli.stages.calibrate import run_calibrate

    session = _session(recipe, common, output)
    given = problems or (find_file(recipe.calibrate.problems) if recipe.calibrate.problems else None)
    if not _dry(session, common, given, rollouts):
        _end(run_calibrate(session, given, output, rollouts_path=rollouts, labels_path=labels), common)


@app.command("filter")
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

    session = _session(recipe, common, output)
    if not _dry(session, common, judged, with_model=False):
        _end(run_filter(session, judged, output, dropped_path=dropped), common)


@app.command()
@with_options("finetune")
def finetune(selected: In, output: Out, *, recipe: Recipe, common: Common) -> None:
    """Train a LoRA adapter, or with --full the model, on the kept rows or on another tool's training file.

    Example: mae finetune selected.jsonl -o adapter -m smollm2-135m
    """
    from mae_cli.errors import ConfigError
    from mae_cli.stages.finetune import read_to_train, run_finetune

    if output == Path("-"):
        raise ConfigError("-o -: an adapter is a folder; name one")
    start = Path(recipe.adapter) if recipe.adapter else None
    session = _session(recipe, common, joins=True)
    if common.dry_run:
        read_to_train(session, selected)
    if not _dry(session, common):
        _end(run_finetune(session, selected, output, start_adapter=start), common)


@app.command("eval")
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
    from mae_cli.benchmarks import load_benchmarks
    from mae_cli.eval_report import EvalFigures, details_text
    from mae_cli.stages.eval import run_eval

    adapter = Path(recipe.adapter) if recipe.adapter else None
    session = _session(recipe, common, output)
    if common.dry_run and recipe.eval.via == "mae":
        load_benchmarks(benchmarks or recipe.eval.benchmarks, recipe.eval)
    if _dry(session, common):
        return
    summary = run_eval(session, benchmarks or [], output, adapter=adapter, with_base=base or adapter is None)
    if not common.quiet:
        print(details_text(msgspec.convert(summary.details, EvalFigures)), file=sys.stderr)
    _end(summary, common)


@app.command()
@with_options(None)
def run(
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help="recipe file, or a shipped one's name")],
    run_dir: Annotated[Path, typer.Option("--run-dir", help="folder of the run", show_default=False)],
    *,
    recipe: Recipe,
    common: Common,
) -> None:
    """All stages of a recipe for N rounds, resumable.

    Example: mae run quickstart --run-dir runs/first
    """
    from mae_cli.benchmarks import load_benchmarks
    from mae_cli.loop import Run
    from mae_cli.recipe_files import find_recipe
    from mae_cli.rounds import file_seeds
    from mae_cli.stages.calibrate import check_calibration

    session = _session(recipe, common)
    path = find_recipe(recipe_name)
    if common.dry_run:
        file_seeds(recipe, path)
        check_calibration(recipe)
        load_benchmarks(recipe.eval.benchmarks, recipe.eval)
    if _dry(session, common):
        return
    result = Run(session, run_dir, path).go()
    if not common.quiet:
        for key in ("table", "gate", "final"):
            if key in result:
                print(result[key], file=sys.stdout if not common.json else sys.stderr)
    if common.json:
        print(msgspec.json.encode({k: v for k, v in result.items() if k not in ("table", "gate")}).decode())


app.command("export")(export)
app.command("trace")(trace)


@app.command("list")
def list_command(
    kind: Annotated[
        str, typer.Argument(help="verifiers, filters, ... or recipes, prompts, suites, adapters")
    ] = "kinds",
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="run whose adapters are listed")] = None,
) -> None:
    """What can be named in a recipe, or the adapters of a run.

    Example: mae list verifiers
    """
    from mae_cli.catalogue import listing
    from mae_cli.errors import ConfigError
    from mae_cli.lineage import adapters_of, adapters_table

    if kind != "adapters":
        print(listing(kind))
        return
    if run_dir is None:
        raise ConfigError("list adapters: of which run? give --run-dir")
    print(adapters_table(adapters_of(run_dir)))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mae {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    pass


def run_app(arguments: list[str]) -> int:
    """Run the command line in this process and return the exit code."""
    return exit_code_of(app, arguments)


def main() -> None:
    """Entry point of the `mae` command."""
    quiet_libraries()
    signal.signal(signal.SIGTERM, on_terminate)
    code = run_app(sys.argv[1:])
    sys.stderr.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
