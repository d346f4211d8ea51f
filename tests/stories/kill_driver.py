"""Kill a command at chosen moments, run it again, and say where each kill landed.

No hook stands in the product: the child wraps `os.write`, `os.replace` and `os.fsync` of its own process before
`mae_cli` is imported, and kills itself with SIGKILL at its moment; a few kills come from outside at random times, and
such a child stops at the rename it must not pass, so that none is over before its kill on however busy a machine. A
child is started by one of two launchers:

  Process   a new interpreter that finds a `sitecustomize.py` through PYTHONPATH: the real command line, every import
            included
  Fork      a fork of a server that has imported the libraries already, so that a command costs milliseconds and
            twenty kills of a training fit into the test suite

`drive` is what tests call. This file imports neither pytest nor mae_cli, so the child stays as it is.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

VARIABLE = "MAE_TEST_KILL"
OURS = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
PRELOAD = [
    *(f"mae_cli.stages.{name}" for name in ("propose", "solve", "judge", "filter", "eval", "finetune")),
    *("mae_cli.engines.scripted", "mae_cli.plugins.judges.rubric", "mae_cli.plugins.rewards.mae"),
    *("mae_cli.plugins.verifiers.numeric", "mae_cli.plugins.proposers.mixed", "mae_cli.plugins.filters.finish_reason"),
    *("mae_cli.runs.loop", "mae_cli.cli.app", "yaml", "jinja2", "filelock"),
]
"""What the commands import late; a fork that has it already starts in milliseconds."""
SITE = """
import json, os
from tests.stories.kill_driver import Moment, VARIABLE, install
install(Moment(**json.loads(os.environ[VARIABLE])))
"""


@dataclass(frozen=True)
class Moment:
    """When a process dies."""

    kind: Literal["append", "torn", "before_replace", "after_replace", "fsync", "outside"]
    """append: behind the n-th append to a `.partial`; torn: when three quarters of its bytes are; before_replace and
    after_replace: around the n-th rename onto a name with this end; fsync: before the n-th; outside: by the driver, at
    the latest while the child waits at that rename."""
    number: int = 1
    target: str = ""
    """End of the name that is renamed onto."""
    delay: float = 0.0
    """Seconds that an outside kill waits behind the first row."""

    def __str__(self) -> str:
        what = f" {self.target}" if self.target else ""
        return (
            f"{self.kind}{what} {self.delay:.3f} s" if self.kind == "outside" else f"{self.kind}{what} #{self.number}"
        )


def install(moment: Moment) -> None:
    """Arm this process."""
    write, replace, fsync = os.write, os.replace, os.fsync
    counts = {"write": 0, "replace": 0, "fsync": 0}

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def counted_write(descriptor: int, data: Any) -> int:
        if moment.kind not in ("append", "torn") or not os.readlink(f"/proc/self/fd/{descriptor}").endswith(".partial"):
            return write(descriptor, data)
        counts["write"] += 1
        due = counts["write"] == moment.number
        if due and moment.kind == "torn":
            write(descriptor, bytes(data)[: len(data) * 3 // 4])
            die()
        size = write(descriptor, data)
        if due:
            die()
        return size

    def counted_replace(source: Any, target: Any, **options: Any) -> None:
        if moment.target and str(target).endswith(moment.target):
            counts["replace"] += 1
        due = counts["replace"] == moment.number and str(target).endswith(moment.target)
        if due and moment.kind == "before_replace":
            die()
        while due and moment.kind == "outside":
            time.sleep(1)
        replace(source, target, **options)
        if due and moment.kind == "after_replace":
            die()

    def counted_fsync(descriptor: Any) -> None:
        counts["fsync"] += 1
        if moment.kind == "fsync" and counts["fsync"] == moment.number:
            die()
        fsync(descriptor)

    for name, wrapped in (("write", counted_write), ("replace", counted_replace), ("fsync", counted_fsync)):
        setattr(os, name, wrapped)


class Child(Protocol):
    """A started command."""

    def wait(self) -> int:
        """Its exit code; minus the signal's number when one killed it."""

    def kill(self) -> None:
        """SIGKILL from outside."""


