"""Log-probabilities of given continuations of a prompt; the prompt is prefilled once for all its options.

The options of a prompt are a tree of tokens: a beginning that several share is computed once. All nodes that have
children go through the model in one row behind the prompt, each seeing the prompt and its own ancestors.

Shapes: N prompts of a prefill, T prompt tokens with padding, Q fed nodes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mae_cli.engines.hf.cache import PrefillLayer, cache_of
from mae_cli.engines.hf.prefill import Prefilled, Prefiller, order_for_sharing, take
from mae_cli.engines.hf.ways import run

NODES_AT_ONCE = 512
"""Nodes of one forward pass: each needs the logits of the whole vocabulary."""
PROMPTS_AT_ONCE = 32


class OptionTree:
    """The options of one prompt as a tree. Node 0 is the prompt's end; `fed` are the other nodes with children."""

    def __init__(self, options: Sequence[Sequence[int]]) -> None:
        self.tokens, self.parents, self.depths = [-1], [-1], [0]
        self.paths: list[list[int]] = []
        children: dict[tuple[int, int], int] = {}
        for ids in options:
            node, path = 0, []
            for token in ids:
                key = (node, token)
                if key not in children:
                    children[key] = len(self.tokens)
                    self.tokens.append(token)
                    self.parents.append(node)
                    self.depths.append(self.depths[node] + 1)
                node = children[key]
                path.append(node)
            self.paths.append(path)
        self.fed = [node for node in sorted(set(self.parents)) if node > 0]

    def ancestors(self, node: int) -> list[int]:
        """The nodes above one, without the prompt's end."""
        above = []
        while (node := self.parents[node]) > 0:
            above.append(node)
        return above


@torch.inference_mode()
def score(
    prefill: Prefiller, prompts: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """Natural log-probability of each option's tokens after its prompt, summed; 0 or below.

    Args:
        prefill: of a causal LM in eval mode whose layers are plain, or any other: that one scores option by option.
        prompts: at least one token each.
        options: token ids per prompt and option, at least one token each; no end token is added.
    """
    order = order_for_sharing(prompts)
    result: list[list[float]] = [[] for _ in prompts]
    while order:
        ahead = order[:PROMPTS_AT_ONCE]
        count = take([prompts[place] for place in ahead], [1] * len(ahead), len(ahead), prefill.tokens_at_once)
        chosen, order = order[:count], order[count:]
        trees = [OptionTree(options[place]) for place in chosen]
        longest = max(len(prompts[place]) + max(map(len, options[place]), default=0) for place in chosen)
        below = prefill.way.switch is None or longest <= prefill.way.switch
        if prefill.shares and prefill.way.tree != "none" and below:
            chunk = prefill([prompts[place] for place in chosen])
            logprobs = _node_logprobs(prefill, chunk, trees)
        else:
            logprobs = [_one_by_one(prefill, prompts[place], tree) for place, tree in zip(chosen, trees, strict=True)]
        for place, tree, values in zip(chosen, trees, logprobs, strict=True):
            result[place] = [sum(values[node] for node in path) for path in tree.paths]
    return result


def _node_logprobs(prefill: Prefiller, chunk: Prefilled, trees: Sequence[OptionTree]) -> list[list[float]]:
    """Log-probability of every node's token after its parent, per tree; 0 for node 0."""
    values = [[0.0] * len(tree.tokens) for tree in trees]
    for row, tree in enumerate(trees):
        _read(values[row], tree, 0, chunk.logits[row])
    waiting = sorted((row for row, tree in enumerate(trees) if tree.fed), key=lambda row: -len(trees[row].fed))
    while waiting:
        count = max(1, NODES_AT_ONCE // len(trees[waiting[0]].fed))
        rows, waiting = waiting[:count], waiting[count:]
        logits = _feed(prefill, chunk, rows, [trees[row] for row in rows])
        for place, row in enumerate(rows):
            for column, node in enumerate(trees[row].fed):
                _read(values[row], trees[row], node, logits[place, column])
    return values


def _read(values: list[float], tree: OptionTree, parent: int, logits: torch.Tensor) -> None:
    """The log-probabilities of a node's children from its (V,) logits."""
    children = [node for node, above in enumerate(tree.parents) if above == parent]
    wanted = logits[torch.tensor([tree.tokens[node] for node in children], device=logits.device)].float()
    for node, value in zip(children, (wanted - logits.float().logsumexp(-1)).tolist(), strict=True):
        values[node] = value


def _feed(prefill: Prefiller, chunk: Prefilled, rows: Sequence[int], trees: Sequence[OptionTree]) -> torch.Tensor:
    """(N, Q, V) logits behind every fed node."""
    device = prefill.model.device
    width = max(len(tree.fed) for tree in trees)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    # Padding sees itself: a row of the mask without any place would make not-a-numbers.
    seen = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
    for place, (row, tree) in enumerate(zip(rows, trees, strict=True)):
        columns = {node: column for column, node in enumerate(tree.fed)}
        for node, column in columns.items():
            ids[place, column] = tree.tokens[node]
            positions[place, column] = chunk.lengths[row] + tree.depths[node] - 1
            seen[place, column, [columns[above] for above in tree.ancestors(node)]] = True
    chosen = torch.tensor(rows, device=device)
    prompt = chunk.mask[chosen].bool()[:, None, :].expand(-1, width, -1)
    mask = torch.cat([prompt, seen.to(device)], dim=-1)[:, None]
    if prefill.way.tree == "additive":
        dtype = prefill.model.dtype
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    whole = list(rows) == list(range(len(chunk.lengths)))
    layers = [PrefillLayer(layer.whole(None if whole else chosen)) for layer in chunk.cache.layers]
    output = run(
        prefill.model,
        input_ids=ids.to(device),
        position_ids=positions.to(device),
        attention_mask=mask,
        past_key_values=cache_of(prefill.model.config, layers),
        use_cache=True,
    )
    logits: torch.Tensor = output.logits
    return logits


def _one_by_one(prefill: Prefiller, prompt: Sequence[int], tree: OptionTree) -> list[float]:
    """As `_node_logprobs` for a model whose layers may not be shared: each option as a prompt of its own."""
    values = [0.0] * len(tree.tokens)
    for path in tree.paths:
        ids = [*prompt, *(tree.tokens[node] for node in path)]
        device = prefill.model.device
        inputs = {"input_ids": torch.tensor([ids], device=device), "logits_to_keep": len(path) + 1, "use_cache": False}
        logits = run(prefill.model, **inputs).logits[0, -len(path) - 1 :]
        for place, node in enumerate(path):
            values[node] = float(logits[place].float().log_softmax(-1)[tree.tokens[node]])
    return values
