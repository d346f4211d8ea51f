"""The sandbox for model-written Python: a Rust interpreter without files, network or processes, in killable workers.

Place in the flow: the verifiers `python_tests` and `python_call`, and the triplet checks, run programs here; nothing
model-written ever reaches CPython's `exec`. Contract: `run` never raises on any program and ends within its limit plus
a second; the clock stands still, `sleep` returns at once and `random` starts from a given seed, so equal runs give
equal results. A program that fails only for want of something CPython has is `unsupported`, not wrong. Known
difference: generator expressions are evaluated at once, so a lazy search in an endless one ends as `memory`.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import collections
import datetime
import importlib.util
import re
import string
import threading
import types
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from mae_cli.answers.programs import MAX_PROGRAM, is_python, parse
from mae_cli.errors import MissingDependencyError

MAX_PRINTED: Final = 1_000_000
"""Most a program may print, in bytes; the text itself is thrown away."""
_START: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
RunStatus = Literal["ok", "raised", "timeout", "memory", "output", "unsupported", "crashed"]


class Limits(msgspec.Struct, frozen=True):
    """Limits of one program: time, memory and depth of calls."""

    seconds: float = 5.0
    memory_mib: int = 256
    recursion: int = 2000
    """Depth of calls; CPython's default is 1000, and harnesses add a frame per call."""


DEFAULT_LIMITS: Final = Limits()


class ProgramRun(msgspec.Struct, frozen=True):
    """Result of a run: how the program ended, with its values or its error.

    `raised` is the program's own failure (a syntax error among them). `timeout`, `memory` and `output` name the limit
    it ran into, `unsupported` what the interpreter lacks, `crashed` a lost worker.
    """

    status: RunStatus
    values: tuple[Any, ...] = ()
    """The last expression of each part that ran to its end."""
    error: str = ""
    """Name of the exception class, where there was one."""
    message: str = ""

    @property
    def reason(self) -> str:
        """The result in one short line."""
        text = f"{self.error}: {self.message}" if self.error else self.message
        return " ".join(f"{self.status}: {text}".split())[:200] if text else self.status


def run(
    *parts: str,
    limits: Limits = DEFAULT_LIMITS,
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    start_days: int = 0,
) -> ProgramRun:
    """Run the parts of one program one after the other in a fresh interpreter; the first that fails ends it.

    Args:
        parts: source texts that share their globals. Each has the whole time limit.
        limits: time, memory and depth.
        inputs: plain values bound as globals before the first part.
        seed: where `random` starts.
        start_days: where the frozen clock stands, in days after 2000-01-01.

    Raises:
        MissingDependencyError: the interpreter is not installed.
    """
    import pydantic_monty as monty

    if sum(map(len, parts)) > MAX_PROGRAM:
        return ProgramRun("unsupported", message=f"the program is longer than {MAX_PROGRAM} characters")
    values: list[Any] = []
    printed = monty.CollectString(max_bytes=MAX_PRINTED)
    try:
        with _session(limits, seed, start_days) as session:
            for index, part in enumerate(parts):
                bound = dict(inputs) if inputs and index == 0 else None
                values.append(session.feed_run(part, inputs=bound, print_callback=printed))
    except monty.MontyError as error:
        return _failure(error, parts, tuple(values), limits)
    except (TypeError, ValueError, UnicodeError) as error:
        # A value or a source text that cannot cross into the interpreter (a lone surrogate, a cycle).
        return ProgramRun("unsupported", tuple(values), type(error).__name__, str(error))
    return ProgramRun("ok", tuple(values))


def require_monty(plugin: str) -> None:
    """Refuse a plugin before any work where the interpreter is not installed.

    Raises:
        MissingDependencyError: with the command that installs it.
    """
    if importlib.util.find_spec("pydantic_monty") is None:
        raise MissingDependencyError(f"{plugin} runs programs in pydantic-monty: pip install 'mae-cli[verify]'")


