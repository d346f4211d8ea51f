from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mae_cli.cli.listing import listing
from mae_cli.errors import ConfigError, MissingDependencyError
from mae_cli.plugins import contracts, registry
from mae_cli.recipe.files import shipped_dir
from mae_cli.recipe.sections import Recipe
from tests.support import ROOT, child_environment

ENTRIES = [(kind, name) for kind, table in registry.TABLES.items() for name in table]
PROTOCOLS = {
    "engines": contracts.Engine,
    "proposers": contracts.Proposer,
    "verifiers": contracts.Verifier,
    "judges": contracts.Judge,
    "rewards": contracts.Reward,
    "filters": contracts.Filter,
    "objectives": contracts.Objective,
}


def methods(protocol: Any) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(member).parameters)
        for name, member in vars(protocol).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_the_registry_itself_imports_no_plugin() -> None:
    code = (
        "import sys, mae_cli.plugins.registry;"
        "kinds = {'engines', 'verifiers', 'judges', 'rewards', 'filters', 'objectives', 'proposers'};"
        "print([m for m in sys.modules if m.startswith('mae_cli.') and kinds & set(m.split('.'))])"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=child_environment()
    )

    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_imports_and_matches_its_protocol(kind: str, name: str) -> None:
    entry = registry.load(kind, name)
    if kind == "engines":
        # An engine is opened by a function; its module holds the class.
        module = sys.modules[entry.__module__]
        entry = next(
            member
            for member in vars(module).values()
            if inspect.isclass(member) and member.__module__ == module.__name__ and hasattr(member, "generate")
        )

    for method, parameters in methods(PROTOCOLS[kind]).items():
        assert list(inspect.signature(getattr(entry, method)).parameters) == parameters, method


@pytest.mark.parametrize(("kind", "name"), [entry for entry in ENTRIES if entry[0] != "engines"])
def test_every_plugin_with_its_defaults_is_built(kind: str, name: str) -> None:
    assert registry.resolved(kind, name)["name"] == name


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_says_what_it_is_and_where_it_comes_from(kind: str, name: str) -> None:
    entry = registry.load(kind, name)
    document = entry.__doc__ or ""
    module_document = sys.modules[entry.__module__].__doc__ or ""

    assert len(document.strip().splitlines()[0]) > 10
    if kind != "engines":
        assert re.search(r"[Ss]ource|arXiv|ours|r = ", document + module_document), f"{kind} {name} names no source"


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_has_a_test_file(kind: str, name: str) -> None:
    module = registry.TABLES[kind][name].partition(":")[0].rpartition(".")[2]
    folder = ROOT / "tests" / (kind if kind == "engines" else f"plugins/{kind}")

    found = [
        path
        for stem in (name, module)
        for path in (*folder.glob(f"test_{stem}*.py"), *folder.glob(f"{stem}/test_*.py"))
    ]

    assert found, f"expected {folder}/test_{name}.py"


def readme_of(kind: str) -> str:
    """The text in which the entries of a kind are described."""
    files = {"engines": ["mae_cli/engines/README.md"], "recipes": ["recipes/README.md", "README.md"]}
    return "\n".join((ROOT / name).read_text("utf-8") for name in files.get(kind, ["mae_cli/plugins/README.md"]))


def test_every_entry_and_recipe_is_named_in_the_readme_of_its_kind() -> None:
    names = [*ENTRIES, *(("recipes", path.stem) for path in shipped_dir("recipes").glob("*.yaml"))]

    missing = [
        f"{kind}: {name}" for kind, name in names if not re.search(rf"^\| `{name}`", readme_of(kind), re.MULTILINE)
    ]

    assert missing == []


@pytest.mark.parametrize(("kind", "name"), [entry for entry in ENTRIES if entry[0] != "engines"])
def test_every_option_of_a_plugin_is_named_in_the_readme(kind: str, name: str) -> None:
    readme = readme_of(kind)

    options = registry.resolved(kind, name).keys() - {"name", "source"}

    assert {option for option in options if f"`{option}`" not in readme} == set()


@pytest.mark.parametrize("kind", [*registry.TABLES, "recipes", "prompts"])
def test_every_entry_is_listed_with_its_first_line(kind: str) -> None:
    text = listing(kind)

    assert all(name in text for name in registry.TABLES.get(kind, {}))
    assert "  \n" not in text


