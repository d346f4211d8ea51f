"""Store the rows that are good enough for the pools, and optionally drop the rest from training."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mae_cli.data.pools import PAIRS, QUESTIONS
from mae_cli.plugins.contracts import Selection
from mae_cli.records import Row, mean_score, verdicts_on


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Store questions with mean quality Q >= threshold; store every answered pair, good or bad.

    It sets `stored`. Training is untouched unless `drop` is set: MAE trains a question below the threshold, with its
    lower reward, and does not store it. A question without a known quality is not stored.
    Source: MAE, arXiv:2510.23595, section 3 (Q >= 0.7; all solver pairs go to the pair pool).
    """

    threshold: float = 0.7
    drop: bool = False
    pairs: bool = True

    def select(self, rows: Sequence[Row]) -> list[Selection]:
        """One selection per row."""
        return [self._one(row) for row in rows]

    def _one(self, row: Row) -> Selection:
        if row.purpose != "train" or row.problem is None:
            return Selection()
        if row.is_answer and self.pairs and (row.completion or "").strip():
            return Selection(stored=PAIRS)
        if not row.is_proposal:
            return Selection()
        quality = mean_score(verdicts_on(row, "problem"))
        if quality is not None and quality >= self.threshold:
            return Selection(stored=QUESTIONS)
        if not self.drop:
            return Selection()
        return Selection(reason="quality:unknown" if quality is None else f"quality:{quality:.3g}")
