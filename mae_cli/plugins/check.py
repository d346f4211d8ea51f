"""The check of all plugins and prompts that a recipe names, made before any work.

Place in the flow: commands call it once the recipe is loaded. Contract: a wrong option or name, a role nobody plays or
a missing package stops the command before the first stage. Left out: keys of the recipe itself (`recipe.load`).
"""

from __future__ import annotations

from mae_cli.errors import ConfigError, did_you_mean
from mae_cli.plugins import registry
from mae_cli.prompts.prompt_files import load_prompt
from mae_cli.recipe.roles import check_role
from mae_cli.recipe.sections import SECTIONS, Recipe
from mae_cli.recipe.steps import recipe_of_step, steps_of

_KINDS = {"proposer": "proposers", "verifier": "verifiers", "judge": "judges", "objective": "objectives"}
"""Keys of sections that name one plugin (or a list of them), and its kind."""


def check_plugins(recipe: Recipe) -> None:
    """Build every plugin and prompt that a recipe and its steps name, so that a wrong option shows before any work.

    Raises:
        ConfigError: an unknown plugin, option or prompt, or a role that no step plays.
        MissingDependencyError: a plugin needs a package that is not installed.
    """
    _check_sections(recipe)
    played = played_roles(recipe)
    for role in recipe.judge.rewards:
        check_role(recipe, role, "judge.rewards")
    _check_filter_roles(recipe, "filter", played)
    for step in steps_of(recipe):
        own = recipe_of_step(recipe, step)
        _check_sections(own)
        _check_filter_roles(own, step.place, played)


def played_roles(recipe: Recipe) -> list[str]:
    """Return the roles that the steps of the pipeline play, in their order."""
    sections = (getattr(recipe_of_step(recipe, step), step.stage) for step in steps_of(recipe))
    return list(dict.fromkeys(section.role for section in sections if hasattr(section, "role")))


def _check_sections(recipe: Recipe) -> None:
    for section in (getattr(recipe, name) for name in SECTIONS):
        for name in section.__struct_fields__:
            value = getattr(section, name)
            if name.startswith("prompt") and value is not None:
                load_prompt(value)
            elif name.endswith("_reward"):
                registry.build("rewards", value)
            elif name == "rewards":
                for spec in value.values():
                    registry.build("rewards", spec)
            elif name == "filters":
                for spec in value:
                    registry.build("filters", spec)
            elif name in _KINDS and value is not None:
                for spec in value if isinstance(value, list) else [value]:
                    registry.build(_KINDS[name], spec)


def _check_filter_roles(recipe: Recipe, place: str, played: list[str]) -> None:
    """Refuse a filter whose roles nobody plays: it would let everything through in silence."""
    for spec in recipe.filter.filters:
        plugin = registry.build("filters", spec)
        roles = getattr(plugin, "roles", None)
        if roles and played and not set(roles) & set(played):
            raise ConfigError(
                f"{place}: filter {registry.spec_name(spec)}: no step plays {' or '.join(roles)}; "
                f"{did_you_mean(roles[0], played)}; give it the option roles"
            )