def test_an_unknown_kind_or_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='unknown kind "verifier"; did you mean "verifiers"'):
        listing("verifier")
    with pytest.raises(ConfigError, match='unknown verifier "numerc"; did you mean "numeric"'):
        registry.build("verifiers", "numerc")
    with pytest.raises(
        ConfigError, match=r'unknown judge "zzz"; known: pairwise, process, rubric \(see `mae list judges`\)'
    ):
        registry.build("judges", "zzz")


def test_a_wrong_option_is_answered_with_the_nearest_and_a_wrong_type_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match='filters "length": unknown option "hihg"; did you mean "high"'):
        registry.build("filters", {"name": "length", "hihg": 5})
    with pytest.raises(ConfigError, match='filters "length": Expected `int`, got `str`'):
        registry.build("filters", {"name": "length", "high": "5"})
    with pytest.raises(ConfigError, match='a plugin needs a "name"'):
        registry.build("filters", {"high": 5})


def test_a_name_with_a_colon_is_the_users_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_checks.py").write_text(
        "import msgspec\nclass Units(msgspec.Struct, frozen=True):\n    '''Mine.'''\n    factor: int = 2\n"
    )
    (tmp_path / "needy_checks.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    resolved = registry.resolved("verifiers", {"name": "my_checks:Units", "factor": 3})
    assert (resolved["name"], resolved["factor"]) == ("my_checks:Units", 3)
    assert resolved["source"], "edited code must show in the fingerprint"
    with pytest.raises(ConfigError, match='my_checks has no "Other"'):
        registry.build("verifiers", "my_checks:Other")
    with pytest.raises(ConfigError, match="no module no_such_module_of_mine"):
        registry.build("verifiers", "no_such_module_of_mine:X")
    with pytest.raises(MissingDependencyError, match="pip install a_package_nobody_has"):
        registry.build("verifiers", "needy_checks:X")


OWN_ENGINE = """
from mae_cli.engines.scripted import Options, ScriptedEngine
from mae_cli.plugins.contracts import EngineFacts

class Mine(ScriptedEngine):
    facts = {facts}

def open_mine(recipe, argument):
    return Mine(Options(accuracy=float(argument or 0.5)))
"""


def _own_engine(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, facts: str) -> Recipe:
    (folder / f"{name}.py").write_text(OWN_ENGINE.format(facts=facts))
    monkeypatch.syspath_prepend(str(folder))
    return Recipe(engine=f"{name}:open_mine:0.25")


def test_a_users_own_engine_is_opened_with_its_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _own_engine(tmp_path, monkeypatch, "my_engine", "EngineFacts(deterministic=True)")

    engine = registry.open_engine(recipe)

    assert engine.facts == contracts.EngineFacts(deterministic=True)
    assert "accuracy=0.25" in engine.policy.model
    # It inherits a method `score`; only its facts count.
    assert not contracts.can_score(engine)


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        ("factless_engine", "None", r'"factless_engine:open_mine": Mine has no facts; add `facts = EngineFacts\(.*`'),
        (
            "boasting_engine",
            "EngineFacts(deterministic=True, streams=True)",
            "its facts say streams=True, but it has no method stream",
        ),
    ],
)
def test_a_users_engine_that_does_not_say_what_it_can_do_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, facts: str, message: str
) -> None:
    recipe = _own_engine(tmp_path, monkeypatch, name, facts)

    with pytest.raises(ConfigError, match=message) as caught:
        registry.open_engine(recipe)

    assert "\n" not in str(caught.value)


def test_every_ability_in_the_facts_has_the_methods_of_its_protocol() -> None:
    protocols = {
        "attaches": contracts.AttachingEngine,
        "scores": contracts.ScoringEngine,
        "streams": contracts.StreamingEngine,
        "checks": contracts.CheckingEngine,
        "trains": contracts.TrainableEngine,
    }
    own = {
        fact: {
            method
            for base in protocol.__mro__
            if base not in contracts.Engine.__mro__
            for method in methods(base)
        }
        for fact, protocol in protocols.items()
    }  # fmt: skip

    assert {fact: set(names) for fact, names in registry.ABILITIES.items()} == own


def test_nothing_is_asked_about_an_engine_but_its_facts() -> None:
    """Fault 9 of the house: abilities were guessed from attributes in ten places."""
    probe = re.compile(r"(hasattr|getattr)\([^,]*(engine|played|opened)\b")
    found = [
        (path.name, line.strip())
        for path in sorted((ROOT / "mae_cli").rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if probe.search(line)
    ]

    assert [name for name, _ in found if name != "registry.py"] == []
    assert len(found) == 2, "the check of an engine just opened is the only place"
