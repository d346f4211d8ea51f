"""What the workers of `test_killable.py` run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def act(what: str, value: Any) -> Any:
    """Do as told, in a worker process."""
    if what == "sleep":
        time.sleep(value)
    elif what == "die":
        os._exit(3)
    elif what == "fail":
        raise ValueError(value)
    elif what == "hoard":
        return len(bytearray(value * 2**20))
    elif what == "keep":
        _KEPT.append(bytearray(b"x" * (value * 2**20)))
    elif what == "recurse":
        return act(what, value)
    elif what == "pid":
        return os.getpid()
    elif what == "meet":
        # Ends when as many as are told wait here at the same time.
        folder, number = value
        Path(folder, str(os.getpid())).touch()
        while len(list(Path(folder).iterdir())) < number:
            time.sleep(0.01)
    return value


_KEPT: list[bytearray] = []
