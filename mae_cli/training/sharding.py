"""Training of a model whose weights are divided over the processes: FSDP2 (`torch.distributed.fsdp.fully_shard`).

What is frozen is divided; a LoRA adapter is small and whole in every process, so that its gradients, optimizer state
and checkpoints are those of a training without FSDP. In a full fine-tuning everything is divided. Gathering weights is
a call in which all processes take part, so all make equally many forward and backward passes: a process without
rows of its own makes idle ones, whose loss is 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from mae_cli.errors import ConfigError, EngineError, TemporaryError
from mae_cli.models.load import load_model
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.training.batches import MicroBatch, collate
from mae_cli.training.examples import TrainingExample
from mae_cli.training.forward import Forward, Rows
from mae_cli.training.full_tuning import HALF, FullTuning, ModelFolders
from mae_cli.training.parts import is_part, whole
from mae_cli.training.processes import World
from mae_cli.training.tuning import Origin, Tuning, trainable

MMAP_THRESHOLD, FREE_AT_ONCE = -3, 1 << 20
"""glibc's M_MMAP_THRESHOLD, and the bytes above which freed memory goes back to the system."""


class ShardedTuning:
    """Another way of training, on this process's part of the model.

    Args:
        inner: what is trained.
        folder: where the weights are read from, part by part.
        dtype: they are read in.
        section: the recipe's `finetune`.
    """

    def __init__(self, inner: Tuning, folder: Path, dtype: torch.dtype, section: FinetuneSection) -> None:
        if section.dora:
            raise ConfigError(
                "finetune.dora: its lengths are those of whole weights, which FSDP splits; leave out dora, or launch "
                "with --multi_gpu"
            )
        self.inner, self.folder, self.dtype, self.section = inner, folder, dtype, section
        self.noun, self.compute_dtype = inner.noun, inner.compute_dtype
        self._whole: dict[str, torch.Tensor] | None = None

    def origin(self) -> Origin:
        """That of the inner one."""
        return self.inner.origin()

    @contextmanager
    def attached(self, model: Any, *, seed: int) -> Iterator[Any]:
        """The trainable policy on this process's part; the outline given here only names the device.

        Raises:
            ConfigError: an adapter that trains weights of the base.
        """
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        _give_memory_back(device)
        part = load_model(self.folder, device=device, dtype=self.dtype)
        _set_up(part, device)
        with self.inner.attached(part, seed=seed) as policy:
            if not self.section.full and any(is_part(parameter) for _, parameter in trainable(policy)):
                raise ConfigError(
                    "finetune: this adapter trains weights of the base itself (modules_to_save), which FSDP splits; "
                    "launch with --multi_gpu"
                )
            yield policy

    def reference(self, policy: Any, reference: str) -> AbstractContextManager[None]:
        """That of the inner one."""
        return self.inner.reference(policy, reference)

    def settings(self, policy: Any) -> dict[str, Any]:
        """That of the inner one."""
        return self.inner.settings(policy)

    def collect(self, policy: Any, world: World) -> None:
        """Gather what `save` will write in the first process; all processes have to call it."""
        if not self.section.full:
            return
        found: dict[int, torch.Tensor] = {}
        names = policy.state_dict(keep_vars=True)
        for value in names.values():
            if id(value) not in found:
                numbers = whole(value.detach())
                found[id(value)] = numbers.cpu() if world.is_main else numbers[:0]
        self._whole = {name: found[id(value)] for name, value in names.items()} if world.is_main else None

    def save(self, policy: Any, folder: Path, *, base_name: str) -> None:
        """The same files as a training in one process writes."""
        if self._whole is None:
            self.inner.save(policy, folder, base_name=base_name)
        else:
            policy.save_pretrained(str(folder), state_dict=self._whole)


def sharded_lora(lora: Tuning, outline: Any, section: FinetuneSection) -> ShardedTuning:
    """A LoRA adapter on the divided model of an outline, which names its folder and dtype."""
    return ShardedTuning(lora, Path(outline.config.name_or_path), outline.dtype, section)


