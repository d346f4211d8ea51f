"""Listings of what exists, read from the code itself: plugins, recipes, prompts, keys, steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mae_cli.cli.options import section_structs
from mae_cli.errors import ConfigError, did_you_mean
from mae_cli.plugins import registry
from mae_cli.prompts import prompt_files
from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.files import shipped_dir
from mae_cli.recipe.sections import Recipe, RoleSection
from mae_cli.reports.tables import table
from mae_cli.stages.evaluation.benchmarks import SUITES


def listing(kind: str) -> str:
    """A table of one kind's entries: name, what it is, where it stands.

    Raises:
        ConfigError: no such kind.
    """
    others = ("recipes", "prompts", "suites", "keys", "adapters", "steps", "rules")
    if kind == "kinds":
        return "\n".join([*registry.TABLES, *others])
    if kind == "suites":
        return suites_table()
    if kind == "recipes":
        lines = [(path.stem, _first_comment(path), path.name) for path in sorted(shipped_dir("recipes").glob("*.yaml"))]
        return table(("recipe", "what it shows", "file"), lines)
    if kind == "keys":
        return recipe_keys()
    if kind == "prompts":
        return "\n".join(sorted(path.stem for path in prompt_files.FOLDER.glob("*.txt")))
    if kind not in registry.TABLES:
        raise ConfigError(f'unknown kind "{kind}"; {did_you_mean(kind, [*registry.TABLES, *others])}')
    entries = []
    for name, target in registry.TABLES[kind].items():
        document = (registry.load(kind, name).__doc__ or "").strip().splitlines()
        entries.append((name, document[0] if document else "", target.partition(":")[0]))
    return table((kind, "what it is", "module"), entries) if entries else f"{kind}: none yet"


def of_run(run_dir: Path | None) -> str:
    """Return the adapters of a run as a table.

    Raises:
        ConfigError: no run is named, or none is there.
    """
    from mae_cli.runs.views.adapters import adapters_of, adapters_table

    if run_dir is None:
        raise ConfigError("list adapters: of which run? give --run-dir")
    return adapters_table(adapters_of(run_dir))


def of_recipe(kind: str, name: str | None, settings: list[str], run_dir: Path | None, number: int) -> str:
    """Return the steps of a recipe as a table, or as the make rules of one round.

    Raises:
        ConfigError: no recipe is named, or for rules no run.
    """
    from mae_cli.recipe.files import find_recipe
    from mae_cli.recipe.load import load_recipe
    from mae_cli.runs.make_rules import rules, steps_table

    if name is None:
        raise ConfigError(f"list {kind}: of which recipe? give --recipe")
    recipe = load_recipe(find_recipe(name), settings)
    if kind == "steps":
        return steps_table(recipe)
    if run_dir is None:
        raise ConfigError("list rules: of which run? give --run-dir")
    return rules(recipe, run_dir, number)


def suites_table() -> str:
    """The suites of `mae eval`, and below it the prompts that ask their items, word for word."""
    lines = [
        (name, suite.hub, suite.verifier, suite.prompt, ", ".join(suite.group_by) or "-")
        for name, suite in SUITES.items()
    ]
    parts = [table(("suite", "items", "verifier", "prompt", "groups"), lines)]
    for name in dict.fromkeys(suite.prompt for suite in SUITES.values()):
        text = (prompt_files.FOLDER / f"{name}.txt").read_text("utf-8")
        parts.append(f"prompt {name}:\n{text.strip()}")
    return "\n\n".join(parts)


def _first_comment(path: Path) -> str:
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").strip()
    return ""


def recipe_keys() -> str:
    """Every recipe key with its default and what it does, as Markdown tables; `recipes/README.md` holds a copy."""
    parts = []
    sections = {name: struct for name, struct in section_structs()}
    top = [row for row in section_fields(Recipe) if row[0] not in sections]
    sections = {"roles.ROLE": RoleSection, **sections}
    for title, rows in [("top level", top), *((f"`{n}:`", section_fields(s)) for n, s in sections.items())]:
        lines = [f"| `{name}` | `{_shown(default)}` | {doc} |" for name, _, doc, default in rows]
        parts.append("\n".join([f"### {title}", "", "| key | default | what it does |", "|---|---|---|", *lines]))
    return "\n\n".join(parts)


def _shown(default: Any) -> str:
    if default is msgspec.UNSET:
        return "as above"
    return "null" if default is None else msgspec.json.encode(default).decode() if default != "" else '""'