class _Pool:
    """The process-wide pool of interpreter workers, opened at first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: Any = None

    def get(self) -> Any:
        with self._lock:
            if self._pool is None:
                require_monty("this command")
                import pydantic_monty

                # request_timeout is a second wall around the limits inside the interpreter.
                pool = pydantic_monty.Monty(min_processes=1, checkout_timeout=600.0, max_checkouts_per_worker=1000)
                self._pool = pool.__enter__()
                atexit.register(self.close)
            return self._pool

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.__exit__(None, None, None)
                self._pool = None


_POOL = _Pool()


def _session(limits: Limits, seed: int, start_days: int) -> Any:
    import pydantic_monty as monty

    constants = {
        name: value for name in dir(string) if name[0] != "_" and isinstance(value := getattr(string, name), str)
    }
    return _POOL.get().checkout(
        limits={
            "max_feed_duration_secs": limits.seconds,
            "max_memory": limits.memory_mib * 2**20,
            "max_recursion_depth": limits.recursion,
        },
        os_policy={
            "datetime": _START + datetime.timedelta(days=start_days),
            "sleep": "zero",
            "process_time": "zero",
            "random_start": {"seed": seed},
        },
        assert_message_annotations=False,
        external_modules={"string": lambda: monty.ExternalModule(constants)},
    )


def _failure(error: Any, parts: Sequence[str], values: tuple[Any, ...], limits: Limits) -> ProgramRun:
    import pydantic_monty as monty

    if isinstance(error, monty.MontyCrashedError):
        status: RunStatus = "timeout" if error.timed_out else "crashed"
        return ProgramRun(status, values, "", str(error))
    inner = error.exception()
    name, message = type(inner).__name__, str(inner)
    source = "\n".join(parts)
    if _is_own_raise(name, message, source):
        return ProgramRun("raised", values, name, message)
    if isinstance(inner, TimeoutError) and re.match(r"\w+ time limit exceeded: ", message):
        return ProgramRun("timeout", values, "", f"more than {limits.seconds:g} s")
    if isinstance(inner, MemoryError) and message.startswith("memory limit exceeded: "):
        if message.endswith(f"> {MAX_PRINTED} bytes"):
            return ProgramRun("output", values, "", f"printed more than {MAX_PRINTED} bytes")
        return ProgramRun("memory", values, "", f"more than {limits.memory_mib} MiB")
    if isinstance(inner, SyntaxError):
        return ProgramRun("unsupported" if is_python(source) else "raised", values, name, message)
    return ProgramRun("unsupported" if _is_lack(inner, message, source) else "raised", values, name, message)


def _is_own_raise(name: str, message: str, source: str) -> bool:
    """Whether a program says `raise` with this very exception: then it is not the interpreter's, whatever it says."""
    tree = parse(source) if f"raise {name}" in source else None
    for node in ast.walk(tree) if tree else ():
        raised = node.exc if isinstance(node, ast.Raise) else None
        named, texts = (raised.func, raised.args[:1]) if isinstance(raised, ast.Call) else (raised, [])
        if isinstance(named, ast.Name) and named.id == name:
            said = [text.value for text in texts if isinstance(text, ast.Constant)] if texts else [""]
            if said == [message]:
                return True
    return False


NAMED: Final = re.compile(r"name '(\w+)' is not defined")
_ATTRIBUTE = re.compile(r"(?:type object |module )?'([\w.]+)'(?: object)? has no attribute '(\w+)'")
_LACKS: Final = ("monty", "not supported", "not yet supported", "not implemented", "unsupported format")


def _is_lack(error: BaseException, message: str, source: str) -> bool:
    """Whether a program failed for want of something that CPython has."""
    if isinstance(error, (ImportError, PermissionError, FileNotFoundError)):
        return True
    if isinstance(error, NotImplementedError):
        return any(word in message for word in _LACKS)
    if isinstance(error, RuntimeError):
        return any(word in message for word in ("monty", "not supported in this environment", "suspension"))
    if isinstance(error, AttributeError):
        found = _ATTRIBUTE.search(message)
        return bool(found) and _cpython_has(found[1], found[2], source)  # type: ignore[index]
    if isinstance(error, NameError):
        missing = NAMED.search(message)
        return bool(missing) and hasattr(builtins, missing[1])  # type: ignore[index]
    if isinstance(error, TypeError):
        # Operators of the program's own classes are not all honoured.
        return any(re.search(rf"^\s*class {name}\b", source, re.MULTILINE) for name in re.findall(r"'(\w+)'", message))
    return False


_TYPES: Final[dict[str, type]] = {
    **{name: value for name, value in vars(builtins).items() if isinstance(value, type)},
    **{name: value for name, value in vars(collections).items() if isinstance(value, type)},
    **{value.__name__: value for value in vars(types).values() if isinstance(value, type)},
    "Match": re.Match,
    "Pattern": re.Pattern,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "timedelta": datetime.timedelta,
}
# Looked into, never called; none of them does anything when imported.
_MODULES: Final = frozenset(
    [
        "asyncio",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "copy",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "functools",
        "hashlib",
        "itertools",
        "json",
        "math",
        "os",
        "pathlib",
        "random",
        "re",
        "string",
        "sys",
        "time",
        "tomllib",
        "typing",
        "unicodedata",
    ]
)


def _cpython_has(owner: str, attribute: str, source: str) -> bool:
    if owner in _MODULES:
        return hasattr(importlib.import_module(owner), attribute)
    if owner in _TYPES:
        return hasattr(_TYPES[owner], attribute)
    # An instance of a class of the program: it has what every object has.
    return attribute in dir(object) or attribute in ("__dict__", "__module__", "__qualname__")
