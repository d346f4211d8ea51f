"""A role with a model of its own: which engine plays it, what its rows say, and that they are not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.errors import ConfigError
from mae_cli.models.digests import model_digest
from mae_cli.recipe.load import load_recipe
from mae_cli.recipe.roles import adapter_for, is_fixed, recipe_for
from mae_cli.recipe.sections import Recipe
from mae_cli.records import PREDEFINED_ROLES, Policy
from mae_cli.stages.generation.job import open_job
from mae_cli.training.eligible_rows import own_rows
from tests.models.test_load import make_adapter
from tests.support import a_row, here, read_json_lines, write_sums


def recipe_of(**roles: Any) -> Recipe:
    return load_recipe(None, [f"roles={msgspec.json.encode(roles).decode()}"], {"adapter": "trained", "revision": "r1"})


def test_without_roles_all_three_are_the_trained_policy() -> None:
    recipe = recipe_of()

    assert [recipe_for(recipe, role) for role in PREDEFINED_ROLES] == [recipe] * 3
    assert [adapter_for(recipe, role, Path("round-1")) for role in PREDEFINED_ROLES] == [Path("round-1")] * 3


@pytest.mark.parametrize(
    ("own", "fixed", "adapter"),
    [
        ({"model": "other"}, True, None),
        ({"model": "smollm2-135m"}, False, "round-1"),
        ({"engine": "scripted"}, True, None),
        ({"engine": "vllm"}, False, "round-1"),
        ({"adapter": "mine"}, True, "mine"),
        ({"adapter": "none"}, True, None),
        ({"model": "other", "adapter": "mine"}, True, "mine"),
        ({"device": "cuda:1", "dtype": "float16"}, False, "round-1"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, False, "round-1"),
    ],
)
def test_a_role_is_fixed_by_a_model_or_an_adapter_of_its_own(
    own: dict[str, Any], fixed: bool, adapter: str | None
) -> None:
    recipe = recipe_of(judge=own)

    assert is_fixed(recipe, "judge") == fixed
    assert adapter_for(recipe, "judge", Path("round-1")) == (adapter and Path(adapter))
    assert not is_fixed(recipe, "solver")


def test_another_model_inherits_neither_adapter_nor_revision_but_the_other_keys() -> None:
    recipe = recipe_of(judge={"model": "other", "dtype": "float16"})

    judge = recipe_for(recipe, "judge")

    assert (judge.model, judge.revision, judge.adapter, judge.dtype) == ("other", None, None, "float16")
    assert (judge.seed, judge.device) == (recipe.seed, recipe.device)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("roles.juge.model=x", 'roles.juge: no step plays this role; did you mean "judge"?'),
        ("roles.judge.modle=x", 'unknown key "roles.judge.modle"; did you mean "model"?'),
        ("roles.judge.dtype=x", "roles.judge.dtype: invalid enum value 'x'"),
        ("roles.judge=x", "\"roles.judge\" is a section; found 'x'"),
    ],
)
def test_a_wrong_key_of_a_role_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(None, [setting])

    assert message in str(caught.value)


def test_roles_with_equal_settings_share_one_engine_and_others_do_not() -> None:
    recipe = load_recipe(None, ["engine=scripted", "roles.judge.engine=scripted:accuracy=1"])
    job = open_job(recipe)

    assert job.engines.of("solver") is job.engines.of("proposer") is job.engines.trained
    assert job.engines.of("judge") is not job.engines.trained
    assert "accuracy=1," in job.engines.of("judge").policy.model


def test_the_adapter_of_a_role_is_put_on_the_shared_model_and_taken_off_again(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    mine, trained = (make_adapter(tiny_model_dir, tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    recipe = load_recipe(
        None, [f"model={tiny_model_dir}", "device=cpu", f"roles.solver.adapter={mine}", "roles.judge.adapter=none"]
    )
    job = open_job(recipe)
    job.engines.wear(trained)

    proposer = job.engines.of("proposer")
    first = proposer.policy.adapter
    solver = job.engines.of("solver")
    second = solver.policy.adapter
    judge = job.engines.of("judge")

    assert proposer is solver is judge
    assert judge.policy.adapter is None
    assert len({first, second, None}) == 3
    assert job.engines.of("proposer").policy.adapter == first


ONE, OTHER = "0" * 20, "1" * 20


def written_by(role: Any, model: str, index: int = 0) -> Any:
    return a_row(role, index=index, reward=1.0, policy=Policy(model=model))


def test_rows_of_other_weights_or_of_a_fixed_role_are_not_the_policys_own() -> None:
    rows = [written_by("solver", ONE), written_by("solver", OTHER, 1), written_by("judge", ONE)]

    own, left_out = own_rows(rows, Policy(model=ONE, adapter="any"), ["judge"])

    assert own == rows[:1]
    assert list(left_out.values()) == [1, 1]


def test_a_model_known_by_a_servers_name_only_counts_as_the_policys_own() -> None:
    rows = [written_by("solver", "openai:some-name")]

    assert own_rows(rows, Policy(model=ONE), []) == (rows, {})


RECIPE = """
model: {model}
device: cpu
rounds: 2
seeds: {seeds}
seed_pairs: true
propose: {{num_problems: 4, max_new_tokens: 8}}
solve: {{num_problems: 4, rollouts_per_problem: 2, max_new_tokens: 8, train_on_proposals: false}}
judge: {{verifier: numeric, votes: 1, answer_votes: 1, num_pairs: 2, max_new_tokens: 16, max_unparsed: 1.0,
  solver_reward: checked_solver}}
