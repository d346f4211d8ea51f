"""Disturb a run at random moments, many times, until it is done, and say what was done to it.

A disturbance hits a process that has begun to work (its state file names its start), a random while later. Everything
random comes from one seed, but moments depend on the machine, so a failure is told with what was done, not replayed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.support import PATIENT_SECONDS, mae, start

ACTIONS = ("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT", "SIGSTOP", "second", "torn", "torn events", "torn state")
LONGEST = 0.6
"""Seconds that a start may work before it is disturbed."""


class Chaos:
    """The disturber of one run.

    Attributes:
        done: what was done, how often.
    """

    def __init__(self, arguments: Sequence[object], run: Path, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._arguments, self._run, self._random = [*arguments, "--json"], run, random.Random(seed)

    def drive(self, disturbances: int) -> int:
        """Disturb the run so often, or until it is done, then let it end; its last exit code."""
        for _ in range(disturbances):
            process = start(self._arguments)
            if not self._works(process) or self._disturb(process):
                return self._ending(process)
        return mae(*self._arguments).returncode

    def _works(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until this start works; false where it has ended before."""
        until = time.monotonic() + PATIENT_SECONDS
        while time.monotonic() < until and process.poll() is None:
            if self._owner() == process.pid and self._state().get("state") == "running":
                time.sleep(self._random.uniform(0, LONGEST))
                return process.poll() is None
            time.sleep(0.01)
        return False

    def _disturb(self, process: subprocess.Popen[bytes]) -> bool:
        """Do something to the process; whether it ended well all the same."""
        action = self._random.choice(ACTIONS)
        self.done[action] += 1
        if action == "second":
            second = mae(*self._arguments)
            assert second.returncode in (0, 5), second.stderr
            assert second.returncode == 5 or process.poll() is not None
            process.kill()
        elif action == "SIGSTOP":
            process.send_signal(signal.SIGSTOP)
            time.sleep(self._random.uniform(0, 1))
            process.send_signal(signal.SIGCONT)
            process.terminate()
        elif action in ("SIGTERM", "SIGINT"):
            process.send_signal(getattr(signal, action))
        else:
            process.kill()
        process.communicate(timeout=PATIENT_SECONDS)
        code = process.returncode
        assert code in (0, -9, 130, 143), f"{action}: ended on {code}"
        if action.startswith("torn") and code:
            self._tear(action)
        return code == 0

    def _tear(self, action: str) -> None:
        """What a machine leaves whose power fails: a file whose last line is cut."""
        if action == "torn events":
            with (self._run / "events.jsonl").open("ab") as file:
                file.write(b'{"time": "2026-0')
        elif action == "torn state":
            (self._run / "run.state.json").write_bytes(b'{"state": "ru')
        elif partials := sorted(path for path in self._run.rglob("*.jsonl.partial") if path.is_file()):
            path = self._random.choice(partials)
            size = path.stat().st_size
            os.truncate(path, max(0, size - self._random.randint(1, 40)))

    def _ending(self, process: subprocess.Popen[bytes]) -> int:
        process.communicate(timeout=PATIENT_SECONDS)
        return process.returncode

    def _state(self) -> dict[str, object]:
        return _json(self._run / "run.state.json")

    def _owner(self) -> object:
        return _json(self._run / "run.owner.json").get("pid")


def _json(path: Path) -> dict[str, object]:
    try:
        return json.loads(path.read_bytes())  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return {}
