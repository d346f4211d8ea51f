"""The command `mae plan`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec
import typer

from mae_cli.cli.command import open_command
from mae_cli.cli.options import Common, with_options
from mae_cli.recipe.sections import Recipe


@with_options(None)
def plan(
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help="recipe file, or a shipped one's name")],
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="rows of a step to measure [default: a batch]")
    ] = None,
    max_hours: Annotated[float | None, typer.Option("--max-hours", min=0.0, help="exit 6 above this time")] = None,
    max_disk: Annotated[float | None, typer.Option("--max-disk", min=0.0, help="exit 6 above this, in GiB")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=0, help="exit 6 above this")] = None,
    config_only: Annotated[bool, typer.Option("--config-only", help="memory alone, from config.json alone")] = False,
    *,
    recipe: Recipe,
    common: Common,
) -> None:
    """What a run will take: a few rows of each step are made, time, tokens, memory and disk follow.

    Example: mae plan quickstart --max-hours 2
    """
    from mae_cli.runs.planning.plan import Budgets

    if config_only:
        _memory(recipe, common)
    else:
        _measured(recipe_name, rows, Budgets(max_hours, max_disk, max_tokens), recipe, common)


def _measured(name: str, rows: int | None, budgets: Any, recipe: Recipe, common: Common) -> None:
    from mae_cli.plugins.check import check_plugins
    from mae_cli.recipe.files import find_recipe
    from mae_cli.runs.planning.plan import make_plan, plan_text, require_budgets

    check_plugins(recipe)
    if not common.quiet:
        print(f"plan: measuring a few rows of each step of {name}", file=sys.stderr)
    job = open_command(recipe, msgspec.structs.replace(common, quiet=True), None)
    found = make_plan(job, name, find_recipe(name), rows, budgets)
    print(msgspec.json.encode(found).decode() if common.json else plan_text(found))
    require_budgets(found)


def _memory(recipe: Recipe, common: Common) -> None:
    from mae_cli.runs.planning.memory import memory_of
    from mae_cli.runs.planning.plan import memory_text

    found = memory_of(recipe)
    print(msgspec.json.encode(found).decode() if common.json else memory_text(found))
