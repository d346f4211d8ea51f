"""Where each key of a recipe comes from, and the text of `mae recipe show`, which is a recipe again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from mae_cli.recipe.files import shipped_dir
from mae_cli.recipe.load import load_recipe
from mae_cli.recipe.origins import Key, Shown, recipe_text, show_recipe
from tests.support import here

SHIPPED = sorted(shipped_dir("recipes").glob("*.yaml"))
STEPPED = """\
seed: 3
judge:
  votes: 2
  temperature: 0.7
roles: {referee: {adapter: none}}
pipeline:
  - propose
  - solve
  - judge
  - judge:
      name: gate
      votes: 5
      role: referee
  - filter: {from: [judge, gate]}
  - finetune
  - eval: {every: 2}
"""


def key_of(shown: Shown, name: str) -> Key:
    return next(one for one in shown.keys if one.key == name)


@pytest.fixture
def stepped(tmp_path: Path) -> Path:
    path = tmp_path / "stepped.yaml"
    path.write_text(STEPPED)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("settings", [[], ["solve.temperature=0.5", "judge.judge.scale=1-10", "finetune={lora_r: 4}"]])
def test_the_text_loads_to_the_same_recipe(path: Path, settings: list[str], tmp_path: Path) -> None:
    again = tmp_path / "again.yaml"

    again.write_text(recipe_text(show_recipe(path, settings)), "utf-8")

    assert load_recipe(again) == load_recipe(path, settings)


def test_the_text_of_steps_and_roles_loads_to_the_same_recipe(stepped: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.yaml"

    again.write_text(recipe_text(show_recipe(stepped, ["gate.votes=7"])), "utf-8")

    assert load_recipe(again) == load_recipe(stepped, ["gate.votes=7"])


@pytest.mark.parametrize(
    "value", ["5e-4", "a\nb", "yes", "null", "# not a comment", "a: b", "'", '"', "é 東", " x ", "1_000", "[", "1e5"]
)
def test_texts_that_look_like_something_else_come_back_as_texts(value: str, tmp_path: Path) -> None:
    path, again = tmp_path / "one.yaml", tmp_path / "again.yaml"
    path.write_text(json.dumps({"solve": {"stop": [value]}}), "utf-8")

    again.write_text(recipe_text(show_recipe(path)), "utf-8")

    assert load_recipe(again).solve.stop == [value]


@pytest.mark.parametrize(
    ("settings", "key", "value", "place"),
    [
        ([], "seed", 3, "{file}:1"),
        ([], "judge.votes", 2, "{file}:3"),
        ([], "judge.top_p", 1.0, "default"),
        ([], "roles.referee.adapter", None, "{file}:5"),
        (["judge.votes=9"], "judge.votes", 9, "--set judge.votes=9"),
        (["judge={votes: 9}"], "judge.votes", 9, "--set judge={votes: 9}"),
        (["judge={votes: 9}"], "judge.temperature", 0.7, "{file}:4"),
        (["judge.votes=9", "judge.votes=8"], "judge.votes", 8, "--set judge.votes=8"),
        (
            ["judge.rewards.judge=win_rate"],
            "judge.rewards",
            {"judge": "win_rate"},
            "--set judge.rewards.judge=win_rate",
        ),
    ],
)
def test_each_key_names_its_place(stepped: Path, settings: list[str], key: str, value: object, place: str) -> None:
    found = key_of(show_recipe(stepped, settings), key)

    assert (found.value, found.place) == (value, place.replace("{file}", str(stepped)))


@pytest.mark.parametrize(
    ("settings", "votes", "place"),
    [
        ([], 5, "{file}:12"),
        (["gate.votes=7"], 7, "--set gate.votes=7"),
        (["judge.votes=7"], 7, "--set judge.votes=7"),
    ],
)
def test_a_step_has_its_own_keys_and_those_of_its_section(
    stepped: Path, settings: list[str], votes: int, place: str
) -> None:
    gate = next(step for step in show_recipe(stepped, settings).steps if step.name == "gate")
    keys = {one.key: one for one in gate.keys}

    assert (keys["gate.votes"].value, keys["gate.votes"].place) == (votes, place.replace("{file}", str(stepped)))
    assert (keys["judge.temperature"].value, keys["judge.temperature"].place) == (0.7, f"{stepped}:4")
    assert [one.key for one in gate.own] == ["gate.name", "gate.votes", "gate.role"]


def test_lines_follow_a_merged_mapping_of_yaml(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("solve: &base\n  temperature: 0.3\neval:\n  <<: *base\n  samples: 2\n")

    shown = show_recipe(path)

    assert (key_of(shown, "eval.temperature").value, key_of(shown, "eval.temperature").place) == (0.3, f"{path}:2")


def test_as_json_every_step_has_every_key(stepped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("recipe", "show", stepped, "--json") == 0

    told = msgspec.json.decode(capsys.readouterr().out)
    assert [step["name"] for step in told["steps"]][3] == "gate"
    assert {key["key"] for key in told["steps"][1]["keys"]} >= {"solve.temperature", "solve.prompt"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["quickstrat"], 'mae: no recipe "quickstrat": not a file, and did you mean "quickstart"?'),
        (
            ["quickstart", "--set", "solve.temprature=1"],
            'mae: --set solve.temprature=1: unknown key "solve.temprature"; did you mean "temperature"?',
        ),
        (["quickstart", "--set", "seed"], "mae: --set seed: expected section.key=value"),
    ],
)
def test_an_unknown_recipe_or_key_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("recipe", "show", *arguments) == 2

    assert capsys.readouterr().err.splitlines() == [line]
