"""Links and old weights of a run: which rounds are pointed at, and whose weights may go.

Place in the flow: the loop calls it after each decision. Contract: only weights are ever deleted, never those of the
accepted, the best or the last verified round; every row and figure stays, so everything can still be traced.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mae_cli.records.read import read_json
from mae_cli.runs.layout import ACCEPTED, BEST, LATEST, VERIFIED, Round
from mae_cli.runs.promotion import NOT_TRAINED


def set_links(
    run_dir: Path, *, latest: Round | None, accepted: Round | None, best: Round | None, verified: Round | None
) -> None:
    """Point the run's links at rounds; a null and the base leave a link as it is."""
    for name, target in ((LATEST, latest), (ACCEPTED, accepted), (BEST, best), (VERIFIED, verified)):
        if target is not None and target.number:
            temporary = run_dir / f".{name}.tmp"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target.label)
            os.replace(temporary, run_dir / name)


def is_closed(current: Round, keep_adapters: int) -> bool:
    """Whether a round need not be gone through again, because adapters before it may have been retired."""
    if not keep_adapters or not current.promotion.exists():
        return False
    return bool(current.adapters) or read_json(current.promotion)["reason"] == NOT_TRAINED


def retire(rounds: Sequence[Round], kept: set[int], keep_adapters: int) -> None:
    """Delete the weights of old rounds.

    Args:
        rounds: all so far, the base first.
        kept: numbers of the rounds whose weights always stay.
        keep_adapters: rounds from the end whose weights stay too; 0 keeps all.
    """
    for old in rounds[1:-keep_adapters] if keep_adapters else []:
        if old.number not in kept:
            for adapter in old.adapters:
                for weights in adapter.glob("*.safetensors"):
                    weights.unlink()
