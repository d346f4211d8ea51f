"""Proposals with references by chance."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from mae_cli.plugins.contracts import Draw
from mae_cli.plugins.proposers.reference import Reference
from mae_cli.records import Problem


class Mixed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With probability p_reference a proposal varies references, otherwise it is written from nothing.

    Source: MAE `include_references`, arXiv:2510.23595 section 4: 0, 0.5 and 1 are its three settings with seeds.
    """

    p_reference: float = 0.5
    references_per_prompt: int = 1

    def draw(self, rng: random.Random, pool: Sequence[Problem]) -> Draw:
        """Decide by chance whether there are references, then draw them."""
        if rng.random() >= self.p_reference:
            return Draw(prompt="zero")
        return Reference(references_per_prompt=self.references_per_prompt).draw(rng, pool)
