"""Drop repeated rows. The shortest filter: copy this one to write another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import msgspec

from mae_cli.answers.questions import question_key
from mae_cli.data.held_out import item_keys
from mae_cli.plugins.contracts import Selection
from mae_cli.records import Row


class Dedup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep the first train row of each repeated one.

    Proposals repeat when their questions are equal whatever their dress (marks, quotes, LaTeX, number words, prompt
    text; `match: exact` looks at blanks and case only), or are one arithmetic problem in other words; rollouts and
    judgements repeat when prompt and completion are equal. Rows that an earlier filter dropped do not
    count, or the last sound copy would go with the broken first one. Source: exact deduplication, as MAE's own
    loop lacks it (its weakness 10: the proposer copies).
    """

    FORMER: ClassVar[dict[str, Any]] = {"match": "exact"}
    """Values of options before these existed."""
    match: Literal["dress", "exact"] = "dress"

    def select(self, rows: Sequence[Row]) -> list[Selection]:
        """One selection per row."""
        seen: dict[tuple[str, str, str], str] = {}
        selections = []
        for row in rows:
            key = self._key(row)
            if row.purpose != "train" or row.kept is False or key is None:
                selections.append(Selection())
            elif key in seen:
                selections.append(Selection(reason=f"dedup:same as {seen[key]}"))
            else:
                seen[key] = row.id
                selections.append(Selection())
        return selections

    def _key(self, row: Row) -> tuple[str, str, str] | None:
        if row.is_proposal:
            if row.problem is None:
                return None
            key = item_keys(row.problem)[1] if self.match == "dress" else question_key(row.problem.question)
            return (row.role, key, "")
        prompt = "\n".join(message.content for message in row.messages)
        return (row.role, prompt, (row.completion or "").strip())