filter: {{filters: [{{name: quality}}], decontaminate: false}} # the seeds are among the held-out items
finetune: {{objective: sft, batch_size: 4, lora_r: 2, save_every: 0}}
roles: {{judge: {{engine: "scripted:malformed=0"}}}}
"""


def test_a_run_with_a_judge_of_another_model_trains_the_others_for_two_rounds(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run_dir = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(RECIPE.format(model=tiny_model_dir, seeds=write_sums(tmp_path / "seeds.jsonl")))

    assert here("run", recipe, "--run-dir", run_dir) == 0

    said = capsys.readouterr().err
    assert "judge: played by another policy than the trained one: scripted:malformed=0\n" in said
    assert "finetune: 2 rows not trained: judge rows another policy wrote (finetune.other_models trains them)" in said
    adapters = set()
    for number in (1, 2):
        folder = run_dir / f"round-{number:03d}"
        rows = read_json_lines(folder / "4_selected.jsonl")
        models = {role: {row["policy"]["model"] for row in rows if row["role"] == role} for role in PREDEFINED_ROLES}
        assert models["solver"] == models["proposer"] == {model_digest(tiny_model_dir)}
        assert all(name.startswith("scripted:") for name in models["judge"])
        adapters |= {row["policy"]["adapter"] for row in rows if row["role"] == "solver"}
        assert {row["policy"]["adapter"] for row in rows if row["role"] == "judge"} == {None}
        assert any(row["role"] == "judge" and row["purpose"] == "train" for row in rows)
        trained = {row["role"] for row in read_json_lines(folder / "5_adapter" / "train_rows.jsonl")}
        assert "solver" in trained
        assert "judge" not in trained
    assert len(adapters) == 2  # none in round 1, that of round 1 in round 2
    fingerprint = msgspec.json.decode((run_dir / "round-001/3_judged.jsonl.meta.json").read_bytes())["fingerprint"]
    assert fingerprint["policy"]["model"].startswith("scripted:")
    assert msgspec.json.decode((run_dir / "manifest.json").read_bytes())["roles"].keys() == {"judge"}


def test_rows_of_another_model_are_trained_where_the_recipe_says_so(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [written_by("solver", OTHER, index) for index in range(4)]
    for row in rows:
        # Ids of another tokenizer, far beyond this one's vocabulary.
        row.prompt_token_ids, row.completion_token_ids = [10**6], [10**6 + 1]
    given = tmp_path / "4.jsonl"
    given.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    tiny = ("-m", tiny_model_dir, "--device", "cpu", "--lora-r", "2")

    assert here("finetune", given, "-o", tmp_path / "a", *tiny) == 3
    assert "no row to train on (4 solver rows another policy wrote" in capsys.readouterr().err
    assert here("finetune", given, "-o", tmp_path / "b", *tiny, "--other-models") == 0
    assert len(read_json_lines(tmp_path / "b" / "train_rows.jsonl")) == 4
