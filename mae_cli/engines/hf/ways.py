"""Ways to decode a model, fastest first, and how a forward pass is called whatever arguments the family's class takes.

Place in the flow: `probe.py` finds out which way is right for a model; `prefill.py`, `decode.py` and `score.py` go it.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, Literal

import msgspec
from transformers import DynamicCache

from mae_cli.engines.hf.cache import has_plain_layers

Rows = Literal["slots", "batch", "equal", "single", "recompute"]
Tree = Literal["bool", "additive", "none"]
CACHE_NAMES = ("past_key_values", "cache_params", "state")
"""Names under which a class takes and gives back what it keeps of the tokens read."""


class Way(msgspec.Struct, frozen=True):
    """How rows of a model are decoded."""

    rows: Rows = "slots"
    """slots: rows leave and enter at any step; batch: whole batches, padded on the left, with the model's own cache;
    equal: the same with prompts of one length; single: row by row; recompute: row by row without any cache."""
    prefix: bool = True
    """Prompts that begin alike share that beginning's keys and values (slots only)."""
    tree: Tree = "bool"
    """Mask under which the options of a prompt are scored in one row; none: option by option."""
    own_cache: bool = False
    """The model makes its cache itself, where the library's common one does not fit."""
    step_mask: bool = True
    """A step is told which tokens so far are padding; where no layer but recurrent ones reads it, it must not be."""
    positions: bool = True
    """The model is told each token's position; some classes count positions with an offset of their own."""
    graph: bool = True
    """On a GPU, steps of fixed shape under a mask of four dimensions, which can be captured (slots only)."""
    switch: int | None = None
    """Length in tokens at which the model counts positions anew (LongRoPE): rows below, above and across it are
    decoded apart."""


NOTICES = {
    "slots": "",
    "batch": "in whole batches",
    "equal": "in batches of prompts of one length: padding changes its text",
    "single": "one row at a time: other rows in the batch change its text",
    "recompute": "one row at a time without a cache: its cache changes its text; this is slow",
}


def notice(kind: str, way: Way, first: Way) -> str | None:
    """One line where a model is decoded in another way than its config promised; `kind` is its family."""
    told = []
    if way.rows != first.rows:
        told.append(f"decoded {NOTICES[way.rows]}")
    elif way.rows == "slots" and not way.prefix:
        told.append("prefilled without shared beginnings: they change its text")
    if way.rows == first.rows == "slots" and way.tree == "none":
        told.append("scored option by option: a shared row changes its scores")
    return f"this model ({kind}) is {' and '.join(told)}" if told else None


def first_way(config: Any) -> Way:
    """The way a config promises, before anything was tried."""
    if has_plain_layers(config):
        # A class that takes no common cache is found out by the probe.
        return Way(switch=longrope_switch(config))
    return Way(rows="batch", prefix=False, tree="none", switch=longrope_switch(config))


def longrope_switch(config: Any) -> int | None:
    """The length beyond which LongRoPE takes its long factors, for the whole batch; none with other positions.

    Source: Ding et al. 2024 (LongRoPE); the library chooses by the largest position of the batch.
    """
    text = config.get_text_config(decoder=True)
    told = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    for entry in (told, *(value for value in told.values() if isinstance(value, dict))):
        if entry.get("rope_type", entry.get("type")) == "longrope":
            return int(entry.get("original_max_position_embeddings") or text.original_max_position_embeddings)
    return None


def smallest_window(config: Any) -> int | None:
    """Tokens that the layer with the shortest sight sees: sliding windows, chunks and local attention."""
    text = config.get_text_config(decoder=True)
    names = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size")
    found = [getattr(text, name, None) for name in names]
    return min((size for size in found if isinstance(size, int) and size > 0), default=None)


def run(model: Any, **inputs: Any) -> Any:
    """One forward pass with those of the inputs that the model's class takes."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind: Any = type(base)
    taken = _parameters(kind)
    return model(**{name: value for name, value in inputs.items() if taken is None or name in taken})


@cache
def _parameters(kind: Any) -> frozenset[str] | None:
    """Names of the arguments of a class's forward pass; none when it takes any."""
    parameters = inspect.signature(kind.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


@cache
def cache_name(kind: Any) -> str:
    """The argument under which a class takes its cache."""
    parameters = inspect.signature(kind.forward).parameters
    return next((name for name in CACHE_NAMES if name in parameters), CACHE_NAMES[0])


def placed(way: Way, positions: Any) -> dict[str, Any]:
    """The positions as an argument, where the model is told them."""
    return {"position_ids": positions} if way.positions else {}


def run_cached(model: Any, kept: Any, **inputs: Any) -> tuple[Any, Any]:
    """(output, cache) of a forward pass behind a cache; none lets the model make its own."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind: Any = type(base)
    name = cache_name(kind)
    output = run(model, **{name: kept}, use_cache=True, **inputs)
    held = getattr(output, name, None)
    return output, kept if held is None else held


def new_cache(config: Any, *, own: bool) -> Any:
    """The library's cache for a config, or none where the model makes its own."""
    return None if own else DynamicCache(config=config)
