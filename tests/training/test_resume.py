"""Every objective: 20 steps in one go, and killed after step 12 with SIGKILL and run again, give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.plugins import registry
from mae_cli.records.resumable_file import encode_rows
from tests.stories.kill_driver import Fork, Launcher, Moment
from tests.support import ROOT

from .conftest import load_tiny, make_groups

# Every state counts here: dropout masks, Adam moments, the warm-up, and what is known of frozen policies.
SECTION: dict[str, Any] = {
    "batch_size": 3,
    "save_every": 5,
    "max_steps": 20,
    "lora_r": 4,
    "lora_dropout": 0.1,
    "schedule": "cosine",
    "warmup_steps": 3,
    "learning_rate": 1e-3,
    "micro_batch_tokens": 128,
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in registry.OBJECTIVES},
    "grpo": {"name": "grpo", "kl_coefficient": 0.1, "entropy_coefficient": 0.01},
    "dpo": {"name": "dpo", "pairs": "all", "alpha": 0.5},
    "mix": {"name": "mix", "parts": [{"objective": "reinforce_pp"}, {"objective": "dpo"}, {"objective": "sft"}]},
}
FULL = "grpo, every parameter"


@pytest.fixture(scope="module")
def launch() -> Iterator[Launcher]:
    modules = [f"mae_cli.plugins.objectives.{name}" for name in ("preference", "policy_gradient", "sft", "kto", "mix")]
    libraries = ("torch", "transformers", "peft", "datasets", "mae_cli.engines.hf.engine", "mae_cli.training.trainer")
    server = Fork(ROOT, *libraries, *modules)
    yield server
    server.close()


@pytest.fixture(scope="module")
def rows(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(encode_rows(make_groups(load_tiny(tiny_model_dir).chat)))
    return path


# These read every kind of state there is; the others read a part of it.
IN_FRONT = ("sft", "mix", "kto", "grpo", FULL)


@pytest.mark.parametrize(
    "name",
    [name if name in IN_FRONT else pytest.param(name, marks=pytest.mark.long) for name in [*sorted(OBJECTIVES), FULL]],
)
def test_killed_after_12_of_20_steps_and_run_again_gives_the_same_bytes(
    name: str, launch: Launcher, rows: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    # Pairs and positive weights make fewer units than rows, so more passes.
    is_full = name == FULL
    section = {**SECTION, "objective": OBJECTIVES["grpo" if is_full else name], "epochs": 20, "full": is_full}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(msgspec.yaml.encode({"model": str(tiny_model_dir), "device": "cpu", "finetune": section}))

    def command(out: str) -> list[str]:
        return ["finetune", str(rows), "-o", str(tmp_path / out), "--recipe", str(recipe), "--json"]

    straight = launch(command("straight"), None).wait()
    # Checkpoints come after steps 5, 10 and 15; this dies while the third is being written.
    killed = launch(command("killed"), Moment("before_replace", 3, "/checkpoints/state.pt")).wait()
    left_behind = (tmp_path / "killed").exists()
    resumed = launch(command("killed"), None, tmp_path / "told.json").wait()

    told = msgspec.json.decode((tmp_path / "told.json").read_bytes().splitlines()[-1])
    assert (straight, killed, resumed, left_behind) == (0, -9, 0, False)
    assert (told["details"]["steps"], told["details"]["resumed_from"]) == (20, 10)
    files = sorted(path.name for path in (tmp_path / "straight").iterdir())
    assert ("model.safetensors" if is_full else "adapter_model.safetensors") in files
    for file in files:
        expected = (tmp_path / "straight" / file).read_bytes()
        assert (tmp_path / "killed" / file).read_bytes() == expected, file
