"""No option and no recipe key is accepted without effect (kind: drivendataorg/zamba#409)."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from typing import Any

import pytest

from mae_cli.cli import run_commands, stage_commands
from mae_cli.cli.options import COMMON, NOT_TAKEN, section_structs
from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.sections import Recipe, RoleSection
from tests.support import ROOT

STAGES = {
    name: getattr(stage_commands, {"filter": "filter_command", "eval": "eval_command"}.get(name, name))
    for name, _ in section_structs()
}


def options_of(command: Any) -> set[str]:
    return set(inspect.signature(command).parameters)


@cache
def attributes_read() -> frozenset[str]:
    """Every attribute that code outside the recipe's own package reads, and every text it may look one up by."""
    found: set[str] = set()
    for path in (ROOT / "mae_cli").rglob("*.py"):
        if "recipe" in path.relative_to(ROOT / "mae_cli").parts[:1]:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return frozenset(found)


KEYS = [
    *(("recipe", name) for name, *_ in section_fields(Recipe)),
    *(("roles", name) for name, *_ in section_fields(RoleSection)),
    *((section, name) for section, struct in section_structs() for name, *_ in section_fields(struct)),
]
# Read by their own section's method `sampling`, and by `recipe.roles`.
BY_SECTIONS = {"max_new_tokens", "temperature", "top_p", "top_k", "stop", "serves_policy"}


@pytest.mark.parametrize(("section", "key"), KEYS, ids=lambda value: value)
def test_every_recipe_key_is_read_somewhere(section: str, key: str) -> None:
    assert key in attributes_read() | BY_SECTIONS


@pytest.mark.parametrize("section", NOT_TAKEN)
def test_a_command_has_no_option_of_what_it_does_not_use(section: str) -> None:
    options = options_of(STAGES[section])

    assert not options & NOT_TAKEN[section]
    # The rows of an optimizer step are an option of the section of that name.
    assert set(COMMON) - NOT_TAKEN[section] - ({"batch_size"} if section == "finetune" else set()) <= options


def test_options_without_use_are_gone() -> None:
    assert "limit" not in options_of(STAGES["finetune"])
    assert "step" not in options_of(STAGES["calibrate"])
    assert {"limit", "step"} <= options_of(STAGES["filter"])
    assert not {"recipe", "step", "shard", "limit"} & options_of(run_commands.run)


@pytest.mark.parametrize("section", STAGES)
def test_every_option_of_a_section_sets_its_key(section: str) -> None:
    struct = dict(section_structs())[section]
    known = {f"{section}__{name}" for name, *_ in section_fields(struct)}

    assert {name for name in options_of(STAGES[section]) if "__" in name} <= known
