"""The command `mae status`: where a run is, or all runs of a folder."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer


def status(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run, or one that holds runs")] = Path(
        "runs"
    ),
    json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="say it again and again until the run ends")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="seconds between two looks of --watch")] = 5.0,
) -> None:
    """Where a run is, how fast it goes, what it used, and what its next start will do.

    Example: mae status runs/first
    """
    from mae_cli.runs.views.status import is_run

    if not watch:
        _print(folder, json=json)
        return
    while _look(folder, json=json, is_one=is_run(folder)):
        time.sleep(interval)


def _print(folder: Path, *, json: bool) -> None:
    from mae_cli.runs.views.status import is_run, status_of, statuses
    from mae_cli.runs.views.status_text import status_table, status_text

    is_empty = folder.is_dir() and not any(folder.iterdir())
    if is_run(folder) or is_empty or not folder.is_dir():
        one = status_of(folder)
        print(msgspec.json.encode(one).decode() if json else status_text(one))
        return
    found = statuses(folder)
    print(msgspec.json.encode(found).decode() if json else status_table(found))


def _look(folder: Path, *, json: bool, is_one: bool) -> bool:
    """Say it once more; false where nothing will change any more."""
    from mae_cli.runs.views.status import status_of, statuses
    from mae_cli.runs.views.status_text import watch_line

    found = [status_of(folder)] if is_one else list(statuses(folder))
    if sys.stdout.isatty() and not json:
        print("\x1b[2J\x1b[H", end="")  # a terminal: begin at the top of an empty screen
        _print(folder, json=False)
    else:
        for one in found:
            name = "" if is_one else f"{one.run_dir}: "
            print(msgspec.json.encode(one).decode() if json else name + watch_line(one), flush=True)
    return any(one.life.startswith("running") for one in found)
