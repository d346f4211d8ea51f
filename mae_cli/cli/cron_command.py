"""The command `mae cron`: lines for crontab and systemd that start a run until it is done."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer


def cron(
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help="recipe file, or a shipped one's name")],
    run_dir: Annotated[Path, typer.Option("--run-dir", help="folder of the run", show_default=False)],
    at: Annotated[str, typer.Option("--at", metavar="FIELDS", help="when, as in a crontab")] = "*/30 * * * *",
    only: Annotated[
        Literal["crontab", "systemd"] | None, typer.Option("--only", help="one of the two, as it goes into its file")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="-- OPTIONS", help="options of mae run", show_default=False)
    ] = None,
) -> None:
    """Lines for crontab and systemd that start a run until it is done.

    Example: mae cron quickstart --run-dir runs/nightly --at "0 22 * * *" -- --until 07:00
    """
    from mae_cli.runs.schedule import schedule

    arguments = _arguments(recipe_name, run_dir, options or [])
    python = os.path.abspath(sys.executable)
    found = schedule(
        Path(os.path.abspath(run_dir)), arguments, at=at, python=python, folder=Path.cwd(), environment=os.environ
    )
    print(msgspec.json.encode(found).decode() if json else _text(found, only))


def _arguments(recipe_name: str, run_dir: Path, options: list[str]) -> list[str]:
    """The arguments of `mae run`, which must take them."""
    from mae_cli.cli.run_commands import run
    from mae_cli.recipe.files import find_recipe

    path = find_recipe(recipe_name)
    arguments = [os.path.abspath(path), "--run-dir", os.path.abspath(run_dir), *options]
    only_run = typer.Typer(add_completion=False, rich_markup_mode=None)
    only_run.command("run")(run)
    typer.main.get_command(only_run).make_context("mae run", list(arguments))
    return arguments


def _text(found: object, only: str | None) -> str:
    from mae_cli.runs.schedule import LONGEST, Schedule

    assert isinstance(found, Schedule)
    line = found.crontab or f"# too long for cron, which reads {LONGEST} characters: use systemd's timer"
    units = f"{found.service}\n{found.timer}"
    if only == "systemd":
        return units.rstrip()
    if only == "crontab":
        return line
    enabled = f"# then: systemctl --user enable --now {found.unit}.timer; loginctl enable-linger"
    shown = "\n".join(f"# {text}".rstrip() for text in units.rstrip().splitlines())
    return (
        f"# crontab -e: a start that finds the run at work ends at once; all output goes to {found.log},\n"
        "# and only a failure is mailed. A server's key is not passed on: put `export NAME=...` into ~/.profile and\n"
        f"# begin the command with `. ~/.profile;`\n{line}\n#\n# or as a timer of systemd (--only systemd prints it "
        f"plain):\n{shown}\n{enabled}"
    )
