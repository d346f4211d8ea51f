"""Programs and tests as people bring them: the failing inputs of public reports, and more of each kind, with right values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mae_cli.answers.programs import extract_code
from mae_cli.answers.stated import stated_answer
from mae_cli.plugins.verifiers.python_tests import PythonTests
from mae_cli.records.problems import problem_from
from tests.support import PATIENT_SECONDS, a_problem

HERE = Path(__file__).parent
VERIFIER = PythonTests(timeout_seconds=PATIENT_SECONDS)
ALLOWED: dict[str, set[float | None]] = {
    "passes": {1.0},
    "fails": {0.0},
    "unsupported": {None},
    "fails or unsupported, never passes": {0.0, None},
}


def given(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / name).read_text("utf-8").splitlines()]


@pytest.mark.parametrize("case", given("programs.jsonl"), ids=lambda case: f"{case['kind']}: {case['name']}")
def test_a_reported_program_is_judged_as_cpython_does(case: dict[str, Any]) -> None:
    item = {key: case[key] for key in ("question", "tests", "test", "entry_point") if key in case}

    verdict = VERIFIER.check(problem_from(item, "case"), case["answer"])

    assert verdict.score in ALLOWED[case["expected"]], verdict


@pytest.mark.parametrize("case", given("programs_more.jsonl"), ids=lambda case: f"{case['kind']}: {case['name']}")
def test_a_program_is_judged_by_tests_in_a_published_form(case: dict[str, Any]) -> None:
    verdict = VERIFIER.check(problem_from(case["row"], "case"), case["answer"])

    assert verdict.score in case["scores"], verdict


@pytest.mark.parametrize(
    "case",
    given("program_completions.jsonl") + given("program_completions_more.jsonl"),
    ids=lambda case: case["name"],
)
def test_a_reported_completion_gives_its_program(case: dict[str, Any]) -> None:
    problem = a_problem(case["question"], tests=case["tests"], entry_point=case["entry_point"])

    verdict = VERIFIER.check(problem, stated_answer(problem, case["completion"]).answer)

    assert verdict.score in ALLOWED[case["expected"]], verdict


# What CPython does and other interpreters do not: (name, program, tests that it passes).
OF_CPYTHON = [
    ("banker's rounding", "def f(x):\n    return round(x)", "assert [f(0.5), f(1.5), f(2.5)] == [0, 2, 2]"),
    ("int of a float text", "def f(s):\n    return int(float(s))", "assert f('3.9') == 3"),
    ("negative floor division", "def f(a, b):\n    return a // b, a % b", "assert f(-7, 2) == (-4, 1)"),
    ("chained comparison", "def f(x):\n    return 1 < x <= 3", "assert f(3) and not f(1)"),
    ("walrus in a comprehension", "def f(xs):\n    return [y for x in xs if (y := x * 2) > 2]", "assert f([1, 2, 3]) == [4, 6]"),
    ("match statement", "def f(p):\n    match p:\n        case {'k': v}: return v\n        case [a, *_]: return a\n        case _: return None",
     "assert (f({'k': 1}), f([2, 3]), f(4)) == (1, 2, None)"),
    ("generator send", "def g():\n    total = 0\n    while True:\n        x = yield total\n        total += x\ndef f(xs):\n    it = g()\n    next(it)\n    return [it.send(x) for x in xs]",
     "assert f([1, 2, 3]) == [1, 3, 6]"),
    ("yield from", "def f(xs):\n    def inner(v):\n        if isinstance(v, list):\n            for w in v:\n                yield from inner(w)\n        else:\n            yield v\n    return list(inner(xs))",
     "assert f([1, [2, [3]]]) == [1, 2, 3]"),
    ("multiple inheritance", "class A:\n    def go(self): return ['A']\nclass B(A):\n    def go(self): return ['B'] + super().go()\nclass C(A):\n    def go(self): return ['C'] + super().go()\nclass D(B, C):\n    def go(self): return ['D'] + super().go()\ndef f():\n    return D().go()",
     "assert f() == ['D', 'B', 'C', 'A']"),
    ("dataclass ordering", "from dataclasses import dataclass\n@dataclass(order=True)\nclass P:\n    a: int\n    b: int = 0\ndef f():\n    p = max(P(1), P(2, 3))\n    return p.a, p.b", "assert f() == (2, 3)"),
    ("metaclass", "class M(type):\n    made = []\n    def __new__(m, n, b, d):\n        M.made.append(n)\n        return super().__new__(m, n, b, d)\nclass X(metaclass=M): pass\ndef f():\n    return M.made", "assert f() == ['X']"),
    ("descriptor", "class D:\n    def __get__(self, o, t): return 7\nclass X:\n    v = D()\ndef f():\n    return X().v", "assert f() == 7"),
    ("context manager", "from contextlib import contextmanager\nlog = []\n@contextmanager\ndef cm():\n    log.append(1)\n    yield\n    log.append(2)\ndef f():\n    with cm():\n        log.append(3)\n    return log", "assert f() == [1, 3, 2]"),
    ("regex lookbehind and groups", "import re\ndef f(s):\n    return re.findall(r'(?<=\\$)(\\d+)', s)", "assert f('$3 4 $50') == ['3', '50']"),
    ("format mini-language", "def f(x):\n    return f'{x:>8,.2f}|{x!r:.3}'", "assert f(1234.5) == '1,234.50|123'"),
    ("percent formatting", "def f(a, b):\n    return '%05.1f|%-4s|%x' % (a, b, 255)", "assert f(3.14159, 'ab') == '003.1|ab  |ff'"),
    ("bisect and heapq.merge", "import bisect, heapq\ndef f(a, b):\n    m = list(heapq.merge(a, b))\n    return m, bisect.bisect_left(m, 3)", "assert f([1, 4], [2, 3]) == ([1, 2, 3, 4], 2)"),
    ("itertools", "from itertools import groupby, accumulate, product, pairwise\ndef f(s):\n    return [(k, len(list(g))) for k, g in groupby(s)], list(accumulate([1, 2, 3])), len(list(product('ab', repeat=3))), list(pairwise('abc'))",
     "assert f('aab') == ([('a', 2), ('b', 1)], [1, 3, 6], 8, [('a', 'b'), ('b', 'c')])"),
    ("decimal", "from decimal import Decimal, getcontext\ndef f():\n    getcontext().prec = 6\n    return str(Decimal(1) / Decimal(7))", "assert f() == '0.142857'"),
    ("complex numbers", "import cmath\ndef f(z):\n    return z.conjugate(), abs(z)", "assert f(3 + 4j) == (3 - 4j, 5.0)"),
    ("big integers", "def f(n):\n    return pow(3, n, 10**18), (10**n).bit_length()", "assert f(200) == (pow(3, 200, 10**18), 665)"),
    ("string methods", "def f(s):\n    return s.casefold().translate(str.maketrans('aeiou', '12345')).title().partition('-')", "assert f('ABC-ei') == ('1Bc', '-', '23')"),
    ("unicode", "import unicodedata\ndef f(s):\n    return ''.join(c for c in unicodedata.normalize('NFD', s) if not unicodedata.combining(c))", "assert f('é') == 'e'"),
    ("datetime arithmetic", "from datetime import date, timedelta\ndef f(y):\n    return (date(y, 3, 1) - timedelta(days=1)).isoformat()", "assert f(2024) == '2024-02-29'"),
    ("typing generics", "from typing import Generic, TypeVar, Optional\nT = TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self, v: Optional[T]): self.v = v\ndef f():\n    return Box[int](3).v", "assert f() == 3"),
    ("lru_cache", "from functools import lru_cache\n@lru_cache(None)\ndef f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)", "assert f(80) == 23416728348467685"),
    ("exception group and finally", "def f():\n    out = []\n    try:\n        try:\n            raise ValueError('a')\n        finally:\n            out.append('f')\n    except ValueError as e:\n        out.append(str(e))\n    return out", "assert f() == ['f', 'a']"),
    ("global and nonlocal", "n = 0\ndef f():\n    global n\n    m = 0\n    def g():\n        nonlocal m\n        m += 1\n    g(); g()\n    n += m\n    return n", "assert f() == 2\nassert f() == 4"),
    ("struct and bytes", "import struct\ndef f():\n    return struct.unpack('<hI', struct.pack('<hI', -2, 7)), b'ab'.hex()", "assert f() == ((-2, 7), '6162')"),
    ("json round trip", "import json\ndef f(x):\n    return json.loads(json.dumps(x, sort_keys=True))", "assert f({'b': [1, None], 'a': True}) == {'a': True, 'b': [1, None]}"),
    ("slots and properties", "class P:\n    __slots__ = ('x',)\n    def __init__(self): self.x = 1\ndef f():\n    try:\n        P().y = 2\n    except AttributeError:\n        return 'no'", "assert f() == 'no'"),
    ("async function", "import asyncio\nasync def g(x):\n    await asyncio.sleep(0.01)\n    return x * 2\ndef f(xs):\n    async def all_of():\n        return await asyncio.gather(*(g(x) for x in xs))\n    return asyncio.run(all_of())", "assert f([1, 2]) == [2, 4]"),
    ("thread pool", "from concurrent.futures import ThreadPoolExecutor\ndef f(xs):\n    with ThreadPoolExecutor(4) as pool:\n        return list(pool.map(lambda x: x + 1, xs))", "assert f([1, 2]) == [2, 3]"),
    ("threads that add up", "import threading\ndef f(n):\n    total = []\n    lock = threading.Lock()\n    def work(i):\n        with lock:\n            total.append(i)\n    ts = [threading.Thread(target=work, args=(i,)) for i in range(n)]\n    for t in ts: t.start()\n    for t in ts: t.join()\n    return sum(total)", "assert f(5) == 10"),
    ("exec and globals", "def f(s):\n    space = {}\n    exec(s, space)\n    return space['x']", "assert f('x = 3') == 3"),
    ("deep recursion", "import sys\nsys.setrecursionlimit(50000)\ndef f(n):\n    return 0 if n == 0 else 1 + f(n - 1)", "assert f(20000) == 20000"),
    ("operator overloading inside", "class V:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return V(self.x + o.x)\n    def __eq__(self, o): return self.x == o.x\ndef f():\n    return (V(1) + V(2) == V(3)), (V(1) + V(2)).x", "assert f() == (True, 3)"),
    ("sleep costs no time", "import time\ndef f():\n    time.sleep(10**6)\n    return 1", "assert f() == 1"),
    ("a counter printed", "def f(x):\n    print('working on', x)\n    return x", "assert f(3) == 3"),
    ("numpy matrix", "import numpy as np\ndef f(a):\n    return np.linalg.det(np.array(a, dtype=float))", "assert abs(f([[1, 2], [3, 4]]) + 2) < 1e-9"),
    ("numpy from the tests", "def f(a):\n    return np.cumsum(a)", "import numpy as np\nassert np.array_equal(f([1, 2]), [1, 3])\nassert (f(np.array([1.0, 2.0])) == [1.0, 3.0]).all()"),
    ("pandas", "import pandas as pd\ndef f(rows):\n    return pd.DataFrame(rows).groupby('k').v.sum().to_dict()", "assert f([{'k': 'a', 'v': 1}, {'k': 'a', 'v': 2}]) == {'a': 3}"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "program", "tests"), OF_CPYTHON, ids=[name for name, *_ in OF_CPYTHON])
def test_a_program_that_cpython_runs_passes(name: str, program: str, tests: str) -> None:
    verdict = VERIFIER.check(a_problem(tests=tests, entry_point="f"), program)

    assert verdict.score == 1.0, verdict


RIGHT, WRONG = "def f(x):\n    return x + 1", "def f(x):\n    return x + 5"
# Tests in the forms that sets and models write: the right program passes, the wrong one does not.
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("asserts in a list", {"tests": ["assert f(1) == 2", "assert f(2) == 3"]}),
    ("asserts in a text", {"tests": "assert f(1) == 2\nassert f(2) == 3, 'two'"}),
    ("check(candidate)", {"test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1) == 2", "entry_point": "f"}),
    ("check called at the end", {"test": "def check(candidate):\n    assert candidate(1) == 2\n\ncheck(f)", "entry_point": "f"}),
    ("test(candidate)", {"test": "def test(candidate):\n    assert candidate(1) == 2", "entry_point": "f"}),
    ("pytest functions", {"tests": "import pytest\n\ndef test_a():\n    assert f(1) == 2\n\ndef test_b():\n    assert f(0) == 1"}),
    ("test functions called", {"tests": "def test_a():\n    assert f(1) == 2\n\ntest_a()"}),
    ("test functions called under main", {"tests": "def test_a():\n    assert f(1) == 2\n\nif __name__ == '__main__':\n    test_a()"}),
    ("parametrize", {"tests": "import pytest\n@pytest.mark.parametrize('x, y', [(1, 2), (5, 6)])\ndef test_a(x, y):\n    assert f(x) == y"}),
    ("parametrize twice", {"tests": "import pytest\n@pytest.mark.parametrize('x', [1, 2])\n@pytest.mark.parametrize('d', [1])\ndef test_a(x, d):\n    assert f(x) == x + d"}),
    ("fixture", {"tests": "import pytest\n@pytest.fixture\ndef start():\n    return 1\n\ndef test_a(start):\n    assert f(start) == 2"}),
    ("yield fixture", {"tests": "import pytest\n@pytest.fixture()\ndef start():\n    yield 1\n\ndef test_a(start):\n    assert f(start) == 2"}),
    ("approx", {"tests": "import pytest\ndef test_a():\n    assert f(0.1) == pytest.approx(1.1)"}),
    ("unittest", {"tests": "import unittest\nclass TestF(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(f(1), 2)\n\nif __name__ == '__main__':\n    unittest.main()"}),
    ("unittest with setUp and subTest", {"tests": "from unittest import TestCase\nclass TestF(TestCase):\n    def setUp(self):\n        self.cases = [(1, 2), (2, 3)]\n    def test_a(self):\n        for x, y in self.cases:\n            with self.subTest(x=x):\n                self.assertEqual(f(x), y)"}),
    ("test class without unittest", {"tests": "class TestF:\n    def setup_method(self):\n        self.x = 1\n    def test_a(self):\n        assert f(self.x) == 2"}),
    ("async test", {"tests": "import asyncio\nasync def test_a():\n    await asyncio.sleep(0)\n    assert f(1) == 2"}),
    ("async test class", {"tests": "import unittest\nclass T(unittest.IsolatedAsyncioTestCase):\n    async def test_a(self):\n        self.assertEqual(f(1), 2)"}),
    ("doctest lines", {"tests": ">>> f(1)\n2\n>>> f(10)\n11\n"}),
    ("doctest list", {"tests": [">>> f(1)\n2", ">>> [f(x) for x in (1, 2)]\n[2, 3]"]}),
    ("loop over cases", {"tests": "cases = [(1, 2), (3, 4)]\nfor given, wanted in cases:\n    assert f(given) == wanted, (given, wanted)"}),
    ("if and raise", {"tests": "if f(1) != 2:\n    raise ValueError('wrong')"}),
    ("if and exit", {"tests": "import sys\nif f(1) != 2:\n    sys.exit(1)"}),
    ("must raise, by try", {"tests": "try:\n    f('a')\n    assert False, 'no error'\nexcept TypeError:\n    pass\nassert f(1) == 2"}),
    ("numpy testing", {"tests": "import numpy as np\nnp.testing.assert_allclose(f(np.array([1.0, 2.0])), [2.0, 3.0])"}),
    ("helper that compares", {"tests": "def same(a, b):\n    assert a == b\n\nsame(f(1), 2)"}),
    ("assert all", {"tests": "assert all(f(i) == i + 1 for i in range(10))"}),
    ("assertion helper of HumanEval+", {"test": "def is_floats(x):\n    return isinstance(x, float)\n\ndef assertion(out, exp, atol):\n    if atol == 0 and is_floats(exp):\n        atol = 1e-6\n    if out != exp and atol != 0:\n        import numpy as np\n        assert np.allclose(out, exp, rtol=1e-07, atol=atol)\n    else:\n        assert out == exp\n\ndef check(candidate):\n    inputs = [[1], [2.5]]\n    results = [2, 3.5]\n    for i, (inp, exp) in enumerate(zip(inputs, results)):\n        assertion(candidate(*inp), exp, 0)", "entry_point": "f"}),
    ("MBPP with setup and imports", {"test_list": ["assert math.isclose(f(x0), 2)"], "test_setup_code": "x0 = 1", "test_imports": ["import math"]}),
    ("import from a module", {"tests": "from solution import f\ndef test_a():\n    assert f(1) == 2"}),
    ("import a module", {"tests": "import solution\nassert solution.f(1) == 2"}),
    ("callback", {"tests": "seen = []\nassert list(map(f, [1, 2])) == [2, 3]\nassert sorted([3, 1], key=lambda x: -f(x)) == [3, 1]"}),
    ("cases as input and output", {"tests": [{"input": [1], "output": 2}, {"input": [4], "output": 5}], "entry_point": "f"}),
    ("call-based APPS", {"input_output": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [2, [3]]}}),
    ("call-based APPS as a text", {"input_output": json.dumps({"fn_name": "f", "inputs": [[1], [2]], "outputs": [2, 3]})}),
    ("call-based LiveCodeBench", {"input_output": {"fn_name": "f", "inputs": ["1", "2"], "outputs": ["2", "3"]}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "meta"), FORMS, ids=[name for name, _ in FORMS])
def test_each_form_of_tests_tells_right_from_wrong(name: str, meta: dict[str, Any]) -> None:
    problem = a_problem(**meta)

    right, wrong, missing = VERIFIER.check_many([problem] * 3, [RIGHT, WRONG, "def g(x):\n    return x + 1"], ["a"] * 3)

    assert right.score == 1.0, right
    assert wrong.score == 0.0, wrong
    assert missing.score != 1.0, missing


def test_a_method_of_a_class_solution_is_called() -> None:
    program = "from typing import List\nclass Solution:\n    def f(self, xs: List[int]) -> int:\n        return sum(xs)"
    functional = {"fn_name": "f", "inputs": ["[1, 2]\n"], "outputs": ["3"]}

    assert VERIFIER.check(a_problem(input_output=functional), program).score == 1.0
    assert VERIFIER.check(a_problem(tests="assert Solution().f([1, 2]) == 3"), program).score == 1.0
    assert VERIFIER.check(a_problem(tests="s = Solution()\nassert s.f([]) == 1"), program).score == 0.0


# Tests that check nothing, or say nothing: never a verdict.
EMPTY: list[tuple[str, dict[str, Any]]] = [
    ("comparison without assert", {"tests": "f(1) == 2"}),
    ("only calls", {"tests": "f(1)\nf(2)"}),
    ("only prints", {"tests": "print(f(1) == 2)"}),
    ("a lambda", {"tests": "t = lambda: f(1) == 2"}),
    ("a generator", {"tests": "all(f(i) == i + 1 for i in range(3))"}),
    ("assert True", {"tests": "f(1)\nassert True"}),
    ("assert of a tuple", {"tests": "assert (f(1) == 2, 'must be two')"}),
    ("assert of a text", {"tests": "f(1)\nassert 'f(1) == 2'"}),
    ("never uses the program", {"tests": "assert 1 + 1 == 2", "entry_point": "f"}),
    ("a check that ignores the candidate", {"test": "def check(candidate):\n    assert 1 == 1", "entry_point": "f"}),
    ("an async helper nobody awaits", {"tests": "async def go():\n    assert f(1) == 2\ngo()"}),
    ("a helper nobody calls", {"tests": "def run_all():\n    assert f(1) == 2"}),
    ("a skipped test", {"tests": "import pytest\ndef test_a():\n    pytest.skip('later')\n    assert f(1) == 2"}),
    ("an empty test class", {"tests": "class TestF:\n    pass\nf(1)"}),
    ("no statement", {"tests": "# assert f(1) == 2"}),
    ("a fixture nobody gives", {"tests": "def test_a(database):\n    assert f(1) == 2"}),
    ("broken tests", {"tests": "assert f(1) == ("}),
    ("no outputs", {"input_output": {"inputs": ["1\n"], "outputs": []}}),
    ("no cases", {"input_output": {"inputs": [], "outputs": []}}),
    ("no JSON", {"input_output": "{'inputs'"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "meta"), EMPTY, ids=[name for name, _ in EMPTY])
def test_tests_that_check_nothing_give_no_verdict(name: str, meta: dict[str, Any]) -> None:
    for program in (RIGHT, WRONG):
        verdict = VERIFIER.check(a_problem(**meta), program)

        assert verdict.score is None or (verdict.score == 0.0 and program == WRONG), verdict
        assert verdict.reason


def test_a_failed_assert_that_the_tests_catch_is_no_verdict() -> None:
    problem = a_problem(tests="try:\n    assert f(1) == 2\nexcept AssertionError:\n    print('wrong')")

    assert VERIFIER.check(problem, RIGHT).score == 1.0
    assert VERIFIER.check(problem, WRONG).status == "unsupported"


ADD = "def f(x):\n    return x + 1"
TWO = "import math\n\ndef g(x):\n    return x\n\ndef f(x):\n    return g(x) + 1"
# (name, completion, the program it gives)
COMPLETIONS = [
    ("fence in a numbered list", "1. Think\n2. Code:\n    ```python\n    def f(x):\n        return x + 1\n    ```\n3. Done", ADD),
    ("fence in a bullet", "- Solution:\n  ```py\n  def f(x):\n      return x + 1\n  ```", ADD),
    ("fence in a quotation", "> ```python\n> def f(x):\n>     return x + 1\n> ```", ADD),
    ("fence with a tab", "\t```python\n\tdef f(x):\n\t    return x + 1\n\t```", ADD),
    ("opened by the prompt", f"{ADD}\n```", ADD),
    ("opened by the prompt, with imports", f"{TWO}\n```\n\n### Explanation\nIt adds `1`.", TWO),
    ("opened by the prompt, another fence behind", f"{ADD}\n```\nUse it:\n```python\nprint(f(1))\n```", ADD),
    ("opened by the prompt with its language", f"python\n{ADD}\n```\nDone.", ADD),
    ("begin and done", f"[BEGIN]\n{ADD}\n[DONE]\nMore text.", ADD),
    ("done alone", f"{ADD}\n[DONE]\nYou are an expert", ADD),
    ("PYTHON tags", f"[PYTHON]\n{TWO}\n[/PYTHON]", TWO),
    ("code tag", f"Here: <code>\n{ADD}\n</code> is it.", ADD),
    ("pre and code with a class", f'<pre><code class="language-python">{ADD}\n</code></pre>', ADD),
    ("HTML escapes", "<pre><code>def f(x):\n    return x + 1 if x &lt; 9 &amp;&amp; True else x\n</code></pre>".replace("&amp;&amp;", "and"),
     "def f(x):\n    return x + 1 if x < 9 and True else x"),
    ("python tag", f"<python>\n{ADD}\n</python>", ADD),
    ("interpreter prompts unfenced", ">>> def f(x):\n...     return x + 1\n...\n>>> f(1)\n2", f"{ADD}\n\nf(1)"),
    ("interpreter prompts with results", "```\n>>> import math\n>>> def f(x):\n...     return x + 1\n>>> f(2)\n3\n```", "import math\ndef f(x):\n    return x + 1\nf(2)"),
    ("prose in front", f"Sure! Here is the function:\n\n{ADD}", ADD),
    ("prose behind", f"{ADD}\n\nThis function adds one to its argument.", ADD),
    ("prose on both sides", f"Let's write it.\n\n{TWO}\n\nThe time complexity is O(1).", TWO),
    ("a test fence behind", f"```python\n{ADD}\n```\nExample:\n```python\nassert f(1) == 2\n```", ADD),
    ("the better one last", f"```python\ndef f(x):\n    return x\n```\nWait, wrong. Corrected:\n```python\n{ADD}\n```", ADD),
    ("shell fence in front", f"```bash\npip install numpy\n```\n```python\n{ADD}\n```", ADD),
    ("output fence behind", f"```python\n{ADD}\n```\nOutput:\n```\n2\n```", ADD),
    ("python3 fence", f"```python3\n{ADD}\n```", ADD),
    ("capital language", f"```Python\n{ADD}\n```", ADD),
    ("fence with attributes", f"```python title=\"f.py\"\n{ADD}\n```", ADD),
    ("fence in braces", f"```{{python}}\n{ADD}\n```", ADD),
    ("four marks", f"````python\n{ADD}\n````", ADD),
    ("tildes", f"~~~python\n{ADD}\n~~~", ADD),
    ("never closed", f"The code:\n```python\n{ADD}\n", ADD),
    ("answer tag around a fence", f"<answer>\n```python\n{ADD}\n```\n</answer>", ADD),
    ("answer tag around code", f"<answer>{ADD}</answer>", ADD),
    ("reasoning in front", f"<think>\n```python\ndef f(x): return 0\n```\n</think>\n```python\n{ADD}\n```", ADD),
    ("Windows line ends", f"```python\r\n{ADD}\r\n```".replace("\n    ", "\r\n    "), ADD),
    ("JSON", json.dumps({"code": ADD}), ADD),
    ("typographic quotes around the fence", f"“\n```python\n{ADD}\n```\n”", ADD),
    ("body alone", "    return x + 1", "    return x + 1"),
    ("body with an import", "    import math\n    return math.floor(x)", "    import math\n    return math.floor(x)"),
    ("body with a loop", "    for y in x:\n        if y:\n            return y", "    for y in x:\n        if y:\n            return y"),
    ("no program", "I cannot write this function.", None),
    ("a formula", "The answer is x + 1.", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "completion", "program"), COMPLETIONS, ids=[name for name, *_ in COMPLETIONS])
def test_a_program_is_found_as_models_write_it(name: str, completion: str, program: str | None) -> None:
    assert extract_code(completion, "f").answer == program


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("n = int(input())\nprint(n * n)", "n = int(input())\nprint(n * n)"),
        ("Here you go:\n\nn = int(input())\nprint(n * n)\n\nIt squares.", "n = int(input())\nprint(n * n)"),
        ("```python\nprint(int(input()) ** 2)\n```", "print(int(input()) ** 2)"),
        ("print(sum(map(int, input().split())))", "print(sum(map(int, input().split())))"),
        ("a, b = map(int, input().split())\nprint(a + b)\n```\nDone", "a, b = map(int, input().split())\nprint(a + b)"),
        ("Answer: 9", None),
    ],
)
def test_a_script_is_found_where_no_function_is_asked_for(completion: str, program: str | None) -> None:
    assert extract_code(completion).answer == program


# What tests of larger sets do; each right program passes, each wrong one does not.
LARGER: list[tuple[str, dict[str, Any], str, str]] = [
    ("a linked list of the tests", {"tests": "class ListNode:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = val, next\n\ndef make(xs):\n    head = None\n    for x in reversed(xs):\n        head = ListNode(x, head)\n    return head\n\ndef values(node):\n    out = []\n    while node:\n        out.append(node.val)\n        node = node.next\n    return out\n\nassert values(Solution().reverse(make([1, 2, 3]))) == [3, 2, 1]"},
     "class Solution:\n    def reverse(self, head):\n        before = None\n        while head:\n            head.next, before, head = before, head, head.next\n        return before", "class Solution:\n    def reverse(self, head):\n        return head"),
    ("a linked list that the program makes", {"tests": "class ListNode:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = val, next\n\ndef values(node):\n    out = []\n    while node:\n        out.append(node.val)\n        node = node.next\n    return out\n\nassert values(f([1, 2])) == [1, 2]"},
     "def f(xs):\n    dummy = tail = ListNode()\n    for x in xs:\n        tail.next = ListNode(x)\n        tail = tail.next\n    return dummy.next", "def f(xs):\n    return ListNode(xs[0])"),
    ("a tree of the program", {"tests": "root = Node(2)\nroot.left = Node(1)\nroot.right = Node(3)\nassert inorder(root) == [1, 2, 3]\nassert root.left.key == 1"},
     "class Node:\n    def __init__(self, key):\n        self.key, self.left, self.right = key, None, None\ndef inorder(n):\n    return inorder(n.left) + [n.key] + inorder(n.right) if n else []", "class Node:\n    def __init__(self, key):\n        self.key, self.left, self.right = key, None, None\ndef inorder(n):\n    return [n.key]"),
    ("an entry point that is a method", {"test": "def check(candidate):\n    assert candidate(nums=[2, 7], target=9) == [0, 1]", "entry_point": "Solution().twoSum"},
     "class Solution:\n    def twoSum(self, nums, target):\n        seen = {}\n        for i, n in enumerate(nums):\n            if target - n in seen:\n                return [seen[target - n], i]\n            seen[n] = i", "class Solution:\n    def twoSum(self, nums, target):\n        return [1, 0]"),
    ("an exception of the program", {"tests": "import pytest\ndef test_a():\n    with pytest.raises(TooFew, match='none'):\n        f([])\n    assert f([1]) == 1"},
     "class TooFew(ValueError):\n    pass\ndef f(xs):\n    if not xs:\n        raise TooFew('none left')\n    return xs[0]", "class TooFew(ValueError):\n    pass\ndef f(xs):\n    return xs[0]"),
    ("a class with state", {"tests": "import unittest\nclass TestAccount(unittest.TestCase):\n    def setUp(self):\n        self.account = Account()\n    def test_a(self):\n        self.account.deposit(5)\n        self.assertEqual(self.account.balance, 5)\n        self.account.balance = 7\n        self.assertEqual(self.account.total(), 7)\n        self.assertIsInstance(self.account, Account)\n        self.assertEqual(str(self.account), 'Account(7)')\n        self.assertEqual(len(self.account), 1)\n        with self.assertRaises(ValueError):\n            self.account.deposit(-1)"},
     "class Account:\n    def __init__(self): self.balance, self.log = 0, []\n    def deposit(self, n):\n        if n < 0: raise ValueError(n)\n        self.balance += n\n        self.log.append(n)\n    def total(self): return self.balance\n    def __str__(self): return f'Account({self.balance})'\n    def __len__(self): return len(self.log)", "class Account:\n    def __init__(self): self.balance = 0\n    def deposit(self, n): self.balance += n\n    def total(self): return self.balance\n    def __str__(self): return 'Account'\n    def __len__(self): return 1"),
    ("printed output, captured", {"tests": "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    f(3)\nassert out.getvalue() == '3\\n2\\n1\\n'"},
     "def f(n):\n    for i in range(n, 0, -1):\n        print(i)", "def f(n):\n    print(n)"),
    ("printed output, capsys", {"tests": "def test_a(capsys):\n    f('x')\n    assert capsys.readouterr().out.strip() == 'hello x'"},
     "def f(s):\n    print('hello', s)", "def f(s):\n    return 'hello ' + s"),
    ("input patched", {"tests": "from unittest.mock import patch\nwith patch('builtins.input', side_effect=['3', '4']):\n    assert f() == 7"},
     "def f():\n    return int(input('a')) + int(input('b'))", "def f():\n    return 0"),
    ("standard input replaced", {"tests": "import io, sys\nsys.stdin = io.StringIO('3 4\\n')\nassert f() == 7"},
     "import sys\ndef f():\n    return sum(map(int, sys.stdin.readline().split()))", "def f():\n    return 4"),
    ("an async function awaited", {"tests": "import asyncio\nassert asyncio.run(f(1)) == 2\nasync def test_b():\n    assert await f(2) == 3"},
     "import asyncio\nasync def f(x):\n    await asyncio.sleep(0.1)\n    return x + 1", "async def f(x):\n    return x"),
    ("a generator", {"tests": "import types\ng = f(3)\nassert isinstance(g, types.GeneratorType)\nassert next(g) == 0 and list(g) == [1, 2]"},
     "def f(n):\n    yield from range(n)", "def f(n):\n    return list(range(n))"),
    ("a decorator", {"tests": "@twice\ndef g(x):\n    return x + 1\nassert g(1) == 3\nassert g.__name__ == 'g'"},
     "import functools\ndef twice(h):\n    @functools.wraps(h)\n    def inner(x):\n        return h(h(x))\n    return inner", "def twice(h):\n    return h"),
    ("a context manager", {"tests": "with f() as x:\n    assert x == 1\nassert f.log == ['in', 'out']"},
     "class f:\n    log = []\n    def __enter__(self):\n        f.log.append('in')\n        return 1\n    def __exit__(self, *a):\n        f.log.append('out')", "class f:\n    log = []\n    def __enter__(self): return 1\n    def __exit__(self, *a): pass"),
    ("a change of its argument", {"tests": "m = [[1, 2], [3, 4]]\nf(m)\nassert m == [[3, 1], [4, 2]]\nd = {'a': 1}\ng(d)\nassert d == {'a': 1, 'b': 2}"},
     "def f(m):\n    m[:] = [list(r) for r in zip(*m[::-1])]\ndef g(d):\n    d['b'] = 2", "def f(m):\n    return [list(r) for r in zip(*m[::-1])]\ndef g(d):\n    return {**d, 'b': 2}"),
    ("the future", {"test": "def check(candidate):\n    assert candidate(1) == 2", "entry_point": "f", "question": "def f(x: int) -> int:\n    \"\"\"Add one.\"\"\""},
     "from __future__ import annotations\n\ndef f(x: int) -> int:\n    return x + 1", "from __future__ import annotations\n\ndef f(x: int) -> int:\n    return x"),
    ("bytes written", {"tests": "import io, contextlib\nassert f(2) == 4"},
     "import sys\ndef f(x):\n    sys.stdout.buffer.write(b'working')\n    sys.stdout.flush()\n    return x * 2", "def f(x):\n    return x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "meta", "right", "wrong"), LARGER, ids=[name for name, *_ in LARGER])
def test_tests_of_larger_sets_tell_right_from_wrong(name: str, meta: dict[str, Any], right: str, wrong: str) -> None:
    given = dict(meta)
    problem = a_problem(given.pop("question", "Write it."), **given)

    good, bad = VERIFIER.check_many([problem] * 2, [right, wrong], ["a"] * 2)

    assert good.score == 1.0, good
    assert bad.score == 0.0 or (bad.score is None and "patch" in bad.reason), bad


# What does not pass between two interpreters: a right program may fail, so a failure says nothing.
BEYOND = [
    ("random patched", "from unittest.mock import patch\nwith patch('random.randint', return_value=3):\n    assert f() == 3", "import random\ndef f():\n    return random.randint(1, 10**9)"),
    ("the seed of chance", "import random\nrandom.seed(7)\nassert f() == random.Random(7).random()", "import random\ndef f():\n    return random.random()"),
    ("a signature", "import inspect\nassert len(inspect.signature(f).parameters) == 2", "def f(a, b):\n    return a"),
    ("a table", "import pandas as pd\npd.testing.assert_frame_equal(f(), pd.DataFrame({'a': [1]}))", "import pandas as pd\ndef f():\n    return pd.DataFrame({'a': [1]})"),
    ("equal objects of its own", "assert V(1) == V(1)", "class V:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "tests", "program"), BEYOND, ids=[name for name, *_ in BEYOND])
def test_what_tests_cannot_see_is_no_fault_of_a_program(name: str, tests: str, program: str) -> None:
    assert VERIFIER.check(a_problem(tests=tests), program).status == "unsupported"


def test_the_depth_of_calls_is_that_of_cpython() -> None:
    program = "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)"

    assert VERIFIER.check(a_problem(tests="assert f(900) == 900"), program).score == 1.0
    assert VERIFIER.check(a_problem(tests="assert f(1100) == 1100"), program).score == 0.0
