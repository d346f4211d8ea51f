"""Manifest of a run: the recipe as resolved, and the versions and policies it was made with.

Place in the flow: `loop.py` opens the folder with it, once per call of `mae run`. Contract: a folder of another recipe
is refused by the names of the keys that differ, before anything is written; keys that change no file may differ.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mae_cli import __version__
from mae_cli.errors import ConfigError
from mae_cli.prompts.prompt_files import SOLVER_PROMPT
from mae_cli.recipe.fields import is_free
from mae_cli.recipe.load import check_keys_are_names
from mae_cli.recipe.roles import fixed_roles
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.steps import steps_of_tree
from mae_cli.recipe.yaml_text import dump_yaml
from mae_cli.records import SCHEMA_VERSION
from mae_cli.records.atomic import write_atomically, write_json
from mae_cli.records.fingerprint import compare_fingerprints, flatten
from mae_cli.records.read import read_json
from mae_cli.runs.layout import MANIFEST, RESOLVED_RECIPE
from mae_cli.stages.generation.job import Job


def open_run(job: Job, run_dir: Path, recipe_path: Path | None) -> None:
    """Write `recipe.resolved.yaml` and `manifest.json`, or check that the folder's run has the same recipe.

    Opens the engines of all roles, so that a wrong one shows at once.

    Raises:
        ConfigError: the folder holds a run of another recipe, or rounds of an unknown one; or what is given for the
            name of a key's variable is none.
    """
    recipe = job.recipe
    tree = msgspec.to_builtins(recipe)
    manifest = run_dir / MANIFEST
    if manifest.exists():
        old, new = (comparable(one) for one in (read_json(manifest)["recipe"], tree))
        # Who began before a key existed had what is its default today.
        compare_fingerprints(
            old, new, str(run_dir), "give another --run-dir", defaults=comparable(msgspec.to_builtins(Recipe()))
        )
    elif run_dir.exists() and any(run_dir.glob("round-*")):
        raise ConfigError(f"{run_dir}: holds rounds but no manifest.json; give another --run-dir")
    # Before the first write: what is given for the name of a variable may be the key itself.
    check_keys_are_names(recipe)
    facts = _facts(job, recipe_path)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / RESOLVED_RECIPE, dump_yaml(tree))
    write_json(manifest, {"recipe": tree, "schema": job.schema, "sees_dress": job.sees_dress, **facts})


def schema_of_run(run_dir: Path) -> int:
    """Return the schema of a run's rows: the one it was begun with; of a new run today's."""
    manifest = run_dir / MANIFEST
    return int(read_json(manifest).get("schema", 1)) if manifest.exists() else SCHEMA_VERSION


def sees_dress(run_dir: Path) -> bool:
    """Return whether a run compares questions in any dress; one that was begun before it could goes on without."""
    manifest = run_dir / MANIFEST
    return bool(read_json(manifest).get("sees_dress", False)) if manifest.exists() else True


def comparable(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a resolved recipe that determine its files, dotted; of steps by name, in their order."""
    settings = dict(_settings(tree, with_free=False))
    # No prompt named was "solve" written out before items with choices had one of their own.
    return {
        key: SOLVER_PROMPT if value is None and key.endswith(".prompt") else value for key, value in settings.items()
    }


def all_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return every key of a resolved recipe, dotted; of steps by name."""
    return dict(_settings(tree, with_free=True))


def _settings(tree: Mapping[str, Any], *, with_free: bool) -> Iterator[tuple[str, Any]]:
    for key, value in flatten({key: value for key, value in tree.items() if key != "pipeline"}).items():
        if with_free or not is_free(key):
            yield key, value
    steps = steps_of_tree(tree.get("pipeline", Recipe().pipeline))
    yield "pipeline", [step.name for step in steps]
    for step in steps:
        own = {"stage": step.stage, "from": list(step.sources), "when": step.when, "every": step.every}
        for key, value in own.items():
            yield f"pipeline.{step.name}.{key}", value
        for key, value in flatten({step.stage: step.settings}).items():
            if with_free or not is_free(key):
                yield f"pipeline.{step.name}.{key.partition('.')[2]}", value


def _facts(job: Job, recipe_path: Path | None) -> dict[str, Any]:
    import importlib.metadata as metadata

    packages = ("torch", "transformers", "peft", "accelerate", "datasets")
    installed = {distribution.metadata["Name"].lower() for distribution in metadata.distributions()}
    versions = {name: metadata.version(name) for name in packages if name in installed}
    return {
        "mae": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
        "recipe_file": recipe_path.name if recipe_path else None,
        "policy": msgspec.to_builtins(job.engines.trained.policy),
        "deterministic": job.engines.trained.facts.deterministic,
        "notices": list(job.engines.trained.facts.notices),
        **_other_policies(job),
    }


def _other_policies(job: Job) -> dict[str, Any]:
    """The roles that another policy plays, none where all are the trained one's."""
    fixed = fixed_roles(job.recipe)
    policies = {role: msgspec.to_builtins(job.engines.of(role).policy) for role in fixed}
    return {"roles": policies} if policies else {}
