"""Proposals without references."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from mae_cli.plugins.contracts import Draw
from mae_cli.records import Problem


class Zero(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every proposal is written from nothing.

    Source: MAE "no reference", arXiv:2510.23595 section 4.
    """

    def draw(self, rng: random.Random, pool: Sequence[Problem]) -> Draw:
        """No references."""
        return Draw(prompt="zero")
