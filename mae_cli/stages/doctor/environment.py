"""Checks of the machine: Python and packages, torch and GPUs, memory, disk, locks, folders, the sandbox of programs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mae_cli.records.cache import cache_dir
from mae_cli.stages.doctor.findings import Finding, note, ok, problem

TESTED: Mapping[str, tuple[str, str]] = {
    "torch": ("2.6", "2.13.0"),
    "transformers": ("5.0", "5.23.0"),
    "peft": ("0.17", "0.21.2"),
    "accelerate": ("1.0", "1.15.0"),
    "datasets": ("4.7", "5.2.0"),
    "safetensors": ("0.4", "0.8.0"),
    "msgspec": ("0.19", "0.22.0"),
    "filelock": ("3.12", "4.2.11"),
}
"""Lowest version that is accepted, and the one that tests run with (pyproject.toml, constraints.txt)."""
LITTLE_DISK, SOME_DISK = 1 << 30, 5 << 30
GIB = 1 << 30


def packages() -> Iterator[Finding]:
    """Python, and each package against the lowest and the tested version."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    others = []
    for name, (lowest, tested) in TESTED.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield problem("packages", f"{name} is not installed", f"pip install '{name}>={lowest}'")
            continue
        if _numbers(found) < _numbers(lowest):
            fix = f"pip install -U '{name}>={lowest}'"
            yield problem("packages", f"{name} {found} is older than {lowest}, the lowest that works", fix)
        elif _numbers(found)[:2] != _numbers(tested)[:2]:
            others.append(f"{name} {found} ({tested})")
    if others:
        told = f"other versions than this one was tested with: {', '.join(others)}"
        yield note("packages", told, "if something fails: pip install -c constraints.txt mae-cli")
    else:
        yield ok("packages", "the versions this one was tested with")


def torch_threads() -> Iterator[Finding]:
    """The version of torch and the threads it works with."""
    told = os.environ.get("OMP_NUM_THREADS", "").strip()
    if told and not (told.isdigit() and int(told) > 0):
        yield problem("torch", f'OMP_NUM_THREADS is "{told}"', "set it to a number from 1, or unset it")
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    shown = f"{torch.__version__}, {threads} threads on {cores} cores"
    if threads > cores:
        yield note("torch", f"{shown}: more threads than cores slow each other down", f"OMP_NUM_THREADS={cores}")
    else:
        yield ok("torch", shown)


def gpus(wanted: str = "auto") -> Iterator[Finding]:
    """The GPUs that torch sees, and why it sees none where there is one.

    Args:
        wanted: the recipe's device.
    """
    import torch

    has_driver = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield _gpu(number)
    elif torch.backends.mps.is_available():
        yield ok("gpu", "Apple GPU (mps)")
    elif has_driver and torch.version.cuda is None and torch.version.hip is None:
        fix = "install the build of torch for your driver (pytorch.org/get-started)"
        yield problem("gpu", f"there is an NVIDIA driver, but torch {torch.__version__} is a CPU build", fix)
    elif has_driver:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = f'CUDA_VISIBLE_DEVICES is "{hidden}"' if hidden is not None else "driver and torch do not fit"
        fix = (
            "unset CUDA_VISIBLE_DEVICES" if hidden is not None else "update the driver, or take torch for an older one"
        )
        yield problem("gpu", f"there is an NVIDIA driver, but torch sees no GPU: {reason}", fix)
    else:
        yield note("gpu", "none: everything runs on the CPU")
    if wanted != "auto":
        from mae_cli.models.load import resolve_device

        resolve_device(wanted)


def _gpu(number: int) -> Finding:
    import torch

    name, (major, minor) = torch.cuda.get_device_name(number), torch.cuda.get_device_capability(number)
    free, total = torch.cuda.mem_get_info(number)
    shown = f"cuda:{number} {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, compute capability {major}.{minor}"
    known = torch.cuda.get_arch_list()
    if known and not any(re.search(r"\d+", arch) and _runs(arch, major, minor) for arch in known):
        return problem("gpu", f"{shown}: this torch has no code for it", "install a build of torch that names it")
    if free < total / 2:
        return problem("gpu", f"{shown}: another process uses it", "wait, or end that process", temporary=True)
    if major < 8:
        return note("gpu", f"{shown}: bfloat16 is slow here", "--dtype float16")
    return ok("gpu", shown)


