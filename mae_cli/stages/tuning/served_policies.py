"""Training where servers write rows: engines that cannot be trained, and rows whose writer nobody knows.

Place in the flow: `finetune` and `mae run` ask before anything is generated or loaded. Contract: pure but for notices.
"""

from __future__ import annotations

from collections.abc import Sequence

from mae_cli.errors import ConfigError
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Row
from mae_cli.training.eligible_rows import WEIGHTS_DIGEST

GENERATING_ENGINES = {
    "openai": "a server keeps its weights to itself",
    "vllm": "vLLM holds them in a form for generating only",
}
NAMED_APART = ("scripted", "replay", "imported")
"""Beginnings of names of writers that are no model on a server."""


def check_trains(recipe: Recipe) -> None:
    """Refuse an engine without weights to train, before a round is generated with it.

    Raises:
        ConfigError: the engine only generates; says how it can do so beside the one that trains.
    """
    name = recipe.engine.partition(":")[0]
    if name in GENERATING_ENGINES:
        own = "base_url: URL, model: NAME, serves_policy: true" if name == "openai" else ""
        keys = ", ".join(filter(None, (f"engine: {name}", own)))
        raise ConfigError(
            f'engine "{recipe.engine}" has no weights to train ({GENERATING_ENGINES[name]}); keep engine: hf with the '
            f"model's folder, and let the roles generate there: roles: {{solver: {{{keys}}}}}"
        )


def unknown_writers(rows: Sequence[Row]) -> str:
    """A notice about rows that name their writer by a server's name for it; empty where there is none."""
    named = [row.policy.model for row in rows if not WEIGHTS_DIGEST.fullmatch(row.policy.model)]
    named = [name for name in named if name and not name.startswith(NAMED_APART) and " file, line " not in name]
    if not named:
        return ""
    names = ", ".join(sorted(set(named))[:3])
    return (
        f"finetune: {len(named)} of {len(rows)} trained rows were written by a model that is known by a name only "
        f"({names}); whether it is the one that is trained nobody checked: in a recipe, serves_policy: true does"
    )
