"""Problem files: made from generators (`mae data make`) or imported (`mae data import`).

A made set is a pure function of (name, counts, seed), and no held-out problem is a training problem in other words.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.arithmetic import canonical_key
from mae_cli.errors import ConfigError, DataError, MaeError, MissingDependencyError, TemporaryError
from mae_cli.reading import problem_from, read_lines
from mae_cli.records import normalise_question
from mae_cli.store import write_atomically
from mae_cli.sums import make_problems

GYM = "gym:"
HUB = "hub:"
PROBE_TIMEOUT_SECONDS = 5


def make_set(
    name: str,
    train: Path,
    held_out: Path,
    gate: Path | None = None,
    *,
    num_train: int,
    num_held_out: int,
    num_gate: int = 0,
    seed: int,
    replace: bool,
) -> str:
    """Write the files and say what is in them; a gate set is for `eval.gate` and is made where a file is named.

    Raises:
        ConfigError: unknown generator, existing files without `replace`, or too few distinct problems.
    """
    if train == held_out:
        raise ConfigError(f"{train}: --train and --held-out are one file; give two")
    if gate in (train, held_out):
        raise ConfigError(f"{gate}: --gate is one file with another; give three")
    refuse_existing([train, held_out, *([gate] if gate else [])], replace)
    num_gate = num_gate if gate else 0
    made: Sequence[Sequence[Mapping[str, Any]]]
    if name == "arithmetic":
        made = list(make_problems(seed, num_train, num_held_out, num_gate))
    elif name.startswith(GYM):
        made = gym_problems(name.removeprefix(GYM), seed, num_train, num_held_out, num_gate)
    else:
        raise ConfigError(f'no generator "{name}"; known: arithmetic, gym:DATASET (a data set of reasoning-gym)')
    for path, rows in zip((train, held_out, gate), made, strict=True):
        if path is not None:
            write_atomically(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    told = f", {len(made[2])} for a gate -> {gate}" if gate else ""
    return f"{name}, seed {seed}: {len(made[0])} problems -> {train}, {len(made[1])} held out -> {held_out}{told}"


def gym_problems(
    names: str, seed: int, num_train: int, num_held_out: int, num_gate: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Train, held-out and gate problems of reasoning-gym data sets (names by comma, in turn), disjoint by question.

    Raises:
        MissingDependencyError: reasoning-gym is not installed.
        ConfigError: no such data set, or they have fewer distinct problems than asked for.
    """
    try:
        import reasoning_gym
    except ImportError as error:
        raise MissingDependencyError("gym problems need: pip install 'mae-cli[gym]'") from error
    datasets = [name.strip() for name in names.split(",")]
    wanted = num_train + num_held_out + num_gate
    # Some data sets repeat themselves; a few more than the share is drawn of each.
    size = 4 * -(-wanted // len(datasets))
    try:
        columns = [reasoning_gym.create_dataset(name, size=size, seed=seed) for name in datasets]
    except ValueError as error:
        raise ConfigError(f"reasoning-gym: {error}") from error
    found: dict[str, dict[str, Any]] = {}
    for items in zip(*columns, strict=True):
        for name, item in zip(datasets, items, strict=True):
            question = item["question"]
            key = canonical_key(question) or normalise_question(question).casefold()
            entry = msgspec.json.decode(msgspec.json.encode(item, enc_hook=str))
            row = {"question": question, "answer": str(item["answer"]), "dataset": name, "entry": entry}
            found.setdefault(key, row)
    rows = list(found.values())[:wanted]
    if len(rows) < wanted:
        raise ConfigError(f"reasoning-gym {names}: {len(rows)} distinct problems, asked for {wanted}")
    return rows[num_held_out : num_held_out + num_train], rows[:num_held_out], rows[num_held_out + num_train :]


def import_set(source: str, output: Path, *, limit: int | None, replace: bool) -> str:
    """Write the rows of a JSONL file or a hub data set as a problem file; unknown fields are kept.

    Raises:
        DataError: a row has no question, or the file is unreadable.
        TemporaryError: the hub cannot be reached.
    """
    refuse_existing([output], replace)
    rows = hub_rows(source.removeprefix(HUB)) if source.startswith(HUB) else _file_rows(Path(source))
    seen: dict[str, bytes] = {}
    read = 0
    for tree, where in rows:
        problem = problem_from(tree, where)
        read += 1
        entry = {"question": problem.question, "answer": problem.reference_answer, **problem.meta}
        seen.setdefault(problem.id, msgspec.json.encode(entry, enc_hook=str) + b"\n")
        if limit is not None and len(seen) >= limit:
            break
    if not seen:
        raise DataError(f"{source}: empty, expected at least one row")
    write_atomically(output, b"".join(seen.values()))
    return f"import: read {read}, written {len(seen)} -> {output}"


def _file_rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    for number, line in read_lines(path):
        try:
            tree = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}; an import is JSONL, one object a line") from error
        if not isinstance(tree, dict):
            raise DataError(f"{path}:{number}: expected an object, found {type(tree).__name__}")
        yield tree, f"{path}:{number}"


def hub_rows(name: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows of a data set of the hub, or of its cached copy, each with where it stands.

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
    """Why the hub cannot be asked now; the loader itself would try for half a minute before it says so.

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


def refuse_existing(paths: list[Path], replace: bool) -> None:
    """Refuse to write over files unless that was asked for.

    Raises:
        ConfigError: one of them exists.
    """
    for path in paths:
        if path.exists() and not replace:
            raise ConfigError(f"{path}: exists; use --overwrite to replace it")
