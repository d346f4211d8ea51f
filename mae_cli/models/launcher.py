"""This process's place among the processes of one training, as a launcher (accelerate, torchrun) tells it.

It is read from environment variables, without torch, so that a command can ask before it loads anything.
"""

from __future__ import annotations

import os

from mae_cli.errors import ConfigError


def rank() -> int:
    """Number of this process among all, from 0; the first one alone writes and speaks."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Number of this process on its machine: the number of its device."""
    return _number("LOCAL_RANK", 0)


def num_processes() -> int:
    """Processes of this training; 1 without a launcher."""
    return max(1, _number("WORLD_SIZE", 1))


def refuse_launcher(command: str) -> None:
    """Refuse a launcher for a command that works in one process.

    Raises:
        ConfigError: a launcher has started several of it.
    """
    if num_processes() > 1:
        raise ConfigError(
            f"{command}: only mae finetune can be started by accelerate launch; --devices uses several devices here"
        )


def refuse_sharding() -> None:
    """Refuse a launcher that would split the model; every process has to hold all of it.

    Raises:
        ConfigError: the launcher was told to split the model.
    """
    for key, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(key, "").lower() in ("1", "true", "yes"):
            raise ConfigError(
                f"finetune: {name} is not supported: every process holds the whole base model; launch without it "
                "(load_in_4bit makes the base smaller)"
            )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
