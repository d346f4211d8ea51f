"""Checks of a model's folder: files whole, names as the class wants them, special ids, tokenizer, memory.

Contract: no tensor is read. The header of each safetensors file is compared with the file's size, and transformers
itself says on the meta device which names its class misses, so its renamings (fused experts, prefixes) count. Nothing
is downloaded: a hub model is looked for in the local cache only.
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mae_cli.errors import EngineError, one_line
from mae_cli.models.locate import HUB_FILES, resolve_model
from mae_cli.stages.doctor.environment import GIB, available_memory
from mae_cli.stages.doctor.findings import Finding, note, ok, problem

INDEX = "model.safetensors.index.json"
BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "BF16": 16, "F16": 16, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}
AGAIN = "download or copy the model again"


def find_model(name: str, revision: str | None, *, is_default: bool = False) -> tuple[Path | None, list[Finding]]:
    """(folder, findings) of a model that was named; no folder where there is nothing to look at yet."""
    from huggingface_hub import constants

    try:
        found = resolve_model(name)
    except EngineError as error:
        if is_default:
            return None, [note("model", one_line(error))]
        return None, [problem("model", one_line(error), "give -m a folder, a hub id or a name of mae models list")]
    if isinstance(found, Path):
        return found, [ok("model", f"{name}: {found}")]
    folder = _cached(found, revision)
    if folder is not None:
        return folder, [ok("model", f"{name}: {folder}")]
    text = f"{name} is not in the hub cache {constants.HF_HUB_CACHE}"
    if constants.is_offline_mode():
        return None, [
            problem("model", f"{text}, and HF_HUB_OFFLINE is set", "unset it for one command, or copy it there")
        ]
    return None, [note("model", text, "the first command downloads it")]


def _cached(hub_id: str, revision: str | None) -> Path | None:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        found = huggingface_hub.snapshot_download(
            hub_id, revision=revision, local_files_only=True, allow_patterns=list(HUB_FILES)
        )
    except (errors.LocalEntryNotFoundError, errors.RevisionNotFoundError, OSError):
        return None
    return Path(found)


# ---- files


def files(folder: Path) -> Iterator[Finding]:
    """Whether every weights file is there and whole."""
    paths = sorted(folder.glob("*.safetensors"))
    named = _indexed(folder)
    missing = sorted(set(named) - {path.name for path in paths}) or _missing_shards(paths)
    if missing:
        told = f"{len(missing)} weights files are missing, the first {missing[0]}: an interrupted download"
        yield problem("model files", told, AGAIN)
    broken = [(path, fault) for path in paths if (fault := file_fault(path)) is not None]
    for path, fault in broken:
        yield problem("model files", f"{path.name}: {fault}", "git lfs pull" if "git-lfs" in fault else AGAIN)
    if named and (spare := [path.name for path in paths if path.name not in named]):
        yield note("model files", f"{INDEX} does not name {spare[0]}: it is not loaded", "remove what does not belong")
    if paths and not missing and not broken:
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in _types(paths))
        size = sum(path.stat().st_size for path in paths)
        yield ok("model files", f"{len(paths)} whole, {size / GIB:.2f} GiB, {kinds}")


def _indexed(folder: Path) -> list[str]:
    path = folder / INDEX
    if not path.is_file():
        return []
    try:
        return sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{path}: not an index of weights: {one_line(error)}") from error


def _missing_shards(paths: Iterable[Path]) -> list[str]:
    """Names of shards that `model-00001-of-00003.safetensors` and its like promise."""
    found = {path.name for path in paths}
    wanted: set[str] = set()
    for name in found:
        if match := re.fullmatch(r"(.*-)(\d{5})-of-(\d{5})\.safetensors", name):
            wanted |= {f"{match[1]}{n:05d}-of-{match[3]}.safetensors" for n in range(1, int(match[3]) + 1)}
    return sorted(wanted - found)


def read_header(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file by name: dtype, shape and data_offsets.

    Raises:
        ValueError: not such a file; says why.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            raise ValueError("a git-lfs pointer, not the weights")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 0 <= length <= size - 8:
            raise ValueError("not a safetensors file, or cut off")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no object")  # noqa: TRY004 - a fault of the file, not of a type
    header.pop("__metadata__", None)
    return header


def file_fault(path: Path) -> str | None:
    """Say what is wrong with a safetensors file by its header and its size; null where nothing is."""
    try:
        header = read_header(path)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        with path.open("rb") as file:
            expected = 8 + struct.unpack("<Q", file.read(8))[0] + end
    except (ValueError, KeyError, TypeError, OSError) as error:
        return one_line(error) or type(error).__name__
    size = path.stat().st_size
    return None if size == expected else f"{size} bytes, its header promises {expected}: cut off or damaged"


def _types(paths: Iterable[Path]) -> list[tuple[str, float]]:
    sizes: Counter[str] = Counter()
    for path in paths:
        for entry in read_header(path).values():
            start, end = entry["data_offsets"]
            sizes[entry["dtype"]] += end - start
    return [(kind, size / max(sizes.total(), 1)) for kind, size in sizes.most_common(3)]


# ---- the class


def open_meta(folder: Path) -> tuple[Any, dict[str, Any]]:
    """(model without weights, report of loading) of a folder, by transformers on the meta device.

    Raises:
        EngineError: transformers cannot load it; says why.
    """
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        return AutoModelForCausalLM.from_pretrained(  # type: ignore[no-any-return]
            str(folder),
            config=config,
            device_map="meta",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise EngineError(_reason(folder, error)) from error


def _reason(folder: Path, error: Exception) -> str:
    import transformers

    config = folder / "config.json"
    try:
        tree = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError) as broken:
        return f"{config}: not JSON: {one_line(broken)}"
    told = one_line(error)
    if isinstance(tree, dict) and tree.get("auto_map") and "trust_remote_code" in str(error):
        return f"{folder}: the model needs code from its folder (auto_map), which mae never runs"
    if isinstance(tree, dict) and ("model type" in told or "Unrecognized model" in told):
        kind = tree.get("model_type")
        return f'{config}: transformers {transformers.__version__} does not know model_type "{kind}"'
    return f"{folder}: transformers cannot load it: {told}"


def names(report: dict[str, Any]) -> Iterator[Finding]:
    """Whether the files hold the tensors that the class wants."""
    missing, mismatched = sorted(report["missing_keys"]), list(report["mismatched_keys"])
    if missing:
        told = f"{len(missing)} tensors are missing and would be random, the first {missing[0]}"
        yield problem("model weights", told, AGAIN)
    if mismatched:
        name, held, wanted = mismatched[0]
        shapes = f"{tuple(held)} in the file, {tuple(wanted)} by config.json"
        told = f"{len(mismatched)} tensors have another shape than config.json says, the first {name}: {shapes}"
        yield problem("model weights", told, "take config.json and weights of one version")
    spare = sorted(report["unexpected_keys"])
    if spare:
        yield note("model weights", f"{len(spare)} tensors are not used, the first {spare[0]}")
    if not missing and not mismatched:
        yield ok("model weights", "every tensor that the class wants is there")


def figures(model: Any, dtype: str, device: str) -> Iterator[Finding]:
    """Size, number format, context and attention, and whether the weights fit into memory."""
    from mae_cli.models.load import context_length, resolve_device, resolve_dtype

    count = sum(parameter.numel() for parameter in model.parameters())
    where = resolve_device(device)
    wanted = resolve_dtype(dtype, where)
    context = context_length(model)
    attention = getattr(model.config, "_attn_implementation", None)
    size = count * wanted.itemsize
    shown = f"{type(model).__name__}, {count / 1e6:,.0f} million parameters, {str(wanted).removeprefix('torch.')}"
    available, total = _memory_of(where)
    if total is not None and size > total:
        fix = "a smaller model, --dtype bfloat16, load_in_4bit, or a larger machine"
        yield problem("model", f"{shown}: {size / GIB:.1f} GiB do not fit into {total / GIB:.1f} GiB", fix)
    elif available is not None and size > available:
        text = f"{shown}: {size / GIB:.1f} GiB, {available / GIB:.1f} GiB are free now"
        yield problem("model", text, "end other programs, or wait", temporary=True)
    else:
        yield ok("model", f"{shown}, {size / GIB:.2f} GiB")
    if where.type == "cpu" and str(wanted) == "torch.float16":
        yield note("model", "float16 is slow and inexact on a CPU", "--dtype float32 or bfloat16")
    shown = f"context {context:,} tokens" if context else "config.json names no context length"
    yield (
        ok("model", f"{shown}, attention {attention}") if context else note("model", f"{shown}, attention {attention}")
    )


def _memory_of(device: Any) -> tuple[int | None, int | None]:
    if device.type != "cuda":
        return available_memory()
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return free, total


def tokenizer(model: Any, tokens: Any) -> Iterator[Finding]:
    """Whether every id of the tokenizer, and every special id, has a row in the embedding; and whether any id ends."""
    rows = model.get_input_embeddings().num_embeddings
    vocabulary = tokens.get_vocab()
    highest = max(vocabulary.values(), default=-1)
    if highest >= rows:
        above = sum(number >= rows for number in vocabulary.values())
        first = next(token for token, number in vocabulary.items() if number >= rows)
        told = f"{above} tokens have no row in the embedding ({rows} rows), e.g. {first!r} ({vocabulary[first]})"
        yield problem(
            "tokenizer", told, "take the tokenizer of this model; one with added tokens needs a resized model"
        )
    else:
        yield ok("tokenizer", f"{len(vocabulary):,} tokens, embedding of {rows:,} rows")
    ends: set[int] = set()
    for place, source in (("config.json", model.config), ("generation_config.json", model.generation_config)):
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            for number in _ids(getattr(source, key, None)):
                ends |= {number} if key == "eos_token_id" else set()
                if not 0 <= number < rows:
                    told = f"{place}: {key} is {number}, the embedding has {rows} rows"
                    yield problem("special ids", told, "correct it, mostly to the tokenizer's id")
    ends |= set(_ids(tokens.eos_token_id))
    if not ends:
        told = "neither config.json, generation_config.json nor the tokenizer names an end: rows would run to the limit"
        yield problem("special ids", told, "set eos_token_id in generation_config.json")
        return
    yield ok("special ids", f"ends on {', '.join(f'{tokens.convert_ids_to_tokens(n)} ({n})' for n in sorted(ends))}")


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(one) for one in (value if isinstance(value, list | tuple) else [value])]
