from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mae_cli.checking.code import sandbox
from mae_cli.checking.code.plain_values import values_equal
from mae_cli.checking.code.sandbox import Limits, run
from tests.support import PATIENT_SECONDS

# For programs that may end by the time limit, and for those that must not.
QUICK, PATIENT = Limits(seconds=0.5, memory_mib=64), Limits(seconds=PATIENT_SECONDS, memory_mib=64)

# (what it tries, the program, how it must end, what the reason names). None of them may change anything out here.
HOSTILE = [
    ("read a file", "open('/etc/passwd').read()", "unsupported", "PermissionError"),
    ("write a file", "open('{marker}', 'w').write('x')", "unsupported", "PermissionError"),
    ("pathlib write", "import pathlib\npathlib.Path('{marker}').write_text('x')", "unsupported", "PermissionError"),
    ("pathlib read", "import pathlib\npathlib.Path('/etc/passwd').read_text()", "unsupported", "PermissionError"),
    ("list a folder", "import os\nos.listdir('/')", "unsupported", "PermissionError"),
    ("make a folder", "import os\nos.mkdir('{marker}')", "unsupported", "PermissionError"),
    ("remove a file", "import os\nos.remove('{keep}')", "unsupported", "PermissionError"),
    ("environment", "import os\nos.environ['PATH']", "unsupported", "os.environ"),
    ("getenv", "import os\nassert os.getenv('PATH')", "unsupported", "getenv"),
    ("shell", "import os\nos.system('touch {marker}')", "unsupported", "system"),
    ("popen", "import os\nos.popen('touch {marker}')", "unsupported", "popen"),
    ("exec", "import os\nos.execv('/bin/sh', ['sh'])", "unsupported", "execv"),
    ("subprocess", "import subprocess\nsubprocess.run(['touch', '{marker}'])", "unsupported", "subprocess"),
    ("kill the parent", "import os\nos.kill(os.getppid(), 9)", "unsupported", "kill|getppid"),
    ("fork bomb", "import os\nwhile True: os.fork()", "unsupported", "fork"),
    ("multiprocessing", "import multiprocessing\nmultiprocessing.Process().start()", "unsupported", "multiprocessing"),
    ("thread bomb", "import threading\nwhile True: threading.Thread().start()", "unsupported", "threading"),
    ("signal", "import signal\nsignal.alarm(1)", "unsupported", "signal"),
    ("socket", "import socket\nsocket.create_connection(('127.0.0.1', 1))", "unsupported", "socket"),
    ("urllib", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1')", "unsupported", "urllib"),
    ("ctypes", "import ctypes\nctypes.string_at(0)", "unsupported", "ctypes"),
    ("__import__", "__import__('os').system('touch {marker}')", "unsupported", "__import__"),
    ("importlib", "import importlib\nimportlib.import_module('os')", "unsupported", "importlib"),
    ("builtins", "import builtins\nbuiltins.open('/etc/passwd')", "unsupported", "builtins"),
    ("__builtins__", "__builtins__['open']('/etc/passwd')", "raised|unsupported", "__builtins__"),
    ("eval", "eval('__import__(\"os\")')", "unsupported", "__import__"),
    ("subclasses", "().__class__.__bases__[0].__subclasses__()", "unsupported", "__class__"),
    ("mro", "int.__mro__[1].__subclasses__()", "unsupported", "__mro__"),
    ("format attribute", "'{0.__class__}'.format(0)", "unsupported", "__class__"),
    ("function globals", "(lambda: 0).__globals__", "unsupported|raised", "__globals__"),
    ("frames", "import sys\nsys._getframe()", "unsupported", "_getframe"),
    ("endless loop", "while True: pass", "timeout", "0.5 s"),
    ("caught loop", "while True:\n  try:\n    while True: pass\n  except BaseException: pass", "timeout", "0.5 s"),
    ("regex", "import re\nre.match('(a|aa)+$', 'a' * 5000 + 'b')\nwhile True: pass", "timeout|raised", ""),
    ("memory at once", "x = 'a' * 10**10", "memory", "64 MiB"),
    ("memory slowly", "x = []\nwhile True: x.append('a' * 1000)", "memory", "64 MiB"),
    ("huge power", "9 ** 9 ** 9", "memory|timeout", ""),
    ("deep recursion", "def f(n): return f(n + 1)\nf(0)", "raised", "RecursionError"),
    ("deep nesting", "(" * 30000 + ")" * 30000, "raised|unsupported", "nested|SyntaxError"),
    ("output flood", "while True: print('x' * 10000)", "output|timeout", ""),
    ("big output", "for i in range(2000): print('x' * 1000)", "output", "printed more"),
    ("long sleep", "import time\ntime.sleep(10**9)\nwhile True: pass", "timeout", ""),
]  # fmt: skip


def test_there_are_at_least_forty_hostile_programs() -> None:
    assert len({name for name, *_ in HOSTILE}) >= 40


@pytest.mark.parametrize(("name", "program", "status", "named"), HOSTILE, ids=[name for name, *_ in HOSTILE])
def test_a_hostile_program_is_contained_and_named(
    name: str, program: str, status: str, named: str, tmp_path: Path
) -> None:
    marker, keep = tmp_path / "marker", tmp_path / "keep"
    keep.write_text("mine")
    environment, limits = dict(os.environ), QUICK if "timeout" in status else PATIENT

    found = run(program.replace("{marker}", str(marker)).replace("{keep}", str(keep)), limits=limits)

    assert found.status in status.split("|"), found
    assert any(part in found.reason for part in named.split("|")), found
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
    assert keep.read_text() == "mine"
    assert dict(os.environ) == environment
    assert run("1 + 1").values == (2,), "the pool must be alive afterwards"


def test_hostile_programs_leave_no_process_behind() -> None:
    code = (
        "from mae_cli.checking.code import sandbox\n"
        "for program in ('while True: pass', 'x = \"a\" * 10**10', 'import os\\nos.fork()'):\n"
        "    sandbox.run(program, limits=sandbox.Limits(seconds=0.2, memory_mib=64))\n"
        "import os; print(os.getpid())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    left = subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True, check=True).stdout
    assert not [line for line in left.splitlines() if line.split()[0] == result.stdout.strip()]


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("raise NotImplementedError", "raised"),
        ("raise NotImplementedError('later')", "raised"),
        ("nosuch", "raised"),
        ("''.nosuch()", "raised"),
        ("class A: pass\nA().x", "raised"),
        ("import math\nmath.nosuch", "raised"),
        ("def f(:", "raised"),
        ("1 / 0", "raised"),
        ("raise MemoryError('mine')", "raised"),
        ("raise TimeoutError('mine')", "raised"),
        ("raise NotImplementedError('not implemented')", "raised"),
        ("def f():\n    raise NotImplementedError('not supported')\nf()", "raised"),
        ("def f(n):\n    raise TimeoutError('time limit exceeded')\nf(1)", "raised"),
        ("raise MemoryError('memory limit exceeded')", "raised"),
        ("error = TimeoutError('time limit exceeded')\nraise error", "raised"),
        ("raise ImportError('no module')", "raised"),
        ("raise AttributeError(\"'str' object has no attribute 'translate'\")", "raised"),
        ("raise MemoryError('a' * 10**10)", "memory"),
        ("raise ValueError('a'.translate({}))", "unsupported"),
        ("try:\n    import heapq\nexcept ImportError as error:\n    raise error", "unsupported"),
        ("import heapq", "unsupported"),
        ("from math import nosuch", "unsupported"),
        ("'a'.translate({})", "unsupported"),
        ("vars()", "unsupported"),
        ("def f():\n    yield 1", "unsupported"),
        ("x = [1]\ndel x[0]", "unsupported"),
        ("class A:\n    def __lt__(self, other): return True\nA() < 3", "unsupported"),
        ("class A(int): pass", "unsupported"),
        ("'\ud800'", "raised"),
    ],
)
def test_a_programs_own_fault_is_told_from_what_the_sandbox_lacks(program: str, status: str) -> None:
    assert run(program).status == status, run(program)


