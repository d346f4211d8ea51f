"""Keep evaluation items out of training and out of the pools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal

import msgspec

from mae_cli.data.held_out import ExactItems, Items
from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import Selection
from mae_cli.recipe.files import find_file
from mae_cli.records import Row
from mae_cli.records.read import read_problems

REASON = "decontaminate:held out"


class Decontaminate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Drop train rows whose problem is an item of the named evaluation files.

    `match: dress` finds an item whatever its Unicode forms, quotes, marks, bold, LaTeX, number words and prompt text,
    and by its choices where both have some; one arithmetic problem up to operand order and template is one item.
    `match: exact` compares the text but for blanks and case. It also un-stores: a pool must not leak items either. A
    recipe's own benchmarks and gate need not be named (`filter.decontaminate`). Source: exact-match decontamination.
    """

    FORMER: ClassVar[dict[str, Any]] = {"match": "exact"}
    """Values of options before these existed."""
    against: tuple[str, ...] = ()
    match: Literal["dress", "exact"] = "dress"

    def select(self, rows: Sequence[Row]) -> list[Selection]:
        """One selection per row.

        Raises:
            ConfigError: no file is named.
        """
        if not self.against:
            raise ConfigError('filter "decontaminate" needs against: [FILE, ...]')
        return select_held_out(rows, _items(self.against, self.match))


def select_held_out(rows: Sequence[Row], held_out: Items) -> list[Selection]:
    """One selection per row: train rows about an item are dropped and not stored."""
    found: dict[str, bool] = {}
    selections = []
    for row in rows:
        if row.problem is None or row.purpose != "train":
            selections.append(Selection())
            continue
        if row.problem.id not in found:
            found[row.problem.id] = held_out.holds(row.problem)
        selections.append(Selection(reason=REASON, stored="none") if found[row.problem.id] else Selection())
    return selections


@lru_cache(maxsize=8)
def _items(files: tuple[str, ...], match: str) -> Items:
    kind = Items if match == "dress" else ExactItems
    return kind.of(problem for name in files for problem in read_problems(find_file(name)))
