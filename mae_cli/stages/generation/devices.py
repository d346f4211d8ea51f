"""`--devices`: which devices the workers of a command get, one process each."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.recipe.roles import LOADING_ENGINES


class Device(msgspec.Struct, frozen=True):
    """One worker's device: its name for people, the worker's `--device`, and what its environment says."""

    label: str
    device: str
    environment: dict[str, str] = {}


EXPECTED = "expected all, a number, cuda:0,cuda:1 or cpu:2"


def parse_devices(text: str, engine: str) -> list[Device]:
    """The devices that `all`, `N`, `cuda:0,cuda:1` or `cpu:N` name.

    Args:
        text: the option's value. `N` is the first N GPUs, or N workers on the CPU where there is no GPU.
        engine: the recipe's engine; one without weights of its own needs no GPU.

    Raises:
        ConfigError: another text, or a GPU that is not there.
    """
    text = text.strip().lower()
    if match := re.fullmatch(r"cpu(?::([0-9]{1,4}))?", text):
        return _cpus(text, int(match[1] or 1))
    needs_gpu = engine.partition(":")[0] in LOADING_ENGINES
    if text == "all" or text.isdigit():
        count = _visible_gpus() if needs_gpu else 0
        if text == "all" and not count:
            raise ConfigError("--devices all: no GPU is visible; cpu:N starts N workers on the CPU")
        if text == "all" or count:
            return [_gpu(text, index, count) for index in range(count if text == "all" else _positive(text, int(text)))]
        return _cpus(text, int(text))
    indices = [re.fullmatch(r"cuda:([0-9]{1,4})", part.strip()) for part in text.split(",")]
    if not all(indices):
        raise ConfigError(f"--devices {text}: {EXPECTED}")
    count = _visible_gpus()
    return [_gpu(text, int(match[1]), count) for match in indices if match]


def _positive(text: str, number: int) -> int:
    if number < 1:
        raise ConfigError(f"--devices {text}: expected at least one worker")
    return number


def _cpus(text: str, number: int) -> list[Device]:
    threads = max(1, cpu_threads(os.environ) // _positive(text, number))
    # Workers that all start as many threads as there are cores only wait for each other.
    environment = {"OMP_NUM_THREADS": str(threads)}
    return [Device("cpu", "cpu", environment) for _ in range(number)]


def cpu_threads(environment: Mapping[str, str]) -> int:
    """The threads a command may use: what OMP_NUM_THREADS says, else the cores this process may run on."""
    told = environment.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpu(text: str, index: int, count: int) -> Device:
    if index >= count:
        raise ConfigError(f"--devices {text}: cuda:{index} is not there, {count} GPUs are visible")
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = told.split(",") if told else [str(number) for number in range(count)]
    # Each worker sees its own GPU only, so that no library opens a context on another one.
    return Device(f"cuda:{index}", "cuda", {"CUDA_VISIBLE_DEVICES": names[index].strip()})


def _visible_gpus() -> int:
    import torch

    return torch.cuda.device_count()
