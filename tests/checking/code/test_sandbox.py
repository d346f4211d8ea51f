from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from mae_cli.checking import killable
from mae_cli.checking.code import sandbox
from mae_cli.checking.code.plain_values import values_equal
from mae_cli.checking.code.sandbox import Limits, ProgramRun, run, run_all
from tests.support import PATIENT_SECONDS

# For programs that may end by the time limit, and for those that must not.
QUICK, PATIENT = Limits(seconds=0.5, memory_mib=128), Limits(seconds=PATIENT_SECONDS, memory_mib=128)
calls_order, script_order = partial(sandbox.calls_order, limits=PATIENT), partial(sandbox.script_order, limits=PATIENT)
NO_FILES, ENDED = "no files", "ended itself"

# (what it tries, the program, how it must end, what the reason names). None of them may change anything out here.
HOSTILE = [
    ("read a file", "open('/etc/passwd').read()", "unsupported", NO_FILES),
    ("read our own file", "open('{keep}').read()", "unsupported", NO_FILES),
    ("write a file", "open('{marker}', 'w').write('x')", "unsupported", NO_FILES),
    ("write beside the library", "open('/usr/local/lib/x', 'w').write('x')", "unsupported", NO_FILES),
    ("change the library", "open('/usr/local/lib/python315.zip', 'r+b').write(b'x')", "unsupported", NO_FILES),
    ("pathlib write", "import pathlib\npathlib.Path('{marker}').write_text('x')", "unsupported", NO_FILES),
    ("low-level open", "import os\nos.open('{marker}', os.O_CREAT | os.O_WRONLY)", "unsupported", NO_FILES),
    ("a path that climbs", "open('/usr/local/lib/../../../etc/passwd')", "unsupported", NO_FILES),
    ("list a folder", "import os\nos.listdir('/')", "unsupported", NO_FILES),
    ("make a folder", "import os\nos.mkdir('{marker}')", "unsupported", NO_FILES),
    ("remove a file", "import os\nos.remove('{keep}')", "unsupported", NO_FILES),
    ("rename a file", "import os\nos.rename('{keep}', '{marker}')", "unsupported", NO_FILES),
    ("link to a file", "import os\nos.symlink('/etc/passwd', '{marker}')", "unsupported", NO_FILES),
    ("a temporary file", "import tempfile\ntempfile.NamedTemporaryFile()", "unsupported", NO_FILES),
    ("the device of memory", "open('/dev/mem', 'rb')", "unsupported", NO_FILES),
    ("the files of processes", "open('/proc/self/environ').read()", "unsupported", NO_FILES),
    ("another descriptor", "import os\nfor n in range(3, 60):\n    try: os.write(n, b'x')\n    except OSError: pass\nraise SystemExit(3)", "failed", "3"),
    ("close all descriptors", "import os\nos.closerange(0, 100)", "passed|failed", ""),
    ("environment", "import os\nos.environ['PATH']", "failed", "KeyError"),
    ("a secret in the environment", "import os\nassert os.environ.get('MAE_SECRET_OF_TEST')", "failed", "AssertionError"),
    ("shell", "import os\nos.system('touch {marker}')", "unsupported", "system"),
    ("popen", "import os\nos.popen('touch {marker}')", "unsupported|failed", ""),
    ("exec", "import os\nos.execv('/bin/sh', ['sh'])", "unsupported", "execv"),
    ("spawn", "import os\nos.posix_spawn('/bin/sh', ['sh'], {})", "unsupported", "posix_spawn"),
    ("subprocess", "import subprocess\nsubprocess.run(['touch', '{marker}'])", "unsupported|failed", ""),
    ("kill the parent", "import os\nos.kill(os.getppid(), 9)", "unsupported", "kill|getppid"),
    ("fork bomb", "import os\nwhile True: os.fork()", "unsupported", "fork"),
    ("multiprocessing", "import multiprocessing\nmultiprocessing.Process().start()", "unsupported|failed", ""),
    ("thread bomb", "import threading\nwhile True: threading.Thread(target=print).start()", "timeout|output", ""),
    ("low-level thread", "import _thread\n_thread.start_new_thread(print, ())", "unsupported", "thread"),
    ("alarm", "import signal\nsignal.alarm(1)", "unsupported", "alarm"),
    ("socket", "import socket\nsocket.create_connection(('127.0.0.1', 1))", "unsupported|failed", ""),
    ("server", "import socket\nsocket.create_server(('', 8000))", "unsupported|failed", ""),
    ("urllib", "import urllib.request\nurllib.request.urlopen('http://127.0.0.1')", "unsupported|failed", ""),
    ("name lookup", "import socket\nsocket.gethostbyname('localhost')", "unsupported|failed", ""),
    ("ctypes read", "import ctypes\nctypes.string_at(0)", "unsupported|failed", ""),
    ("ctypes library", "import ctypes\nctypes.CDLL(None).system(b'touch {marker}')", "unsupported|failed", ""),
    ("load an extension", "import importlib.machinery as m\nm.ExtensionFileLoader('x', '{marker}').load_module()", "unsupported|failed", ""),
    ("byte code from the deep", "import types\nc = (lambda: 0).__code__\ntypes.FunctionType(c.replace(co_code=b'\\xff' * 40, co_stacksize=1), {})()", "unsupported|failed|timeout", ""),
    ("marshal garbage", "import marshal\nmarshal.loads(b'\\xe3' * 200)", "failed|unsupported", ""),
    ("pickle that calls", "import pickle, os\nclass P:\n    def __reduce__(self): return os.getcwd, ()\npickle.loads(pickle.dumps(P()))", "passed|unsupported|failed", ""),
    ("subclasses", "[c for c in ().__class__.__bases__[0].__subclasses__()]\nraise SystemExit(4)", "failed", "4"),
    ("the door with garbage", "import _host\nwhile True: _host.call(b'x')", "timeout|failed", ""),
    ("the door with much", "import _host\n_host.call(b'x' * (100 * 2**20))", "failed|unsupported|memory", ""),
    ("the tool protocol", "from host import tools", "unsupported|failed", ""),
    ("endless loop", "while True: pass", "timeout", "0.5 s"),
    ("caught loop", "while True:\n  try:\n    while True: pass\n  except BaseException: pass", "timeout", "0.5 s"),
    ("endless C loop", "sum(iter(int, 1))", "timeout", "0.5 s"),
    ("endless regex", "import re\nre.match('(a|aa)+$', 'a' * 5000 + 'b')", "timeout|failed", ""),
    ("huge power", "x = 9 ** 9 ** 9", "memory|timeout", ""),
    ("memory at once", "x = 'a' * 10**9", "memory", "memory"),
    ("memory slowly", "x = []\nwhile True: x.append('a' * 1000)", "memory|timeout", ""),
    ("memory caught", "x = []\nwhile True:\n    try:\n        while True: x.append(bytes(10**6))\n    except MemoryError: pass", "timeout|memory", ""),
    ("deep recursion", "def f(n): return f(n + 1)\nf(0)", "failed", "RecursionError"),
    ("deep recursion allowed", "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)", "unsupported|memory|failed", ""),
    ("deep recursion in C", "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**5): x = [x]\nrepr(x)", "unsupported|failed|memory", ""),
    ("deep nesting", "(" * 30000 + ")" * 30000, "failed|unsupported|memory", ""),
    ("wide nesting", "eval('+'.join(['1'] * 50000))", "passed|failed|unsupported|memory", ""),
    ("output flood", "while True: print('x' * 10000)", "output|timeout", ""),
    ("error flood", "import sys\nwhile True: sys.stderr.write('x' * 10000)", "timeout|unsupported|failed", ""),
    ("long sleep", "import time\ntime.sleep(10**9)\nwhile True: pass", "timeout", ""),
    ("ends early", "import os\nos._exit(0)", "failed", ENDED),
    ("aborts", "import os\nos.abort()", "failed|unsupported", ""),
]  # fmt: skip


