"""Times of a run's steps, from its events: how long each step took in the rounds that are finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

READ = 2 << 20
"""Bytes from the end of the events that are read: hundreds of rounds."""


def step_seconds(path: Path, *, base: bool = False) -> dict[str, float]:
    """Return the mean seconds of each step over the rounds, or of the base's, by its name; gate and eval together.

    A step that was interrupted tells the seconds of the start that finished it, so it is known as shorter than it was.
    """
    seconds: dict[str, dict[str, float]] = {}
    for event in last_events(path):
        details = event.get("details")
        label = event.get("round")
        if not label or (label == "round-000") != base or not isinstance(details, dict) or "seconds" not in details:
            continue
        name = str(details.get("step") or event.get("event"))
        rounds = seconds.setdefault(name, {})
        rounds[label] = rounds.get(label, 0.0) + float(details["seconds"])
    return {name: sum(rounds.values()) / len(rounds) for name, rounds in seconds.items()}


def last_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events at the end of the file, oldest first, without a torn last line or one that is cut at its start."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - READ)
            file.seek(start)
            data = file.read()
    except OSError:
        return
    lines = data.split(b"\n")
    for line in lines[1 if start else 0 :]:
        try:
            event = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(event, dict):
            yield event
