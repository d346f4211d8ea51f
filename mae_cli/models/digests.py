"""Digests that name a model or an adapter by its content, wherever its folder lies.

Place in the flow: rows, fingerprints and lineages name policies by them. Contract: equal weights give an equal digest;
training always changes it. Large weight files are sampled, not read whole.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mae_cli.errors import EngineError

MODEL_PLACE_KEYS = frozenset({"_name_or_path", "transformers_version"})
SAMPLE_BYTES = 1 << 16
NUM_SAMPLES = 16
# Keys of adapter_config.json that say where or how it was written, not what it is.
ADAPTER_PLACE_KEYS = frozenset(
    {"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "task_type"}
)


def model_digest(folder: Path) -> str:
    """20 hex digits of a model's content, the same wherever the folder lies.

    Config, tokenizer and ending tokens are read whole; of each weights file its size, header and evenly spread
    samples, which any training changes.
    """
    hasher = hashlib.blake2b(digest_size=10)
    config = _read_json(folder / "config.json")
    kept = {key: value for key, value in config.items() if key not in MODEL_PLACE_KEYS}
    _feed(hasher, json.dumps(kept, sort_keys=True))
    if (folder / "generation_config.json").is_file():
        ends = _read_json(folder / "generation_config.json")
        _feed(hasher, json.dumps([ends.get("eos_token_id"), ends.get("pad_token_id")]))
    for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"):
        if (folder / name).is_file():
            _feed(hasher, name, (folder / name).read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        _feed(hasher, path.name, *_sampled(path))
    return hasher.hexdigest()


def adapter_digest(folder: Path) -> str:
    """20 hex digits of an adapter's weights and of what its config means, the same wherever it lies.

    Raises:
        EngineError: a file is missing or not JSON.
    """
    hasher = hashlib.blake2b(digest_size=10)
    try:
        config = _read_json(folder / "adapter_config.json")
        weights = (folder / "adapter_model.safetensors").read_bytes()
    except OSError as error:
        raise EngineError(f"{folder}: not an adapter: {error.filename}: {error.strerror}") from error
    # PEFT writes target_modules from a set, in no fixed order.
    kept = {key: value for key, value in config.items() if key not in ADAPTER_PLACE_KEYS}
    kept = {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in kept.items()}
    _feed(hasher, "config", json.dumps(kept, sort_keys=True).encode())
    _feed(hasher, "weights", weights)
    return hasher.hexdigest()


def is_whole_model(folder: Path) -> bool:
    """Whether a folder made by training holds a whole model, not an adapter to put on one."""
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()


def trained_digest(folder: Path) -> str:
    """20 hex digits of a folder that `mae finetune` wrote, an adapter or a model.

    Raises:
        EngineError: neither is there.
    """
    return model_digest(folder) if is_whole_model(folder) else adapter_digest(folder)


def reference_identity(reference: str) -> str:
    """The value of `finetune.reference` for a fingerprint: a folder counts by its digest, not by its path.

    Raises:
        EngineError: neither is there.
    """
    return reference if reference in ("start", "base") else trained_digest(Path(reference))


def _feed(hasher: hashlib.blake2b, *parts: str | bytes) -> None:
    """Add length-prefixed parts, so that no two lists of parts read the same."""
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(struct.pack("<Q", len(data)))
        hasher.update(data)


def _sampled(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    yield str(size).encode()
    with path.open("rb") as file:
        header = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
        start = min(8 + header, size)
        file.seek(8)
        yield file.read(start - 8)
        span = max(size - start - SAMPLE_BYTES, 0)
        for sample in range(NUM_SAMPLES):
            file.seek(start + span * sample // (NUM_SAMPLES - 1))
            yield file.read(SAMPLE_BYTES)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise EngineError(f"{path}: not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise EngineError(f"{path}: expected an object, found {type(tree).__name__}")
    return tree
