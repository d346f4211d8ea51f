"""Rows of data sets on the hub, or of their cached copies.

Place in the flow: `mae data import` and the benchmarks of `eval` read `hub:` names here. Contract: an unknown name is
the user's error, an unreachable hub a temporary one, and both are told within seconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from mae_cli.errors import ConfigError, MaeError, TemporaryError

HUB = "hub:"
PROBE_TIMEOUT_SECONDS = 5


def hub_rows(name: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows of a data set of the hub, or of its cached copy, each with its place in words.

    Args:
        name: ORG/NAME or ORG/NAME/CONFIG, with :SPLIT behind (train by default).

    Raises:
        ConfigError: not a data set's name, none of that name, or the hub is switched off and nothing is cached.
        TemporaryError: the hub cannot be reached.
    """
    path, _, split = name.partition(":")
    parts = path.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ConfigError(f"{HUB}{name}: expected {HUB}ORG/NAME, {HUB}ORG/NAME/CONFIG or either with :SPLIT")
    unreachable = _hub_problem(name, "/".join(parts[:2]))
    from datasets import load_dataset

    try:
        with cache_only() if unreachable else contextlib.nullcontext():
            rows = load_dataset("/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split=split or "train")
    except ValueError as error:  # an unknown config or split; the message lists those there are
        raise unreachable or ConfigError(f"{HUB}{name}: {_first_line(error)}") from error
    except (OSError, RuntimeError) as error:
        raise unreachable or TemporaryError(f"{HUB}{name}: cannot be loaded: {_first_line(error)}") from error
    for number, row in enumerate(rows, 1):
        yield dict(row), f"{HUB}{name} row {number}"


def _hub_problem(name: str, repository: str) -> MaeError | None:
    """The error where the hub cannot be asked now, else null; the loader itself would try for half a minute first.

    Raises:
        ConfigError: the hub answers, and has no such data set.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if hub_is_switched_off():
        return ConfigError(f"{HUB}{name}: not in the cache, and the hub is switched off (HF_HUB_OFFLINE); give a file")
    try:
        huggingface_hub.HfApi().dataset_info(repository, timeout=PROBE_TIMEOUT_SECONDS)
    except errors.GatedRepoError as error:
        raise ConfigError(f"{HUB}{name} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(f"{HUB}{name}: the hub has no data set of that name") from error
    except Exception as error:  # noqa: BLE001 - also those of its http library, which is not our dependency
        return TemporaryError(
            f"{HUB}{name}: not in the cache, and the hub cannot be reached ({_first_line(error)}); give a file"
        )
    return None


def hub_is_switched_off() -> bool:
    """Whether the user wants nothing from the hub; trying again later cannot help then."""
    from huggingface_hub import constants

    wanted = os.environ.get("HF_DATASETS_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON")
    return wanted or bool(constants.is_offline_mode())


def hub_is_reachable() -> bool:
    """Whether the hub answers within `PROBE_TIMEOUT_SECONDS`; its loaders try for half a minute to find out."""
    from huggingface_hub import constants, get_session

    if hub_is_switched_off():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_TIMEOUT_SECONDS)
    except Exception:  # noqa: BLE001 - those of its http library, which is not our dependency
        return False
    return True


@contextlib.contextmanager
def cache_only() -> Iterator[None]:
    """Let the loader of data sets look into its cache only."""
    import datasets.config
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