class Launcher(Protocol):
    """Starts the command with a moment to die at, or none."""

    def __call__(self, arguments: Sequence[str], moment: Moment | None, stdout: Path | None = None) -> Child:
        """Start it."""


class Process:
    """Every child a new interpreter."""

    def __init__(self, folder: Path, root: Path, **environment: str) -> None:
        site = folder / "site"
        site.mkdir(parents=True, exist_ok=True)
        (site / "sitecustomize.py").write_text(SITE)
        kept = {key: value for key, value in os.environ.items() if key not in OURS}
        self._plain = {**kept, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
        self._armed = {**self._plain, "PYTHONPATH": f"{site}{os.pathsep}{root}"}

    def __call__(self, arguments: Sequence[str], moment: Moment | None, stdout: Path | None = None) -> Child:
        """Start it."""
        environment = {**self._armed, VARIABLE: json.dumps(asdict(moment))} if moment else self._plain
        with (stdout or Path(os.devnull)).open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "mae_cli.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
                env=environment,
            )


class _Forked:
    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        assert server.stdout is not None
        self._answers = server.stdout
        self._pid = int(self._answers.readline())

    def wait(self) -> int:
        return int(self._answers.readline())

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)


class Fork:
    """Every child a fork of one server with the libraries loaded; one child at a time."""

    def __init__(self, root: Path, *preload: str) -> None:
        code = f"from tests.stories.kill_driver import serve; serve({[*PRELOAD, *preload]!r})"
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def __call__(self, arguments: Sequence[str], moment: Moment | None, stdout: Path | None = None) -> Child:
        """Start it."""
        assert self._server.stdin is not None
        asked = [list(arguments), asdict(moment) if moment else None, str(stdout or os.devnull)]
        self._server.stdin.write(json.dumps(asked).encode() + b"\n")
        self._server.stdin.flush()
        return _Forked(self._server)

    def close(self) -> None:
        """End the server."""
        self._server.communicate()


