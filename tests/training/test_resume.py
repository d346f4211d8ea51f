from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mae_cli.store import encode_rows

from .conftest import load_tiny, make_rows
from .train_once import train_once

FILES = ("adapter_model.safetensors", "adapter_config.json", "train_log.jsonl", "train_rows.jsonl", "README.md")
# Every state counts here: dropout masks, Adam moments, the warm-up and, for reinforce_pp, the behaviour.
SECTION = {
    "epochs": 5,
    "batch_size": 3,
    "save_every": 5,
    "lora_r": 4,
    "lora_dropout": 0.1,
    "schedule": "cosine",
    "warmup_steps": 3,
    "learning_rate": 1e-3,
    "micro_batch_tokens": 128,
}


def job(folder: Path, model_dir: Path, **section: Any) -> dict[str, Any]:
    return {
        "model": str(model_dir),
        "rows": str(folder.parent / "rows.jsonl"),
        "output": str(folder / "adapter"),
        "checkpoints": str(folder / "checkpoints"),
        "section": {**SECTION, **section},
    }


def train_and_die(job: dict[str, Any], *, after: int) -> int:
    """The exit status of a process that kills itself after that step."""
    script = Path(__file__).with_name("train_once.py")
    command = [sys.executable, str(script), json.dumps({**job, "kill_after": after})]
    return subprocess.run(command, check=False, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode


@pytest.mark.parametrize("objective", ["sft", "reinforce_pp"])
def test_killed_after_12_of_20_steps_and_run_again_gives_the_same_bytes(
    objective: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    (tmp_path / "rows.jsonl").write_bytes(encode_rows(make_rows(load_tiny(tiny_model_dir).chat)))
    straight = train_once(job(tmp_path / "straight", tiny_model_dir, objective=objective))
    killed = train_and_die(job(tmp_path / "killed", tiny_model_dir, objective=objective), after=12)
    left_behind = (tmp_path / "killed" / "adapter").exists()

    # Another micro-batch would change the last digits; the checkpoint knows the one that was in use.
    resumed = train_once(job(tmp_path / "killed", tiny_model_dir, objective=objective, micro_batch_tokens=64))

    assert killed == -signal.SIGKILL
    assert not left_behind
    assert (straight.steps, straight.resumed_from) == (20, 0)
    assert (resumed.steps, resumed.resumed_from) == (20, 10)
    for name in FILES:
        expected = (tmp_path / "straight" / "adapter" / name).read_bytes()
        assert (tmp_path / "killed" / "adapter" / name).read_bytes() == expected, name