def sharded_full(folders: ModelFolders, outline: Any, section: FinetuneSection) -> ShardedTuning:
    """Every parameter of a divided model, read in float32.

    Where it computes in half precision, the blocks are computed again in the backward pass: what autograd would keep
    for it are converted weights, in sum the whole model.
    """
    if outline.dtype in HALF:
        section = msgspec.structs.replace(section, gradient_checkpointing=True)
    full = FullTuning(section, folders, outline.dtype)
    return ShardedTuning(full, folders.start, torch.float32, section)


def _give_memory_back(device: torch.device) -> None:
    """Let gathered weights on a CPU go back to the system when they are dropped, not into the heap's own reserve."""
    if device.type == "cpu" and sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, FREE_AT_ONCE)


def _set_up(model: Any, device: torch.device) -> None:
    """Sums of gradients instead of means, and on a CPU no weights that are gathered ahead.

    Raises:
        EngineError: torch is too old.
    """
    from torch.distributed.fsdp import FSDPModule

    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise EngineError("FSDP needs torch 2.13 or later")
    # A folder that is written later must not speak of this launch, and PEFT takes these for tensor parallelism: its
    # `save_pretrained` would then gather the whole model in the one process that saves.
    model.config.distributed_config = model._device_mesh = model._tp_size = None
    for module in model.modules():
        if not isinstance(module, FSDPModule):
            continue
        module.set_gradient_divide_factor(1.0)
        # The only kind that gloo has.
        module.set_force_sum_reduction_for_comms(True)
        # An expert that no token of this process went through.
        module.set_reduce_scatter_unused_params(True)
        if device.type == "cpu":
            module.set_modules_to_backward_prefetch([module])
            module._set_unshard_async_op(True)


class ShardedForward(Forward):
    """Passes of a policy that all processes make together.

    Args:
        filler: a row that an idle pass is made with.
        note: is told the micro-batch to begin with next time when memory ran out; null: nothing is kept.
    """

    def __init__(
        self,
        policy: Any,
        section: FinetuneSection,
        say: Callable[[str], None],
        compute_dtype: torch.dtype | None,
        *,
        world: World,
        filler: TrainingExample,
        note: Callable[[int], None] | None,
    ) -> None:
        super().__init__(policy, section, say, compute_dtype)
        self.world, self.note = world, note
        self._filler = msgspec.structs.replace(filler, prompt=filler.prompt[-1:], completion=filler.completion[:1])
        # A pass of its own, which other processes might not make.
        self.share_prefix = False

    def batches(
        self, examples: Sequence[TrainingExample], units: Sequence[Rows]
    ) -> Iterator[tuple[list[int], MicroBatch]]:
        """As everywhere, then idle ones up to the number of the process that has most: without units and rows."""
        own = list(super().batches(examples, units))
        yield from own
        for _ in range(max(self.world.gather(len(own))) - len(own)):
            yield [], msgspec.structs.replace(collate([self._filler], [0], device=self.device), indices=[])

    def fitting(self, work: Callable[[], Any], examples: Sequence[TrainingExample]) -> Any:
        """The result of work.

        Raises:
            TemporaryError: out of memory: the others wait inside the pass, so all end and begin again with half.
            EngineError: not even the longest row alone fits.
        """
        try:
            return work()
        except torch.OutOfMemoryError as error:
            longest = max(example.length for example in examples)
            if self.micro_batch_tokens <= longest // 2:
                raise EngineError(
                    f"out of memory with one row of up to {longest} tokens: lower finetune.max_length, set "
                    "finetune.gradient_checkpointing=true, or start more processes"
                ) from error
            half = self.micro_batch_tokens // 2
            then = f"run the same command again, it goes on with {half}"
            if self.note is None:
                then = f"run it again with --set finetune.micro_batch_tokens={half}"
            else:
                self.note(half)
            raise TemporaryError(
                f"out of memory with micro-batches of {self.micro_batch_tokens} tokens: processes that share a model "
                f"end together; {then}"
            ) from error

    def precision(self) -> AbstractContextManager[Any]:
        """As everywhere, but no converted weights are kept: they would be whole ones."""
        context = super().precision()
        if isinstance(context, torch.autocast):
            return torch.autocast(context.device, dtype=context.fast_dtype, cache_enabled=False)
        return context
