"""The cache folder of the toolkit: `$MAE_CACHE`, by default `~/.cache/mae`."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder of models and caches: $MAE_CACHE, by default ~/.cache/mae."""
    return Path(os.environ.get("MAE_CACHE") or Path.home() / ".cache" / "mae")
