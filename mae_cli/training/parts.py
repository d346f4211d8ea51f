"""Tensors of which this process may hold a part only: those of a model that FSDP divides (DTensors)."""

from __future__ import annotations

import torch


def is_part(tensor: torch.Tensor) -> bool:
    """Whether this process holds a part of the tensor only."""
    return hasattr(tensor, "to_local")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's numbers, in the same memory; a tensor that is not divided as it is."""
    part: torch.Tensor = tensor.to_local() if is_part(tensor) else tensor  # type: ignore[attr-defined]
    return part


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All numbers; every process has to ask, where the tensor is divided."""
    numbers: torch.Tensor = tensor.full_tensor() if is_part(tensor) else tensor  # type: ignore[attr-defined]
    return numbers


def part_of(numbers: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The rows of a whole tensor that this process has of another one; all, where that is not divided."""
    if not is_part(like):
        return numbers
    rows = local(like).shape[0]
    mesh = like.device_mesh  # type: ignore[attr-defined]
    # As torch.chunk cuts: equal parts, the last ones shorter or empty.
    start = min(len(numbers), -(-len(numbers) // mesh.size()) * mesh.get_local_rank())
    return numbers[start : start + rows]


def divided(numbers: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's numbers as its part of a tensor that is divided like another one."""
    if not is_part(like):
        return numbers
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        numbers.to(like.device),
        like.device_mesh,  # type: ignore[attr-defined]
        like.placements,  # type: ignore[attr-defined]
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