def test_there_are_at_least_sixty_hostile_programs() -> None:
    assert len({name for name, *_ in HOSTILE}) >= 60


def load(program: str, limits: Limits = PATIENT) -> ProgramRun:
    return run(calls_order(program, "f", [], limits=limits)) if "def f" in program else _loaded(program, limits)


def _loaded(program: str, limits: Limits) -> ProgramRun:
    return run(calls_order(f"{program}\ndef f(): pass", "f", [], limits=limits))


@pytest.mark.parametrize(("name", "program", "status", "named"), HOSTILE, ids=[name for name, *_ in HOSTILE])
def test_a_hostile_program_is_contained_and_named(
    name: str, program: str, status: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAE_SECRET_OF_TEST", "secret")
    marker, keep = tmp_path / "marker", tmp_path / "keep"
    keep.write_text("mine")
    environment, limits = dict(os.environ), QUICK if "timeout" in status else PATIENT

    found = load(program.replace("{marker}", str(marker)).replace("{keep}", str(keep)), limits)

    assert found.status in status.split("|"), found
    assert any(part in found.reason for part in named.split("|")), found
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
    assert keep.read_text() == "mine"
    assert dict(os.environ) == environment
    assert run(calls_order("def f(x): return x + 1", "f", [{"args": [1]}])).values == ((2,),), "the next one must work"


def test_hostile_programs_leave_no_process_behind() -> None:
    code = (
        "from mae_cli.checking.code import sandbox\n"
        "limits = sandbox.Limits(seconds=0.2, memory_mib=128)\n"
        "for program in ('while True: pass', 'x = \"a\" * 10**10', 'import os\\nos.fork()'):\n"
        "    sandbox.run(sandbox.calls_order(program, 'f', [], limits=limits))\n"
        "import os; print(os.getpid())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    left = subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True, check=True).stdout
    assert not [line for line in left.splitlines() if line.split()[0] == result.stdout.strip()]


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("raise NotImplementedError", "failed"),
        ("nosuch", "failed"),
        ("''.nosuch()", "failed"),
        ("class A: pass\nA().x", "failed"),
        ("import math\nmath.nosuch", "failed"),
        ("from math import nosuch", "failed"),
        ("from collections import Mapping", "failed"),
        ("def g(:", "failed"),
        ("1 / 0", "failed"),
        ("raise TimeoutError('mine')", "failed"),
        ("raise FileNotFoundError('mine')", "failed"),
        ("raise ImportError('mine')", "failed"),
        ("raise RecursionError('mine')", "failed"),
        ("raise SystemExit('mine')", "failed"),
        ("raise KeyboardInterrupt", "failed"),
        ("class E(BaseException):\n    def __str__(self): raise ValueError\nraise E", "failed"),
        ("try:\n    import torch\nexcept ImportError as error:\n    raise error", "unsupported"),
        ("import torch", "unsupported"),
        ("import requests", "unsupported"),
        ("import heapq, heapqq", "unsupported"),
        ("'\ud800'", "failed"),
        ("\0", "failed"),
        ("", "passed"),
    ],
)
def test_a_programs_own_fault_is_told_from_what_the_sandbox_lacks(program: str, status: str) -> None:
    assert load(program).status == status, load(program)


