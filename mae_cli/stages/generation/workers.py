"""`--devices`: the rows of a command, made by one worker process per device.

Each worker is the same command with `--shard` on a file of its own (`worker_files.py`), so it stores, resumes and
locks as every command does. The parent plans, waits, counts, starts a dead worker again and then takes all rows over;
a worker that is killed costs the segment it was in. Workers watch a pipe from their parent: when that dies, they end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mae_cli.errors import BudgetError, ConfigError, LockedError, MaeError, TemporaryError
from mae_cli.recipe.load import check_keys_are_names
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.yaml_text import dump_yaml
from mae_cli.records import Row, Usage
from mae_cli.records.atomic import write_atomically
from mae_cli.records.file_names import STDIO, beside
from mae_cli.records.python_process import module_command
from mae_cli.records.shards import Shard, part_of
from mae_cli.records.worker_files import work_folder, worker_file
from mae_cli.stages.generation.devices import Device
from mae_cli.stages.generation.progress import Progress, Task
from mae_cli.stages.generation.summary import WorkerReport

POLL_SECONDS = 0.1
PAUSES = (0.0, 1.0, 5.0)
"""Seconds before a dead worker is started again; it is given up when it dies once more without a row in between."""
LOCK_SECONDS = 30.0
"""How long a worker of an earlier try may still hold a file: it ends when it sees that its parent is gone."""
GRACE_SECONDS = 6.0
"""Time a worker has to end after SIGTERM, before SIGKILL; its parent itself is to be gone after ten seconds."""


def worker_command() -> list[str]:
    """The command line of a worker, without its arguments."""
    return module_command("mae_cli.cli.worker")


class _Line(msgspec.Struct):
    id: str
    usage: Usage | None = None


class Crew:
    """The workers of a command, one per device; `work` is called once for each output."""

    def __init__(self, devices: Sequence[Device]) -> None:
        if not devices:
            raise ConfigError("--devices: no device")
        self.devices = list(devices)

    @property
    def device_type(self) -> str:
        """`cuda` or `cpu`: what decides the workers' default dtype."""
        return self.devices[0].device

    def work(
        self,
        path: Path,
        command: Sequence[object],
        recipe: Recipe,
        *,
        shard: Shard | None,
        passed: Sequence[Row],
        planned: Sequence[Row],
        todo: Sequence[Row],
        options: Sequence[object],
        progress: Progress,
    ) -> list[WorkerReport]:
        """Have the rows made that are left to do.

        Args:
            path: the command's output; the workers' files go into the folder beside it.
            command: the stage and its own arguments, without the output.
            recipe: with the adapter that the trained policy has on now.
            shard: what part of the work this command is, itself.
            passed: input rows that pass through.
            planned: all rows of the command.
            todo: those to be made.
            options: flags that every worker gets (`--round`, `--limit`).
            progress: shows all workers as one task.

        Raises:
            ConfigError: standard input or output cannot be shared among workers, or a worker refuses its input.
            TemporaryError: a worker died again and again; what all of them finished is kept.
        """
        if STDIO in (path, *(Path(str(argument)) for argument in command)):
            raise ConfigError("--devices: workers cannot share standard input or output; name files")
        check_keys_are_names(recipe)
        whole = shard or Shard(1, 1)
        folder = work_folder(path)
        write_atomically(folder / "recipe.yaml", _recipe_file(recipe))
        wanted = {row.id for row in todo}
        workers = []
        for number, device in enumerate(self.devices):
            # Shard J of M of shard I of N is shard I + N * J of N * M, counted from J = 0.
            part = Shard(whole.index + whole.count * number, whole.count * len(self.devices))
            if own_rows := wanted & part_of(part, passed, planned).ids:
                own = ["--shard", part, "-o", worker_file(path, part), "--device", device.device]
                recipe_flags = ["--recipe", folder / "recipe.yaml", "--quiet", "--json"]
                flags = [*command, *own, *recipe_flags, *options]
                workers.append(_Worker(flags, path, part, device, frozenset(own_rows)))
        try:
            with progress.task(str(command[0]), len(todo)) as task:
                _run(workers, task, progress)
        finally:
            _stop(workers)
        return [worker.report for worker in workers]


def _recipe_file(recipe: Recipe) -> bytes:
    tree = msgspec.to_builtins(recipe)
    for section in tree["roles"].values():
        # A worker has one device, for every model it loads.
        section.pop("device", None)
    return dump_yaml(tree)


