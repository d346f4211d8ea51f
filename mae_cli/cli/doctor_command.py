"""The command `mae doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from mae_cli.stages.doctor.findings import Finding


def doctor(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="recipe file, or a shipped one's name")] = None,
    model: Annotated[str | None, typer.Option("-m", "--model", help="model, in place of the recipe's")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="hub revision of the model")] = None,
    adapter: Annotated[str | None, typer.Option("--adapter", help="adapter on that model")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="address of a server to look at")] = None,
    api_key_env: Annotated[str | None, typer.Option("--api-key-env", help="variable that holds its key")] = None,
    run_dir: Annotated[Path, typer.Option("--run-dir", help="folder that runs are written to")] = Path("runs"),
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="over the recipe")] = None,
    probe: Annotated[bool, typer.Option("--probe", help="ask servers for a few tokens")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="problems only")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Whether machine, model, template, adapter, recipe and servers are fit for work; each finding with its fix.

    Exit 0: no problem; 2: something is for you to mend; 75: try again later.

    Example: mae doctor quickstart
    """
    from mae_cli.stages.doctor.examine import Wanted, examine
    from mae_cli.stages.doctor.findings import exit_code

    wanted = Wanted(recipe, settings or [], model, revision, adapter, base_url, api_key_env, run_dir, probe)
    found = examine(wanted, lambda one: _say(one, quiet=quiet, as_json=as_json))
    _finish(found, exit_code(found), quiet=quiet, as_json=as_json)
    raise typer.Exit(exit_code(found))


def _say(one: Finding, *, quiet: bool, as_json: bool) -> None:
    if not as_json and (one.level == "problem" or not quiet):
        print(one.line(), flush=True)


def _finish(found: list[Finding], code: int, *, quiet: bool, as_json: bool) -> None:
    counts = {level: sum(one.level == level for one in found) for level in ("ok", "note", "problem")}
    if as_json:
        print(msgspec.json.encode({"findings": found, "counts": counts, "exit_code": code}).decode())
    elif not quiet:
        print(f"doctor: {counts['ok']} ok, {counts['note']} notes, {counts['problem']} problems", file=sys.stderr)
