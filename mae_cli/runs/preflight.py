"""Pre-flight: is there room on the disk, in memory and on the GPU for what comes next? If not, the run ends on 75.

Place in the flow: memory and GPU before the first model is loaded, the disk before each step that has work to do.
Contract: a need is measured (the model's own files, what the round before wrote), never guessed; where nothing can be
measured only `min_free_disk` counts. What will never fit is left to the engine, which says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mae_cli.errors import MaeError, TemporaryError
from mae_cli.models.locate import local_model
from mae_cli.recipe.roles import LOADING_ENGINES
from mae_cli.recipe.sections import Recipe
from mae_cli.runs.budgets import folder_size, parse_size, size_text

FILE_FACTOR = 2.0
"""A file of rows stands as `.partial` beside the finished one for a moment."""
FOLDER_FACTOR = 5.0
"""While an adapter is trained, its checkpoint holds weights twice and the optimizer's two moments beside it."""
GPU_FACTOR = 1.2
"""Of the weights: room for activations and a cache; less than that cannot work."""


def free_disk(folder: Path) -> int:
    """Return the bytes a user may still write in a folder, or in the nearest one above it that exists."""
    place = folder
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def free_memory() -> int | None:
    """Return the bytes of main memory that a new program could have, a container's limit heeded; null is unknown."""
    found = [value for value in (_available(), _left_in_container()) if value is not None]
    return min(found) if found else None


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Of a limit by control groups, version 2; what is only cached can be given back and does not count as used."""
    try:
        limit = (root / "memory.max").read_text("ascii").strip()
        used = int((root / "memory.current").read_text("ascii"))
        stat = dict(line.split() for line in (root / "memory.stat").read_text("ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(stat.get("inactive_file", "0")))


def gpu_memory(device: str) -> tuple[int, int] | None:
    """Return the (free, whole) bytes of the GPU that a device name stands for; null without one."""
    if device not in ("auto", "cuda") and not device.startswith("cuda:"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info(None if device in ("auto", "cuda") else torch.device(device))
    return int(free), int(total)


def weights_size(recipe: Recipe) -> int | None:
    """Return the bytes of the weights that a run will load; null where it loads none, or they are not here."""
    if recipe.engine.partition(":")[0] not in LOADING_ENGINES:
        return None
    try:
        folder = local_model(recipe.model, recipe.revision)
    except (MaeError, OSError):
        return None
    files = [path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern)]
    return sum(path.stat().st_size for path in files) or None


def check_memory(
    recipe: Recipe,
    *,
    memory: Callable[[], int | None] = free_memory,
    gpu: Callable[[str], tuple[int, int] | None] = gpu_memory,
) -> None:
    """Stop before a model is loaded for which there is no room now.

    Raises:
        TemporaryError: the GPU or main memory is in use by others.
    """
    size = weights_size(recipe)
    if size is None:
        return
    found = gpu(recipe.device)
    if found is not None:
        free, total = found
        if free < size * GPU_FACTOR <= total:
            raise TemporaryError(
                f"GPU busy: {size_text(free)} of {size_text(total)} are free, and {recipe.model} needs about "
                f"{size_text(size * GPU_FACTOR)}; another program holds the rest (nvidia-smi); "
                "try again when it is done"
            )
        return
    free_now = memory()
    if free_now is not None and free_now < size:
        raise TemporaryError(
            f"memory: {size_text(free_now)} are free, and the weights of {recipe.model} take {size_text(size)}; try "
            "again when other programs have ended, or take a smaller model"
        )


def needed_for(run_dir: Path, label: str, stem: str) -> int | None:
    """Return the bytes that a step of a round will need, from what the latest round before it left; null: unknown."""
    for folder in sorted((path for path in run_dir.glob("round-*") if path.name < label), reverse=True):
        for path in (folder / stem, *sorted(folder.glob(f"{stem}.jsonl*"))):
            if path.is_dir():
                return int(folder_size(path) * FOLDER_FACTOR)
            if path.name in (f"{stem}.jsonl", f"{stem}.jsonl.gz"):
                return int(path.stat().st_size * FILE_FACTOR)
    return None


def check_disk(
    run_dir: Path, recipe: Recipe, *, label: str, stem: str, free: Callable[[Path], int] = free_disk
) -> None:
    """Stop before a step for which the disk has no room.

    Raises:
        TemporaryError: less is free than the step needs or `min_free_disk` asks for.
    """
    left = free(run_dir)
    needed = needed_for(run_dir, label, stem)
    least = parse_size(recipe.min_free_disk, "min_free_disk")
    if left >= max(needed or 0, least):
        return
    why = (
        f"{stem} of {label} needs about {size_text(needed)}, as in the round before"
        if needed is not None and needed > least
        else f"min_free_disk is {size_text(least)}"
    )
    raise TemporaryError(
        f"disk: {size_text(left)} are free at {os.path.abspath(run_dir)}, and {why}; free some space, then the same "
        "command goes on"
    )
