"""The folder of a model that was named: an embedded model, a folder of the user, or a model of the hub.

Place in the flow: engines, training and `export` turn `-m NAME` into a folder here. Contract: only reads, except that a
hub model is downloaded into the hub's own cache; an unknown name is an error within two seconds. Left out: making an
embedded model (`models.embedded`) and loading weights (`models.load`).
"""

from __future__ import annotations

import re
from pathlib import Path

from mae_cli.errors import EngineError, TemporaryError, did_you_mean
from mae_cli.models.embedded import EMBEDDED, is_installed, model_dir

# What a causal LM needs; pickled weights and code in the repository are never fetched.
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PROBE_TIMEOUT_SECONDS = 1.5


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


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        hint = " (it holds a LoRA adapter: use --adapter)" if (path / "adapter_config.json").is_file() else ""
        raise EngineError(f"{path}: no model there: config.json is missing{hint}")
    if any(path.glob("*.safetensors")):
        return
    pickled = next((file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern)), None)
    if pickled:
        raise EngineError(
            f"{path}: {pickled} is pickled and can run code; save the model as safetensors first: load it with "
            "transformers where you trust it, then model.save_pretrained(folder)"
        )
    gguf = next((file.name for file in path.glob("*.gguf")), None)
    hint = f" ({gguf} is for llama.cpp: serve it and use --engine openai, or take the original weights)" if gguf else ""
    raise EngineError(f"{path}: no model there: *.safetensors is missing{hint}")


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
