"""The check of all plugins and prompts that a recipe names, made before any work.

Place in the flow: commands call it once the recipe is loaded. Contract: a wrong option, a wrong name or a missing
package stops the command before the first stage. Left out: the keys of the recipe itself (`recipe.load`).
"""

from __future__ import annotations

from mae_cli.plugins import registry
from mae_cli.prompts.prompt_files import load_prompt
from mae_cli.recipe.sections import SECTIONS, Recipe


def check_plugins(recipe: Recipe) -> None:
    """Build every plugin and prompt that a recipe names, so that a wrong option shows before the first stage.

    Raises:
        ConfigError: an unknown plugin, option or prompt.
        MissingDependencyError: a plugin needs a package that is not installed.
    """
    kinds = {"proposer": "proposers", "verifier": "verifiers", "judge": "judges", "objective": "objectives"}
    for section in (getattr(recipe, name) for name in SECTIONS):
        for name in section.__struct_fields__:
            value = getattr(section, name)
            if name.startswith("prompt"):
                load_prompt(value)
            elif name.endswith("_reward"):
                registry.build("rewards", value)
            elif name == "filters":
                for spec in value:
                    registry.build("filters", spec)
            elif name in kinds and value is not None:
                for spec in value if isinstance(value, list) else [value]:
                    registry.build(kinds[name], spec)