def serve(preload: list[str]) -> None:
    """The server's side: a fork per line of input, answered by its process number and then its exit code."""
    for name in preload:
        importlib.import_module(name)
    # What is loaded stays, so no child need look through it (and copy its pages) when it collects garbage.
    gc.freeze()
    for line in sys.stdin:
        arguments, moment, stdout = json.loads(line)
        pid = os.fork()
        if not pid:
            _run(arguments, Moment(**moment) if moment else None, stdout)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _run(arguments: list[str], moment: Moment | None, stdout: str) -> NoReturn:
    if moment is not None:
        install(moment)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 2):
        os.dup2(null, descriptor)
    os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT, 0o600), 1)
    from mae_cli.cli import app

    sys.argv = ["mae", *arguments]
    code = 1
    try:
        app.main()
    except SystemExit as ending:
        code = int(ending.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


@dataclass
class Landing:
    """What stood on the disk after one kill, and after the same command was run again."""

    moment: Moment
    done: int
    """Whole rows (or optimizer steps) that had been stored."""
    total: int
    torn: bool
    renamed: bool
    """Whether the output stood at its place already."""
    marked: bool
    """Whether its completion marker stood."""
    reused: int = 0
    """Rows the next run says it took up."""
    equal: bool = False
    """Whether the next run ended with the unbroken run's bytes."""
    growth: float = 0.0
    """Size of all that the command left, beyond the unbroken run's, as a share."""

    @property
    def is_midway(self) -> bool:
        """More than no and fewer than all rows done."""
        return 0 < self.done < self.total


@dataclass
class Subject:
    """A command under test and how to read what it leaves."""

    arguments: Callable[[Path], list[str]]
    """The command line for an output path."""
    total: int
    output: str = "out.jsonl"
    prepare: Callable[[Path], None] = lambda folder: None
    done: Callable[[Path], int] = field(default=lambda out: whole_lines(partial_of(out)))
    stands: Callable[[Path], bool] = field(default=lambda out: out.exists())
    content: Callable[[Path], bytes] = field(default=lambda out: out.read_bytes())
    reused: Callable[[dict[str, Any]], int] = field(default=lambda summary: int(summary["skipped"]))
    """Told from the finishing run's summary."""


def partial_of(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def whole_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def is_torn(path: Path) -> bool:
    return path.is_file() and (data := path.read_bytes()) != b"" and not data.endswith(b"\n")


def folder_content(folder: Path, *, without: Sequence[str] = ()) -> bytes:
    """Names and bytes of a folder's files, in order."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return b"".join(
        f"\n{file.relative_to(folder)}\n".encode() + file.read_bytes() for file in files if file.name not in without
    )


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def is_marked(out: Path) -> bool:
    meta = out.with_name(out.name + ".meta.json")
    return meta.exists() and bool(json.loads(meta.read_bytes())["complete"])


def drive(
    subject: Subject, moments: Sequence[Moment], folder: Path, launch: Launcher, again: Launcher | None = None
) -> list[Landing]:
    """Run unbroken once; then for each moment run, die, look, run again (with `again`, where given), compare.

    Raises:
        AssertionError: a child did not die at its moment, or its second run failed.
    """
    whole = folder / "unbroken"
    whole.mkdir()
    subject.prepare(whole)
    assert launch(subject.arguments(whole / subject.output), None).wait() == 0, "the unbroken run failed"
    expected, size = subject.content(whole / subject.output), size_of(whole)
    landings = []
    for number, moment in enumerate(moments):
        place = folder / f"kill-{number:02d}"
        place.mkdir()
        subject.prepare(place)
        out = place / subject.output
        _kill(launch, subject, out, moment)
        landing = Landing(
            moment=moment,
            done=subject.total if subject.stands(out) else subject.done(out),
            total=subject.total,
            torn=is_torn(partial_of(out)),
            renamed=subject.stands(out),
            marked=is_marked(out),
        )
        told = folder / "told.json"
        code = (again or launch)([*subject.arguments(out), "--json"], None, told).wait()
        assert code == 0, f"{moment}: the second run ended on {code}"
        landing.reused = subject.reused(json.loads(told.read_bytes().splitlines()[-1]))
        told.unlink()
        landing.equal = subject.content(out) == expected
        landing.growth = size_of(place) / size - 1
        landings.append(landing)
        shutil.rmtree(place)
    return landings


def _kill(launch: Launcher, subject: Subject, out: Path, moment: Moment) -> None:
    child = launch(subject.arguments(out), moment)
    if moment.kind == "outside":
        assert moment.target, f"{moment}: names no rename to wait at"
        deadline = time.monotonic() + 600
        while not subject.done(out) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moment.delay)
        child.kill()
    code = child.wait()
    assert code == -signal.SIGKILL, f"{moment}: ended on {code}, not by its kill"


def moments_of_a_file(appends: int, *, name: str = "out.jsonl", seed: int = 0) -> list[Moment]:
    """Twenty moments of a command that appends that often: eleven between appends, four inside one, two outside, one
    between the last row and the rename, one on each side of the completion marker.
    """
    rng = random.Random(seed)
    between = sorted({1 + (appends - 2) * place // 10 for place in range(11)})
    inside = [2 + (appends - 2) * place // 3 for place in range(4)]
    return [
        *(Moment("append", number) for number in between),
        *(Moment("append", 1) for _ in range(11 - len(between))),
        *(Moment("torn", number) for number in inside),
        *(Moment("outside", target=f"/{name}", delay=rng.uniform(0.0, 0.015)) for _ in range(2)),
        Moment("before_replace", target=f"/{name}"),
        Moment("after_replace", target=f"/{name}"),
        Moment("after_replace", 2, target=f"/{name}.meta.json"),
    ]


def table(landings: Sequence[Landing]) -> str:
    """Where each kill landed."""
    lines = [f"{'kill':42} {'done':>9} {'reused':>6} torn renamed marked equal growth"]
    for item in landings:
        share = f"{item.done}/{item.total}"
        flags = " ".join(
            f"{'yes' if flag else '-':>{width}}"
            for flag, width in ((item.torn, 4), (item.renamed, 7), (item.marked, 6), (item.equal, 5))
        )
        lines.append(f"{item.moment!s:42} {share:>9} {item.reused:>6} {flags} {item.growth:>6.1%}")
    midway = sum(item.is_midway for item in landings)
    lines.append(f"{len(landings)} kills, {midway} midway, {sum(item.torn for item in landings)} in a torn line")
    return "\n".join(lines)