def test_equal_runs_give_equal_results() -> None:
    program = "import random\ndef f():\n    return random.random(), hash('a'), list({'x', 'y', 'z'}), str(object)"
    order = calls_order(program, "f", [{"args": []}])

    assert run(order) == run(order)
    assert run(order) != run(calls_order(program, "f", [{"args": []}], seed=1))


def test_two_programs_share_nothing() -> None:
    first = "import math, builtins\nmath.mine = builtins.mine = 1\ndef f(): return 1"
    second = "import math, builtins\ndef f(): return hasattr(math, 'mine'), hasattr(builtins, 'mine')"

    orders = [calls_order(source, "f", [{"args": []}]) for source in (first, second, second)]

    assert [found.values for found in run_all(orders)] == [((1,),), ((((False, False)),),), ((((False, False)),),)]


def test_threads_run_programs_at_the_same_time() -> None:
    found: list[object] = []
    order = [calls_order(f"def f(): return {n} * 2", "f", [{"args": []}]) for n in range(8)]
    threads = [threading.Thread(target=lambda n=n: found.append(run(order[n]).values[0][0])) for n in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(str, found)) == sorted(str(2 * n) for n in range(8))


def test_a_worker_that_was_killed_is_replaced() -> None:
    order = calls_order("def f(): return 1", "f", [{"args": []}])
    assert run(order).status == "passed"
    killable.shared(sandbox.TARGET, memory_mib=0).close()

    assert run(order).status == "passed"


