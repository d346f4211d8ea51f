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


def is_sharded() -> bool:
    """Whether a launcher asked for FSDP, so that the processes divide the weights among them."""
    return num_processes() > 1 and _is_on("ACCELERATE_USE_FSDP")


def check_launcher() -> list[str]:
    """Settings of the launcher that are not followed, each as a notice.

    Raises:
        ConfigError: DeepSpeed, the first FSDP, or FSDP with its weights in main memory.
    """
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        raise ConfigError(
            "finetune: DeepSpeed is not supported; launch with --use_fsdp --fsdp_version 2 to split the model over the "
            "processes, or with --multi_gpu where each can hold it"
        )
    if not _is_on("ACCELERATE_USE_FSDP"):
        return []
    if num_processes() == 1:
        return ["FSDP was asked for with a single process, which holds the whole model"]
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ConfigError(f"finetune: FSDP version {version} is not supported; launch with --fsdp_version 2")
    if _is_on("FSDP_OFFLOAD_PARAMS"):
        raise ConfigError(
            "finetune: FSDP that keeps its weights in main memory is not supported; launch with "
            "--fsdp_offload_params false, and more processes if the parts are too large"
        )
    return [text for text in map(_not_followed, IGNORED) if text is not None]


IGNORED = {
    "FSDP_STATE_DICT_TYPE": ("SHARDED_STATE_DICT LOCAL_STATE_DICT", "the first process writes one whole folder"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("true", "set finetune.gradient_checkpointing=true"),
    "FSDP_RESHARD_AFTER_FORWARD": ("false", "gathered weights are always dropped after their use"),
    "FSDP_TRANSFORMER_CLS_TO_WRAP": (None, "the blocks are found in the model"),
    "FSDP_AUTO_WRAP_POLICY": ("SIZE_BASED_WRAP NO_WRAP", "the blocks are found in the model"),
    "FSDP_IGNORED_MODULES": (None, "every weight of the base is split"),
    "ACCELERATE_MIXED_PRECISION": ("fp16 bf16 fp8", "the recipe's dtype decides"),
}
"""Settings that change nothing here: the values that are worth a notice (null: any), and what happens instead."""


def _not_followed(key: str) -> str | None:
    value, (told, instead) = os.environ.get(key, ""), IGNORED[key]
    if not value or (told is not None and value.lower() not in told.lower().split()):
        return None
    return f"{key}={value} of the launcher is not followed: {instead}"


def _is_on(key: str) -> bool:
    return os.environ.get(key, "").lower() in ("1", "true", "yes")


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
