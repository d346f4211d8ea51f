"""The steps of a pipeline: how they are written, what they read, which keys win, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mae_cli.errors import ConfigError
from mae_cli.recipe.fields import free_keys, is_free
from mae_cli.recipe.load import load_recipe
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.steps import recipe_of_step, runs_in, step_named, steps_of, steps_of_round

R_ZERO = """
roles: {challenger: {}}
propose: {role: challenger, num_problems: 8}
solve: {num_problems: 0}
pipeline:
  - propose
  - {solve: {purpose: difficulty}}
  - judge
  - finetune
  - {propose: {name: questions, num_problems: 12}}
  - {solve: {name: votes, rollouts_per_problem: 9, purpose: difficulty}}
  - {judge: {name: shares, verifier: majority, judge: none}}
  - {filter: {name: band, filters: [solve_rate]}}
  - {solve: {name: fresh, rollouts_per_problem: 5}}
  - {judge: {name: scored, verifier: majority, judge: none}}
  - {finetune: {name: second, from: scored}}
  - eval
"""


def recipe_of(tmp_path: Path, text: str, *settings: str) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return load_recipe(path, settings)


def reads_of(recipe: Recipe, number: int = 1) -> dict[str, list[str]]:
    return {
        one.step.name: [step.name for step in one.reads] for one in steps_of_round(recipe, steps_of(recipe), number)
    }


def test_without_a_pipeline_the_round_is_the_six_stages_and_each_reads_the_one_before() -> None:
    assert reads_of(load_recipe(None)) == {
        "propose": [],
        "solve": ["propose"],
        "judge": ["solve"],
        "filter": ["judge"],
        "finetune": ["filter"],
        "eval": [],
    }


def test_a_proposal_and_a_draw_from_the_pool_begin_chains_and_a_named_source_wins(tmp_path: Path) -> None:
    assert reads_of(recipe_of(tmp_path, R_ZERO)) == {
        "propose": [],
        "solve": ["propose"],
        "judge": ["solve"],
        "finetune": ["judge"],
        "questions": [],
        "votes": ["questions"],
        "shares": ["votes"],
        "band": ["shares"],
        "fresh": ["band"],
        "scored": ["fresh"],
        "second": ["scored"],
        "eval": [],
    }


def test_a_second_solve_that_draws_from_the_pool_begins_a_chain_of_its_own(tmp_path: Path) -> None:
    text = (
        "solve: {num_problems: 4}\nseeds: x.jsonl\n"
        "pipeline: [solve, judge, {solve: {name: again}}, {judge: {name: gate}}, {filter: {from: [judge, gate]}},\n"
        "  finetune]"
    )

    assert reads_of(recipe_of(tmp_path, text)) == {
        "solve": [],
        "judge": ["solve"],
        "again": [],
        "gate": ["again"],
        "filter": ["judge", "gate"],
        "finetune": ["filter"],
    }


def test_a_step_that_is_not_due_is_passed_through(tmp_path: Path) -> None:
    text = "pipeline: [propose, solve, {judge: {every: 2}}, {filter: {when: 'round != 3'}}, {finetune: {from: filter}}]"
    recipe = recipe_of(tmp_path, text)

    assert reads_of(recipe, 1)["finetune"] == ["filter"]
    assert reads_of(recipe, 1)["filter"] == ["solve"]
    assert reads_of(recipe, 2)["filter"] == ["judge"]
    assert reads_of(recipe, 3) == {"propose": [], "solve": ["propose"], "finetune": ["solve"]}
    assert [runs_in(steps_of(recipe)[2], number) for number in (1, 2, 3, 4)] == [False, True, False, True]


def votes(recipe: Recipe) -> list[int]:
    return [recipe_of_step(recipe, step).judge.votes for step in steps_of(recipe) if step.stage == "judge"]


def test_default_then_section_then_step_then_set_and_the_steps_own_setting_last(tmp_path: Path) -> None:
    pipeline = "pipeline: [propose, solve, judge, {judge: {name: gate, votes: 2}}, {judge: {name: last}}]"

    assert votes(recipe_of(tmp_path, pipeline)) == [5, 2, 5]
    assert votes(recipe_of(tmp_path, f"judge: {{votes: 3}}\n{pipeline}")) == [3, 2, 3]
    assert votes(recipe_of(tmp_path, f"judge: {{votes: 3}}\n{pipeline}", "judge.votes=4")) == [4, 4, 4]
    assert votes(recipe_of(tmp_path, f"judge: {{votes: 3}}\n{pipeline}", "judge={votes: 4}")) == [4, 4, 4]
    assert votes(recipe_of(tmp_path, pipeline, "gate.votes=7")) == [5, 7, 5]
    assert votes(recipe_of(tmp_path, pipeline, "judge.votes=4", "last.votes=9")) == [4, 4, 9]


def test_an_option_of_a_plugin_named_by_a_text_can_be_set(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "judge: {rewards: {solver: checked_solver}}", "judge.rewards.solver.format_weight=0.5")

    assert recipe.judge.rewards == {"solver": {"name": "checked_solver", "format_weight": 0.5}}


def test_the_pipeline_is_kept_in_its_shortest_form_whatever_was_set() -> None:
    assert load_recipe(None, ["judge.votes=4", "solve.top_k=3"]).pipeline == Recipe().pipeline
    assert load_recipe(None, ["pipeline=[propose, {solve: }, {judge: {every: 1, name: judge}}]"]).pipeline == [
        "propose", "solve", "judge",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("[]", "pipeline: no step"),
        ("[propose, slove]", 'pipeline[2]: unknown stage "slove"; did you mean "solve"?'),
        ("[propose, 3]", "pipeline[2]: expected a stage, or one stage with its keys"),
        ("[{propose: {}, solve: {}}]", "pipeline[1]: expected a stage, or one stage with its keys"),
        ("[propose, {solve: 4}]", "pipeline[2] (solve): expected keys like {name: gate}, found 4"),
        ("[propose, solve, judge, judge]", 'pipeline[4] (judge): a second step called "judge"'),
        ("[propose, solve, {judge: {name: eval}}]", 'pipeline[3] (judge eval): name: "eval" is a key of recipes'),
        ("[propose, solve, {judge: {name: Gate}}]", "pipeline[3] (judge): name: expected small letters"),
        ("[propose, solve, {judge: {name: gate, vote: 2}}]",
         'pipeline[3] (judge gate): unknown key "vote"; did you mean "votes"?'),
        ("[propose, solve, {judge: {evry: 2}}]", 'pipeline[3] (judge): unknown key "evry"; did you mean "every"?'),
        ("[propose, solve, {judge: {votes: many}}]", "pipeline[3] (judge): votes: expected int, got str"),
        ("[propose, solve, {judge: {every: 0}}]", "every: expected a number of rounds from 1, found 0"),
        ("[propose, solve, {judge: {when: true}}]", "pipeline[3] (judge): when: expected a formula in quotes"),
        ("[propose, solve, {judge: {when: rounds > 1}}]", 'unknown name "rounds"; did you mean "round"?'),
        ("[propose, solve, {judge: {from: slove}}]", 'no earlier step "slove" with rows; did you mean "solve"?'),
        ("[propose, solve, {judge: {from: eval}}, eval]", 'no earlier step "eval" with rows'),
        ("[propose, {eval: {from: propose}}]", "pipeline[2] (eval): from: eval reads no rows of other steps"),
        ("[judge]", "pipeline[1] (judge): no earlier step of round 1 wrote rows for it to read"),
        ("[solve, judge]", "solve.num_problems would draw some from the pool"),
        ("[propose, {solve: {role: sovler}}]", 'pipeline[2] (solve): role: role "sovler" is not declared'),
    ],
)  # fmt: skip
def test_a_wrong_step_is_refused_in_one_line_with_its_place(tmp_path: Path, pipeline: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe_of(tmp_path, f"pipeline: {pipeline}")

    assert said in str(caught.value)
    assert str(tmp_path / "r.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_role_that_no_step_plays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"roles\.juge: no step plays this role; did you mean \"judge\"\?"):
        recipe_of(tmp_path, "roles: {juge: {model: x}}")


def test_a_command_plays_the_step_it_is_told(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "pipeline: [propose, solve, judge, {judge: {name: gate, votes: 2}}]")

    gate, solve = step_named(recipe, "judge", "gate"), step_named(recipe, "solve", None)
    assert gate is not None
    assert (gate.name, recipe_of_step(recipe, gate).judge.votes) == ("gate", 2)
    assert solve is not None
    assert solve.name == "solve"
    assert step_named(recipe, "finetune", None) is None
    for name, said in ((None, "2 judge steps"), ("solve", 'played by "mae solve"'), ("gaet", 'did you mean "gate"')):
        with pytest.raises(ConfigError, match=said):
            step_named(recipe, "judge", name)


def test_keys_that_change_no_file_are_marked_where_they_are_declared() -> None:
    assert {"rounds", "batch_size", "judge.max_unparsed", "finetune.save_every", "calibrate.bars"} <= free_keys()
    assert all(
        is_free(key) for key in ("roles.judge.device", "roles.attacker.base_url", "calibrate.bars.auc", "on_harm")
    )
    assert not any(
        is_free(key) for key in ("roles.judge.model", "judge.votes", "seed", "finetune.learning_rate", "roles")
    )