class _Worker:
    """One worker process and its successors."""

    def __init__(
        self, arguments: Sequence[object], path: Path, shard: Shard, device: Device, wanted: frozenset[str]
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self.shard, self.device = shard, device
        self.report = WorkerReport(str(shard), device.label)
        self.error: MaeError | None = None
        self.is_done = False
        self._tail = _Tail(worker_file(path, shard), wanted)
        self._log = beside(worker_file(path, shard), ".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._start_at = time.monotonic()
        self._locked_until: float | None = None

    @property
    def name(self) -> str:
        return f"worker {self.shard} ({self.device.label})"

    @property
    def is_over(self) -> bool:
        return self.is_done or self.error is not None

    def start(self) -> None:
        self.report.starts += 1
        environment = {**os.environ, **self.device.environment}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*worker_command(), *self.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                # Ctrl-C on the terminal is for the parent, which ends its workers in order.
                start_new_session=True,
            )

    def step(self, progress: Progress) -> tuple[int, int]:
        """Look after the process; (rows, tokens) finished since the last look."""
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self.start()
            return 0, 0
        code = self._process.poll()
        rows, tokens = self._tail.read(is_whole=code == 0)
        self.report.rows += rows
        if rows:
            self._deaths = 0
        if code is not None:
            self._ended(code, progress)
        return rows, tokens

    def _ended(self, code: int, progress: Progress) -> None:
        assert self._process is not None
        out = self._process.communicate()[0]
        self._process = None
        said = self._log.read_text("utf-8", "replace").strip().splitlines()
        for line in said[:-1] if code else said:
            progress.say(f"{self.name}: {line}")
        last = said[-1].removeprefix("mae: ") if said else ""
        if code == 0:
            self.is_done = True
            self.report.kept = int(msgspec.json.decode(out.splitlines()[-1])["skipped"])
        elif code == LockedError.exit_code and time.monotonic() < self._patience():
            self.report.starts -= 1
            self._start_at = time.monotonic() + 0.5
        elif code in _FINAL:
            self.error = _FINAL[code](last or f"{self.name} ended with exit code {code}")
        else:
            self._died(_cause(code, last), progress)

    def _patience(self) -> float:
        if self._locked_until is None:
            self._locked_until = time.monotonic() + LOCK_SECONDS
        return self._locked_until

    def _died(self, cause: str, progress: Progress) -> None:
        if self._deaths == len(PAUSES):
            self.error = TemporaryError(
                f"{self.name} died {self._deaths + 1} times without finishing a row, at last {cause}; "
                f"all finished rows are kept, and the same command goes on"
            )
            return
        progress.say(f"{self.name} died ({cause}): starting it again")
        self._start_at = time.monotonic() + PAUSES[self._deaths]
        self._deaths += 1

    def terminate(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, until: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


# Starting such a worker again would end the same way.
_FINAL: dict[int, type[MaeError]] = {2: ConfigError, 5: LockedError, 6: BudgetError}


def _cause(code: int, last: str) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"signal {-code}"
    return f"exit code {code}{f': {last}' if last else ''}"


class _Tail:
    """Counts the wanted rows of a growing file, each once, also when a new start writes its `.partial` anew."""

    def __init__(self, path: Path, wanted: frozenset[str]) -> None:
        self._path = path
        self._left = set(wanted)
        self._inode = 0
        self._offset = 0
        self._decode = msgspec.json.Decoder(_Line).decode

    def read(self, *, is_whole: bool) -> tuple[int, int]:
        """(rows, tokens) that came since the last call; `is_whole` where the worker is done."""
        lines = self._new_lines(self._path if is_whole else beside(self._path, ".partial"))
        fresh = {line.id: line for line in lines if line.id in self._left}
        self._left -= fresh.keys()
        return len(fresh), sum(line.usage.completion_tokens for line in fresh.values() if line.usage)

    def _new_lines(self, path: Path) -> list[_Line]:
        try:
            with path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if inode != self._inode:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [self._decode(line) for line in whole.splitlines()]


def _run(workers: Sequence[_Worker], task: Task, progress: Progress) -> None:
    """Until every worker is done; one that is given up does not stop the others, a refused input does.

    Raises:
        MaeError: of the first worker that failed for good.
    """
    while not all(worker.is_over for worker in workers):
        for worker in workers:
            if not worker.is_over:
                rows, tokens = worker.step(progress)
                task.advance(rows, tokens)
            if worker.error is not None and not isinstance(worker.error, TemporaryError):
                raise worker.error
        time.sleep(POLL_SECONDS)
    errors = [worker.error for worker in workers if worker.error is not None]
    if errors:
        raise errors[0]


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.wait(until)
