"""The engines of one process: which model plays a role, loaded once and shared between the roles.

Place in the flow: every stage that asks a model gets its engine here. Contract: an engine is opened at its first use;
roles with the same model and settings share it, and adapters are put on and taken off as the roles need them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.models.adapter_checks import check_base, check_kind
from mae_cli.models.digests import is_whole_model
from mae_cli.models.locate import local_model
from mae_cli.plugins import contracts, registry
from mae_cli.recipe.roles import LOADING_ENGINES, adapter_for, is_fixed, recipe_for, serves_policy
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Policy, Role, digest
from mae_cli.stages.generation.progress import Progress
from mae_cli.stages.generation.workers import Crew


class Engines:
    """The engines of one process, by role.

    Attributes:
        adapter: what the trained policy has on now: an adapter, or a whole model in place of the recipe's; see `wear`.
        crew: the worker processes that generate in place of this one; null without `--devices`.
    """

    def __init__(self, recipe: Recipe, progress: Progress, crew: Crew | None = None) -> None:
        self.crew = crew
        self.adapter = Path(recipe.adapter) if recipe.adapter else None
        self._recipe, self._progress = recipe, progress
        self._engines: dict[str, contracts.Engine] = {}
        self._trained: dict[str, str] = {}
        """Of the engines of the trained policy, by key: their model."""
        self._checked: set[tuple[str, str]] = set()
        """(model, adapter) that belong together."""

    def wear(self, adapter: Path | None) -> None:
        """Let the trained policy have this adapter (or whole model) on from now on, or none."""
        self.adapter = adapter

    @property
    def trained(self) -> contracts.Engine:
        """The engine of the policy that is trained."""
        return self.of(None)

    def of(self, role: Role | None, *, weights: bool = False) -> contracts.Engine:
        """The engine that plays a role (none: the trained policy), with its adapter on; opened at first use.

        Roles with the same model and settings share one loaded model; an adapter is swapped where it differs. Where
        workers generate, the engine only names its policy, unless its `weights` are wanted for training.
        """
        recipe, adapter = self._recipe, self.adapter
        if role is not None:
            recipe, adapter = recipe_for(recipe, role), adapter_for(recipe, role, adapter)
        if role is not None and serves_policy(self._recipe, role):
            return self._served(role, recipe, adapter)
        recipe, adapter = standing(recipe, adapter)
        name = recipe.engine.partition(":")[0]
        # A server or a script has no weights to spare, so such an engine is the same in parent and workers.
        names_only = self.crew is not None and name in LOADING_ENGINES and not weights
        key = digest(names_only, *(getattr(recipe, key) for key in _ENGINE_KEYS))
        if role is None or not is_fixed(self._recipe, role):
            self._leave_models_but(recipe.model)
            self._trained[key] = recipe.model
        if key in self._engines:
            self._check(self._engines[key], adapter, recipe)
            _put_on(self._engines[key], adapter, recipe.engine)
            return self._engines[key]
        if name in LOADING_ENGINES:
            # A missing model must not show only after the seconds that loading torch takes.
            local_model(recipe.model, recipe.revision)
        recipe = msgspec.structs.replace(recipe, adapter=str(adapter) if adapter else None)
        engine: contracts.Engine
        if names_only and self.crew is not None:
            from mae_cli.engines.hf.policy_only import PolicyEngine

            engine = PolicyEngine(recipe, self.crew.device_type)
        else:
            engine = registry.open_engine(recipe)
        if adapter and not engine.facts.attaches:
            raise ConfigError(f'engine "{recipe.engine}" cannot use an adapter')
        self._check(engine, adapter, recipe)
        if role is not None and is_fixed(self._recipe, role):
            model = "" if name in ("scripted", "replay") else f" {recipe.model}"
            self._progress.say(f"{role}: played by another policy than the trained one: {recipe.engine}{model}")
        self._engines[key] = engine
        return engine

    def _check(self, engine: contracts.Engine, adapter: Path | None, recipe: Recipe) -> None:
        """Refuse an adapter of another kind or base than the engine's, and say once what may not fit."""
        # A server's adapter is a name; a folder that is missing is told by the engine.
        if adapter is None or not adapter.is_dir() or not contracts.can_attach(engine):
            return
        digest = engine.adapter_digest(adapter)
        if (engine.policy.model, digest) in self._checked:
            return
        check_kind(adapter)
        for notice in check_base(adapter, engine.policy, recipe.model):
            self._progress.say(notice)
        self._checked.add((engine.policy.model, digest))

    def _served(self, role: Role, recipe: Recipe, adapter: Path | None) -> contracts.Engine:
        """The trained policy on a server, compared with the weights here when it is first wanted.

        Raises:
            ConfigError: the policy is a whole model by now, which no server loads while it runs.
            EngineError: the server holds other weights, or renders other prompts.
        """
        from mae_cli.engines.openai.policy_server import open_policy_server

        if adapter is not None and is_whole_model(adapter):
            raise ConfigError(f"roles.{role}.serves_policy: a server loads adapters, and {adapter} is a whole model")
        key = digest("serves the policy", *(getattr(recipe, key) for key in _ENGINE_KEYS))
        if key not in self._engines:
            local = self.of(None, weights=True)
            worn = adapter if contracts.can_attach(local) else None
            _put_on(local, None, self._recipe.engine)
            served = open_policy_server(recipe, self._recipe)
            try:
                agreement = served.compare(local)
            except BaseException:
                served.close()
                raise
            finally:
                _put_on(local, worn, self._recipe.engine)
            self._progress.say(f"{role}: played by the trained policy on {agreement}")
            self._engines[key] = served
        _put_on(self._engines[key], adapter, recipe.engine)
        return self._engines[key]

    def close(self) -> None:
        """Free the engines."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def close_others(self, kept: contracts.Engine | None) -> None:
        """Free every engine but one, which needs the memory."""
        for key, engine in list(self._engines.items()):
            if engine is not kept:
                engine.close()
                del self._engines[key]

    def _leave_models_but(self, model: str) -> None:
        """Free the engines that hold the trained policy as it was before: its weights are in another model now."""
        for key in [key for key, name in self._trained.items() if name != model]:
            del self._trained[key]
            if key in self._engines:
                self._engines.pop(key).close()

    def fingerprint(self, policy: Policy, role: Role | None = None) -> dict[str, Any]:
        """The digests of the policy that plays the role, and the engine where it is not the real one."""
        # Its options that change a text are in the policy; a delay or a file's place change none.
        name = (recipe_for(self._recipe, role) if role else self._recipe).engine.partition(":")[0]
        engine = {} if name == "hf" else {"engine": name}
        played = self.of(role)
        return {
            "policy": msgspec.to_builtins(policy),
            "deterministic": played.facts.deterministic,
            "dtype": played.facts.numerics,
            "think_tags": self._recipe.think_tags,
            **engine,
        }


# What decides which model is loaded and how: roles with the same values share an engine. Adapters are put on it later.
_ENGINE_KEYS = [
    *("model", "revision", "engine", "base_url", "api_key_env", "device", "dtype", "load_in_4bit"),
    *("chat_template", "chat_template_kwargs", "think_tags", "batch_size"),
]


def _put_on(engine: contracts.Engine, adapter: Path | None, name: str) -> None:
    """Give an engine an adapter, or none, unless it has that one on."""
    if not contracts.can_attach(engine):
        if adapter is not None:
            raise ConfigError(f'engine "{name}" cannot use an adapter')
        return
    if engine.policy.adapter != (engine.adapter_digest(adapter) if adapter is not None else None):
        engine.attach(adapter)


def standing(recipe: Recipe, trained: Path | None) -> tuple[Recipe, Path | None]:
    """(recipe, adapter) of a policy with what was trained on: a whole model stands in the model's place."""
    if trained is not None and recipe.engine.partition(":")[0] in LOADING_ENGINES and is_whole_model(trained):
        return msgspec.structs.replace(recipe, model=str(trained), revision=None), None
    return recipe, trained
