"""The places where recipes and the files they name are looked for.

Place in the flow: `recipe.load`, prompts and benchmarks ask here. A name is looked up from the working directory,
beside the recipe, and among the files shipped with the toolkit. Contract: no file is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mae_cli.errors import ConfigError, did_you_mean


def shipped_dir(name: Literal["recipes", "data"]) -> Path:
    """The folder of shipped recipes or problem sets: the checkout's, or the installed copy's."""
    package = Path(__file__).parents[1]
    for candidate in (package.parent / name, package / "_shipped" / name):
        if candidate.is_dir() and (package.parent / "pyproject.toml").exists() == (candidate.parent == package.parent):
            return candidate
    return package / "_shipped" / name


def find_file(name: str, *, beside: Path | None = None) -> Path:
    """A file a recipe names: from the working directory, beside the recipe, or among the shipped ones.

    Raises:
        ConfigError: none of these exists; the message lists what was looked for.
    """
    shipped = shipped_dir("data").parent
    tried = [Path(name), *([beside / name] if beside else []), shipped / name]
    for path in tried:
        if path.is_file():
            return path
    looked = ", ".join(dict.fromkeys(str(path) for path in tried))
    raise ConfigError(f"{name}: no such file (looked for {looked})")


def find_recipe(name: str) -> Path:
    """The file of a recipe given by path or by the name of a shipped one."""
    path = Path(name)
    if path.is_file():
        return path
    folder = shipped_dir("recipes")
    shipped = folder / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    known = [file.stem for file in folder.glob("*.yaml")]
    raise ConfigError(f'no recipe "{name}": not a file, and {did_you_mean(name, known)}')
