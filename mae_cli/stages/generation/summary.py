"""The summary of one command: counts, seconds and path, as its last line and as its JSON.

Place in the flow: every stage returns a `StageSummary` and the command line prints it. Contract: plain data. Left out:
figures about the rows themselves (`reports`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mae_cli.records import Row


class StageSummary(msgspec.Struct, kw_only=True):
    """Summary of one command: its last line, and its JSON."""

    stage: str
    path: str
    read: int = 0
    written: int = 0
    skipped: int = 0
    """Rows an earlier run of this command had finished already."""
    failed: int = 0
    """Rows with status error or too_long."""
    retried: int | None = None
    """Failed rows that were asked again (`--retry-failed`); null where that was not wanted."""
    mended: int | None = None
    """Of these, how many have an answer now."""
    still_failing: int | None = None
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    workers: list[WorkerReport] = []
    """What each worker process of `--devices` did; empty where this process did the work."""
    notices: list[str] = []
    details: dict[str, Any] = {}

    def line(self) -> str:
        """The summary in one line."""
        speed = f", {self.tokens_per_second:,.0f} tokens/s" if self.tokens else ""
        skipped = f", skipped {self.skipped} (done before)" if self.skipped else ""
        failed = f", failed {self.failed}" if self.failed else ""
        if self.retried is not None:
            failed += f", retried {self.retried}: {self.mended} mended, {self.still_failing} still failing"
        return (
            f"{self.stage}: read {self.read}, written {self.written}{skipped}{failed}, "
            f"{self.seconds:.1f} s{speed} -> {self.path}"
        )


def rollout_details(rows: Sequence[Row]) -> dict[str, Any]:
    """Return how the new rows ended: counts by status, and the truncated share."""
    if not rows:
        return {}
    statuses = sorted({row.status for row in rows})
    counts: dict[str, Any] = {status: sum(row.status == status for row in rows) for status in statuses}
    return {**counts, "truncated_share": round(sum(r.status == "truncated" for r in rows) / len(rows), 4)}


class WorkerReport(msgspec.Struct):
    """Summary of one worker process, in the command's summary."""

    shard: str
    device: str
    starts: int = 0
    rows: int = 0
    """Rows it finished during this command."""
    kept: int = 0
    """Rows that its last start found finished."""
