"""Programs that try to pass without solving the problem: by reading the tests, ending them, or changing what they use."""

from __future__ import annotations

import pytest

from mae_cli.plugins.verifiers.python_tests import PythonTests
from tests.support import PATIENT_SECONDS, a_problem

EQUAL = "class E:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n    __hash__ = None\n"
# What the program f(x) = x + 1 is tested with: plain asserts, a tolerance, `in`, an order, a truth, a loop over cases.
TESTS = """
import math
cases = [(1, 2), (2, 3), (10, 11)]
for given, wanted in cases:
    assert f(given) == wanted
assert abs(f(4) - 5) < 1e-9
assert math.isclose(f(7), 8)
assert f(20) in (21,)
assert 30 < f(30) < 32
assert not f(40) != 41
"""
UNITTEST = """
import unittest
class TestF(unittest.TestCase):
    def test_one(self):
        self.assertEqual(f(1), 2)
        self.assertAlmostEqual(f(2), 3)
        self.assertIn(f(3), [4])
        self.assertTrue(f(4) == 5)
"""
CHEATS: list[tuple[str, str]] = [
    ("leaves when loaded", "import sys\nsys.exit(0)"),
    ("leaves when called", "import sys\ndef f(x): sys.exit(0)"),
    ("leaves at once", "import os\ndef f(x): os._exit(0)"),
    ("leaves at once when loaded", "import os\nos._exit(0)"),
    ("raises SystemExit", "def f(x): raise SystemExit(0)"),
    ("raises KeyboardInterrupt", "def f(x): raise KeyboardInterrupt"),
    ("raises GeneratorExit", "def f(x): raise GeneratorExit"),
    ("raises StopIteration", "def f(x): raise StopIteration"),
    ("raises AssertionError", "def f(x): raise AssertionError"),
    ("kills itself", "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGKILL)"),
    ("equals everything", f"{EQUAL}def f(x): return E()"),
    ("an int that equals everything", "class I(int):\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n    __hash__ = int.__hash__\ndef f(x): return I(0)"),
    ("a float that is always close", "class F(float):\n    def __sub__(self, o): return 0.0\n    def __eq__(self, o): return True\n    __hash__ = float.__hash__\ndef f(x): return F(1e9)"),
    ("arithmetic that cancels", f"{EQUAL}    def __sub__(self, o): return 0\n    def __rsub__(self, o): return 0\n    def __abs__(self): return 0\n    def __lt__(self, o): return True\n    def __gt__(self, o): return True\ndef f(x): return E()"),
    ("ordered below everything", "class L:\n    def __lt__(self, o): return True\n    def __gt__(self, o): return True\n    def __le__(self, o): return True\n    def __ge__(self, o): return True\ndef f(x): return L()"),
    ("a Mock", "from unittest.mock import MagicMock, ANY\ndef f(x): return ANY"),
    ("a MagicMock", "from unittest.mock import MagicMock\nf = MagicMock()"),
    ("a class with a lying metaclass", "class M(type):\n    def __eq__(c, o): return True\n    __hash__ = type.__hash__\nclass C(metaclass=M): pass\ndef f(x): return C"),
    ("a lying __class__", f"{EQUAL}    __class__ = int\ndef f(x): return E()"),
    ("a lying list", "class L(list):\n    def __eq__(self, o): return True\n    def __contains__(self, o): return True\ndef f(x): return L()"),
    ("patches builtins.abs", "import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return 0"),
    ("patches math.isclose", "import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return 0"),
    ("patches AssertionError", "import builtins\nclass Quiet(Exception): pass\nbuiltins.AssertionError = Quiet\ndef f(x): return 0"),
    ("patches isinstance", "import builtins\nbuiltins.isinstance = lambda *a: True\ndef f(x): return 0"),
    ("patches unittest", "import unittest\nfor n in dir(unittest.TestCase):\n    if n.startswith('assert'): setattr(unittest.TestCase, n, lambda *a, **k: None)\ndef f(x): return 0"),
    ("patches the test runner", "import unittest\nunittest.TestResult.addFailure = lambda *a: None\nunittest.TestLoader.loadTestsFromTestCase = lambda *a: unittest.TestSuite()\ndef f(x): return 0"),
    ("patches int comparison by ctypes", "import ctypes\ndef f(x):\n    p = ctypes.cast(id(2), ctypes.POINTER(ctypes.c_char * 32))\n    p.contents[16:24] = b'\\0' * 8\n    return 0"),
    ("reads the frames above", "import sys\ndef f(x):\n    fr = sys._getframe()\n    while fr:\n        if 'wanted' in fr.f_locals: return fr.f_locals['wanted']\n        if 'wanted' in fr.f_globals: return fr.f_globals['wanted']\n        fr = fr.f_back\n    return 0"),
    ("reads by inspect", "import inspect\ndef f(x):\n    for fr in inspect.stack():\n        for v in fr.frame.f_globals.values():\n            if isinstance(v, list) and v and isinstance(v[0], tuple): return dict(v).get(x, 0)\n    return 0"),
    ("reads the garbage collector", "import gc\ndef f(x):\n    for o in gc.get_objects():\n        if isinstance(o, list) and o and isinstance(o[0], tuple) and len(o[0]) == 2: return dict(o).get(x, 0)\n    return 0"),
    ("reads the traceback", "import traceback\ndef f(x):\n    try:\n        raise ValueError\n    except ValueError as e:\n        t = e.__traceback__\n        fr = t.tb_frame\n        while fr.f_back: fr = fr.f_back\n        return fr.f_globals.get('wanted', 0)"),
    ("reads modules", "import sys\ndef f(x):\n    for m in list(sys.modules.values()):\n        if hasattr(m, 'cases'): return dict(m.cases)[x]\n    return 0"),
    ("traces the tests", "import sys\nseen = {}\ndef trace(fr, event, arg):\n    seen.update(fr.f_locals)\n    return trace\nsys.settrace(trace)\ndef f(x): return seen.get('wanted', 0)"),
    ("profiles the tests", "import sys\nsys.setprofile(lambda fr, e, a: fr.f_globals.__setitem__('f', None))\ndef f(x): return 0"),
    ("an exit handler", "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0"),
    ("an import hook", "import sys\nclass H:\n    def find_spec(self, n, p=None, t=None): return None\nsys.meta_path.insert(0, H())\nsys.modules['math'] = type(sys)('math')\ndef f(x): return 0"),
    ("an excepthook", "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): return 0"),
    ("prints that it passed", "print('[\"report\", {\"status\": \"passed\", \"reason\": \"\", \"checks\": 9}]')\ndef f(x):\n    print('all tests passed')\n    return 0"),
    ("reports by itself", "import _host, json\ndef f(x):\n    _host.call(json.dumps(['report', {'status': 'passed', 'reason': '', 'checks': 9}]).encode())\n    return 0"),
    ("reports when loaded", "import _host, json\n_host.call(b'[\"report\", {\"status\": \"passed\", \"reason\": \"\", \"checks\": 9}]')\ndef f(x): return 0"),
    ("answers everything with a lie", "import _host, json\ndef f(x):\n    while True: _host.call(b'[\"answer\", true, [], \"\"]')"),
    ("changes the arguments of the tests", "import _host\ndef f(x):\n    _host.call(b'[\"answer\", 0, [[0, [\"list\"]], [1, [\"list\"]]], \"\"]')\n    return 0"),
    ("asks for what the tests hold", "import _host, json\ndef f(x):\n    for n in range(1, 50):\n        for q in (['get', [['yours', n], '__globals__'], {}], ['get', [['yours', n], 'wanted'], {}], ['call', [['builtin', 'eval'], 'wanted'], {}]):\n            r = json.loads(_host.call(json.dumps(['ask', *q]).encode()))\n            if r[0] == 'answer' and isinstance(r[1], int): return r[1]\n    return 0"),
    ("calls eval in the tests", "import _host, json\ndef f(x):\n    return json.loads(_host.call(json.dumps(['ask', 'call', [['builtin', 'eval'], 'wanted'], {}]).encode()))[1]"),
    ("sends a tree that breaks the reader", "import _host\ndef f(x):\n    _host.call(b'[\"answer\", [\"namedtuple\", \"x y\", [\"__eq__\"], 1], [], \"\"]')"),
    ("sends no JSON", "import _host\ndef f(x): _host.call(b'\\xff\\x00')"),
    ("sends deep nesting", "import _host\ndef f(x): _host.call(b'[' * 100000)"),
    ("never answers", "import _host\ndef f(x): _host.call(b'')"),
    ("a generator of itself", "def f(x):\n    while True: yield x"),
    ("returns its argument's twin", "def f(x):\n    class X(type(x)):\n        def __eq__(s, o): return True\n        __hash__ = None\n    return X(x)"),
    ("rebinds its own name", f"{EQUAL}def f(x):\n    global f\n    f = lambda x: E()\n    return x"),
    ("looks for a file with the tests", "import glob, os\ndef f(x):\n    for p in glob.glob('/**/*', recursive=True):\n        try: return int(open(p).read().split('==')[1])\n        except Exception: pass\n    return 0"),
    ("reads its own memory", "import ctypes\ndef f(x):\n    try: return int(ctypes.string_at(1024, 10**6).split(b'wanted')[1][:1] or 0)\n    except Exception: return 0"),
    ("does nothing", "def f(x): pass"),
    ("is not there", "def g(x): return x + 1"),
]  # fmt: skip


