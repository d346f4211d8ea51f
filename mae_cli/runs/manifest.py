"""What a run folder says about itself before its first round: the recipe as resolved, and what it was made with.

Place in the flow: `loop.py` opens the folder with it, once per call of `mae run`. Contract: a folder of another recipe
is refused by the names of the keys that differ, before anything is written; keys that change no file may differ.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import msgspec

from mae_cli import __version__
from mae_cli.errors import ConfigError
from mae_cli.recipe.load import check_keys_are_names
from mae_cli.recipe.roles import fixed_roles
from mae_cli.recipe.sections import is_free
from mae_cli.records.atomic import write_atomically, write_json
from mae_cli.records.fingerprint import compare_fingerprints, flatten
from mae_cli.records.read import read_json
from mae_cli.stages.generation.session import Session


def open_run(session: Session, run_dir: Path, recipe_path: Path | None) -> None:
    """Write `recipe.resolved.yaml` and `manifest.json`, or check that the folder's run has the same recipe.

    Opens the engines of all roles, so that a wrong one shows at once.

    Raises:
        ConfigError: the folder holds a run of another recipe, or rounds of an unknown one; or what is given for the
            name of a key's variable is none.
    """
    import yaml

    recipe = session.recipe
    tree = msgspec.to_builtins(recipe)
    manifest = run_dir / "manifest.json"
    if manifest.exists():
        old = {k: v for k, v in flatten(read_json(manifest)["recipe"]).items() if not is_free(k)}
        new = {k: v for k, v in flatten(tree).items() if not is_free(k)}
        compare_fingerprints(old, new, str(run_dir), "give another --run-dir")
    elif run_dir.exists() and any(run_dir.glob("round-*")):
        raise ConfigError(f"{run_dir}: holds rounds but no manifest.json; give another --run-dir")
    # Before the first write: what is given for the name of a variable may be the key itself.
    check_keys_are_names(recipe)
    facts = _facts(session, recipe_path)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(
        run_dir / "recipe.resolved.yaml", yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()
    )
    write_json(manifest, {"recipe": tree, **facts})


def _facts(session: Session, recipe_path: Path | None) -> dict[str, Any]:
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
        "policy": msgspec.to_builtins(session.engine.policy),
        "deterministic": session.engine.facts.deterministic,
        "notices": list(session.engine.facts.notices),
        **_other_policies(session),
    }


def _other_policies(session: Session) -> dict[str, Any]:
    """The roles that another policy plays, none where all are the trained one's."""
    fixed = fixed_roles(session.recipe)
    policies = {role: msgspec.to_builtins(session.engine_for(role).policy) for role in fixed}
    return {"roles": policies} if policies else {}
