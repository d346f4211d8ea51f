"""The first lines of a guest: fetch its compiled files from the host and run the last one's `main`."""

from __future__ import annotations

import json
import marshal
import sys
import types

import _host  # type: ignore[import-not-found]  # the runtime's door to the host


def load(name: str, code: bytes) -> types.ModuleType:
    """The module of compiled code, under the name that the files import it by."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(marshal.loads(code), module.__dict__)
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, module)
    return module


def start() -> None:
    """Load every file that the host names, in order, and run the last one."""
    package, names = json.loads(_host.call(b"names"))
    parts = package.split(".")
    for length in range(1, len(parts) + 1):
        module = sys.modules[".".join(parts[:length])] = types.ModuleType(parts[length - 1])
        module.__path__ = []
    for name in names:
        last = load(f"{package}.{name}", _host.call(name.encode()))
    last.main(_host.call)


start()
