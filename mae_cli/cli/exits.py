"""Exit codes: the one place where exceptions and signals become an exit code and one line."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from types import FrameType
from typing import Any

import typer

from mae_cli.errors import (
    BROKEN_PIPE,
    FULL_DISK_ERRNOS,
    INTERRUPTED,
    TERMINATED,
    USERS_ERRNOS,
    MaeError,
    TemporaryError,
    TerminatedError,
)

GRACE_SECONDS = 8.0
"""Time that a command has to end in order after SIGTERM."""


def on_terminate(number: int, frame: FrameType | None) -> None:
    """The handler of SIGTERM: the command ends in order, and a second signal does not disturb it."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise TerminatedError


def end_in_time(seconds: float = GRACE_SECONDS) -> None:
    """See to it that SIGTERM ends this process within some seconds, also where it never comes to its handler.

    Python runs a handler between two of its own steps, so a call that hangs in a library (a GPU, a file server) would
    hold it off for ever. The number of each signal goes through a pipe to a thread, which then waits and ends the
    process; what was stored is as whole as after a kill.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # A forked child that is terminated must not end its parent.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_end_after, args=(reader, seconds), daemon=True, name="sigterm").start()


def _end_after(reader: int, seconds: float) -> None:
    while signal.SIGTERM not in os.read(reader, 1):
        pass
    time.sleep(seconds)
    _fail(f"terminated after {seconds:g} s in a call that did not end; the same command goes on from here", TERMINATED)
    os._exit(TERMINATED)


def quiet_libraries() -> None:
    """Libraries under us speak through their loggers; only warnings of ours reach the user."""
    # Read when torch is loaded: spinning threads starve each other where other work shares the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("mae_cli").setLevel(logging.INFO)


def exit_code_of(app: typer.Typer, arguments: list[str]) -> int:
    """Run the command line and return the exit code; the codes are listed in `errors.py` and the README."""
    try:
        result: Any = app(args=arguments or ["--help"], prog_name="mae", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        code = _code_of(error)
        if code is None:
            raise
        return code
    if result == INTERRUPTED:  # the option parser catches Ctrl-C by itself; our commands return nothing
        return _interrupted()
    return result if isinstance(result, int) else 0


def _code_of(error: BaseException) -> int | None:
    """The exit code of what a user did or can mend, with its one line said; null for a fault of ours."""
    if isinstance(error, MaeError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, typer.TyperException):
        return _misused(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return _interrupted()
    if isinstance(error, TerminatedError):
        return _fail("terminated; the same command goes on from here", TERMINATED)
    # The option parser turns a broken pipe into exit 1 by itself.
    if isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError):
        return _broken_pipe()
    return _code_of_os_error(error) if isinstance(error, OSError) else None


def _misused(error: typer.TyperException) -> int:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return _fail(f"{message} (see mae --help)" if message else "see mae --help", 2)


def _interrupted() -> int:
    return _fail("interrupted; the same command goes on from here", INTERRUPTED)


def _code_of_os_error(error: OSError) -> int | None:
    if error.errno in USERS_ERRNOS:
        return _fail(str(error), 2)
    if error.errno in FULL_DISK_ERRNOS:
        return _fail(f"disk full: {error}; free some space, then the same command goes on", TemporaryError.exit_code)
    return None


def _broken_pipe() -> int:
    # What is still buffered must not raise again when the interpreter flushes it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return BROKEN_PIPE


def _fail(message: str, code: int) -> int:
    print(f"mae: {' '.join(message.split())}", file=sys.stderr)
    return code
