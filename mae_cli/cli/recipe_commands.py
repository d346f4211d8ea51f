"""The commands `mae recipe ...`: what a recipe holds."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from mae_cli.cli.group import Group

recipe_app = typer.Typer(cls=Group, help="What a recipe holds, key by key.", no_args_is_help=True)


@recipe_app.callback()
def _recipes() -> None:
    pass


@recipe_app.command("show")
def recipe_show(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="recipe file, or the name of a shipped one")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="over the recipe")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Every key that holds, its value, and where it comes from; the text is a recipe itself.

    Example: mae recipe show quickstart --set solve.temperature=0.5
    """
    from mae_cli.recipe.files import find_recipe
    from mae_cli.recipe.origins import recipe_text, show_recipe

    shown = show_recipe(find_recipe(recipe), settings or [])
    print(msgspec.json.encode(shown).decode() if as_json else recipe_text(shown))
