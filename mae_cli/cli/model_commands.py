"""The commands `mae models list` and `mae models get`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mae_cli.cli.group import Group

models_app = typer.Typer(cls=Group, help="Models that need no hub.", no_args_is_help=True)


@models_app.command("list")
def models_list() -> None:
    """Models that `mae models get` can install."""
    from mae_cli.models.embedded import list_models
    from mae_cli.reports.tables import table

    lines = [
        (m.name, "installed" if m.installed else "not installed", f"{m.size_mib:,.0f} MiB", m.licence, m.source)
        for m in list_models()
    ]
    print(table(("name", "state", "download", "licence", "source"), lines))


@models_app.command("get")
def models_get(name: Annotated[str, typer.Argument(help="name from mae models list")]) -> None:
    """Install a model into the cache, for offline use ever after."""
    from mae_cli.models.embedded import get_model

    print(get_model(name, lambda text: print(text, file=sys.stderr)))
