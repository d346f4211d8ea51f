"""`--engine hf:paged`: the library's continuous batching, for GPUs; a paged cache, prefixes shared block by block.

The library samples with one seed for the whole engine. Here it takes the largest score instead, after noise that is a
function of the row's seed and the token's position has been added on the device (`sampling.HashNoise`), so a row's
text stays a function of the row.
Stop strings are not known to the library; a row is cut behind the first one when it has ended.

Shapes: A rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from mae_cli.engines.hf.decode import Decoded, RowRequest
from mae_cli.engines.hf.sampling import filtered, gumbel, mix, uniform
from mae_cli.errors import EngineError
from mae_cli.records import Sampling


class RowNoise(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
    """Temperature, top-k and top-p of the sampling, then the row's own Gumbel noise; the largest score is the draw."""

    supported_kwargs = {"noise_seed": int}  # noqa: RUF012 - the library's attribute
    ignored_kwargs = ()
    supports_continuous_batching = True

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Rows without a seed: padding of a captured graph."""
        int32_tensor.fill_(0)

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """(A,) one number per row and position; the position is counted in tokens fed, so it is known beforehand."""
        keys = [
            mix(request.state.logit_processor_kwargs.get("noise_seed", 0), request.state.position_offset)
            for request in requests_with_new_token
        ]
        return torch.tensor(keys, dtype=torch.int32, device="cpu")

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Perturbed scores, (A, V)."""
        if self.sampling.temperature == 0:
            return scores
        kept: torch.Tensor = filtered(
            scores.float() / self.sampling.temperature, self.sampling.top_k, self.sampling.top_p
        )
        return kept + gumbel(uniform(tensor_arg[: scores.shape[0]], scores.shape[-1]))


def decode_paged(
    model: Any,
    prompts: Sequence[Sequence[int]],
    asks: Sequence[RowRequest],
    sampling: Sampling,
    *,
    slots: int,
    end_ids: frozenset[int],
    hits_stop: Callable[[list[int]], bool] | None,
    done: Callable[[int, Decoded], None],
) -> None:
    """The counterpart of `decode.decode` with the library's scheduler; `slots` bounds the rows of one forward pass.

    Raises:
        EngineError: this version of the library works otherwise, or its generation thread died.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    longest = max(ask.max_new_tokens for ask in asks)
    config = GenerationConfig(max_new_tokens=longest, do_sample=False, eos_token_id=sorted(end_ids) or -1)
    width = max(len(prompts[ask.prompt]) + ask.max_new_tokens for ask in asks)
    batching = _batching(model.device, min(slots, len(asks)), width)
    attention = base.config._attn_implementation
    manager = base.init_continuous_batching(generation_config=config, continuous_batching_config=batching)
    _add_noise(manager, sampling)
    if model.device.type == "cuda":
        manager.warmup()
    manager.start()
    try:
        rows = {}
        for row, ask in enumerate(asks):
            name = manager.add_request(
                list(prompts[ask.prompt]),
                request_id=f"row-{row}",
                max_new_tokens=ask.max_new_tokens,
                eos_token_id=sorted(end_ids) or None,
                noise_seed=ask.seed,
            )
            rows[name] = row
        while rows:
            result = manager.get_result(timeout=1)
            if result is None:
                if not manager.is_running():
                    raise EngineError("the library's continuous batching stopped: use --engine hf")
                continue
            if result.is_finished():
                done(rows.pop(result.request_id), _decoded(result, end_ids, hits_stop))
    finally:
        manager.stop(block=True, timeout=5)
        manager.destroy()
        if base.config._attn_implementation != attention:
            base.set_attn_implementation(attention)


def _batching(device: torch.device, slots: int, width: int) -> ContinuousBatchingConfig:
    if device.type == "cuda":
        return ContinuousBatchingConfig(max_requests_per_batch=slots)
    # Elsewhere the library would fill most of the memory with its cache before the first token.
    page = 32
    blocks = slots * (-(-width // page) + 1)
    return ContinuousBatchingConfig(
        max_requests_per_batch=slots, page_size=page, num_blocks=blocks, max_batch_tokens=max(width, 4 * slots)
    )


def _add_noise(manager: Any, sampling: Sampling) -> None:
    """Put the noise into the manager's list of processors; it takes requests' own numbers only from such."""
    processors: Any = getattr(manager, "logit_processor", None)
    if not hasattr(processors, "logits_processor") or not hasattr(processors, "_retrieve_processors_kwargs"):
        raise EngineError("this version of transformers has another continuous batching: use --engine hf")
    processors.logits_processor.append(RowNoise(sampling))
    processors.tensors_required += 1
    processors._retrieve_processors_kwargs()
    processors.do_processing = True


def _decoded(result: Any, end_ids: frozenset[int], hits_stop: Callable[[list[int]], bool] | None) -> Decoded:
    if result.error is not None:
        raise EngineError(f"continuous batching: {result.error}")
    ids = list(result.generated_tokens)
    if hits_stop is not None:
        for count in range(1, len(ids) + 1):
            if hits_stop(ids[:count]):
                return Decoded(ids[:count], True)
    return Decoded(ids, bool(ids) and ids[-1] in end_ids)
