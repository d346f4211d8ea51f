"""The command line of another Python process of this toolkit: it finds our modules, and nothing of the user's first.

Place in the flow: workers of `--devices`, of verifiers and of the sandbox are started with it. Contract: the new
process has this one's import path and this copy of the package, and never the working directory before them, so that a
user's `queue.py` or `types.py` changes nothing. `python -m` and `python -c` would look there first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_CODE = """
import os, sys
sys.path[:] = sys.argv.pop(1).split(os.pathsep)
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location({name!r}, {init!r}, submodule_search_locations=[{folder!r}])
sys.modules[{name!r}] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from {module} import main
main()
"""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that calls `main()` of one of our modules, with these arguments in `sys.argv[1:]`."""
    init = str(_PACKAGE / "__init__.py")
    code = _CODE.format(name=_PACKAGE.name, init=init, folder=str(_PACKAGE), module=module)
    return [sys.executable, "-P", "-c", code, os.pathsep.join(safe_path()), *arguments]


def keep_docstrings() -> None:
    """Under `python -OO`, start over without it: transformers reads its own docstrings, and help is made of ours."""
    if sys.flags.optimize > 1:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONOPTIMIZE"}
        os.execve(sys.executable, module_command("mae_cli.cli", *sys.argv[1:]), environment)


def safe_path() -> list[str]:
    """This process's import path, with the working directory last where it is meant without being named."""
    named = [entry for entry in sys.path if entry]
    return named if len(named) == len(sys.path) else [*named, _working_folder()]


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted; nothing is found there
        return os.devnull
