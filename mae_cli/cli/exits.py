"""Exit codes: the one place where exceptions and signals become an exit code and one line."""

from __future__ import annotations

import errno
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
    INTERRUPTED,
    TERMINATED,
    USERS_ERRNOS,
    MaeError,
    TemporaryError,
    TerminatedError,
)
from mae_cli.records.cache import keep_libraries_off_the_working_folder
from mae_cli.records.streams import STANDARD_OUTPUT

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


class _StandardError(logging.Handler):
    """Writes to what standard error is now, which a caller may have redirected since the start."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a closed standard error loses it."""
        if sys.stderr is not None:
            try:
                sys.stderr.write(self.format(record) + "\n")
                sys.stderr.flush()
            except (OSError, ValueError):
                self.handleError(record)


def quiet_libraries() -> None:
    """Libraries under us speak through their loggers; only warnings of ours reach the user."""
    # Read when torch is loaded: spinning threads starve each other where other work shares the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    keep_libraries_off_the_working_folder()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_StandardError()])
    logging.getLogger("mae_cli").setLevel(logging.INFO)


def exit_code_of(app: typer.Typer, arguments: list[str]) -> int:
    """Run the command line and return the exit code; the codes are listed in `errors.py` and the README."""
    try:
        result: Any = app(args=arguments or ["--help"], prog_name="mae", standalone_mode=False)
        if sys.stdout is not None:
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
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return _fail(f"{error.object!r}: a name that is not UTF-8 cannot be kept in a file of records; rename it", 2)
    if isinstance(error, MemoryError):
        return _fail("out of memory; a smaller --batch-size needs less, then the same command goes on", 75)
    return _code_of_os_error(error) if isinstance(error, OSError) else None


def _misused(error: typer.TyperException) -> int:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return _fail(f"{message} (see mae --help)" if message else "see mae --help", 2)


def _interrupted() -> int:
    return _fail("interrupted; the same command goes on from here", INTERRUPTED)


def _code_of_os_error(error: OSError) -> int | None:
    if error.filename == STANDARD_OUTPUT:
        _leave_standard_output()
        return _fail(f"{STANDARD_OUTPUT}: {error.strerror}", TemporaryError.exit_code)
    if error.errno in _TEMPORARY:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _fail(f"{_TEMPORARY[error.errno].format(what=what)}, then the same command goes on", 75)
    if error.errno == errno.ENOENT and _is_folder_gone():
        return _fail("the working directory does not exist any more; go to another one (cd) and run it again", 2)
    if error.errno in USERS_ERRNOS:
        return _fail(_with_advice(error), 2)
    return None


def _with_advice(error: OSError) -> str:
    text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return text + _ADVICE.get(error.errno or 0, "")


def _is_folder_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


_FULL = "disk full: {what}; free some space"
_BUSY = "{what}; try again when the machine has room"
# What may be otherwise at the next try, and what to do.
_TEMPORARY = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EMFILE: "{what}; raise the limit (ulimit -n 4096)",
    errno.ENFILE: _BUSY,
    errno.ENOMEM: _BUSY,
    errno.EAGAIN: _BUSY,
    errno.EIO: "{what}; look after the disk",
    errno.ESTALE: "{what}; look after the network disk",
    errno.ENOLCK: "{what}; look after the network disk",
    errno.ETIMEDOUT: "{what}; look after the network disk",
}
_ADVICE = {
    errno.EBUSY: "; a file that is itself a mount point cannot be replaced: mount its folder",
    errno.EXDEV: "; give an output on the disk where its folder lies",
    errno.EFBIG: "; the disk or a limit (ulimit -f) allows no file of this size",
}


def _broken_pipe() -> int:
    _leave_standard_output()
    return BROKEN_PIPE


def _leave_standard_output() -> None:
    # What is still buffered must not raise again when the interpreter flushes it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(message: str, code: int) -> int:
    print(f"mae: {' '.join(message.split())}", file=sys.stderr)
    return code
