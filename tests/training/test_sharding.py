"""FSDP2: the weights of a model divided over processes. Parts of tensors, idle passes, and real processes over gloo."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from mae_cli.errors import ConfigError, EngineError, TemporaryError
from mae_cli.models import launcher
from mae_cli.models.load import load_model
from mae_cli.models.sharded import _plan, sharding_options
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.training.checkpoints import Checkpoint, load_checkpoint, note_smaller, noted_smaller, save_checkpoint
from mae_cli.training.lora_tuning import LoraTuning
from mae_cli.training.parts import divided, is_part, local, part_of, whole
from mae_cli.training.processes import World, _is_loss
from mae_cli.training.sharding import ShardedForward, ShardedTuning, sharded_full
from tests.conftest import build_tokenizer
from tests.support import PATIENT_SECONDS, child_environment, command, read_json_lines, write_rows

from .conftest import load_tiny, make_groups

CPU = torch.device("cpu")
SECTION: dict[str, Any] = {"lora_r": 4, "batch_size": 5, "epochs": 2, "learning_rate": 1e-3, "save_every": 2}
OBJECTIVES: dict[str, Any] = {
    "sft": "sft",
    # Pairs: fewer units than processes in the last step, so that one has nothing to do.
    "dpo": "dpo",
    # Reads log-probabilities of two policies before the first update.
    "reinforce_pp": {"name": "reinforce_pp", "kl_coefficient": 0.1},
}


# ---- the launcher's settings


@pytest.fixture
def _fsdp(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (*launcher.IGNORED, "FSDP_OFFLOAD_PARAMS", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(key, raising=False)
    for key, value in {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(key, value)


@pytest.mark.usefixtures("_fsdp")
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("FSDP_VERSION", "1", "FSDP version 1 is not supported; launch with --fsdp_version 2"),
        ("FSDP_OFFLOAD_PARAMS", "true", "launch with --fsdp_offload_params false"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed is not supported; launch with --use_fsdp"),
    ],
)
def test_a_launch_that_is_not_supported_is_refused_with_the_way_out(
    key: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key, value)

    with pytest.raises(ConfigError, match=message):
        launcher.check_launcher()


@pytest.mark.usefixtures("_fsdp")
@pytest.mark.parametrize(
    ("key", "value", "notice"),
    [
        ("FSDP_STATE_DICT_TYPE", "FULL_STATE_DICT", None),
        ("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT", "the first process writes one whole folder"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "set finetune.gradient_checkpointing=true"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "false", None),
        ("FSDP_RESHARD_AFTER_FORWARD", "false", "dropped after their use"),
        ("FSDP_TRANSFORMER_CLS_TO_WRAP", "LlamaDecoderLayer", "the blocks are found in the model"),
        ("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP", None),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "the recipe's dtype decides"),
        ("ACCELERATE_MIXED_PRECISION", "no", None),
    ],
)
def test_a_setting_that_changes_nothing_is_told(
    key: str, value: str, notice: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key, value)

    told = launcher.check_launcher()

    assert launcher.is_sharded()
    assert len(told) == (notice is not None)
    assert all(f"{key}={value}" in text and str(notice) in text for text in told)


@pytest.mark.usefixtures("_fsdp")
def test_a_single_process_divides_nothing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")

    assert not launcher.is_sharded()
    assert launcher.check_launcher() == ["FSDP was asked for with a single process, which holds the whole model"]


def test_processes_of_torchrun_hold_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")

    assert (launcher.is_sharded(), launcher.check_launcher()) == (False, [])


@pytest.mark.usefixtures("_fsdp")
def test_four_bits_and_trained_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match="four bits cannot be split by FSDP"):
        sharding_options(Path(), device=CPU, load_in_4bit=True)
    section = FinetuneSection(dora=True)
    with pytest.raises(ConfigError, match=r"finetune\.dora: .* launch with --multi_gpu"):
        ShardedTuning(LoraTuning(section), Path(), torch.float32, section)


# ---- the model


@pytest.mark.usefixtures("_fsdp")
def test_before_the_processes_have_met_a_model_is_an_outline(tiny_model_dir: Path) -> None:
    outline = load_model(tiny_model_dir, device=CPU, dtype=torch.bfloat16)

    assert {parameter.device.type for parameter in outline.parameters()} == {"meta"}
    assert (outline.dtype, outline.config.name_or_path) == (torch.bfloat16, str(tiny_model_dir))
    assert outline.generation_config.eos_token_id is not None


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cuda", {"model.layers.*"}),
        ("cpu", {"model.layers.*", "model.layers.*.self_attn", "model.layers.*.mlp"}),
    ],
)
def test_the_blocks_of_the_decoder_are_what_is_gathered_together(
    device: str, expected: set[str], tiny_model_dir: Path
) -> None:
    assert set(_plan(tiny_model_dir, torch.device(device))) == expected


def test_a_model_that_computes_in_half_precision_computes_its_blocks_again(tiny_model_dir: Path) -> None:
    from mae_cli.training.full_tuning import ModelFolders

    class Outline:
        dtype = torch.bfloat16

    tuning = sharded_full(ModelFolders(tiny_model_dir, tiny_model_dir), Outline(), FinetuneSection(full=True))

    assert (tuning.dtype, tuning.compute_dtype) == (torch.float32, torch.bfloat16)
    assert tuning.section.gradient_checkpointing


# ---- parts of tensors


@pytest.fixture
def _alone(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def part(numbers: torch.Tensor) -> torch.Tensor:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(numbers, init_device_mesh("cpu", (1,)), [Shard(0)])


@pytest.mark.usefixtures("_alone")
def test_a_part_and_its_whole_are_the_same_numbers() -> None:
    numbers = torch.arange(10.0).view(5, 2)

    held = part(numbers)

    assert is_part(held)
    assert not is_part(numbers)
    assert torch.equal(whole(held), numbers)
    assert torch.equal(local(held), numbers)
    assert torch.equal(part_of(numbers, held), numbers)
    assert torch.equal(whole(divided(numbers.clone(), held)), numbers)
    local(held).zero_()
    assert whole(held).count_nonzero() == 0


@pytest.mark.parametrize(("rank", "rows"), [(0, [0, 1, 2]), (1, [3, 4, 5]), (2, [6]), (3, [])])
def test_the_rows_of_a_process_are_those_of_torch_chunk(rank: int, rows: list[int]) -> None:
    class Mesh:
        def size(self) -> int:
            return 3 if rank < 3 else 4

        def get_local_rank(self) -> int:
            return rank

    class Held:
        device_mesh = Mesh()

        def to_local(self) -> torch.Tensor:
            return torch.zeros(len(rows))

    held: Any = Held()
    numbers = torch.arange(7) if rank < 3 else torch.arange(3)  # the fourth of four processes has none of three rows

    assert part_of(numbers, held).tolist() == rows


@pytest.mark.usefixtures("_alone")
def test_a_checkpoint_of_parts_is_the_checkpoint_of_one_process(tmp_path: Path) -> None:
    numbers = {"a": torch.randn(5, 3), "b": torch.randn(4).bfloat16(), "c": torch.zeros(0, 2)}

    def checkpoint(change: Any) -> Checkpoint:
        weights = {name: change(tensor) for name, tensor in numbers.items()}
        parameter = torch.nn.Parameter(weights["a"])
        optimizer = torch.optim.AdamW([parameter], lr=0.5)
        parameter.grad = change(torch.ones(5, 3))
        optimizer.step()
        return Checkpoint({"seed": 1}, 3, 128, weights, optimizer.state_dict(), ["{}"], {"a": weights["a"]})

    save_checkpoint(tmp_path / "one", checkpoint(torch.Tensor.clone))
    save_checkpoint(tmp_path / "parts", checkpoint(part))

    one = load_checkpoint(tmp_path / "one", {"seed": 1})
    parts = load_checkpoint(tmp_path / "parts", {"seed": 1}, mapped=True)
    assert one is not None
    assert parts is not None
    for name, tensor in one.weights.items():
        assert torch.equal(parts.weights[name], tensor)
        assert parts.weights[name].dtype == tensor.dtype
    assert parts.optimizer["param_groups"] == one.optimizer["param_groups"]
    assert all(
        torch.equal(parts.optimizer["state"][0][name], value) for name, value in one.optimizer["state"][0].items()
    )
    assert (parts.step, parts.log, parts.micro_batch_tokens) == (one.step, one.log, one.micro_batch_tokens)


# ---- passes


class Others(World, frozen=True):
    """This process among others with three passes each."""

    def gather(self, value: Any) -> list[Any]:
        return [value, 3]


def forward_of(folder: Path, tokens: int = 4096) -> tuple[ShardedForward, list[Any], list[int]]:
    from mae_cli.training.examples import read_examples

    tiny, notes = load_tiny(folder), []
    found = read_examples(make_groups(tiny.chat), tiny.chat, ends=tiny.end_ids, max_length=256, needs_reward=False)
    section = FinetuneSection(micro_batch_tokens=tokens)
    forward = ShardedForward(
        tiny.model,
        section,
        lambda text: None,
        None,
        world=Others(0, 2, True),
        filler=found.examples[0],
        note=notes.append,
    )
    return forward, list(found.examples), notes


def test_a_process_makes_as_many_passes_as_the_one_that_has_most(tiny_model_dir: Path) -> None:
    forward, examples, _ = forward_of(tiny_model_dir)

    for units in ([], [(0,), (1,)]):
        made = list(forward.batches(examples, units))

        assert len(made) == 3
        assert sorted(index for group, _ in made for index in group) == list(range(len(units)))
        idle = [batch for group, batch in made if not group]
        assert {(batch.indices == [], tuple(batch.input_ids.shape)) for batch in idle} == {(True, (1, 2))}
        assert len(forward.read(examples, units)) == len(units)
    assert not forward.share_prefix


def test_all_end_together_when_memory_runs_out_and_begin_again_with_half(tiny_model_dir: Path, tmp_path: Path) -> None:
    forward, examples, notes = forward_of(tiny_model_dir)

    def work() -> None:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(TemporaryError, match=r"run the same command again, it goes on with 2048"):
        forward.fitting(work, examples)
    note_smaller(tmp_path, notes[0])
    assert noted_smaller(tmp_path) == 2048
    forward.micro_batch_tokens = 8
    with pytest.raises(EngineError, match="out of memory with one row"):
        forward.fitting(work, examples)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:18829"), True),
        (dist.DistBackendError("NCCL error: remote process exited"), True),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_the_end_of_another_process_is_told_from_our_own_faults(error: RuntimeError, expected: bool) -> None:
    assert _is_loss(error) is expected


# ---- real processes


def start(arguments: list[object], processes: int, log: Path) -> list[subprocess.Popen[bytes]]:
    """The command in so many processes."""
    return start_lines([command(arguments)] * processes, log)


def start_lines(lines: list[list[str]], log: Path) -> list[subprocess.Popen[bytes]]:
    """One process for each, told what `accelerate launch --use_fsdp --fsdp_version 2` tells; a single one nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = []
    for rank, line in enumerate(lines):
        told = {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(lines))},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
        }
        environment = child_environment() | (told if len(lines) > 1 else {})
        with (log.parent / f"{log.name}-{rank}").open("wb") as file:
            started.append(subprocess.Popen(line, stdout=file, stderr=file, env=environment))
    return started


