"""`mae data make`: problem files made by generators.

Place in the flow: training, held-out and gate sets for `propose`, `solve` and `eval`. Contract: a set is a function of
its name, its counts and its seed; no held-out problem is a training problem in other words. Left out: importing
existing files (`data.imports`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.answers.arithmetic import canonical_key
from mae_cli.data.graded_sums import make_problems
from mae_cli.errors import ConfigError, MissingDependencyError
from mae_cli.records import normalise_question
from mae_cli.records.atomic import write_atomically
from mae_cli.records.file_names import refuse_existing

GYM = "gym:"


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
    """Write a generator's problem files and return one line about them; the gate set for `eval.gate` is optional.

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
