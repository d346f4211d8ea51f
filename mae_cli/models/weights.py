"""Checks of a model's folder and of what was loaded from it: nothing is filled with noise, nothing read is left out.

Place in the flow: `models.load` calls `check_folder` before it loads and `check_names` after it. Contract: a fault is
one `EngineError` that names the file or the tensors; tensors that a text model does not need are counted in a notice.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mae_cli.errors import EngineError, one_line

NAMES_SHOWN = 3
# Tensors of older files that are computed anew, and parts of a checkpoint that generate no text.
NOT_NEEDED = re.compile(
    r"rotary_emb\.|inv_freq|\.masked_bias$|(^|\.)attn\.(attention\.)?bias$|position_ids$|alibi"
    r"|(^|[._])(vision|visual|image|audio|video|vit|speech|whisper|multi_modal|mm)(_|\.|\w*projector|\w*tower)"
    r"|embed_(vision|audio|images?)|(^|[._])(mtp|nextn)([._]|$)|num_batches_tracked|_scale_shift_table$"
    r"|^v_head\.|^(model\.)?talker\."
)
HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "RewardModel",
    "ForRewardModeling",
    "ForMaskedLM",
    "ForPreTraining",
    "ForImageClassification",
    "ForCTC",
)
"""Endings of the class names of models that write no text."""


def check_folder(folder: Path) -> None:
    """Refuse a folder whose config or files cannot be those of a causal language model with safetensors weights.

    Raises:
        EngineError: another kind of model, code in the folder, a missing shard or a file that was cut off.
    """
    config = _read(folder / "config.json")
    _check_kind(folder, config)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(map(str, _read(index).get("weight_map", {}).values()))
        gone = sorted(name for name in shards if not (folder / name).is_file())
        if gone:
            raise EngineError(
                f"{folder}: {len(gone)} of {len(shards)} weight files that {index.name} names are missing: "
                f"{_some(gone)}; copy or download them again"
            )
    for path in sorted(folder.glob("*.safetensors")):
        _check_whole(path)


def _check_kind(folder: Path, config: dict[str, Any]) -> None:
    classes = [str(name) for name in config.get("architectures") or ()]
    other = next((name for name in classes if name.endswith(HEADS)), None)
    if other is not None:
        raise EngineError(f"{folder}: its config says {other}: that model writes no text; expected a causal LM")
    if config.get("is_encoder_decoder") is True:
        name = classes[0] if classes else config.get("model_type", "model")
        raise EngineError(f"{folder}: {name} is an encoder with a decoder; expected a causal LM (a decoder alone)")
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise EngineError(f"{folder}/config.json: model_type is missing; expected the family's name, such as llama")
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        code = " and its own code (auto_map), which mae never runs" if config.get("auto_map") else ""
        raise EngineError(
            f'{folder}/config.json: model_type "{kind}"{code} is unknown to this version of transformers; '
            "use a model of a known family, or a newer transformers"
        )


def _check_whole(path: Path) -> None:
    """Whether the file is as long as its header says."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, struct.error, MemoryError, KeyError, TypeError, OverflowError) as error:
        raise EngineError(f"{path}: not a safetensors file: {one_line(error)}; copy or download it again") from error
    wanted = 8 + length + max(ends, default=0)
    if size < wanted:
        raise EngineError(f"{path}: cut off: {size} of {wanted} bytes are there; copy or download it again")


def check_names(folder: Path, model: Any, info: dict[str, Any]) -> list[str]:
    """Notices about tensors that were not needed, from the library's report on loading.

    Raises:
        EngineError: a parameter without weights, of another shape, or weights that the model has no place for.
    """
    parameters = {name for name, _ in model.named_parameters()}
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = sorted(name for name in info.get("missing_keys", ()) if name in parameters and name not in tied)
    unknown = sorted(info.get("unexpected_keys", ()))
    mismatched = sorted(
        str(entry[0] if isinstance(entry, tuple) else entry) for entry in info.get("mismatched_keys", ())
    )
    if mismatched:
        raise EngineError(f"{folder}: {_count(mismatched, 'tensor')} of another shape than config.json says")
    foreign = [name for name in unknown if not NOT_NEEDED.search(name)]
    if missing:
        instead = f"; the files have {_some(foreign)} instead" if foreign else ""
        raise EngineError(f"{folder}: no weights for {_count(missing, 'tensor')} of the model{instead}")
    if foreign:
        raise EngineError(
            f"{folder}: the model of config.json has no place for {_count(foreign, 'tensor')} of the weight files"
        )
    if info.get("error_msgs"):
        raise EngineError(f"{folder}: {one_line(ValueError(str(next(iter(info['error_msgs'])))))}")
    return [f"{_count(unknown, 'tensor')} of the weight files not needed for text: left out"] if unknown else []


def check_token_ids(folder: Path, model: Any, tokenizer: Any, template: str) -> list[str]:
    """Notices about token ids for which the model has no embedding.

    Raises:
        EngineError: ordinary text, the chat template or the ending token would need one of them.
    """
    rows = embedding_rows(model)
    if len(tokenizer) <= rows and max(tokenizer.added_tokens_decoder, default=-1) < rows:
        return []
    beyond = {name: token_id for name, token_id in tokenizer.get_vocab().items() if token_id >= rows}
    if not beyond:
        return []
    added = {token_id: token for token_id, token in tokenizer.added_tokens_decoder.items()}
    needed = [
        name
        for name, token_id in sorted(beyond.items(), key=lambda entry: entry[1])
        if token_id not in added
        or not added[token_id].special
        or name in template
        or token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    ]
    told = (
        f"the tokenizer has {max(beyond.values()) + 1} tokens, the model's embedding {rows}: "
        f"{_count(sorted(beyond, key=beyond.__getitem__), 'token')} without one "
        f"({sum(token_id in added for token_id in beyond.values())} of them added)"
    )
    if needed:
        raise EngineError(
            f"{folder}: {told}; take the model's own tokenizer files, or resize the embedding and train it"
        )
    return [f"{told}; a prompt that holds one is refused"]


def embedding_rows(model: Any) -> int:
    """Number of token ids the model has an embedding for."""
    return int(model.get_input_embeddings().weight.shape[0])


def known_token_ids(model: Any, tokenizer: Any) -> int | None:
    """The number of ids that the tokenizer can write, where the model's output layer has more; else none.

    An output layer is often padded to a multiple of 64 or 128; a token there would have no text.
    """
    head = model.get_output_embeddings()
    width = int(head.weight.shape[0]) if head is not None and hasattr(head, "weight") else embedding_rows(model)
    if len(tokenizer) >= width:
        return None
    known = max(tokenizer.get_vocab().values(), default=-1) + 1
    return known if known < width else None


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: not read as JSON: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise EngineError(f"{path}: expected an object, found {type(tree).__name__}")
    return tree


def _count(names: Iterable[str], what: str) -> str:
    """`3 tensors (a, b, c)`, with a few names."""
    known = list(names)
    return f"{len(known)} {what}{'' if len(known) == 1 else 's'} ({_some(known)})"


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