def ends(started: list[subprocess.Popen[bytes]]) -> list[int]:
    try:
        return [process.wait(5 * PATIENT_SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()


def figures(folder: Path, name: str) -> list[float]:
    return [line[name] for line in read_json_lines(folder / "train_log.jsonl") if line.get("loss") is not None]


def recipe_of(tmp_path: Path, model: Path, **section: Any) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(msgspec.yaml.encode({"model": str(model), "device": "cpu", "finetune": {**SECTION, **section}}))
    return path


def same_training(one: Path, two: Path) -> None:
    """The same files, the same tensors up to float noise, losses within 1e-4."""
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    for figure in ("loss", "nll", "grad_norm"):
        assert figures(two, figure) == pytest.approx(figures(one, figure), abs=1e-4, rel=1e-4), figure
    weights = next(path.name for path in one.glob("*.safetensors"))
    expected, found = load_file(one / weights), load_file(two / weights)
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        name: (value.shape, value.dtype) for name, value in expected.items()
    }
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-4), name
    for file in ("config.json", "adapter_config.json", "tokenizer.json", "train_rows.jsonl"):
        assert not (one / file).exists() or (one / file).read_bytes() == (two / file).read_bytes(), file


@pytest.fixture
def rows(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", make_groups(load_tiny(tiny_model_dir).chat))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("sft", False),
        ("reinforce_pp", True),
        *(pytest.param(*case, marks=pytest.mark.long) for case in (("dpo", False), ("reinforce_pp", False))),
        *(pytest.param(name, True, marks=pytest.mark.long) for name in ("sft", "dpo")),
    ],
)
def test_two_processes_that_divide_the_model_train_as_one(
    name: str, full: bool, rows: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tmp_path, tiny_model_dir, objective=OBJECTIVES[name], full=full, reference="base")

    def arguments(out: str) -> list[object]:
        return ["finetune", rows, "-o", tmp_path / out, "--recipe", recipe]

    alone = ends(start(arguments("one"), 1, tmp_path / "log-one"))
    both = ends(start(arguments("two"), 2, tmp_path / "log-two"))

    assert (alone, both) == ([0], [0, 0]), (tmp_path / "log-two-0").read_text()
    same_training(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then", "full"),
    [
        (2, 1, False),
        (2, 2, True),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in ((2, 2, False), (1, 2, False), (2, 1, True), (1, 2, True))
        ),
    ],
)
def test_a_killed_training_goes_on_in_any_number_of_processes(
    first: int, then: int, full: bool, rows: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    objective = OBJECTIVES["reinforce_pp"]
    recipe = recipe_of(tmp_path, tiny_model_dir, objective=objective, full=full, save_every=1, epochs=12)

    def arguments(out: str) -> list[object]:
        return ["finetune", rows, "-o", tmp_path / out, "--recipe", recipe]

    assert ends(start(arguments("straight"), 1, tmp_path / "log-straight")) == [0]
    started = start(arguments("out"), first, tmp_path / "log-first")
    checkpoint = tmp_path / "out.partial" / "checkpoints" / "state.pt"
    while not checkpoint.exists() and started[-1].poll() is None:
        time.sleep(0.01)
    # One is killed; the others see it and end by themselves, with one line.
    with contextlib.suppress(ProcessLookupError):
        os.kill(started[-1].pid, signal.SIGKILL)
    killed = ends(started)
    assert killed[-1] == -signal.SIGKILL
    assert killed[:-1] == [75] * (first - 1)
    if first > 1:
        told = (tmp_path / "log-first-0").read_text()
        assert "Traceback" not in told
        assert "another process of this training ended" in told
    resumed = ends(start(arguments("out"), then, tmp_path / "log-then"))

    assert resumed == [0] * then, (tmp_path / "log-then-0").read_text()
    assert "going on from the checkpoint after step" in (tmp_path / "log-then-0").read_text()
    same_training(tmp_path / "straight", tmp_path / "out")


PEAK = """
import sys, threading, time

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

import torch
torch.set_num_threads(1)
import mae_cli.stages.tuning.training, mae_cli.engines.hf.engine, peft, datasets
from mae_cli.plugins.objectives import sft, preference, policy_gradient
import torch.distributed.fsdp, torch.distributed.tensor
start, peak = resident(), [0]

def watch():
    while True:
        peak[0] = max(peak[0], resident())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
from mae_cli.cli import main
report = sys.argv[1]
sys.argv = ["mae", *sys.argv[2:]]
code = 0
try:
    main()
except SystemExit as end:
    code = end.code
open(report, "w").write(f"{code or 0} {peak[0] - start}")
"""


def save_wide_model(folder: Path) -> Path:
    """A model whose weights outweigh everything else: 16 blocks of width 1024, 0.8 GB in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=16,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("full", [False, True])
def test_each_of_two_processes_needs_little_more_than_half_the_memory_of_one(
    full: bool, rows: Path, tmp_path: Path
) -> None:
    model = save_wide_model(tmp_path / "wide")
    recipe = recipe_of(tmp_path, model, objective="sft", full=full, max_steps=2, save_every=1, micro_batch_tokens=128)
    peaks: dict[int, list[int]] = {}
    for processes in (1, 2):
        arguments = ["finetune", rows, "-o", tmp_path / f"out-{processes}", "--recipe", recipe]
        lines = [
            [sys.executable, "-c", PEAK, str(tmp_path / f"peak-{processes}-{rank}"), *map(str, arguments)]
            for rank in range(processes)
        ]
        assert ends(start_lines(lines, tmp_path / f"log-{processes}")) == [0] * processes
        reports = [(tmp_path / f"peak-{processes}-{rank}").read_text().split() for rank in range(processes)]
        assert {code for code, _ in reports} == {"0"}
        peaks[processes] = [int(size) for _, size in reports]

    print(f"\nfull={full}: one process {peaks[1]}, each of two {peaks[2]}")
    assert max(peaks[2]) < 0.65 * peaks[1][0]
