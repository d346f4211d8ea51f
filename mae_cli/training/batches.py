"""Rows to token ids, and the order and size in which they are trained.

The trained span is exactly the completion: prompt and completion ids are used as the engine fed and generated them,
and only a row without ids is tokenised again (counted, because tokenising text is not always the way back). Order and
steps are pure functions of row ids, seed and epoch; how a step is cut into micro-batches changes no result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
import torch

from mae_cli.errors import EngineError
from mae_cli.records import Message, Row, digest

PASS_COST = {"cpu": 32, "cuda": 4096}
"""What a forward and backward pass costs beside its tokens, counted in tokens, by device type.

Measured: a CPU reads all weights once per pass; a GPU waits for thousands of small LoRA kernels to be launched (H100:
0.1 to 0.2 s per pass, whatever its size, for 135M and 1.5B parameters).
"""

MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
"""`finetune.micro_batch_tokens` = 0, by device type; halved when memory runs out."""


class Renderer(Protocol):
    """A tokenizer with the chat template it is used with (`engines.chat.Chat`)."""

    @property
    def tokenizer(self) -> Any:
        """A transformers tokenizer."""

    @property
    def template(self) -> str:
        """The Jinja source of the template in use."""

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The messages as the template writes them."""

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Prompt token ids, generation prompt included."""


class Example(msgspec.Struct, frozen=True):
    """One row as token ids; the completion is what is trained."""

    id: str
    role: str
    group: str
    reward: float | None
    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def length(self) -> int:
        """Prompt and completion, in tokens."""
        return len(self.prompt) + len(self.completion)


class Examples(msgspec.Struct):
    """The rows that can be trained, and why the others cannot."""

    examples: list[Example]
    dropped: dict[str, int]
    """Reason to number of rows: no_completion, no_reward, no_prompt, too_long."""
    retokenised: int
    """Rows whose engine gave no token ids."""


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


def turn_end_id(chat: Renderer, ends: frozenset[int]) -> int | None:
    """The id (one of `ends`) that ends an assistant turn in this template, else EOS; null when the model has neither.

    They differ for some models (Gemma ends turns with <end_of_turn>, its EOS is <eos>), and a model that learns the
    wrong one never stops.
    """
    eos: int | None = chat.tokenizer.eos_token_id
    try:
        text = chat.text([Message("user", "a"), Message("assistant", "b")], add_generation_prompt=False)
    except EngineError:
        # A template for single prompts only, with no turn of its own to end.
        return eos
    found = [token for token in chat.tokenizer.encode(text, add_special_tokens=False) if token in ends]
    return int(found[-1]) if found else eos


def read_examples(
    rows: Sequence[Row], chat: Renderer, *, ends: frozenset[int], max_length: int, needs_reward: bool
) -> Examples:
    """Token ids of every row that can be trained, in the order given.

    Args:
        rows: rows picked for training.
        chat: tokenizer and template, for rows whose engine gave no ids.
        ends: ids that end a completion; a row that ended by "stop" without one gets the template's.
        max_length: longest prompt + completion, in tokens; a longer row is dropped, never cut, because a cut
            completion teaches not to stop.
        needs_reward: drop rows whose reward is unknown.
    """
    end_id = turn_end_id(chat, ends)
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    retokenised = 0
    for row in rows:
        completion = _completion(row, chat, ends, end_id)
        if not completion:
            dropped["no_completion"] += 1
            continue
        if needs_reward and row.reward is None:
            dropped["no_reward"] += 1
            continue
        prompt = tuple(chat.render(row.messages) if row.prompt_token_ids is None else row.prompt_token_ids)
        if not prompt:
            dropped["no_prompt"] += 1
            continue
        if len(prompt) + len(completion) > max_length:
            dropped["too_long"] += 1
            continue
        retokenised += row.prompt_token_ids is None or row.completion_token_ids is None
        examples.append(Example(row.id, row.role, row.group_id, row.reward, prompt, completion))
    return Examples(examples, dict(sorted(dropped.items())), retokenised)


def _completion(row: Row, chat: Renderer, ends: frozenset[int], end_id: int | None) -> tuple[int, ...]:
    ids = row.completion_token_ids
    if ids is None:
        # The raw text, not the parsed completion: reasoning is part of what the model wrote.
        ids = list(chat.tokenizer.encode(row.raw or "", add_special_tokens=False))
    if row.finish_reason == "stop" and end_id is not None and (not ids or ids[-1] not in ends):
        # Ended at a stop string, or the engine cut the end token off.
        ids = [*ids, end_id]
    return tuple(ids) if row.status not in ("error", "too_long") else ()


def order(examples: Sequence[Example], *, seed: int, epoch: int) -> list[int]:
    """Indices in trained order: a pure function of row ids, seed and epoch, whatever order the file had."""
    keys = [(digest("order", seed, epoch, example.id), index) for index, example in enumerate(examples)]
    return [index for _, index in sorted(keys)]


def num_steps(num_examples: int, *, batch_size: int, epochs: int, max_steps: int) -> int:
    """Optimizer steps of a whole training; the last step of an epoch may hold fewer rows."""
    steps = -(-num_examples // batch_size) * epochs
    return min(steps, max_steps) if max_steps else steps


def steps(
    examples: Sequence[Example], *, seed: int, batch_size: int, epochs: int, max_steps: int, start: int = 0
) -> Iterator[tuple[int, int, list[int]]]:
    """(step from 1, epoch from 1, indices of its rows), beginning after step `start`."""
    total = num_steps(len(examples), batch_size=batch_size, epochs=epochs, max_steps=max_steps)
    step = 0
    for epoch in range(1, epochs + 1):
        rows = order(examples, seed=seed, epoch=epoch)
        for first in range(0, len(rows), batch_size):
            step += 1
            if step > total:
                return
            if step > start:
                yield step, epoch, rows[first : first + batch_size]


def micro_batches(
    examples: Sequence[Example], indices: Sequence[int], *, max_tokens: int, pass_cost: int = PASS_COST["cpu"]
) -> list[list[int]]:
    """Cut the rows of a step into groups with at most `max_tokens` tokens, padding included, the cheapest way.

    Rows of similar length pad little, rows of one role share the beginning of their prompts, and every group costs a
    pass: of a cut by length alone and one that keeps roles apart the cheaper is taken. A row longer than max_tokens
    goes alone.
    """
    by_length = sorted(indices, key=lambda index: (-examples[index].length, index))
    roles = sorted({examples[index].role for index in indices})
    by_role = [[index for index in by_length if examples[index].role == role] for role in roles]
    mixed = _cut(examples, by_length, max_tokens, pass_cost)
    apart = [group for members in by_role for group in _cut(examples, members, max_tokens, pass_cost)]
    return min(mixed, apart, key=lambda groups: sum(_cost(examples, group, pass_cost) for group in groups))


def _cut(examples: Sequence[Example], ordered: Sequence[int], max_tokens: int, pass_cost: int) -> list[list[int]]:
    """Groups of rows ordered by falling length; one ends where its padding would cost more than another pass."""
    groups: list[list[int]] = []
    longest = padding = 0
    for index in ordered:
        length = examples[index].length
        padding += longest - length
        if groups and longest * (len(groups[-1]) + 1) <= max_tokens and padding <= pass_cost:
            groups[-1].append(index)
        else:
            groups.append([index])
            longest, padding = length, 0
    return groups


def _cost(examples: Sequence[Example], group: Sequence[int], pass_cost: int) -> int:
    """Tokens of a group, padding and passes included."""
    chosen = [examples[index] for index in group]
    longest, shared = max(example.length for example in chosen), shared_prefix(chosen, pass_cost)
    return pass_cost + longest * len(group) - (shared * (len(group) - 1) - pass_cost if shared else 0)


def shared_prefix(examples: Sequence[Example], pass_cost: int) -> int:
    """Length of the common prefix where a pass of its own saves more than it costs, else 0."""
    length = common_prefix(examples)
    return length if length * (len(examples) - 1) > pass_cost else 0


def common_prefix(examples: Sequence[Example]) -> int:
    """Length of what all prompts begin with, without a last prompt token, whose output is needed of each row."""
    length = min(len(example.prompt) for example in examples) - 1
    first = examples[0].prompt
    for example in examples[1:]:
        while example.prompt[:length] != first[:length]:
            length = next(place for place in range(length) if example.prompt[place] != first[place])
    return length


def collate(
    examples: Sequence[Example], indices: Sequence[int], *, device: torch.device, shared: int = 0
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


def marked(example: Example, tokenizer: Any) -> str:
    """The example as text, special tokens included, with the trained span between ⟦ and ⟧."""
    prompt = tokenizer.decode(list(example.prompt), skip_special_tokens=False)
    completion = tokenizer.decode(list(example.completion), skip_special_tokens=False)
    return f"{prompt}⟦{completion}⟧"