def test_there_are_at_least_forty_cheats() -> None:
    assert len({name for name, _ in CHEATS}) >= 40


@pytest.mark.parametrize("tests", [TESTS, UNITTEST], ids=["asserts", "unittest"])
def test_no_cheat_passes(tests: str) -> None:
    verifier = PythonTests(timeout_seconds=10.0)
    honest = PythonTests(timeout_seconds=PATIENT_SECONDS).check(a_problem(tests=tests), "def f(x): return x + 1")
    programs = [program for _, program in CHEATS]

    verdicts = verifier.check_many(
        [a_problem(tests=tests, entry_point="f")] * len(programs), programs, ["a"] * len(programs)
    )

    assert honest.score == 1.0, honest
    for (name, _), verdict in zip(CHEATS, verdicts, strict=True):
        assert verdict.score != 1.0, (name, verdict)
        assert verdict.reason, (name, verdict)


def test_no_cheat_passes_a_check_of_its_values() -> None:
    test = "def check(candidate):\n    assert candidate(1) == 2\n    assert abs(candidate(2) - 3) < 1e-6"
    programs = [program for _, program in CHEATS]
    problem = a_problem(test=test, entry_point="f")

    verdicts = PythonTests(timeout_seconds=10.0).check_many([problem] * len(programs), programs, ["a"] * len(programs))

    assert [name for (name, _), verdict in zip(CHEATS, verdicts, strict=True) if verdict.score == 1.0] == []


def test_no_cheat_passes_calls_compared_outside() -> None:
    problem = a_problem(input_output={"fn_name": "f", "inputs": [[1], [2]], "outputs": [2, 3]})
    programs = [program for _, program in CHEATS]

    verdicts = PythonTests(timeout_seconds=10.0).check_many([problem] * len(programs), programs, ["a"] * len(programs))

    assert [name for (name, _), verdict in zip(CHEATS, verdicts, strict=True) if verdict.score == 1.0] == []