def test_equal_runs_give_equal_results_whatever_clock_and_chance() -> None:
    program = (
        "import random, time, datetime\n"
        "(random.random(), random.Random().random(), time.time(), time.perf_counter(), datetime.datetime.now(),"
        " hash('a'), list({'x', 'y', 'z'}))"
    )
    assert run(program) == run(program)
    assert run("import random\nrandom.random()", seed=1) != run("import random\nrandom.random()", seed=2)
    assert run("import time\ntime.time()", start_days=1) != run("import time\ntime.time()", start_days=2)


def test_parts_share_their_globals_and_runs_do_not() -> None:
    assert run("x = 3", "x + 1").values == (None, 4)
    assert run("x").status == "raised"
    assert run("a + b", inputs={"a": 1, "b": [2][0]}).values == (3,)


def test_the_constants_of_string_are_there() -> None:
    assert run("import string\nstring.ascii_lowercase + string.digits").values == (
        "abcdefghijklmnopqrstuvwxyz0123456789",
    )
    assert run("import string\nstring.capwords('a b')").status == "unsupported"


def test_threads_run_programs_at_the_same_time() -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda n=n: found.append(run(f"{n} * 2").values)) for n in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == [(2 * n,) for n in range(8)]


def test_a_closed_pool_opens_again() -> None:
    sandbox._POOL.close()

    assert run("2").values == (2,)


@pytest.mark.parametrize(
    ("found", "expected", "equal"),
    [
        ([1, (2, 3)], [1, (2, 3)], True),
        ((1, 2), [1, 2], False),
        ({"a": {1}}, {"a": {1}}, True),
        (0.1 + 0.2, 0.3, False),
        (1, 1.0, True),
        (float("nan"), float("nan"), False),
        (object(), object(), False),
        ("1", 1, False),
    ],
)
def test_values_are_equal_as_python_means_it(found: object, expected: object, equal: bool) -> None:
    assert values_equal(found, expected) is equal


def test_a_tolerance_is_for_floats_alone() -> None:
    assert values_equal([0.1 + 0.2], [0.3], 1e-9)
    assert not values_equal(10**20, 10**20 + 1, 1e-9)
    assert values_equal({1: (2,)}, {"1": [2]}, lists_as_tuples=True)
