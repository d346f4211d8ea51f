"""The cache folder of the toolkit: `$MAE_CACHE`, by default `~/.cache/mae`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mae_cli.errors import ConfigError


def cache_dir() -> Path:
    """The folder of models and caches: $MAE_CACHE, by default ~/.cache/mae.

    Raises:
        ConfigError: nothing says where the user's home is (a container with a bare user number).
    """
    told = os.environ.get("MAE_CACHE")
    try:
        return Path(told).expanduser() if told else Path.home() / ".cache" / "mae"
    except RuntimeError as error:
        raise ConfigError(
            "no home folder: HOME is not set and this user has no entry in passwd; set MAE_CACHE to a folder for models"
        ) from error


def notes_dir() -> Path:
    """The cache folder, or without a home a temporary one: for what can be found out again."""
    try:
        return cache_dir()
    except ConfigError:
        return Path(tempfile.gettempdir()) / f"mae-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


def keep_libraries_off_the_working_folder() -> None:
    """Without a home, libraries would make a folder called "~" where the command runs; they get one in the cache."""
    if os.path.expanduser("~") != "~":
        return
    told = os.environ.get("MAE_CACHE")
    if told:
        os.environ.setdefault("HF_HOME", str(Path(told).absolute() / "huggingface"))
        os.environ.setdefault("XDG_CACHE_HOME", str(Path(told).absolute()))
