"""A LoRA adapter merged into its base, or a whole model, saved and compared with what it was made from.

The base is loaded in float32 whatever its file holds: sums of weights lose bits in half precision. The saved model is
read back from disk for the comparison. The comparison computes in float64, a layer at a time: float32 sums of a small
model already differ by 2e-4 at logits of 40, which would hide a difference of the weights. Where a family's layers take
no float64 (fused kernels of a mixture of experts, scans of a recurrent one) it computes in float32, and a difference
counts from what such sums may differ by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers

from mae_cli.errors import EngineError, GateError, one_line
from mae_cli.models.adapters import load_adapter
from mae_cli.models.load import load_model, load_tokenizer

TOLERANCE = 1e-4
"""Largest difference of a logit, absolute, between base + adapter and the merged model, both in float32 weights."""
FLOAT32_ROUNDING = 2e-5
"""The same in float32 sums, as a share of the largest logit; our choice."""


class MergeReport(msgspec.Struct, frozen=True):
    """Result of a comparison: the largest absolute difference of a logit over all positions of all prompts."""

    prompts: int
    tokens: int
    from_adapter: float
    """Saved model against base + adapter. Rounding included where it was saved in half precision."""
    from_base: float | None
    """Saved model against the base alone; null where a whole model was saved."""
    rounding: float | None
    """Merged against base + adapter before the weights were rounded to half precision; null where they were not."""
    tolerance: float
    computed_in: str = "float64"
    """Type of the sums of both sides; float32 where the family's layers take no float64."""


def merge_and_save(
    base: Path,
    adapter: Path | None,
    output: Path,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer_from: Path,
    template: str,
    dtype: torch.dtype = torch.float32,
    tolerance: float = TOLERANCE,
) -> MergeReport:
    """Write a complete model folder and compare it with base + adapter.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter; none where the base is the model to write.
        output: the folder to write; the caller moves it into place.
        prompts: token ids, at least one each.
        tokenizer_from: the folder whose tokenizer is written.
        template: the chat template that is written with it.
        dtype: of the saved weights.
        tolerance: see `TOLERANCE`.

    Raises:
        EngineError: base or adapter cannot be loaded.
        GateError: the saved model is not the same as base + adapter, or cannot be told from the base.
    """
    device = torch.device("cpu")
    model = load_model(base, device=device, dtype=torch.float32)
    _without_fused_experts(model)
    plain, is_wide = _first_logits(model, prompts)
    if not is_wide:
        tolerance = max(tolerance, FLOAT32_ROUNDING * max(float(row.abs().max()) for row in plain))
    merged, adapted = (model, plain) if adapter is None else _merged(model, adapter, prompts, is_wide)
    exact = None if dtype is torch.float32 else _largest(_logits(merged, prompts, is_wide), adapted)
    _save(merged.to(dtype), output, tokenizer_from, template)
    del model, merged
    again = load_model(output, device=device, dtype=torch.float32)
    _without_fused_experts(again)
    saved = _logits(again, prompts, is_wide)
    report = MergeReport(
        prompts=len(prompts),
        tokens=sum(map(len, prompts)),
        from_adapter=_largest(saved, adapted),
        from_base=None if adapter is None else _largest(saved, plain),
        rounding=exact,
        tolerance=tolerance,
        computed_in="float64" if is_wide else "float32",
    )
    _check(report, adapter or base, dtype)
    return report


def _merged(
    model: Any, adapter: Path, prompts: Sequence[Sequence[int]], is_wide: bool
) -> tuple[Any, list[torch.Tensor]]:
    """The base with the adapter merged into it, and the logits of base + adapter."""
    policy = load_adapter(model, adapter)
    adapted = _logits(policy, prompts, is_wide)
    try:
        return policy.merge_and_unload(safe_merge=True), adapted
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:  # not finite, or a layer without merge
        raise EngineError(f"{adapter}: cannot be merged: {one_line(error)}") from error


def _without_fused_experts(model: Any) -> None:
    """Experts one after the other: the fused product of all takes no float64."""
    if getattr(model.config, "_experts_implementation", None) not in (None, "eager"):
        model.set_experts_implementation("eager")


def _first_logits(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[list[torch.Tensor], bool]:
    """The logits, and whether the model computes in float64."""
    try:
        return _logits(model, prompts, True), True
    except (RuntimeError, ValueError, TypeError):  # a kernel or a layer that knows float32 only
        return _logits(model, prompts, False), False


def _check(report: MergeReport, adapter: Path, dtype: torch.dtype) -> None:
    difference = report.from_adapter if report.rounding is None else report.rounding
    what = "what was trained" if report.from_base is None else "base + adapter"
    # A comparison with NaN is false, so it is asked for what must hold.
    if not difference <= report.tolerance:
        raise GateError(
            f"{adapter}: the saved model is not {what}: logits differ by up to {difference:.2g} on "
            f"{report.prompts} prompts, allowed {report.tolerance:.2g} in float32; nothing was exported"
        )
    if report.from_base is not None and not report.from_base > report.tolerance:
        lost = "" if dtype is torch.float32 else f"; {str(dtype).removeprefix('torch.')} may have rounded it away"
        raise GateError(
            f"{adapter}: the merged model equals its base: logits differ by at most {report.from_base:.2g} on "
            f"{report.prompts} prompts (tolerance {report.tolerance:.2g}), the adapter does nothing{lost}; "
            "nothing was exported"
        )


def _logits(model: Any, prompts: Sequence[Sequence[int]], is_wide: bool) -> list[torch.Tensor]:
    """(tokens, V) of each prompt, computed in float64 (or not) and kept in float32."""
    longest = max(map(len, prompts))
    # Padded on the right: a causal model never looks there.
    ids = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts])
    with torch.no_grad(), _in_float64(model) if is_wide else nullcontext():
        logits = model(input_ids=ids, use_cache=False).logits
        return [row[: len(prompt)].float() for row, prompt in zip(logits, prompts, strict=True)]


@contextmanager
def _in_float64(model: torch.nn.Module) -> Iterator[None]:
    """Float32 weights widened while they are used, one block of the model at a time; narrowing them again is exact."""
    blocks: list[torch.nn.Module] = []
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and not any(module in set(block.modules()) for block in blocks):
            blocks += module
    inside = {id(part) for block in blocks for part in block.modules()}
    outside = [part for part in model.modules() if id(part) not in inside and not any(part.children())]
    handles = [
        handle
        for block in blocks
        for handle in (
            block.register_forward_pre_hook(lambda block, _: block.double() and None),
            block.register_forward_hook(lambda block, *_: block.float() and None),
        )
    ]
    for part in outside:
        part.double()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        model.float()


def _largest(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def _save(model: Any, folder: Path, tokenizer_from: Path, template: str) -> None:
    transformers.utils.logging.disable_progress_bar()
    if hasattr(model.config, "quantization_config"):
        raise EngineError("the base is quantised; merge into its full-precision weights (-m)")
    model.save_pretrained(str(folder))
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(str(folder))
    tokenizer = load_tokenizer(tokenizer_from)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
