"""Thirty programs in the stdin form of contest sets: each passes its own cases, and none of them passes another's."""

from __future__ import annotations

import pytest

from mae_cli.plugins.verifiers.python_tests import PythonTests
from tests.support import PATIENT_SECONDS, a_problem

# (name, program, cases of input and expected output; outputs computed by hand)
SCRIPTS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("sum of two", "a, b = map(int, input().split())\nprint(a + b)", [("1 2\n", "3\n"), ("-5 5", "0")]),
    ("sum of a list", "n = int(input())\nprint(sum(map(int, input().split())))", [("3\n1 2 3\n", "6\n"), ("1\n7\n", "7")]),
    ("tests in a loop", "for _ in range(int(input())):\n    n = int(input())\n    print('YES' if n % 2 == 0 else 'NO')", [("2\n4\n7\n", "YES\nNO\n")]),
    ("fast input", "import sys\ninput = sys.stdin.readline\nn = int(input())\nprint(max(map(int, input().split())))", [("3\n5 9 2\n", "9")]),
    ("all of the input", "import sys\nd = list(map(int, sys.stdin.buffer.read().split()))\nprint(*sorted(d[1:]))", [("4\n4 1 3 2\n", "1 2 3 4\n")]),
    ("a matrix", "n, m = map(int, input().split())\ng = [input() for _ in range(n)]\nprint(sum(r.count('#') for r in g))", [("2 3\n#.#\n.#.\n", "3")]),
    ("a main function", "def main():\n    s = input().strip()\n    print(s[::-1])\n\nif __name__ == '__main__':\n    main()", [("abc\n", "cba\n"), ("x\n", "x")]),
    ("class Solution used by a main", "class Solution:\n    def solve(self, n):\n        return n * (n + 1) // 2\n\nprint(Solution().solve(int(input())))", [("4\n", "10"), ("100000\n", "5000050000")]),
    ("breadth-first search", "from collections import deque\nn, m = map(int, input().split())\ng = [[] for _ in range(n)]\nfor _ in range(m):\n    a, b = map(int, input().split())\n    g[a - 1].append(b - 1)\n    g[b - 1].append(a - 1)\nd = [-1] * n\nd[0] = 0\nq = deque([0])\nwhile q:\n    u = q.popleft()\n    for v in g[u]:\n        if d[v] < 0:\n            d[v] = d[u] + 1\n            q.append(v)\nprint(d[-1])", [("4 3\n1 2\n2 3\n3 4\n", "3"), ("3 1\n1 2\n", "-1")]),
    ("shortest paths", "import heapq\nn, m = map(int, input().split())\ng = [[] for _ in range(n + 1)]\nfor _ in range(m):\n    a, b, w = map(int, input().split())\n    g[a].append((b, w))\nd = [10**18] * (n + 1)\nd[1] = 0\nh = [(0, 1)]\nwhile h:\n    x, u = heapq.heappop(h)\n    if x > d[u]: continue\n    for v, w in g[u]:\n        if x + w < d[v]:\n            d[v] = x + w\n            heapq.heappush(h, (d[v], v))\nprint(d[n])", [("3 3\n1 2 5\n2 3 6\n1 3 20\n", "11")]),
    ("recursion with a deep limit", "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\nprint(f(int(input())))", [("50000\n", "50000")]),
    ("recursion in a thread", "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 27)\ndef main():\n    n = int(input())\n    def f(k):\n        return 1 if k == 0 else f(k - 1)\n    print(f(n) + n)\nt = threading.Thread(target=main)\nt.start()\nt.join()", [("20000\n", "20001")]),
    ("a decimal", "n = int(input())\nprint(n / 3)", [("1\n", "0.333333333\n"), ("3\n", "1.0")]),
    ("a decimal with places", "a, b = map(float, input().split())\nprint('%.2f' % (a * b))", [("1.5 2.5\n", "3.75")]),
    ("big numbers", "a = int(input())\nb = int(input())\nprint(a * b)", [("1" + "0" * 50 + "\n2" + "0" * 50 + "\n", "2" + "0" * 100)]),
    ("modulo power", "b, e, m = map(int, input().split())\nprint(pow(b, e, m))", [("2 1000000000 1000000007\n", "140625001")]),
    ("binary search", "import bisect\nn, q = map(int, input().split())\na = sorted(map(int, input().split()))\nfor _ in range(q):\n    print(bisect.bisect_right(a, int(input())))", [("3 2\n5 1 3\n3\n0\n", "2\n0\n")]),
    ("prefix sums", "from itertools import accumulate\nn = int(input())\np = [0, *accumulate(map(int, input().split()))]\nl, r = map(int, input().split())\nprint(p[r] - p[l - 1])", [("4\n1 2 3 4\n2 3\n", "5")]),
    ("a counter", "from collections import Counter\nc = Counter(input())\nprint(*sorted(c.items(), key=lambda x: (-x[1], x[0]))[0])", [("banana\n", "a 3")]),
    ("memory of results", "from functools import lru_cache\n@lru_cache(None)\ndef f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nprint(f(int(input())))", [("90\n", "2880067194370816120")]),
    ("a knapsack", "n, w = map(int, input().split())\nd = [0] * (w + 1)\nfor _ in range(n):\n    a, b = map(int, input().split())\n    for j in range(w, a - 1, -1):\n        d[j] = max(d[j], d[j - a] + b)\nprint(d[w])", [("3 5\n1 1\n2 6\n4 9\n", "10")]),
    ("permutations", "from itertools import permutations\ns = input().strip()\nprint(len(set(permutations(s))))", [("aab\n", "3")]),
    ("lines until the end", "import sys\nfor line in sys.stdin:\n    a, b = line.split()\n    print(int(a) - int(b))", [("5 3\n2 9\n", "2\n-7\n")]),
    ("until an error", "total = 0\ntry:\n    while True:\n        total += int(input())\nexcept EOFError:\n    print(total)", [("1\n2\n3\n", "6")]),
    ("a string with blanks", "print(input().title())", [("hello big world\n", "Hello Big World")]),
    ("no input", "print('Hello, World!')", [("", "Hello, World!\n")]),
    ("output by write", "import sys\nout = []\nfor i in range(int(input())):\n    out.append(str(i * i))\nsys.stdout.write('\\n'.join(out))", [("3\n", "0\n1\n4\n")]),
    ("a segment tree", "n, q = map(int, input().split())\nt = [0] * (2 * n)\nfor _ in range(q):\n    k, a, b = map(int, input().split())\n    if k == 1:\n        a += n - 1\n        t[a] = b\n        while a > 1:\n            a //= 2\n            t[a] = t[2 * a] + t[2 * a + 1]\n    else:\n        s, l, r = 0, a + n - 1, b + n\n        while l < r:\n            if l & 1:\n                s += t[l]\n                l += 1\n            if r & 1:\n                r -= 1\n                s += t[r]\n            l //= 2\n            r //= 2\n        print(s)", [("4 4\n1 1 5\n1 3 7\n2 1 4\n2 2 3\n", "12\n7\n")]),
    ("numpy", "import numpy as np\nn = int(input())\na = np.array(list(map(int, input().split())))\nprint(int(a.cumsum()[-1] * n))", [("2\n3 4\n", "14")]),
    ("many lines", "n = int(input())\nprint('\\n'.join(str(i) for i in range(n)))", [("20000\n", "\n".join(map(str, range(20000))))]),
]  # fmt: skip
VERIFIER = PythonTests(timeout_seconds=PATIENT_SECONDS)


def cases(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    return {"inputs": [given for given, _ in pairs], "outputs": [wanted for _, wanted in pairs]}


def test_there_are_thirty_scripts() -> None:
    assert len({name for name, *_ in SCRIPTS}) == 30


@pytest.mark.parametrize(("name", "program", "pairs"), SCRIPTS, ids=[name for name, *_ in SCRIPTS])
def test_a_script_passes_its_own_cases(name: str, program: str, pairs: list[tuple[str, str]]) -> None:
    verdict = VERIFIER.check(a_problem(input_output=cases(pairs)), program)

    assert verdict.score == 1.0, verdict


def test_no_script_passes_the_cases_of_another() -> None:
    problems = [a_problem(input_output=cases(pairs)) for _, _, pairs in SCRIPTS]
    others = [program for _, program, _ in [*SCRIPTS[1:], SCRIPTS[0]]]

    verdicts = PythonTests(timeout_seconds=5.0).check_many(problems, others, [str(n) for n in range(len(others))])

    assert [verdict.score for verdict in verdicts if verdict.score == 1.0] == []
