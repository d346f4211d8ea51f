"""The order and size in which units (rows or pairs) are trained.

Order and steps are pure functions of row ids, seed and epoch; how a step is cut into micro-batches changes no result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import torch

from mae_cli.models.shared_prefix import common_prefix_length
from mae_cli.plugins.contracts import Unit
from mae_cli.records import digest
from mae_cli.training.examples import TrainingExample

PASS_COST = {"cpu": 32, "cuda": 4096}
"""Cost of a forward and backward pass beside its tokens, counted in tokens, by device type.

Measured: a CPU reads all weights once per pass; a GPU waits for thousands of small LoRA kernels to be launched (H100:
0.1 to 0.2 s per pass, whatever its size, for 135M and 1.5B parameters).
"""
MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
"""`finetune.micro_batch_tokens` = 0, by device type; halved when memory runs out."""


class MicroBatch(msgspec.Struct):
    """Examples that go through the model together. B rows, S tokens, T completion positions, N trained tokens.

    prefix: (P,) the tokens all B prompts begin with, P = 0 where they are not shared. input_ids: (B, S) what
    follows it, right padded; no attention mask is needed because a causal model never looks to the right. mask: (B, T)
    true where a completion token is. positions: (N,) indices into the flattened (B * S) of the tokens that predict the
    trained ones. targets: (N,) the ids of these. Both run in the order of mask's true values, row by row.
    """

    indices: list[int]
    prefix: torch.Tensor
    input_ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor


def order(examples: Sequence[TrainingExample], units: Sequence[Unit], *, seed: int, epoch: int) -> list[int]:
    """Indices of the units in trained order: a pure function of row ids, seed and epoch, whatever order the file had.

    The units of each part of a mix are spread evenly over the epoch.
    """
    parts: dict[int, list[tuple[str, int]]] = {}
    for index, unit in enumerate(units):
        key = digest("order", seed, epoch, *(examples[row].id for row in unit.rows))
        parts.setdefault(unit.part, []).append((key, index))
    places = [
        ((place + 0.5) / len(members), part, index)
        for part, members in parts.items()
        for place, (_, index) in enumerate(sorted(members))
    ]
    return [index for _, _, index in sorted(places)]


def num_steps(num_units: int, *, batch_size: int, epochs: int, max_steps: int) -> int:
    """Optimizer steps of a whole training; the last step of an epoch may hold fewer units."""
    steps = -(-num_units // batch_size) * epochs
    return min(steps, max_steps) if max_steps else steps


def steps(
    examples: Sequence[TrainingExample],
    units: Sequence[Unit],
    *,
    seed: int,
    batch_size: int,
    epochs: int,
    max_steps: int,
    start: int = 0,
) -> Iterator[tuple[int, int, list[int]]]:
    """(step from 1, epoch from 1, indices of its units), beginning after step `start`."""
    total = num_steps(len(units), batch_size=batch_size, epochs=epochs, max_steps=max_steps)
    step = 0
    for epoch in range(1, epochs + 1):
        ordered = order(examples, units, seed=seed, epoch=epoch)
        for first in range(0, len(ordered), batch_size):
            step += 1
            if step > total:
                return
            if step > start:
                yield step, epoch, ordered[first : first + batch_size]


class _Packed(msgspec.Struct, frozen=True):
    """A unit as the cutter sees it."""

    index: int
    rows: tuple[int, ...]
    length: int
    """Of its longest row."""


def micro_batches(
    examples: Sequence[TrainingExample],
    units: Sequence[tuple[int, ...]],
    *,
    max_tokens: int,
    pass_cost: int = PASS_COST["cpu"],
) -> list[list[int]]:
    """Cut the units (row indices each) of a step into groups of at most `max_tokens` tokens, padding included.

    Rows of similar length pad little, rows of one role or one prompt share the beginning of their prompts, and every
    group costs a pass: of a cut by length alone and those that keep roles or prompts apart the cheapest is taken. A
    unit longer than max_tokens goes alone.

    Returns:
        Indices into `units`.
    """
    packed = [_Packed(index, rows, max(examples[row].length for row in rows)) for index, rows in enumerate(units)]
    packed.sort(key=lambda unit: (-unit.length, unit.index))
    cuts = []
    for kind in (lambda example: None, lambda example: example.role, lambda example: example.prompt):
        members: dict[object, list[_Packed]] = {}
        for unit in packed:
            members.setdefault(kind(examples[unit.rows[0]]), []).append(unit)
        cuts.append([group for own in members.values() for group in _cut(own, max_tokens, pass_cost)])
    cheapest = min(cuts, key=lambda groups: sum(_cost(examples, group, pass_cost) for group in groups))
    return [[unit.index for unit in group] for group in cheapest]


def _cut(ordered: Sequence[_Packed], max_tokens: int, pass_cost: int) -> list[list[_Packed]]:
    """Groups of units ordered by falling length; one ends where its padding would cost more than another pass."""
    groups: list[list[_Packed]] = []
    longest = padding = rows = 0
    for unit in ordered:
        padding += (longest - unit.length) * len(unit.rows)
        if groups and longest * (rows + len(unit.rows)) <= max_tokens and padding <= pass_cost:
            groups[-1].append(unit)
            rows += len(unit.rows)
        else:
            groups.append([unit])
            longest, padding, rows = unit.length, 0, len(unit.rows)
    return groups


def _cost(examples: Sequence[TrainingExample], group: Sequence[_Packed], pass_cost: int) -> int:
    """Tokens of a group, padding and passes included."""
    chosen = [examples[row] for unit in group for row in unit.rows]
    longest, shared = max(example.length for example in chosen), shared_prefix(chosen, pass_cost)
    return pass_cost + longest * len(chosen) - (shared * (len(chosen) - 1) - pass_cost if shared else 0)


def shared_prefix(examples: Sequence[TrainingExample], pass_cost: int) -> int:
    """Length of the common prefix where a pass of its own saves more than it costs, else 0."""
    length = common_prefix_length([example.prompt for example in examples])
    return length if length * (len(examples) - 1) > pass_cost else 0


def collate(
    examples: Sequence[TrainingExample], indices: Sequence[int], *, device: torch.device, shared: int = 0
) -> MicroBatch:
    """The tensors of one micro-batch on the device; the first `shared` tokens of all prompts are its prefix."""
    chosen = [examples[index] for index in indices]
    longest = max(example.length for example in chosen)
    width = longest - shared
    columns = max(len(example.completion) for example in chosen)
    input_ids = torch.zeros(len(chosen), width, dtype=torch.long)
    mask = torch.zeros(len(chosen), columns, dtype=torch.bool)
    positions: list[int] = []
    targets: list[int] = []
    for number, example in enumerate(chosen):
        input_ids[number, : example.length - shared] = torch.tensor(example.prompt[shared:] + example.completion)
        mask[number, : len(example.completion)] = True
        # The hidden state at a token predicts the next one: the last prompt token predicts the first trained one.
        first = number * width + len(example.prompt) - shared - 1
        positions.extend(range(first, first + len(example.completion)))
        targets.extend(example.completion)
    return MicroBatch(
        indices=list(indices),
        prefix=torch.tensor(chosen[0].prompt[:shared], dtype=torch.long, device=device),
        input_ids=input_ids.to(device),
        mask=mask.to(device),
        positions=torch.tensor(positions, device=device),
        targets=torch.tensor(targets, device=device),
    )
