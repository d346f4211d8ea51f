"""Keep evaluation items out of training and out of the pools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from mae_cli.answers.questions import question_key
from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import Selection
from mae_cli.recipe.files import find_file
from mae_cli.records import Row
from mae_cli.records.read import read_problems


class Decontaminate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Drop train rows whose problem is an item of the named evaluation files.

    Items are equal when their questions are, after normalisation and case folding, or when both are one arithmetic
    problem up to operand order, number words and template. It also un-stores: a pool must not leak items either.
    Source: exact-match decontamination; the near-match kinds are for a later filter.
    """

    against: tuple[str, ...] = ()

    def select(self, rows: Sequence[Row]) -> list[Selection]:
        """One selection per row.

        Raises:
            ConfigError: no file is named.
        """
        if not self.against:
            raise ConfigError('filter "decontaminate" needs against: [FILE, ...]')
        held_out = _keys(self.against)
        return [
            Selection(reason="decontaminate:held out", stored="none")
            if row.problem is not None and row.purpose == "train" and question_key(row.problem.question) in held_out
            else Selection()
            for row in rows
        ]


@lru_cache(maxsize=8)
def _keys(files: tuple[str, ...]) -> frozenset[str]:
    return frozenset(question_key(problem.question) for name in files for problem in read_problems(find_file(name)))
