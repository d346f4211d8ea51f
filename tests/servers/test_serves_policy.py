"""A role whose server holds the trained policy: generation there, training here, in one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from mae_cli.engines.hf.engine import open_engine as open_hf
from mae_cli.errors import ConfigError, EngineError
from mae_cli.recipe.roles import fixed_roles, serving_roles
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request, Sampling
from mae_cli.stages.generation.job import open_job
from tests.conftest import save_tiny_model
from tests.models.test_load import make_adapter
from tests.servers.policy_server import serving
from tests.support import here, mae, read_json_lines, write_json_lines, write_sums

GREEDY = Sampling(max_new_tokens=8, temperature=0.0)
ASK = [Request("a", (Message("user", "what is one plus two"),), 1), Request("b", (Message("user", "count"),), 2)]


def told(url: str, **more: Any) -> dict[str, Any]:
    return {"engine": "openai", "base_url": url, "model": "served", "serves_policy": True, **more}


def recipe_with(tiny_model_dir: Path, role: dict[str, Any], **more: Any) -> Recipe:
    tree = {"model": str(tiny_model_dir), "device": "cpu", "roles": {"solver": role}, **more}
    return msgspec.convert(tree, Recipe)


def test_its_rows_are_the_policys_own_with_and_without_an_adapter(tiny_model_dir: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model_dir, tmp_path / "adapter")
    with serving(tiny_model_dir) as (url, held):
        recipe = recipe_with(tiny_model_dir, told(url))
        job = open_job(recipe)
        local = open_hf(recipe, "")
        for on in (None, adapter, None):
            job.engines.wear(on)
            local.attach(on)
            played = job.engines.of("solver")
            assert played.policy == local.policy
            mine, theirs = played.generate(ASK, GREEDY), local.generate(ASK, GREEDY)
            for one, other in zip(mine, theirs, strict=True):
                assert one.raw == other.raw
                assert one.prompt_token_ids == other.prompt_token_ids
                assert one.completion_token_ids == other.completion_token_ids
            assert len(held.adapters) <= 1
        assert (fixed_roles(recipe), serving_roles(recipe)) == ([], ["solver"])
        job.engines.close()
        assert held.adapters == {}, "what was brought is taken away again"


def test_its_scores_are_those_of_hf(tiny_model_dir: Path) -> None:
    options = [["yes", " a first second", "<score>1</score>"], ["one"]]
    with serving(tiny_model_dir) as (url, _):
        recipe = recipe_with(tiny_model_dir, told(url))
        job = open_job(recipe)
        ours, theirs = job.engines.of("solver").score(ASK, options), open_hf(recipe, "").score(ASK, options)
        job.engines.close()

    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, abs=1e-3)


def test_other_weights_are_refused_before_a_row_is_written(tiny_model_dir: Path, tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 2)
    other = save_tiny_model(tmp_path / "other", seed=5)
    with serving(other) as (url, held):
        for owner, why in (("vllm", "log-probabilities of a reply differ by"), ("someone", "it answers '")):
            held.owner = owner
            job = open_job(recipe_with(tiny_model_dir, told(url)))
            with pytest.raises(EngineError, match=f'"served": not the weights of the policy: .*{why}'):
                job.engines.of("solver")
            job.engines.close()
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            yaml.safe_dump({"model": str(tiny_model_dir), "device": "cpu", "roles": {"solver": told(url)}})
        )
        out = tmp_path / "out.jsonl"
        assert here("solve", problems, "-o", out, "--recipe", recipe, "--max-new-tokens", 4) == 2
        assert not out.exists()


def test_another_template_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    template = tmp_path / "other.jinja"
    template.write_text("{% for m in messages %}Q: {{ m['content'] }}{% endfor %} A:")
    with serving(tiny_model_dir, chat_template=str(template)) as (url, _):
        job = open_job(recipe_with(tiny_model_dir, told(url)))
        with pytest.raises(EngineError, match="renders another prompt than the template here: they differ at token 0"):
            job.engines.of("solver")
        job.engines.close()


def test_a_server_that_tells_no_scores_is_compared_by_greedy_replies(
    tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tiny_model_dir) as (url, held):
        held.owner = "someone"
        job = open_job(recipe_with(tiny_model_dir, told(url)))
        job.engines.of("solver")
        job.engines.close()

    assert "3 of 3 greedy replies are those of the weights here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("role", "more", "message"),
    [
        ({"engine": "hf"}, {}, "only a server can serve the policy"),
        ({"base_url": None}, {}, "give the role the base_url"),
        ({"adapter": "x"}, {}, "the server loads the adapter of each round"),
        ({}, {"engine": "openai"}, "the policy's weights must be here too"),
    ],
)
def test_a_contradiction_in_the_recipe_is_one_line(
    role: dict[str, Any], more: dict[str, Any], message: str, tiny_model_dir: Path
) -> None:
    keys = {name: value for name, value in told("http://h/v1", **role).items() if value is not None}

    with pytest.raises(ConfigError, match=rf"roles\.solver\.serves_policy: {message}"):
        serving_roles(recipe_with(tiny_model_dir, keys, **more))


def test_a_command_takes_the_adapter_away_when_it_ends(tiny_model_dir: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_model_dir, tmp_path / "adapter")
    problems = write_sums(tmp_path / "problems.jsonl", 2)
    with serving(tiny_model_dir) as (url, held):
        line = (
            "solve",
            problems,
            "-o",
            tmp_path / "out.jsonl",
            "--engine",
            "openai",
            "--base-url",
            url,
            "-m",
            "served",
        )
        done = mae(*line, "--adapter", adapter, "--rollouts-per-problem", 1, "--max-new-tokens", 4)

    assert done.returncode == 0, done.stderr
    assert [ask["model"][:4] for ask in held.asked] == ["mae-"] * 2
    assert held.adapters == {}


def test_rounds_are_generated_on_the_server_and_trained_here(tiny_model_dir: Path, tmp_path: Path) -> None:
    seeds = write_json_lines(
        tmp_path / "seeds.jsonl", [{"question": f"what is {n} plus 1", "answer": "7"} for n in range(4)]
    )
    tree = {
        "model": str(tiny_model_dir),
        "device": "cpu",
        "seeds": str(seeds),
        "rounds": 2,
        "pipeline": ["solve", "filter", "finetune"],
        "solve": {"num_problems": 4, "rollouts_per_problem": 2, "max_new_tokens": 6},
        "filter": {"filters": []},
        "finetune": {"objective": "sft", "max_steps": 2, "batch_size": 4, "lora_r": 4},
    }
    with serving(tiny_model_dir) as (url, held):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({**tree, "roles": {"solver": told(url)}}))
        assert here("run", recipe, "--run-dir", tmp_path / "run") == 0
        asked = [ask["model"] for ask in held.asked]

    first, second = (read_json_lines(next((tmp_path / "run" / f"round-00{n}").glob("*rollouts.jsonl"))) for n in (1, 2))
    base = {row["policy"]["model"] for row in first}
    assert {row["policy"].get("adapter") for row in first} == {None}
    (adapter,) = {row["policy"]["adapter"] for row in second}
    assert {row["policy"]["model"] for row in second} == base
    assert all(row["completion_token_ids"] for row in (*first, *second))
    assert set(asked) == {"served", f"mae-{adapter}"}
    for n in (1, 2):
        assert any((tmp_path / "run" / f"round-00{n}").rglob("adapter_model.safetensors"))
