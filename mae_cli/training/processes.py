"""Several processes that train one adapter: each takes a part of every step's units, gradients are summed.

Nothing but gradients and a few numbers is exchanged; every process holds the whole model and the same optimizer state,
so the result is that of one process up to the order of float sums, and a checkpoint fits any number of processes. Under
FSDP a process holds a part of the model (`sharding.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
import torch
import torch.distributed as dist

from mae_cli.errors import TemporaryError, one_line
from mae_cli.models.launcher import check_launcher, is_sharded, local_rank, num_processes, rank
from mae_cli.training.parts import is_part

T = TypeVar("T")
MESSAGE = 1 << 24
"""Numbers at least in one message but the last; one message of all gradients of a whole model would be a copy of it."""
TIMEOUT = timedelta(minutes=30)
"""A process that waits longer for the others gives up."""


class World(msgspec.Struct, frozen=True):
    """This process among all that train together."""

    rank: int = 0
    size: int = 1
    shards: bool = False
    """Whether the weights of the model are divided over the processes."""
    notices: tuple[str, ...] = ()
    """What the launcher asked for and does not get."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part; all parts together are the whole."""
        return list(items[self.rank :: self.size])

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Every process gets the sum of all gradients; small ones share a message.

        Those of divided parameters are summed in the backward pass already.
        """
        if self.size == 1:
            return
        waiting: list[torch.nn.Parameter] = []
        numbers = 0
        for parameter in parameters:
            if is_part(parameter):
                continue
            waiting.append(parameter)
            numbers += parameter.numel()
            if numbers >= MESSAGE:
                _sum_in_one(waiting)
                waiting, numbers = [], 0
        if waiting:
            _sum_in_one(waiting)

    def gather(self, value: T) -> list[T]:
        """The value of every process, in order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def from_main(self, value: T) -> T:
        """The value of the first process; the others wait for it."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]


def _sum_in_one(parameters: Sequence[torch.nn.Parameter]) -> None:
    # A process without a unit in this step has no gradients.
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).detach().flatten().float() for p in parameters]
    )
    dist.all_reduce(flat)
    start = 0
    for parameter in parameters:
        part = flat[start : start + parameter.numel()].view_as(parameter)
        parameter.grad = part.to(parameter.dtype).clone()
        start += parameter.numel()


@contextmanager
def joined() -> Iterator[World]:
    """The processes that a launcher started, joined; alone without one.

    Raises:
        ConfigError: the launcher was told to split the model in a way that is not supported.
        TemporaryError: another process ended meanwhile.
    """
    notices = tuple(check_launcher())
    if num_processes() == 1:
        yield World(notices=notices)
        return
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(local_rank())
    # Else transformers gives all but the first process zeros and waits for a broadcast that nobody sends.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    dist.init_process_group("nccl" if on_cuda else "gloo", timeout=TIMEOUT)
    try:
        yield World(rank(), num_processes(), is_sharded(), notices)
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        raise TemporaryError(
            f"finetune: another process of this training ended ({one_line(error)[:120]}); run the same command again, "
            "it goes on from the last checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()


def _is_loss(error: RuntimeError) -> bool:
    """Whether an error of torch says that another process is gone."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "closed by peer" in str(error)
