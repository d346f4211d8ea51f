"""`--devices` with real worker processes: the bytes of one process, whoever is killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.errors import ConfigError
from mae_cli.recipe.sections import Recipe
from mae_cli.records import PREDEFINED_ROLES, Policy
from mae_cli.stages.generation import workers
from mae_cli.stages.generation.devices import cpu_threads, parse_devices
from mae_cli.stages.generation.job import open_job
from tests.records.test_shards import both_files, commands
from tests.support import here, mae, paused, read_json_lines, start, wait_until, write_sums

OPTIONS = ("--engine", "scripted", "--batch-size", "4", "--rollouts-per-problem", "2")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    return commands(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of 32 problems, beside them."""
    folder = tmp_path_factory.mktemp("single")
    problems = write_sums(folder / "problems.jsonl", 32)
    assert here("solve", problems, "-o", folder / "single.jsonl", *OPTIONS) == 0
    return folder / "single.jsonl"


def solve(single: Path, out: Path, *more: object) -> list[object]:
    return ["solve", single.with_name("problems.jsonl"), "-o", out, *OPTIONS, *more]


@pytest.mark.parametrize("stage", ["propose", "solve", "judge", "eval"])
def test_two_workers_make_the_bytes_and_the_figures_of_one_process(
    stage: str, stages: dict[str, tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, single, out = stages[stage], tmp_path / "single.jsonl", tmp_path / "out.jsonl"
    more = ("--shuffle-rewards",) if stage == "judge" else ()
    assert here(*line, "-o", single, "--json", *more) == 0
    wanted = msgspec.json.decode(capsys.readouterr().out)

    assert here(*line, "-o", out, "--json", *more, "--devices", "2") == 0

    assert both_files(out) == both_files(single)
    if stage == "eval":
        assert (tmp_path / "out.summary.json").read_bytes() == (tmp_path / "single.summary.json").read_bytes()
    told = msgspec.json.decode(capsys.readouterr().out)
    assert [told[key] for key in ("read", "written", "skipped", "tokens", "details")] == [
        wanted[key] for key in ("read", "written", "skipped", "tokens", "details")
    ]
    made = sum(worker["rows"] for worker in told["workers"])
    assert made == len(read_json_lines(single)) - sum("messages" in row for row in read_json_lines(line[1]))
    assert [(worker["shard"], worker["starts"]) for worker in told["workers"]] == [("1/2", 1), ("2/2", 1)]
    assert [path.name for path in tmp_path.glob("out.jsonl*")] == sorted(path.name for path in tmp_path.glob("out*l*"))
    assert not (tmp_path / "out.jsonl.shards").exists()


def children_of(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                found.append(int(folder.name))
    return sorted(found)


def whole_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("lines", [0, 12, 28])
def test_a_worker_killed_at_any_moment_costs_its_batch_in_flight_at_most(
    lines: int, single: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.shards" / "1-of-2.jsonl.partial"
    hold = paused(tmp_path / "hold", lines // 4, "1-of-2.jsonl.partial")
    process = start(solve(single, out, "--devices", "2", "--json"), cwd=Path("/"), **hold)
    wait_until((tmp_path / "hold" / "1-of-2.jsonl.partial.paused").exists, process)

    victim = next(
        pid for pid in children_of(process.pid) if b"--shard\x001/2" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(victim, signal.SIGKILL)
    stood = whole_lines(partial)
    said, notices = process.communicate()

    assert process.returncode == 0, notices
    assert both_files(out) == both_files(single)
    first, second = msgspec.json.decode(said)["workers"]
    assert (first["starts"], second["starts"]) == (2, 1)
    assert stood == lines
    assert first["kept"] == lines, "whole batches that stood in the file are never made again"
    assert first["rows"] == second["rows"] == 32
    assert b"worker 1/2 (cpu) died (signal SIGKILL): starting it again" in notices


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_parent_ends_its_workers_and_goes_on_with_more_of_them(
    number: signal.Signals, code: int, single: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    partials = [tmp_path / "out.jsonl.shards" / f"{shard}-of-2.jsonl.partial" for shard in (1, 2)]
    process = start(solve(single, out, "--devices", "2"), cwd=Path("/"), **paused(tmp_path / "hold", 2))
    wait_until(lambda: all((tmp_path / "hold" / f"{path.name}.paused").exists() for path in partials), process)
    assert [whole_lines(path) for path in partials] == [8, 8]
    ours = children_of(process.pid)

    process.send_signal(number)
    notices = process.communicate()[1]

    assert process.returncode == code
    assert notices.splitlines()[-1].endswith(b"; the same command goes on from here")
    assert len(ours) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in ours)
    assert not out.exists()
    again = mae(*solve(single, out, "--devices", "3", "--json"))
    told = msgspec.json.decode(again.stdout)
    assert told["skipped"] == 16
    assert told["skipped"] + sum(worker["rows"] for worker in told["workers"]) == 64
    assert both_files(out) == both_files(single)


def test_the_workers_of_a_killed_parent_end_and_one_process_goes_on_with_their_rows(
    single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    process = start(solve(single, out, "--devices", "2"), cwd=Path("/"), **paused(tmp_path / "hold", 1))
    wait_until(lambda: len(list((tmp_path / "hold").glob("*.paused"))) == 2, process)
    ours = children_of(process.pid)

    process.kill()
    process.communicate()

    assert len(ours) == 2
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours))
    assert here(*solve(single, out, "--json")) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["skipped"] == 8
    assert both_files(out) == both_files(single)
    assert not (tmp_path / "out.jsonl.shards").exists()


DYING = """
import os, signal, sys
arguments = sys.argv[1:]
if arguments[arguments.index("--shard") + 1] == "1/2":
    {death}
os.execv(sys.executable, [sys.executable, "-m", "mae_cli.cli.worker", *arguments])
"""


def let_the_first_die(monkeypatch: pytest.MonkeyPatch, death: str) -> None:
    monkeypatch.setattr(workers, "worker_command", lambda: [sys.executable, "-c", DYING.format(death=death)])
    monkeypatch.setattr(workers, "PAUSES", (0.0, 0.0, 0.0))


def test_a_worker_that_dies_again_and_again_ends_in_75_with_the_others_rows_kept(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        let_the_first_die(patch, "os.kill(os.getpid(), signal.SIGKILL)")
        assert here(*solve(single, out, "--devices", "2")) == 75

    said = capsys.readouterr().err
    assert said.count("worker 1/2 (cpu) died (signal SIGKILL): starting it again") == 3
    assert "died 4 times without finishing a row, at last signal SIGKILL; all finished rows are kept" in said
    assert here(*solve(single, out, "--devices", "2", "--json")) == 0
    told = msgspec.json.decode(capsys.readouterr().out)
    assert (told["skipped"], [worker["shard"] for worker in told["workers"]]) == (32, ["1/2"])
    assert both_files(out) == both_files(single)


def test_what_a_worker_refuses_stops_the_command_with_its_line_and_code(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    let_the_first_die(monkeypatch, 'sys.exit("mae: budget reached") if False else (print("mae: it is spent", '
                      'file=sys.stderr), sys.exit(6))')  # fmt: skip

    assert here(*solve(single, tmp_path / "out.jsonl", "--devices", "2")) == 6
    assert capsys.readouterr().err.splitlines()[-1] == "mae: it is spent"


def test_rows_of_workers_with_other_settings_are_refused_by_name(
    single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    folder = tmp_path / "out.jsonl.shards"
    assert here(*solve(single, folder / "1-of-2.jsonl", "--shard", "1/2", "--temperature", 0.5, "--limit", 4)) == 0

    assert here(*solve(single, out)) == 2
    assert "1-of-2.jsonl was made with other settings: sampling.temperature: 0.5 there, 1.0 now" in (
        capsys.readouterr().err
    )
    assert here(*solve(single, out, "--overwrite")) == 0
    assert both_files(out) == both_files(single)
    assert (tmp_path / "out.jsonl.old-1.shards" / "1-of-2.jsonl").exists()


def test_a_shard_with_devices_merges_with_the_others(single: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"{index}.jsonl" for index in (1, 2)]
    assert here(*solve(single, parts[0], "--shard", "1/2", "--devices", "2")) == 0
    assert here(*solve(single, parts[1], "--shard", "2/2")) == 0

    assert here("data", "merge", *parts, "-o", tmp_path / "out.jsonl") == 0

    assert both_files(tmp_path / "out.jsonl") == both_files(single)


def test_a_key_given_in_place_of_its_variable_is_not_in_the_workers_recipe(single: Path, tmp_path: Path) -> None:
    key = ("--api-key-env", "hf_SECRET123")

    assert here(*solve(single, tmp_path / "out.jsonl", "--devices", "2", *key)) == 2

    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"SECRET123" in path.read_bytes()]


def test_standard_input_and_output_are_refused(tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl")

    for line in (["solve", "-", "-o", tmp_path / "o.jsonl"], ["solve", problems, "-o", "-"]):
        result = mae(*line, "--engine", "scripted", "--devices", "2", stdin=problems.read_bytes())
        assert result.returncode == 2
        assert b"workers cannot share standard input or output" in result.stderr


# ---- which devices


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    def see(count: int, visible: str | None = None) -> None:
        monkeypatch.setattr("mae_cli.stages.generation.devices._visible_gpus", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return see


def told(text: str, engine: str = "hf") -> list[tuple[str, str | None]]:
    return [(d.label, d.environment.get("CUDA_VISIBLE_DEVICES")) for d in parse_devices(text, engine)]


def test_all_and_numbers_are_gpus_where_there_are_any(gpus: Any) -> None:
    gpus(3)

    assert told("all") == [("cuda:0", "0"), ("cuda:1", "1"), ("cuda:2", "2")]
    assert told("2") == [("cuda:0", "0"), ("cuda:1", "1")]
    assert told("cuda:2,cuda:0") == [("cuda:2", "2"), ("cuda:0", "0")]
    assert told("2", "scripted") == told("cpu:2") == [("cpu", None)] * 2


def test_gpus_are_counted_among_the_visible_ones(gpus: Any) -> None:
    gpus(2, "5,GPU-77")

    assert told("all") == [("cuda:0", "5"), ("cuda:1", "GPU-77")]


def test_without_a_gpu_a_number_is_workers_on_the_cpu(gpus: Any) -> None:
    gpus(0)

    assert told("2") == [("cpu", None)] * 2
    with pytest.raises(ConfigError, match="no GPU is visible; cpu:N starts"):
        parse_devices("all", "hf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuda:2", "cuda:2 is not there, 2 GPUs are visible"),
        ("3", "cuda:2 is not there, 2 GPUs are visible"),
        ("0", "expected at least one worker"),
        ("cpu:0", "expected at least one worker"),
        ("gpu", "expected all, a number, cuda:0,cuda:1 or cpu:2"),
        ("cuda:0,cpu", "expected all, a number"),
    ],
)
def test_devices_that_are_not_there_or_not_devices_are_refused(text: str, message: str, gpus: Any) -> None:
    gpus(2)

    with pytest.raises(ConfigError, match=message):
        parse_devices(text, "hf")


def test_workers_on_the_cpu_split_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")

    assert {d.environment["OMP_NUM_THREADS"] for d in parse_devices("cpu:3", "hf")} == {"2"}
    assert {d.environment["OMP_NUM_THREADS"] for d in parse_devices("cpu:9", "hf")} == {"1"}
    assert cpu_threads({}) == len(os.sched_getaffinity(0))


# ---- the parent's engine


def test_the_parent_names_the_policy_that_its_workers_generate_with(tiny_recipe: Recipe, tmp_path: Path) -> None:
    from tests.models.test_load import make_adapter

    adapter = make_adapter(Path(tiny_recipe.model), tmp_path / "adapter")
    crew = workers.Crew(parse_devices("cpu:2", "scripted"))
    paged = open_job(msgspec.structs.replace(tiny_recipe, engine="hf:paged"), crew=crew)
    assert paged.engines.fingerprint(paged.engines.trained.policy)["dtype"] == "torch.float32 paged"
    parent, worker = open_job(tiny_recipe, crew=crew), open_job(tiny_recipe)
    for on in (None, adapter):
        parent.engines.wear(on)
        worker.engines.wear(on)
        for role in PREDEFINED_ROLES:
            both: list[Policy] = [job.engines.of(role).policy for job in (parent, worker)]
            assert both[0] == both[1]
            assert parent.engines.fingerprint(both[0], role) == worker.engines.fingerprint(both[1], role)
    assert [s.engines.of("judge").facts.constrains for s in (parent, worker)] == [True, True]
    assert not hasattr(parent.engines.trained, "tokenizer")
    assert hasattr(parent.engines.of(None, weights=True), "tokenizer")
    assert worker.engines.of(None, weights=True) is worker.engines.trained
