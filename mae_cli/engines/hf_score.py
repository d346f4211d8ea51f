"""How likely a model finds given continuations of a prompt: the prompt is prefilled once for all its options.

Shapes: N prompts of a prefill, R options that need a forward pass, T option tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mae_cli.engines.hf_cache import PrefillLayer, cache_of
from mae_cli.engines.hf_prefill import Prefilled, Prefiller, order_for_sharing, take

OPTION_TOKENS = 512
"""Option tokens of one forward pass: each needs the logits of the whole vocabulary."""
PROMPTS_AT_ONCE = 32


@torch.inference_mode()
def score(
    prefill: Prefiller, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """Natural log-probability of each option's tokens after its prompt, summed; 0 or below.

    Args:
        prefill: of a causal LM in eval mode.
        prompts: at least one token each.
        options: token ids per prompt and option, at least one token each; no end token is added.
    """
    order = order_for_sharing(prompts)
    result: list[list[float]] = [[] for _ in prompts]
    while order:
        ahead = order[:PROMPTS_AT_ONCE]
        count = take([prompts[place] for place in ahead], [1] * len(ahead), len(ahead))
        chosen, order = order[:count], order[count:]
        chunk = prefill([prompts[place] for place in chosen])
        for place, scores in zip(chosen, _score_chunk(prefill, chunk, [options[p] for p in chosen]), strict=True):
            result[place] = scores
    return result


def _score_chunk(prefill: Prefiller, chunk: Prefilled, options: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
    first = chunk.logits.log_softmax(-1)
    scores = [[float(first[row, ids[0]]) for ids in choices] for row, choices in enumerate(options)]
    longer = sorted(
        ((row, place) for row, choices in enumerate(options) for place, ids in enumerate(choices) if len(ids) > 1),
        key=lambda pair: -len(options[pair[0]][pair[1]]),
    )
    while longer:
        width = len(options[longer[0][0]][longer[0][1]]) - 1
        count = max(1, OPTION_TOKENS // width)
        members, longer = longer[:count], longer[count:]
        for (row, place), rest in zip(members, _rests(prefill, chunk, options, members), strict=True):
            scores[row][place] += rest
    return scores


def _rests(
    prefill: Prefiller,
    chunk: Prefilled,
    options: Sequence[Sequence[Sequence[int]]],
    members: Sequence[tuple[int, int]],
) -> list[float]:
    """Log-probability of all tokens but the first of some options."""
    device = prefill.model.device
    tokens = [options[row][place] for row, place in members]
    width = max(len(ids) for ids in tokens) - 1
    fed = torch.zeros((len(members), width), dtype=torch.long)
    target = torch.zeros((len(members), width), dtype=torch.long)
    mask = torch.zeros((len(members), width), dtype=torch.long)
    for index, ids in enumerate(tokens):
        length = len(ids) - 1
        # Padding stands on the right, where causal attention keeps it out of sight.
        fed[index, :length], target[index, :length] = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
        mask[index, :length] = 1
    fed, target, mask = fed.to(device), target.to(device), mask.to(device)
    rows = torch.tensor([row for row, _ in members], device=device)
    starts = torch.tensor([[chunk.lengths[row]] for row, _ in members], device=device)
    layers = [PrefillLayer(layer.whole(rows)) for layer in chunk.cache.layers]
    output = prefill.model(
        input_ids=fed,
        position_ids=starts + torch.arange(width, device=device),
        attention_mask=torch.cat([chunk.mask[rows], mask], dim=-1),
        past_key_values=cache_of(prefill.model.config, layers),
        use_cache=True,
    )
    picked = output.logits.float().log_softmax(-1).gather(-1, target[..., None])[..., 0]
    sums: list[float] = (picked * mask).sum(-1).tolist()
    return sums