def _runs(arch: str, major: int, minor: int) -> bool:
    """Whether code for `sm_86` (same major version, not above) or `compute_80` (any later one) runs on a GPU."""
    kind, _, digits = arch.partition("_")
    digits = re.sub(r"\D", "", digits)
    of = (int(digits[:-1]), int(digits[-1]))
    return of <= (major, minor) and (kind == "compute" or of[0] == major)


def memory() -> Iterator[Finding]:
    """Memory of the machine, or of the container where that is less."""
    available, total = available_memory()
    if available is None or total is None:
        yield note("memory", "this system does not tell")
    elif available < GIB:
        fix = "end other programs, or wait"
        yield problem("memory", f"{available / GIB:.1f} of {total / GIB:.1f} GiB free", fix, temporary=True)
    else:
        yield ok("memory", f"{available / GIB:.1f} of {total / GIB:.1f} GiB free")


def available_memory() -> tuple[int | None, int | None]:
    """(bytes free, bytes in all) of main memory, the container's limit kept; null where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text()
        found = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
        available, total = found["MemAvailable"], found["MemTotal"]
    except (OSError, KeyError):
        return None, None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return available, total
    return min(available, max(limit - used, 0)), min(total, limit)


def folders(run_dir: Path) -> Iterator[Finding]:
    """Cache, run, temporary and home folder: whether they can be written, and the disk left there."""
    for check, folder in (("cache folder", cache_dir()), ("run folder", run_dir)):
        yield from _folder(check, folder)
    told = os.environ.get("TMPDIR")
    used = tempfile.gettempdir()
    if told and not _same(Path(told), Path(used)):
        text = f"TMPDIR is {told}, which cannot be written; {used} is used"
        yield problem("temporary folder", text, "set TMPDIR to a folder that can be written, or unset it")
    else:
        yield from _folder("temporary folder", Path(used))
    home = os.environ.get("HOME")
    if not home:
        yield note("home folder", "HOME is not set (cron does that)", "set HOME or MAE_CACHE in the crontab")
    elif not Path(home).is_dir():
        yield problem("home folder", f"HOME is {home}, which is no folder", "set HOME, and MAE_CACHE for the cache")


def _folder(check: str, folder: Path) -> Iterator[Finding]:
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), Path("/"))
    if not there.is_dir():
        yield problem(check, f"{there} is a file, not a folder", "name another folder, or move the file away")
        return
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"mae")
            file.flush()
    except OSError as error:
        full = error.errno is not None and os.strerror(error.errno) == os.strerror(28)
        fix = "free some space" if full else "choose a folder of yours (MAE_CACHE, --run-dir, TMPDIR)"
        yield problem(check, f"{there} cannot be written: {error.strerror}", fix, temporary=full)
        return
    free = shutil.disk_usage(there).free
    shown = f"{folder}, {free / GIB:.1f} GiB free"
    if free < LITTLE_DISK:
        yield problem(check, f"{shown}: too little for a run", "free some space", temporary=True)
    elif free < SOME_DISK:
        yield note(check, f"{shown}: little for models and adapters", "keep_adapters: 1 keeps a run small")
    else:
        yield ok(check, shown)


def locks(run_dir: Path) -> Iterator[Finding]:
    """Whether a lock keeps a second process out where runs are written: really tried."""
    from filelock import FileLock, Timeout

    there = next((one for one in (run_dir, *run_dir.absolute().parents) if one.is_dir()), Path("/"))
    fix = "put runs on a local disk (--run-dir); network disks often have no locks"
    with tempfile.TemporaryDirectory(dir=there, prefix=".mae-doctor-") as folder:
        path = Path(folder, "lock")
        try:
            with FileLock(path):
                try:
                    FileLock(path).acquire(timeout=0)
                except Timeout:
                    yield ok("locks", f"work in {there}")
                else:
                    yield problem("locks", f"in {there} a second process could write the same file", fix)
        except (OSError, NotImplementedError) as error:
            yield problem("locks", f"cannot be made in {there}: {error}", fix)


def sandbox() -> Iterator[Finding]:
    """Whether programs of models can be checked, and whether their Python is made ready."""
    from mae_cli.checking.code.runtime import NEEDS, module_cache

    if any(importlib.util.find_spec(name) is None for name in NEEDS):
        yield note("sandbox", "not installed: program answers cannot be checked", "pip install 'mae-cli[verify]'")
    elif not (module_cache() / "ready").exists():
        yield note("sandbox", "not made ready yet: the first program check takes a minute more", "make setup")
    else:
        yield ok("sandbox", "ready")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.resolve() == other.resolve()
