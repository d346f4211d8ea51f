"""The view of a row that objectives get before training: role, group, reward and digests of its texts.

Place in the flow: `training` makes it from rows, and objectives and preference pairs plan with it. It stands here so
that neither of the two depends on the other. Contract: no texts and no tensors.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Rewarded(msgspec.Struct, frozen=True):
    """A row as objectives see it before training; a null reward only reaches objectives that need none."""

    role: str
    group: str
    """Rollouts compared with each other (`group_id`)."""
    reward: float | None
    prompt: str = ""
    """Digest of the prompt: two rows can only be a pair where it is equal."""
    completion: str = ""
    """Digest of the completion."""
    meta: dict[str, Any] = {}
    """Of the row's problem."""
    id: str = ""
    against: dict[str, float] = {}
    """By id of another row: the mean known score, in [0, 1], of the verdicts that compare the two."""


def known(reward: float | None) -> float:
    """A reward that the trainer promised to be there."""
    if reward is None:
        raise AssertionError("rows without a reward are dropped before the units are planned")
    return reward
