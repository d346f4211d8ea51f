"""Where code may stand: the packages from the top floor down, what each may import, and how long files may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "mae_cli"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
FILE_LINES, FUNCTION_LINES, COMMAND_LINES = 400, 50, 20

# The packages, top floor first, with what each may import besides itself. A package names only lower floors, so no
# import points upward and there is no circle between packages. A name with a dot is one module or subpackage: only
# that part may be imported.
MAY_IMPORT: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {
        *("runs", "stages", "plugins", "models", "prompts", "data", "reports", "recipe", "answers", "records"),
        *("errors", "__init__"),
    },
    "runs": {
        *("stages", "models", "plugins", "prompts", "data", "reports", "recipe", "answers", "records", "errors"),
        "__init__",
    },
    "stages": {
        *("engines", "training", "plugins", "models", "checking", "prompts", "data", "reports", "answers", "recipe"),
        *("records", "errors"),
    },
    "engines": {"plugins", "models", "prompts", "recipe", "answers", "records", "errors"},
    "training": {"plugins", "models", "recipe", "records", "reports.statistics", "errors"},
    "plugins": {"checking", "prompts", "data", "recipe", "answers", "records", "reports.statistics", "errors"},
    "models": {"prompts", "reports", "records", "errors"},
    "checking": {"answers", "records", "errors"},
    "prompts": {"answers", "records", "errors"},
    "data": {"answers", "records", "errors"},
    "reports": {"answers", "records", "errors"},
    "answers": {"records", "errors"},
    "recipe": {"records", "errors"},
    "records": {"errors"},
    "errors": set(),
    "__init__": set(),
}  # fmt: skip
KINDS = ("verifiers", "judges", "rewards", "filters", "objectives", "proposers")
COMMANDS = ("propose", "solve", "judge", "calibrate", "filter", "finetune", "eval")


def name_of(path: Path) -> str:
    """`a.b` of mae_cli/a/b.py and of mae_cli/a/b/__init__.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def package_of(name: str) -> str:
    return name.partition(".")[0]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Our modules that a file imports at any place in it, as dotted names below mae_cli."""
    names = {name_of(module) for module in MODULES}
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            both = [f"{node.module}.{alias.name}" for alias in node.names]
            wanted = [one if one.removeprefix("mae_cli.") in names else node.module for one in both]
        else:
            continue
        for name in wanted:
            if name == "mae_cli":
                found.add("__init__")
            elif name.startswith("mae_cli."):
                found.add(name.removeprefix("mae_cli."))
    return frozenset(found)


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines of its body without the docstring) of each function."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_every_module_stands_in_a_package_of_the_table() -> None:
    assert {package_of(name_of(path)) for path in MODULES} == MAY_IMPORT.keys()


def test_a_package_names_only_lower_floors() -> None:
    floors = list(MAY_IMPORT)
    upward = [
        (package, other)
        for package, others in MAY_IMPORT.items()
        for other in others
        if floors.index(package_of(other)) <= floors.index(package)
    ]

    assert upward == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_package_may(path: Path) -> None:
    package = package_of(name_of(path))
    allowed = {package, *MAY_IMPORT[package]}

    assert {
        name
        for name in imports_of(path)
        if not any(name == one or name.startswith(f"{one}.") for one in allowed)
    } == set()  # fmt: skip


def test_no_module_imports_itself_through_others() -> None:
    graph = {name_of(path): {name for name in imports_of(path)} - {name_of(path)} for path in MODULES}
    state: dict[str, int] = {}
    circles: list[list[str]] = []

    def visit(name: str, way: list[str]) -> None:
        if state.get(name) == 2:
            return
        if name in way:
            circles.append([*way[way.index(name) :], name])
            return
        for other in sorted(graph.get(name, ())):
            visit(other, [*way, name])
        state[name] = 2

    for name in graph:
        visit(name, [])
    assert circles == []


def test_a_stage_imports_no_other_stage() -> None:
    stages = {f"stages.{command}" for command in COMMANDS}

    assert {name_of(path) for path in (PACKAGE / "stages").glob("*.py")} == {"stages", *stages}
    assert [
        (name, other)
        for path in (PACKAGE / "stages").rglob("*.py")
        for other in imports_of(path) & stages
        if (name := name_of(path)) != other
    ] == []  # fmt: skip


def test_a_kind_of_plugin_imports_no_other_kind() -> None:
    def kind_of(name: str) -> str | None:
        parts = name.split(".")
        return parts[1] if parts[0] == "plugins" and len(parts) > 1 and parts[1] in KINDS else None

    assert [
        (name_of(path), other)
        for path in (PACKAGE / "plugins").rglob("*.py")
        for other in imports_of(path)
        if kind_of(other) is not None and kind_of(other) != kind_of(name_of(path))
    ] == []  # fmt: skip


def test_the_top_of_the_package_has_at_most_sixteen_entries() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", "_shipped"}

    assert len({name for name in entries if not name.startswith("__") and name != "py.typed"}) <= 16


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_keep_their_budgets(path: Path) -> None:
    limit = COMMAND_LINES if package_of(name_of(path)) == "cli" else FUNCTION_LINES

    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES
    assert {name: lines for name, lines in functions_of(path) if lines > limit} == {}


def test_one_name_is_one_public_class() -> None:
    """Fault 12 of the house: `Pair` was three things. Options stand beside the engine they belong to."""
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name_of(path))

    assert {name: found for name, found in places.items() if len(found) > 1 and name not in ("Options", "Source")} == {}
