"""Roles of a recipe, and which model plays each: the policy that is trained, or one of the role's own.

A role without keys of its own is played by the trained policy. A role with a model, revision or server of its own, or
one that names an adapter (also `none`), is fixed: it stays as it is over the rounds of `mae run`, and its rows are not
trained, since the trained policy did not write them. Another engine that loads the same weights and adapters is no
other policy. A role whose server says `serves_policy` is played by the trained policy, on that server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from mae_cli.errors import ConfigError
from mae_cli.recipe.sections import Recipe, RoleSection
from mae_cli.records import PREDEFINED_ROLES, Role

MODEL_KEYS = ("model", "revision", "engine", "base_url")
"""Keys that say which model answers; the others say how it is run or prompted."""
LOADING_ENGINES = ("hf", "vllm")
"""Engines that load a model's weights and adapters themselves: the same keys mean the same policy."""


def roles_of(recipe: Recipe) -> tuple[Role, ...]:
    """Return the roles a recipe may name: the predefined ones, then those it declares, in its order."""
    return tuple(dict.fromkeys((*PREDEFINED_ROLES, *recipe.roles)))


def check_role(recipe: Recipe, role: str, where: str) -> None:
    """Refuse a role that the recipe does not declare.

    Raises:
        ConfigError: an undeclared role; names the declared ones.
    """
    known = roles_of(recipe)
    if role not in known:
        raise ConfigError(f'{where}: role "{role}" is not declared; declared: {", ".join(known)} (recipe key roles)')


def own_keys(recipe: Recipe, role: Role) -> dict[str, Any]:
    """The keys the role sets itself."""
    section = recipe.roles.get(role, RoleSection())
    return {name: getattr(section, name) for name in section.__struct_fields__ if getattr(section, name) is not UNSET}


def is_fixed(recipe: Recipe, role: Role) -> bool:
    """Whether another policy than the trained one plays this role."""
    return "adapter" in own_keys(recipe, role) or _has_own_model(recipe, role)


def fixed_roles(recipe: Recipe) -> list[Role]:
    """Return the roles that another policy than the trained one plays."""
    return [role for role in roles_of(recipe) if is_fixed(recipe, role)]


def serves_policy(recipe: Recipe, role: Role) -> bool:
    """Whether the role is played by the trained policy on a server.

    Raises:
        ConfigError: the role has no server or served name of its own, or an adapter that is not the trained one.
    """
    own = own_keys(recipe, role)
    if not own.get("serves_policy"):
        return False
    where = f"roles.{role}.serves_policy"
    if own.get("engine", recipe.engine).partition(":")[0] != "openai":
        raise ConfigError(f"{where}: only a server can serve the policy; give the role engine: openai")
    if "base_url" not in own or "model" not in own:
        raise ConfigError(f"{where}: give the role the base_url of the server, and as model the name that it lists")
    if "adapter" in own:
        raise ConfigError(f"{where}: the server loads the adapter of each round; leave out the role's adapter")
    if recipe.engine.partition(":")[0] not in LOADING_ENGINES:
        raise ConfigError(f"{where}: the policy's weights must be here too, to be compared and trained: engine: hf")
    return True


def serving_roles(recipe: Recipe) -> list[Role]:
    """Return the roles that the trained policy plays on a server."""
    return [role for role in roles_of(recipe) if serves_policy(recipe, role)]


def _has_own_model(recipe: Recipe, role: Role) -> bool:
    own = own_keys(recipe, role)
    if serves_policy(recipe, role):
        return False
    changed = {key for key in MODEL_KEYS if key in own and own[key] != getattr(recipe, key)}
    names = {own.get("engine", recipe.engine).partition(":")[0], recipe.engine.partition(":")[0]}
    return bool(changed if not names <= set(LOADING_ENGINES) else changed - {"engine"})


def recipe_for(recipe: Recipe, role: Role) -> Recipe:
    """The recipe with the role's own keys above the sections; an adapter of another model is not inherited."""
    own = own_keys(recipe, role)
    own.pop("serves_policy", None)
    if _has_own_model(recipe, role):
        revision = recipe.revision if own.get("model", recipe.model) == recipe.model else None
        own = {"revision": revision, "adapter": None, **own}
    return msgspec.structs.replace(recipe, **own)


def adapter_for(recipe: Recipe, role: Role, trained: Path | None) -> Path | None:
    """The adapter (or model) the role plays with while `trained` is what the trained policy has on."""
    if not is_fixed(recipe, role):
        return trained
    own = recipe_for(recipe, role).adapter
    return Path(own) if own else None
