from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.cli.options import section_structs
from mae_cli.errors import ConfigError
from mae_cli.plugins.check import check_plugins
from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.files import find_file, find_recipe, shipped_dir
from mae_cli.recipe.load import load_recipe
from mae_cli.recipe.sections import SECTIONS, Recipe
from mae_cli.records.cache import cache_dir

SHIPPED = sorted(shipped_dir("recipes").glob("*.yaml"))


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


def error_of(path: Path | None, *settings: str, **flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, settings, flags)
    return str(caught.value)


def test_no_recipe_is_the_defaults() -> None:
    assert load_recipe(None) == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", 'unknown key "sed"; did you mean "seed"?'),
        ("solve:\n  temprature: 1", 'unknown key "solve.temprature"; did you mean "temperature"?'),
        ("solver:\n  top_k: 1", 'unknown key "solver"; did you mean "solve"?'),
        ("solve: 3", '"solve" is a section; found 3'),
        ("solve:\n  top_p: 1.5", "solve.top_p: expected float <= 1.0"),
        ("solve:\n  temperature: hot", "solve.temperature: expected float, got str"),
        ("finetune:\n  schedule: step", "finetune.schedule: invalid enum value 'step'"),
        ("rounds: 0", "rounds: expected int >= 1"),
        ("- a", "expected a mapping of sections, found list"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = recipe_file(tmp_path, text)

    line = "" if text == "- a" else ":1" if text.startswith("solver") else f":{text.count(chr(10)) + 1}"
    assert error_of(path) == f"{path}{line}: {message}"


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "seed: 1\nsolve: {a: [}\n")

    assert error_of(path).startswith(f"{path}:2: not YAML: ")


def test_precedence_is_defaults_recipe_set_flags(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "solve: {temperature: 0.1, top_k: 5}\nseed: 3")

    def temperature(*settings: str, **flags: Any) -> float:
        return load_recipe(path, settings, flags).solve.temperature

    assert Recipe().solve.temperature == 1.0
    assert temperature() == 0.1
    assert temperature("solve.temperature=0.2") == 0.2
    assert temperature("solve.temperature=0.2", **{"solve.temperature": 0.3}) == 0.3
    assert temperature("solve.temperature=0.2", **{"solve.temperature": None}) == 0.2
    assert load_recipe(path, ["solve.temperature=0.2"]).solve.top_k == 5


@pytest.mark.parametrize("text", ["5e-4", "5.0e-4", "0.0005", "5E-4", ".5e-3"])
def test_numbers_with_exponents_are_numbers(tmp_path: Path, text: str) -> None:
    path = recipe_file(tmp_path, f"finetune: {{learning_rate: {text}}}")

    assert load_recipe(path).finetune.learning_rate == 5e-4
    assert load_recipe(None, [f"finetune.learning_rate={text}"]).finetune.learning_rate == 5e-4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed", "--set seed: expected section.key=value"),
        ("solve.temprature=1", '--set solve.temprature=1: unknown key "solve.temprature"; did you mean "temperature"?'),
        ("solve.temperature=hot", "--set solve.temperature=hot: solve.temperature: expected float, got str"),
        ("seed.x=1", '--set seed.x=1: "seed" is not a section'),
    ],
)
def test_a_wrong_set_is_named(tmp_path: Path, setting: str, message: str) -> None:
    path = recipe_file(tmp_path, "seed: 3")

    assert error_of(path, setting) == message


def test_a_wrong_flag_is_named() -> None:
    assert error_of(None, **{"finetune.schedule": "step"}).startswith("--schedule: finetune.schedule: ")


def test_set_reads_lists_and_mappings() -> None:
    recipe = load_recipe(None, ["filter.filters=[dedup, {name: length, high: 5}]", "eval.benchmarks=[a.jsonl]"])

    assert recipe.filter.filters == ["dedup", {"name": "length", "high": 5}]
    assert recipe.eval.benchmarks == ["a.jsonl"]


def test_the_word_none_leaves_a_plugin_out(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "judge: {judge: none, verifier: null}\nadapter: none")

    recipe = load_recipe(path, ["propose.verifier=none"])

    assert (recipe.judge.judge, recipe.judge.verifier, recipe.adapter, recipe.propose.verifier) == (None,) * 4


def test_a_section_left_empty_has_its_defaults(tmp_path: Path) -> None:
    assert load_recipe(recipe_file(tmp_path, "solve:\nfilter:\n  # nothing yet\n")) == Recipe()


def test_every_key_has_a_line_of_documentation() -> None:
    sections = [("", Recipe), *section_structs()]
    silent = [
        f"{name}.{field}"
        for name, section in sections
        for field, _, doc, _ in section_fields(section)
        if not doc and field not in SECTIONS
    ]

    assert silent == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_with_all_its_plugins(path: Path) -> None:
    check_plugins(load_recipe(path))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_says_what_it_shows_costs_and_gives(path: Path) -> None:
    header = path.read_text().split("\n\n")[0] + path.read_text()

    missing = [word for word in ("# Cost:", "# Command:", "# Expected:") if word not in header]

    assert (path.read_text().startswith("# "), missing) == (True, [])


def test_the_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    import yaml

    recipe = load_recipe(None, ["finetune.learning_rate=2e-5", 'solve.stop=["\\n", x]', "judge.judge=none"])
    path = recipe_file(tmp_path, yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False))

    assert load_recipe(path) == recipe


def test_a_recipe_is_found_by_name_or_by_path(tmp_path: Path) -> None:
    assert find_recipe("mae_zero") == shipped_dir("recipes") / "mae_zero.yaml"
    assert find_recipe(str(recipe_file(tmp_path, ""))) == tmp_path / "r.yaml"
    with pytest.raises(ConfigError, match='no recipe "mae_zer": not a file, and did you mean "mae_zero"'):
        find_recipe("mae_zer")


def test_a_file_of_a_recipe_is_looked_for_beside_it(tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text("{}")

    assert find_file("seeds.jsonl", beside=tmp_path) == tmp_path / "seeds.jsonl"
    with pytest.raises(ConfigError, match=r"none\.jsonl: no such file \(looked for "):
        find_file("none.jsonl", beside=tmp_path)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("MAE_CACHE", "")
    assert cache_dir() == Path.home() / ".cache" / "mae"
