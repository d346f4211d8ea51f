"""Every failure a user can fix, with the exit code the process ends on.

    MaeError                   2   usage, bad input or config
      ConfigError              2   a recipe, flag or option is wrong
      DataError                2   a file's content is wrong (the message starts with file:line)
      EngineError              2   a model or engine cannot be loaded or used
      MissingDependencyError   2   an optional package is not installed
      GateError                3   a quality gate failed, or nothing was kept
      CollapseError            4   the loop or a training stopped at a guard
      LockedError              5   another process writes the same output
      BudgetError              6   a budget was reached; resumable
      TemporaryError          75   network, hub, GPU or disk; resumable

The command line prints a `MaeError` as one line, at one place (`cli/exits.py`). Any other exception is our bug.
Signals end a command on 130 (Ctrl-C), 141 (nobody reads its output any more) or 143 (SIGTERM).
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class MaeError(Exception):
    """A failure that the user can mend: printed as one line, without a traceback."""

    exit_code = 2


class ConfigError(MaeError):
    """A recipe, a flag or a plugin option is not what was expected."""


class DataError(MaeError):
    """A file does not hold what it should; the message names file, line and field."""


class EngineError(MaeError):
    """A model or an engine cannot be found, loaded or used."""


class MissingDependencyError(MaeError):
    """An optional package is needed; the message holds the install command."""


class GateError(MaeError):
    """A quality gate failed, or a stage kept no row."""

    exit_code = 3


class CollapseError(MaeError):
    """The loop or a training stopped because going on would do harm."""

    exit_code = 4


class LockedError(MaeError):
    """Another process holds the lock of this output."""

    exit_code = 5


class BudgetError(MaeError):
    """A budget was reached; the same command goes on from here."""

    exit_code = 6


class TemporaryError(MaeError):
    """Network, hub, GPU or disk failed; the same command may succeed later."""

    exit_code = 75


class TerminatedError(BaseException):
    """SIGTERM came; raised in the main thread so that locks and partial files are left in order.

    Like KeyboardInterrupt no Exception, so that no library's handler for failures takes it for one.
    """


INTERRUPTED, BROKEN_PIPE, TERMINATED, OUR_BUG = 130, 141, 143, 1
TEMPORARY_ERRNOS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
    *(errno.EIO, errno.ESTALE, errno.ENOLCK, errno.ETIMEDOUT),
}
"""What may be otherwise at the next try: a full disk, a busy machine, a network disk."""
USERS_ERRNOS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ELOOP, errno.EBUSY, errno.EXDEV, errno.ETXTBSY, errno.ENXIO, errno.ENODEV, errno.EFBIG),
    *(errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTEMPTY),
}
"""The place is wrong, not the program: no permission, read-only, a folder for a file or the other way round."""


def exit_code_for(error: BaseException) -> int:
    """Return the exit code of a command that ends with this error."""
    if isinstance(error, MaeError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, TerminatedError):
        return TERMINATED
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    if isinstance(error, OSError):
        return TemporaryError.exit_code if error.errno in TEMPORARY_ERRNOS else 2 if error.errno in USERS_ERRNOS else 1
    return OUR_BUG


def one_line(error: BaseException) -> str:
    """A library's error on one line of at most 300 characters, to stand in one of ours."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that names the nearest known name, or all of them when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return "known: " + (", ".join(names) if names else "none")
