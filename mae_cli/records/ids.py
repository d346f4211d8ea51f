"""Ids and seeds: digests of what is known before anything is generated, and planned rows with theirs.

Contract: an id never depends on a completion, so the same command run again plans the same rows and finds those that
are done. Draws from a pool are functions of named parts (seed, stage, round) for the same reason.
"""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Sequence
from typing import Any

import msgspec

from mae_cli.records.row import Asked, Message, Policy, Problem, Purpose, Role, Row, Sampling


def digest(*parts: object) -> str:
    """20 hex digits of BLAKE2b over the parts as canonical JSON; equal parts give equal digests."""
    data = msgspec.json.encode(parts, order="deterministic")
    return hashlib.blake2b(data, digest_size=10).hexdigest()


def seed_from(*parts: object) -> int:
    """An integer in [0, 2**52) drawn from the parts; small enough for every JSON reader's numbers."""
    data = msgspec.json.encode(parts, order="deterministic")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 12


def normalise_question(text: str) -> str:
    """The question as its id sees it: Unicode NFC (5² is not 52), runs of white space folded, ends trimmed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def problem_id(question: str, choices: Sequence[str] = ()) -> str:
    """Digest of the normalised question, and of its choices where it has any."""
    if choices:
        return digest(normalise_question(question), [normalise_question(c) for c in choices])
    return digest(normalise_question(question))


def row_id(
    stage: str,
    *,
    role: Role,
    purpose: Purpose,
    round_number: int,
    problem: str | None,
    messages: Sequence[Message],
    sample_index: int,
    turn: int,
    policy: Policy,
    step: str = "",
    player: str = "",
    key: str = "",
) -> str:
    """Return the id of a turn, known before it is generated; it never depends on the completion.

    A step called like its stage, no player and no key add nothing, so ids of recipes without them stay what they are.
    """
    named = _named(stage, step, player=player, key=key)
    return digest(stage, role, purpose, round_number, problem, messages, sample_index, turn, policy, *named)


def _named(stage: str, step: str, **more: str) -> list[dict[str, str]]:
    """What tells apart the rows of steps, players and keys; nothing where all have their usual values."""
    found = {"step": step if step != stage else "", **more}
    found = {name: value for name, value in found.items() if value}
    return [found] if found else []


def new_row(
    stage: str,
    *,
    role: Role,
    purpose: Purpose,
    round_number: int,
    run_seed: int,
    messages: Sequence[Message],
    sampling: Sampling,
    policy: Policy,
    problem: Problem | None = None,
    sample_index: int = 0,
    turn: int = 0,
    group: object = None,
    parents: Sequence[str] = (),
    step: str = "",
    player: str = "",
    key: str = "",
    asked: Asked | None = None,
) -> Row:
    """Return a planned turn: everything known before generating, its id and seed included.

    `group` names the rollouts compared with each other; by default those of one problem, role, purpose, round and step.
    """
    problem_key = problem.id if problem else None
    identity = row_id(
        stage,
        role=role,
        purpose=purpose,
        round_number=round_number,
        problem=problem_key,
        messages=messages,
        sample_index=sample_index,
        turn=turn,
        policy=policy,
        step=step,
        player=player,
        key=key,
    )
    group_key = group if group is not None else (problem_key or identity)
    return Row(
        id=identity,
        problem=problem,
        seed=seed_from(run_seed, identity),
        round=round_number,
        stage=stage,
        step=step or stage,
        role=role,
        player=player,
        purpose=purpose,
        rollout_id=identity,
        turn=turn,
        group_id=digest(stage, role, purpose, round_number, group_key, *_named(stage, step)),
        sample_index=sample_index,
        key=key,
        parents=list(parents),
        asked=asked,
        messages=list(messages),
        sampling=sampling,
        policy=policy,
    )


def draw(pool: Sequence[Any], count: int, *parts: object) -> list[Any]:
    """Up to `count` entries without replacement, in drawn order; a pure function of the parts."""
    return random.Random(seed_from(*parts)).sample(list(pool), min(count, len(pool)))
