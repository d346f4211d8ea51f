"""The command line as a whole: every command by its name, and the entry point of `mae`."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from mae_cli import __version__
from mae_cli.cli import run_commands, stage_commands
from mae_cli.cli.cron_command import cron
from mae_cli.cli.data_commands import data_app
from mae_cli.cli.doctor_command import doctor
from mae_cli.cli.exits import end_in_time, exit_code_of, on_terminate, quiet_libraries
from mae_cli.cli.group import Group
from mae_cli.cli.model_commands import models_app
from mae_cli.cli.plan_command import plan
from mae_cli.cli.recipe_commands import recipe_app
from mae_cli.cli.status_command import status
from mae_cli.records.python_process import keep_docstrings
from mae_cli.records.streams import prepare_streams

app = typer.Typer(
    name="mae",
    cls=Group,
    help="Improve a language model with its own work: propose, solve, judge, filter, finetune, eval, again.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("propose")(stage_commands.propose)
app.command("solve")(stage_commands.solve)
app.command("judge")(stage_commands.judge)
app.command("filter")(stage_commands.filter_command)
app.command("finetune")(stage_commands.finetune)
app.command("eval")(stage_commands.eval_command)
app.command("run")(run_commands.run)
app.command("status")(status)
app.command("cron")(cron)
app.command("calibrate")(stage_commands.calibrate)
app.command("judge-calibrate", hidden=True)(stage_commands.calibrate)  # its name until 0.1
app.command("review")(stage_commands.review)
app.command("doctor")(doctor)
app.command("plan")(plan)
app.command("list")(run_commands.list_command)
app.command("trace")(run_commands.trace)
app.command("diff")(run_commands.diff)
app.command("export")(run_commands.export)
app.add_typer(data_app, name="data")
app.add_typer(models_app, name="models")
app.add_typer(recipe_app, name="recipe")


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
    keep_docstrings()
    prepare_streams()
    quiet_libraries()
    signal.signal(signal.SIGTERM, on_terminate)
    end_in_time()
    code = run_app(sys.argv[1:])
    sys.stderr.flush()
    sys.exit(code)
