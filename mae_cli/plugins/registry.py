"""The table of all plugins: name -> "module:object", strings only.

`contracts.py` holds the contract of each kind. A name with a colon in a recipe (`my_package.checks:Units`) is imported
as it stands, so a recipe is trusted like code. A new plugin is one file, one line here, one test file, and one row in
`mae_cli/plugins/README.md`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from typing import Any, TypeVar, cast

import msgspec

from mae_cli.errors import ConfigError, MissingDependencyError, did_you_mean
from mae_cli.plugins.contracts import Engine, EngineFacts
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.sections import Spec as Spec  # how a recipe names a plugin: a name, or a mapping with `name`
from mae_cli.records import digest

ENGINES = {
    "hf": "mae_cli.engines.hf.engine:open_engine",
    "vllm": "mae_cli.engines.vllm:open_engine",
    "openai": "mae_cli.engines.openai.engine:open_engine",
    "scripted": "mae_cli.engines.scripted:open_engine",
    "replay": "mae_cli.engines.replay:open_engine",
}
PROPOSERS = {
    "zero": "mae_cli.plugins.proposers.zero:Zero",
    "reference": "mae_cli.plugins.proposers.reference:Reference",
    "mixed": "mae_cli.plugins.proposers.mixed:Mixed",
}
# Every rollout is one turn for now; the table opens with the first protocol that takes several.
PROTOCOLS: dict[str, str] = {}
VERIFIERS = {
    "exact_match": "mae_cli.plugins.verifiers.exact_match:ExactMatch",
    "numeric": "mae_cli.plugins.verifiers.numeric:Numeric",
    "choice": "mae_cli.plugins.verifiers.choice:Choice",
    "reasoning_gym": "mae_cli.plugins.verifiers.reasoning_gym:ReasoningGym",
    "arithmetic": "mae_cli.plugins.verifiers.arithmetic:Arithmetic",
    "math": "mae_cli.plugins.verifiers.math:Math",
    "python_tests": "mae_cli.plugins.verifiers.python_tests:PythonTests",
    "python_call": "mae_cli.plugins.verifiers.python_call:PythonCall",
    "majority": "mae_cli.plugins.verifiers.majority:Majority",
    "regex": "mae_cli.plugins.verifiers.regex:Regex",
    "json_schema": "mae_cli.plugins.verifiers.json_schema:JsonSchema",
}
JUDGES = {
    "rubric": "mae_cli.plugins.judges.rubric:Rubric",
    "pairwise": "mae_cli.plugins.judges.pairwise:Pairwise",
    "process": "mae_cli.plugins.judges.process:Process",
}
REWARDS = {
    "mae_proposer": "mae_cli.plugins.rewards.mae:MaeProposer",
    "mae_solver": "mae_cli.plugins.rewards.mae:MaeSolver",
    "mae_judge": "mae_cli.plugins.rewards.mae:MaeJudge",
    "checked_proposer": "mae_cli.plugins.rewards.checked:CheckedProposer",
    "checked_solver": "mae_cli.plugins.rewards.checked:CheckedSolver",
    "checked_judge": "mae_cli.plugins.rewards.checked:CheckedJudge",
    "win_rate": "mae_cli.plugins.rewards.win_rate:WinRate",
}
FILTERS = {
    "quality": "mae_cli.plugins.filters.quality:Quality",
    "solve_rate": "mae_cli.plugins.filters.solve_rate:SolveRate",
    "dedup": "mae_cli.plugins.filters.dedup:Dedup",
    "decontaminate": "mae_cli.plugins.filters.decontaminate:Decontaminate",
    "finish_reason": "mae_cli.plugins.filters.finish_reason:KeepFinishReason",
    "length": "mae_cli.plugins.filters.length:Length",
    "best_of_k": "mae_cli.plugins.filters.best_of_k:BestOfK",
}
OBJECTIVES = {
    "sft": "mae_cli.plugins.objectives.sft:Sft",
    "advantage_sft": "mae_cli.plugins.objectives.sft:AdvantageSft",
    "dpo": "mae_cli.plugins.objectives.preference:Dpo",
    "robust": "mae_cli.plugins.objectives.preference:Robust",
    "hinge": "mae_cli.plugins.objectives.preference:Hinge",
    "ipo": "mae_cli.plugins.objectives.preference:Ipo",
    "simpo": "mae_cli.plugins.objectives.preference:Simpo",
    "orpo": "mae_cli.plugins.objectives.preference:Orpo",
    "kto": "mae_cli.plugins.objectives.kto:Kto",
    "reinforce_pp": "mae_cli.plugins.objectives.policy_gradient:ReinforcePp",
    "grpo": "mae_cli.plugins.objectives.policy_gradient:Grpo",
    "rloo": "mae_cli.plugins.objectives.policy_gradient:Rloo",
    "mix": "mae_cli.plugins.objectives.mix:Mix",
}
# Nothing changes between rounds for now; the table opens with the first controller that does.
CONTROLLERS: dict[str, str] = {}
TABLES: dict[str, dict[str, str]] = {
    "engines": ENGINES,
    "proposers": PROPOSERS,
    "protocols": PROTOCOLS,
    "verifiers": VERIFIERS,
    "judges": JUDGES,
    "rewards": REWARDS,
    "filters": FILTERS,
    "objectives": OBJECTIVES,
    "controllers": CONTROLLERS,
}
Options = TypeVar("Options", bound=msgspec.Struct)


def names(kind: str) -> list[str]:
    """The registered names of one extension point."""
    if kind not in TABLES:
        raise ConfigError(f'unknown kind "{kind}"; {did_you_mean(kind, TABLES)}')
    return sorted(TABLES[kind])


def load(kind: str, name: str) -> Any:
    """The object behind a registered name or a `module:object` path.

    Raises:
        ConfigError: unknown name, naming the nearest known one.
        MissingDependencyError: the entry needs a package that is not installed.
    """
    target = name if ":" in name else TABLES[kind].get(name)
    if target is None:
        singular = kind.removesuffix("s")
        raise ConfigError(f'unknown {singular} "{name}"; {did_you_mean(name, TABLES[kind])} (see `mae list {kind}`)')
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise MissingDependencyError(
                f'{kind} "{name}" needs the package {error.name}: pip install {error.name}'
            ) from error
        raise ConfigError(f'{kind} "{name}": no module {module_name}') from error
    except AttributeError as error:
        raise ConfigError(f'{kind} "{name}": {module_name} has no "{attribute}"') from error


def spec_name(spec: Spec) -> str:
    """The plugin name in a spec."""
    if isinstance(spec, str):
        return spec
    if not isinstance(spec.get("name"), str):
        raise ConfigError(f'a plugin needs a "name", found {spec!r}')
    return cast(str, spec["name"])


def build(kind: str, spec: Spec) -> Any:
    """A plugin with its options, checked against the fields it declares.

    Raises:
        ConfigError: unknown plugin, unknown option or wrong type, each naming what was expected.
    """
    name = spec_name(spec)
    plugin = load(kind, name)
    options = {} if isinstance(spec, str) else {k: v for k, v in spec.items() if k != "name"}
    if not (isinstance(plugin, type) and issubclass(plugin, msgspec.Struct)):
        raise ConfigError(f'{kind} "{name}": not a plugin; expected a msgspec.Struct with the methods of its Protocol')
    known = {field.name for field in msgspec.structs.fields(plugin)}
    for key in options:
        if key not in known:
            raise ConfigError(f'{kind} "{name}": unknown option "{key}"; {did_you_mean(key, known)}')
    try:
        return msgspec.convert(options, plugin)
    except msgspec.ValidationError as error:
        raise ConfigError(f'{kind} "{name}": {error}') from error


def open_engine(recipe: Recipe) -> Engine:
    """The recipe's engine, opened: `NAME:ARGUMENT` of the table, or a user's own `module:function:ARGUMENT`.

    Raises:
        ConfigError: unknown engine, or a user's engine that does not say what it can do.
    """
    name, _, argument = recipe.engine.partition(":")
    if name not in ENGINES and argument and _is_module(name):
        function, _, argument = argument.partition(":")
        name = f"{name}:{function}"
    engine: Engine = load("engines", name)(recipe, argument)
    check_facts(engine, name)
    return engine


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


ABILITIES: dict[str, tuple[str, ...]] = {
    "attaches": ("attach", "adapter_digest"),
    "scores": ("score",),
    "streams": ("stream",),
    "checks": ("check",),
    "trains": ("attach", "adapter_digest", "release_caches"),
}
"""Each fact that promises an ability, and the methods it promises."""


def check_facts(engine: object, name: str) -> None:
    """Refuse an engine without facts, or whose facts promise what it has not.

    Raises:
        ConfigError: naming what is missing.
    """
    facts = getattr(engine, "facts", None)
    if not isinstance(facts, EngineFacts):
        raise ConfigError(
            f'engine "{name}": {type(engine).__name__} has no facts; add `facts = EngineFacts(deterministic=False)` '
            "from mae_cli.plugins.contracts to the class, with what it can do"
        )
    for fact, methods in ABILITIES.items():
        missing = [method for method in methods if getattr(facts, fact) and not hasattr(engine, method)]
        if missing:
            raise ConfigError(f'engine "{name}": its facts say {fact}=True, but it has no method {missing[0]}')


def engine_options(engine: str, argument: str, options: type[Options]) -> Options:
    """An engine's options, read from the text after the colon: `option=value`, separated by commas.

    Raises:
        ConfigError: an unknown option or a value out of range.
    """
    values: dict[str, str] = {}
    for setting in filter(None, argument.split(",")):
        name, separator, value = setting.partition("=")
        if not separator or name not in options.__struct_fields__:
            near = did_you_mean(name, options.__struct_fields__)
            raise ConfigError(f'engine {engine}: "{setting}": expected option=value; {near}')
        values[name] = value
    try:
        return msgspec.convert(values, options, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"engine {engine}: {error}") from error


def resolved(kind: str, spec: Spec) -> dict[str, Any]:
    """A plugin's name, source and all options with their values: the part of the fingerprint that describes it."""
    built = build(kind, spec)
    source = {"source": _source_digest(spec_name(spec))} if ":" in spec_name(spec) else {}
    return {"name": spec_name(spec), **source, **msgspec.to_builtins(built)}


def _source_digest(name: str) -> str:
    """Of the module a user's own plugin stands in: edited code is another experiment."""
    module = importlib.import_module(name.partition(":")[0])
    return digest(inspect.getsource(module))
