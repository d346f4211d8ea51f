"""The command `mae plan`."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from mae_cli.cli.command import open_command, print_json
from mae_cli.cli.options import Common, with_options
from mae_cli.recipe.sections import Recipe


@with_options(None)
def plan(
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help="recipe file, or a shipped one's name")],
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="rows of a step to measure [default: a batch]")
    ] = None,
    config_only: Annotated[bool, typer.Option("--config-only", help="memory alone, from config.json alone")] = False,
    *,
    recipe: Recipe,
    common: Common,
) -> None:
    """What a run will take: a few rows of each step are made, time, tokens, memory and disk follow.

    Example: mae plan quickstart --max-hours 2
    """
    if config_only:
        _memory(recipe, common)
    else:
        _measured(recipe_name, rows, recipe, common)


def _measured(name: str, rows: int | None, recipe: Recipe, common: Common) -> None:
    from mae_cli.plugins.check import check_plugins
    from mae_cli.recipe.files import find_recipe
    from mae_cli.runs.budgets import parse_size
    from mae_cli.runs.planning.plan import PlanBounds, make_plan, plan_text, require_budgets

    check_plugins(recipe)
    if not common.quiet:
        print(f"plan: measuring a few rows of each step of {name}", file=sys.stderr)
    job = open_command(recipe, msgspec.structs.replace(common, quiet=True), None)
    disk = parse_size(recipe.max_disk, "max_disk") / 2**30 if recipe.max_disk else 0.0
    budgets = PlanBounds(recipe.max_hours or None, disk or None, recipe.max_tokens or None)
    found = make_plan(job, name, find_recipe(name), rows, budgets)
    print_json(found) if common.json else print(plan_text(found))
    require_budgets(found)


def _memory(recipe: Recipe, common: Common) -> None:
    from mae_cli.runs.planning.memory import memory_of
    from mae_cli.runs.planning.plan import memory_text

    found = memory_of(recipe)
    print_json(found) if common.json else print(memory_text(found))
