"""Pre-flight: room on the disk, in memory and on the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mae_cli.errors import TemporaryError
from mae_cli.recipe.sections import Recipe
from mae_cli.runs import preflight
from mae_cli.runs.preflight import check_disk, check_memory, needed_for

GB = 10**9


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(2 * GB)  # sparse: takes no room
    return folder


def check(model: Path, *, memory: int | None = None, gpu: tuple[int, int] | None = None, **changes: Any) -> None:
    check_memory(Recipe(model=str(model), **changes), memory=lambda: memory, gpu=lambda device: gpu)


def test_a_gpu_that_others_fill_is_busy(model: Path) -> None:
    with pytest.raises(TemporaryError, match=r"GPU busy: 1 GB of 24 GB are free, and .* needs about 2.4 GB"):
        check(model, gpu=(1 * GB, 24 * GB))


@pytest.mark.parametrize("gpu", [(24 * GB, 24 * GB), (5 * GB, 24 * GB), (1 * GB, 2 * GB), None])
def test_a_gpu_with_room_or_one_that_never_has_it_is_not_busy(model: Path, gpu: tuple[int, int] | None) -> None:
    check(model, gpu=gpu)


def test_main_memory_that_is_full_stops_a_run_on_the_cpu_only(model: Path) -> None:
    with pytest.raises(TemporaryError, match=r"memory: 1 GB are free, and the weights of .* take 2 GB"):
        check(model, memory=1 * GB)

    check(model, memory=3 * GB)
    check(model, memory=None)
    check(model, memory=1 * GB, gpu=(20 * GB, 24 * GB))


def test_engines_without_weights_need_no_room(model: Path) -> None:
    check(model, memory=1, gpu=(1, 24 * GB), engine="openai")
    check(model, memory=1, engine="scripted")
    check(model.parent / "missing", memory=1)


def test_a_containers_limit_counts_and_its_cache_does_not(tmp_path: Path) -> None:
    for name, text in (("max", "1000\n"), ("current", "900\n"), ("stat", "anon 400\ninactive_file 300\n")):
        (tmp_path / f"memory.{name}").write_text(text)

    assert preflight._left_in_container(tmp_path) == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert preflight._left_in_container(tmp_path) is None
    assert preflight._left_in_container(tmp_path / "none") is None


def run_of_one_round(folder: Path) -> Path:
    first = folder / "round-001"
    (first / "5_adapter").mkdir(parents=True)
    (first / "2_rollouts.jsonl").write_bytes(b"x" * 1000)
    (first / "2_rollouts.jsonl.meta.json").write_bytes(b"x" * 70)
    (first / "5_adapter" / "adapter_model.safetensors").write_bytes(b"x" * 300)
    return folder


def test_the_need_of_a_step_is_measured_on_the_round_before(tmp_path: Path) -> None:
    run = run_of_one_round(tmp_path)

    assert needed_for(run, "round-002", "2_rollouts") == 2000  # the growing file beside the finished one
    assert needed_for(run, "round-003", "5_adapter") == 1500  # its checkpoints beside it
    assert needed_for(run, "round-001", "2_rollouts") is None
    assert needed_for(run, "round-002", "3_judged") is None


@pytest.mark.parametrize(("free", "expected"), [(2000, None), (1999, "needs about 2 kB, as in the round before")])
def test_a_disk_without_room_for_the_step_stops_it(tmp_path: Path, free: int, expected: str | None) -> None:
    run, recipe = run_of_one_round(tmp_path), Recipe(min_free_disk="10")

    def look() -> None:
        check_disk(run, recipe, label="round-002", stem="2_rollouts", free=lambda _: free)

    if expected is None:
        look()
    else:
        with pytest.raises(TemporaryError, match=expected):
            look()


def test_what_must_stay_free_is_a_setting(tmp_path: Path) -> None:
    with pytest.raises(TemporaryError, match=r"disk: 5 MB are free at .*, and min_free_disk is 64 MB"):
        check_disk(tmp_path, Recipe(), label="round-001", stem="1_problems", free=lambda _: 5_000_000)

    check_disk(tmp_path, Recipe(min_free_disk="1MB"), label="round-001", stem="1_problems", free=lambda _: 5_000_000)


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert preflight.free_disk(tmp_path / "a" / "b") > 0
