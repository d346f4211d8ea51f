"""Several processes train one adapter: shares, refusals, and two real processes against one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.errors import ConfigError
from mae_cli.models import launcher as ranks
from mae_cli.training.optimization import StepSums
from mae_cli.training.processes import World, joined
from tests.support import (
    PATIENT_SECONDS,
    child_environment,
    command,
    here,
    read_json_lines,
    wait_until,
    write_rows,
    write_sums,
)

from .conftest import load_tiny, make_groups

SECTION: dict[str, Any] = {"lora_r": 4, "batch_size": 5, "epochs": 3, "learning_rate": 1e-3, "save_every": 2}
OBJECTIVES: dict[str, Any] = {
    "sft": "sft",
    # Reads log-probabilities of the policy before the first update, each process those of its own rows.
    "grpo": {"name": "grpo", "kl_coefficient": 0.1},
    "mix": {"name": "mix", "parts": [{"objective": "reinforce_pp"}, {"objective": "dpo"}]},
    "full": "sft",
}


def test_the_shares_of_all_processes_are_the_whole() -> None:
    items = list(range(7))

    assert [World(rank, 3).share(items) for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    assert World().share(items) == items


def test_the_sums_of_processes_add_up_where_one_has_no_metric() -> None:
    one, other = (
        StepSums(1.0, 2.0, {"clipped": (3.0, 4.0)}),
        StepSums(0.5, 0.25, {"clipped": (1.0, 4.0), "kl": (2.0, 1.0)}),
    )

    total = one.join([one, other])

    assert (total.loss, total.nll, total.means()) == (1.5, 2.25, {"clipped": 0.5, "kl": 2.0})


def test_without_a_launcher_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    with joined() as world:
        assert (world, world.gather("a"), world.from_main("b")) == (World(0, 1), ["a"], "b")


def test_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")

    with pytest.raises(ConfigError, match="DeepSpeed is not supported; launch with --use_fsdp"):
        ranks.check_launcher()


def test_other_commands_refuse_a_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")

    assert here("solve", write_sums(tmp_path / "p.jsonl"), "-o", tmp_path / "o.jsonl", "--engine", "scripted") == 2
    assert "only mae finetune can be started by accelerate launch" in capsys.readouterr().err


def test_every_process_has_its_own_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from mae_cli.models.load import resolve_device

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert [resolve_device(name) for name in ("auto", "cuda", "cuda:0", "cpu")] == [
        torch.device(name) for name in ("cuda:1", "cuda:1", "cuda:0", "cpu")
    ]


# ---- two real processes


def launcher_command(arguments: list[object], processes: int = 2) -> list[str]:
    """The command under accelerate, over gloo on the loopback; a single process needs no launcher."""
    if processes == 1:
        return command(arguments)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Without --multi_gpu accelerate starts a single process where it sees no GPU.
    launcher = ["--multi_gpu", f"--num_processes={processes}", "--num_machines=1", f"--main_process_port={port}"]
    more = ["--mixed_precision=no", "--dynamo_backend=no", "-m", "mae_cli.cli"]
    return [sys.executable, "-m", "accelerate.commands.launch", *launcher, *more, *map(str, arguments)]


def launched(arguments: list[object], processes: int = 2) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        launcher_command(arguments, processes),
        capture_output=True,
        env=child_environment(),
        timeout=5 * PATIENT_SECONDS,
        check=False,
    )


def curve(folder: Path) -> list[float]:
    return [line["loss"] for line in read_json_lines(folder / "train_log.jsonl") if line.get("loss") is not None]


@pytest.fixture
def rows(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", make_groups(load_tiny(tiny_model_dir).chat))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sft", *(pytest.param(name, marks=pytest.mark.long) for name in ("grpo", "mix", "full"))]
)
def test_two_processes_have_the_loss_curve_of_one(name: str, rows: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    section = {**SECTION, "objective": OBJECTIVES[name], "full": name == "full"}
    recipe.write_bytes(msgspec.yaml.encode({"model": str(tiny_model_dir), "device": "cpu", "finetune": section}))

    def arguments(out: str) -> list[object]:
        return ["finetune", rows, "-o", tmp_path / out, "--recipe", recipe, "--json"]

    alone = subprocess.run(command(arguments("one")), capture_output=True, env=child_environment(), check=False)
    both = launched(arguments("two"))

    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    print(f"\n{name}\none process   {one}\ntwo processes {two}")
    assert (alone.returncode, both.returncode) == (0, 0), both.stderr.decode()
    assert two == pytest.approx(one, abs=1e-4)
    # Another order of sums shows in the last bits: a launcher that started one process would give equal ones.
    assert two != one
    assert both.stdout.count(b'"stage":"finetune"') == 1
    assert both.stderr.count(b"trained tokens") == 1
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == files
    assert not (tmp_path / "two.partial").exists()
    # The same command inside and out: what two have finished, one finds done.
    again = subprocess.run(command(arguments("two")), capture_output=True, env=child_environment(), check=False)
    assert (again.returncode, b"done before" in again.stderr) == (0, True)


@pytest.mark.long
def test_a_wrong_setting_ends_both_processes_with_one_message(rows: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    common = ["finetune", rows, "-m", tiny_model_dir, "--device", "cpu", "--set", "finetune={lora_r: 4, batch_size: 5}"]
    assert launched([*common, "-o", tmp_path / "out"]).returncode == 0

    other = launched([*common, "-o", tmp_path / "out", "--learning-rate", "0.1"])

    assert other.returncode != 0
    assert other.stderr.count(b"learning_rate") >= 1


@pytest.mark.long
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_training_goes_on_with_another_number_of_processes(
    first: int, then: int, rows: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    section = {**SECTION, "objective": OBJECTIVES["grpo"], "save_every": 1, "epochs": 40}
    recipe.write_bytes(msgspec.yaml.encode({"model": str(tiny_model_dir), "device": "cpu", "finetune": section}))

    def arguments(out: str) -> list[object]:
        return ["finetune", rows, "-o", tmp_path / out, "--recipe", recipe, "--json"]

    straight = launched(arguments("straight"), 1)
    killed = kill_at_checkpoint(arguments("out"), first, tmp_path / "out.partial" / "checkpoints" / "state.pt")
    resumed = launched(arguments("out"), then)

    assert (straight.returncode, resumed.returncode) == (0, 0), resumed.stderr.decode()
    assert killed == -signal.SIGKILL
    told = msgspec.json.decode(resumed.stdout.splitlines()[-1])
    assert 1 <= told["details"]["resumed_from"] < told["details"]["steps"] == 120
    assert curve(tmp_path / "out") == pytest.approx(curve(tmp_path / "straight"), abs=1e-4)


def kill_at_checkpoint(arguments: list[object], processes: int, checkpoint: Path) -> int:
    """Launch, and kill every process as soon as the first checkpoint stands; the launcher's end."""
    running = subprocess.Popen(
        launcher_command(arguments, processes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )
    wait_until(lambda: checkpoint.exists() or running.poll() is not None)
    # The workers are in sessions of their own, so the launcher's group does not hold them.
    for process in [running.pid, *descendants(running.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return running.wait()


def descendants(process: int) -> list[int]:
    try:
        children = [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
    return [pid for child in children for pid in (child, *descendants(child))]