def test_handles_and_memory_stay_flat() -> None:
    order = calls_order("x = [0] * 10**6\ndef f(): return 1", "f", [{"args": []}])
    run_all([order] * 20)
    before = [_state(pid) for pid in killable.shared(sandbox.TARGET, memory_mib=0).pids()]

    assert {found.status for found in run_all([order] * 150)} == {"passed"}

    after = [_state(pid) for pid in killable.shared(sandbox.TARGET, memory_mib=0).pids()]
    assert max(handles for handles, _ in after) <= max(handles for handles, _ in before) + 20
    assert max(mib for _, mib in after) <= max(mib for _, mib in before) + 150


def _state(pid: int) -> tuple[int, int]:
    """(open file handles, MiB of memory held) of a process."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 // 2**20
    return len(list(Path(f"/proc/{pid}/fd").iterdir())), resident


def test_a_platform_without_the_runtime_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> None:
        raise sandbox.runtime.UnavailableError("the sandbox for programs cannot run here: no such machine")

    monkeypatch.setattr(sandbox.runtime, "prepare", unavailable)

    found = run(calls_order("def f(): return 1", "f", [{"args": []}]))

    assert (found.status, found.reason) == ("unsupported", "the sandbox for programs cannot run here: no such machine")


def test_a_script_reads_its_input_in_every_usual_way() -> None:
    for program in (
        "print(int(input()) + int(input()))",
        "import sys\nprint(sum(map(int, sys.stdin)))",
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
        "import sys\ninput = sys.stdin.readline\nprint(int(input()) + int(input()))",
        "import os, io\nprint(sum(map(int, os.read(0, 100).split())))",
        "print(sum(map(int, open(0).read().split())))",
        "import fileinput\nprint(sum(int(line) for line in fileinput.input()))",
        "import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.readlines()))))",
        "def main():\n    print(int(input()) + int(input()))\nif __name__ == '__main__':\n    main()",
        "print(int(input()) + int(input()))\nexit()",
        "import sys\nprint(int(input()) + int(input()), flush=True)\nsys.exit(0)",
        "import threading, sys\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\ndef main(): print(int(input()) + int(input()))\nt = threading.Thread(target=main)\nt.start()\nt.join()",
        "import asyncio\nasync def main(): print(int(input()) + int(input()))\nasyncio.run(main())",
    ):  # fmt: skip
        assert run(script_order(program, ["3\n4\n", "5\n6"], ["7\n", "11"])).status == "passed", program


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("print(input())", "passed"),
        ("print('3')", "failed"),
        ("print(input())\nraise ValueError", "failed"),
        ("print(input())\nimport sys\nsys.exit(1)", "failed"),
        ("print(input())\n1 / 0", "failed"),
        ("print(input())\nimport os\nos._exit(0)", "failed"),
        ("input(); input()", "failed"),
        ("import sys\nprint(input())\nsys.stdout.close()", "passed"),
        ("import sys\nsys.stdout.close()\nsys.stdout = None", "failed"),
        ("print(", "failed"),
        ("while True: pass", "timeout"),
        ("while True: print('x' * 10000)", "output|timeout"),
        ("import torch", "unsupported"),
        ("open('expected.txt').read()", "unsupported"),
        ("import _host\nprint(input())\n_host.call(b'[\"ended\"]')", "failed"),
    ],
)
def test_a_script_is_right_wrong_or_unknown(program: str, status: str) -> None:
    limits = Limits(seconds=1.0 if "timeout" in status else PATIENT_SECONDS, memory_mib=256)

    found = run(script_order(program, ["a\n", "b\n"], ["a\n", "b\n"], limits=limits))

    assert found.status in status.split("|"), found


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
