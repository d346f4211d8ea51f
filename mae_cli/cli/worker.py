"""A worker of `--devices`: the command line in a process that ends when its parent does."""

from __future__ import annotations

import os
import signal
import threading
import time

from mae_cli.cli.app import main as run_command_line

GRACE_SECONDS = 10.0


def _watch_parent() -> None:
    """The parent holds the other end of standard input and writes nothing; it closes when the parent is gone."""
    while os.read(0, 1024):
        pass
    # As for any command that is told to end: finished rows are stored, locks are left in order.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(143)


def main() -> None:
    """Entry point of `python -m mae_cli.cli.worker`."""
    threading.Thread(target=_watch_parent, daemon=True).start()
    run_command_line()


if __name__ == "__main__":
    main()
