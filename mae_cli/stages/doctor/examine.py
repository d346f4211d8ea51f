"""`mae doctor`: all checks in order, from the machine to the servers.

Contract: every check runs whatever the others found; nothing is downloaded, generated (but with `probe`) or kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import MaeError, one_line
from mae_cli.recipe.files import find_recipe
from mae_cli.recipe.load import load_recipe
from mae_cli.recipe.roles import LOADING_ENGINES, fixed_roles, recipe_for
from mae_cli.recipe.sections import Recipe
from mae_cli.stages.doctor import adapter as adapters
from mae_cli.stages.doctor import environment, recipes, servers, template, weights
from mae_cli.stages.doctor.findings import Finding, guarded, note, ok, problem

Say = Callable[[Finding], None]


class Wanted(msgspec.Struct, frozen=True):
    """What is to be looked at."""

    recipe: str | None = None
    settings: Sequence[str] = ()
    model: str | None = None
    revision: str | None = None
    adapter: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    run_dir: Path = Path("runs")
    probe: bool = False
    """Ask servers for a few tokens."""


def examine(wanted: Wanted, say: Say = lambda finding: None) -> list[Finding]:
    """Return all findings; each is said as soon as it is there."""
    found: list[Finding] = []

    def take(more: Iterable[Finding]) -> None:
        for one in more:
            found.append(one)
            say(one)

    recipe, path, refused = _recipe(wanted)
    take(_machine(wanted, recipe.device))
    take(refused)
    if path is not None:
        take(recipes.recipe_findings(recipe, path))
    for name, one in _players(recipe):
        engine = one.engine.partition(":")[0]
        if len(_players(recipe)) > 1:
            take([ok("model", f"{name} is played by {one.engine} {one.model}")])
        if engine in LOADING_ENGINES:
            take(_model(one, wanted))
        elif engine == "openai":
            take(guarded("server", lambda one=one: servers.servers(one, probe=wanted.probe)))  # type: ignore[misc]
        else:
            take(guarded("engine", lambda one=one: _engine(one)))  # type: ignore[misc]
    return found


def _recipe(wanted: Wanted) -> tuple[Recipe, Path | None, list[Finding]]:
    """(recipe, its file, what is wrong with it); what cannot be read leaves the defaults with the flags."""
    flags = {name: getattr(wanted, name) for name in ("model", "revision", "adapter", "base_url", "api_key_env")}
    if wanted.base_url is not None:
        flags["engine"] = "openai"
    try:
        path = find_recipe(wanted.recipe) if wanted.recipe is not None else None
        return load_recipe(path, wanted.settings, flags), path, []
    except MaeError as error:
        refused = problem("recipe", one_line(error), "correct it there (mae list keys)")
    try:
        return load_recipe(None, (), flags), None, [refused]
    except MaeError:
        return Recipe(), None, [refused]


def _players(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """The trained policy and each role with a model of its own, as (name, recipe)."""
    return [("policy", recipe), *((role, recipe_for(recipe, role)) for role in fixed_roles(recipe))]


def _machine(wanted: Wanted, device: str) -> list[Finding]:
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("packages", environment.packages),
        ("torch", environment.torch_threads),
        ("gpu", lambda: environment.gpus(device)),
        ("memory", environment.memory),
        ("folders", lambda: environment.folders(wanted.run_dir)),
        ("locks", lambda: environment.locks(wanted.run_dir)),
        ("sandbox", environment.sandbox),
    ]
    return [one for check, work in checks for one in guarded(check, work)]


def _model(recipe: Recipe, wanted: Wanted) -> list[Finding]:
    """Weights, tokenizer, template, lengths and adapter of one loaded model."""
    folder: Path | None = None
    found: list[Finding] = []
    is_default = wanted.recipe is None and wanted.model is None

    def find() -> list[Finding]:
        nonlocal folder
        folder, told = weights.find_model(recipe.model, recipe.revision, is_default=is_default)
        return told

    found += guarded("model", find)
    model, report = None, None
    if folder is not None:
        base = folder
        found += guarded("model files", lambda: weights.files(base))
        whole = not any(one.level == "problem" and one.check == "model files" for one in found)
        opened: list[tuple[Any, dict[str, Any]]] = []

        def open_it() -> list[Finding]:
            opened.append(weights.open_meta(base))
            return []

        if whole:
            found += guarded("model weights", open_it)
        model, report = opened[0] if opened else (None, None)
        found += _opened(recipe, base, model, report)
        if model is not None and (wanted.recipe is not None or wanted.settings):
            found += guarded("lengths", lambda: recipes.lengths(recipe, model))
    if recipe.adapter is not None:
        folder_of_adapter = Path(recipe.adapter)
        found += guarded("adapter", lambda: adapters.adapter(folder_of_adapter, folder, model))
    return found


def _opened(recipe: Recipe, base: Path, model: Any, report: dict[str, Any] | None) -> list[Finding]:
    """What can be said of a model that transformers knows, and of its tokenizer, which may stand alone."""
    from mae_cli.models.load import load_tokenizer

    found: list[Finding] = []
    tokens: list[Any] = []

    def open_tokens() -> list[Finding]:
        tokens.append(load_tokenizer(base))
        return []

    if model is not None and report is not None:
        found += guarded("model weights", lambda: weights.names(report))
        found += guarded("model", lambda: weights.figures(model, recipe.dtype, recipe.device))
    found += guarded("tokenizer", open_tokens)
    if tokens and model is not None:
        found += guarded("tokenizer", lambda: weights.tokenizer(model, tokens[0]))
    if tokens:
        found += guarded("template", lambda: template.template(base, tokens[0], recipe, model))
    return found


def _engine(recipe: Recipe) -> Iterable[Finding]:
    from mae_cli.plugins.registry import open_engine

    open_engine(recipe).close()
    yield note("engine", f"{recipe.engine}: no model is looked at") if recipe.engine else ok("engine", recipe.engine)
