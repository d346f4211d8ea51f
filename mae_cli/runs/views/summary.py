"""The scores of a round, read from a run's summary, and the adapter cards that show them.

Place in the flow: `mae run` refreshes the cards at its end, and `export` puts the scores into the card of a model.
Contract: a card that is up to date is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mae_cli.models.cards import Score, write_card
from mae_cli.models.lineage import ADAPTER, read_lineage
from mae_cli.records.read import read_json
from mae_cli.runs.views.adapters import rounds_of


def scores_in(run_dir: Path, label: str) -> list[Score]:
    """A round's figures in the run's summary; none where nothing was measured, or the run has not ended."""
    path = run_dir / "summary.json"
    if not path.is_file():
        return []
    summary: dict[str, Any] = read_json(path)
    found = []
    for pair in summary.get("comparisons", []):
        if pair["second"] != label or pair.get("benchmark") is not None or not pair["items"]:
            continue
        own = next((a for a in summary["accuracy"] if _is_whole(a, label, pair["reading"])), None)
        if own is not None:
            found.append(
                Score(
                    reading=pair["reading"],
                    items=pair["items"],
                    base=pair["first_share"],
                    adapter=pair["second_share"],
                    low=own["low"],
                    high=own["high"],
                    p_value=pair["p_value"],
                )
            )
    return found


def _is_whole(accuracy: Mapping[str, Any], label: str, reading: str) -> bool:
    """Whether a figure is this policy's over all items, not of one benchmark or group."""
    parts = (accuracy.get("benchmark"), accuracy.get("group"))
    return accuracy["policy"] == label and accuracy["reading"] == reading and parts == (None, None)


def refresh_cards(run_dir: Path) -> None:
    """Put the run's figures into the cards of its adapters; a card that says them already is left alone."""
    for current in rounds_of(run_dir):
        lineage = read_lineage(current / ADAPTER)
        if lineage is not None:
            write_card(current / ADAPTER, lineage, scores_in(run_dir, current.name))
