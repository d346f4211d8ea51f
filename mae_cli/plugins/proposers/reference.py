"""Proposals that vary references drawn from the question pool."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from mae_cli.plugins.contracts import Draw
from mae_cli.records import Problem


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every proposal varies min(k, |D|) references, drawn uniformly without replacement, shown without answers.

    With an empty pool there is nothing to refer to and the proposal is written from nothing.
    Source: MAE "with reference", arXiv:2510.23595 section 4; k = 1 in the paper.
    """

    references_per_prompt: int = 1

    def draw(self, rng: random.Random, pool: Sequence[Problem]) -> Draw:
        """Draw the references."""
        if not pool:
            return Draw(prompt="zero")
        count = min(self.references_per_prompt, len(pool))
        return Draw(prompt="reference", references=tuple(rng.sample(list(pool), count)))
