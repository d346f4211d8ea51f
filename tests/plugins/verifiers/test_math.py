from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from mae_cli.answers.extract import extract_answer
from mae_cli.checking import killable as workers
from mae_cli.checking.mathematics.equality import equality
from mae_cli.plugins.verifiers.math import TARGET, Math
from tests.plugins.verifiers.math_forms import different, same
from tests.support import (
    PATIENT_SECONDS,
    ROOT,
    a_problem,
    benchmark_items,
    child_environment,
    slowness,
    wait_until,
)

# Golds of many kinds, as in MATH (arXiv:2103.03874) and GSM8K.
GOLDS = [
    "18", "-3", "1200", "70000", "\\frac{3}{4}", "-\\frac{35}{9}", "4.5", ".35625", "2\\sqrt{5}", "18+2\\pi", "p - q",
    "\\frac{\\sqrt{3}}{3}", "(8,-2)", "(3,4]", "1,-2", "x^3+3x-6", "6 - 5i", "\\text{Evelyn}", "8n^2 + 4n + 1",
    "\\left( 3, \\frac{\\pi}{2} \\right)", "(-\\infty, 2) \\cup (3, \\infty)", "\\frac{11+9a}{20}", "1 \\pm \\sqrt{19}",
]  # fmt: skip
# Reported as false positives of math-verify (its issue 14), all twelve.
FALSE_POSITIVES = [
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    ("n=2, 3, 4", "n=1, 2, 3"),
    ("D = (0, 1)", "D = (0, 1.5)"),
    (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}"),
    (r"19, 46, \text{ and } 82", "21, 36, and 82"),
    (r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", r"\frac{1}{3 \cdot 2^{2006}}"),
    (r"1 - \frac{1}{\mathrm{e}}", r"1 + \frac{1}{\mathrm{e}}"),
    (r"\pm 2021", "2021"),
    ("12:00", "1:00"),
    (r"1, 2, \ldots, n", r"1, 3, 5, \ldots, 2n-1"),
    (r"1:2:3:\ldots", r"1:4:9:\ldots"),
    ("4", r"4\sqrt(2)"),
    ("3R^2", "3r^2"),
]
QUICK_SECONDS = 1.0
HOSTILE = [
    r"\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}",
    "9^{9^{9^{9}}}",
    "2^{2^{2^{2^{2^{2}}}}}",
    "(10^{10^{10}})!",
    "99999999999999!",
    "((10!)!)!",
    r"\binom{10^{12}}{5 \cdot 10^{11}}",
    r"\sum_{n=1}^{10^{12}} \frac{1}{n^2}",
    r"\prod_{n=1}^{10^{9}} (1 + \frac{1}{n^2})",
    r"\int_0^1 \sin(x^{x^x}) \, dx",
    "\\sqrt{2+" * 300 + "2" + "}" * 300,
    r"\frac{1}{" * 200 + "x" + "}" * 200,
    "(" * 900 + "1" + ")" * 900,
    "{" * 1900,
    "\\frac" * 380,
    "x^" * 900 + "x",
    "1+" * 900 + "1",
    "(x+1)^{10^{6}}",
    r"\lim_{x \to 0} \frac{\sin x^{999999}}{x^{999999}}",
    "\\frac{1}{2" + "{{{\\left(" * 12_500,  # 112 kB of broken LaTeX
    "\u0660" * 1000 + "\x00\x01\ud83d" + "\\" * 100,
]


@pytest.fixture(scope="module")
def quick() -> Math:
    verifier = Math(timeout_seconds=QUICK_SECONDS * slowness(), memory_mib=512)
    assert verifier.compare([("1", "1.0")])[0].score == 1.0  # the helper has started
    return verifier


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in ("Z", "X")
    except OSError:
        return False


def descendants(pid: int) -> set[int]:
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found.update(children)
        todo += children
    return found


@pytest.mark.parametrize(
    ("gold", "answer", "score", "status"),
    [
        ("\\frac{1}{2}", "0.5", 1.0, "ok"),
        ("0.5", "\\frac{1}{2}", 1.0, "ok"),
        ("x=5", "5", 1.0, "ok"),
        ("5", "x = 5", 1.0, "ok"),
        ("\\$36", "36 dollars", 1.0, "ok"),
        ("15\\mbox{ cm}^2", "15 cm^2", 1.0, "ok"),
        ("137 \\frac{1}{2}", "137.5", 1.0, "ok"),
        ("[-2,7]", "-2 \\le x \\le 7", 1.0, "ok"),
        ("(a+5)(b+2)", "ab+2a+5b+10", 1.0, "ok"),
        ("\\begin{pmatrix} 1/5 \\\\ -18/5 \\end{pmatrix}", "\\begin{bmatrix} 0.2\\\\-3.6\\end{bmatrix}", 1.0, "ok"),
        ("\\text{(C)}", "C", 1.0, "ok"),
        ("(3,4]", "(3,4)", 0.0, "ok"),
        ("(1,2)", "(2,1)", 0.0, "ok"),
        ("\\frac13", "0.33", 0.0, "ok"),
        ("5", "I do not know", 0.0, "ok"),
        ("36 cents", "36 dollars", None, "unsure"),
        ("50", "50%", None, "unsure"),
        ("5", None, 0.0, "ok"),
        ("5", " ", 0.0, "ok"),
        ("", "5", None, "unsupported"),
        ("5", "1+" * 1001 + "1", None, "unsupported"),
    ],
)
def test_an_answer_is_right_wrong_or_unknown(
    quick: Math, gold: str, answer: str | None, score: float | None, status: str
) -> None:
    verdict = quick.check(a_problem(answer=gold), answer)

    assert (verdict.score, verdict.status) == (score, status), verdict.reason


def test_no_known_false_positive_of_the_library_is_called_equal(quick: Math) -> None:
    pairs = [*FALSE_POSITIVES, *((answer, gold) for gold, answer in FALSE_POSITIVES)]

    verdicts = quick.compare(pairs)

    assert [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.score == 1.0] == []
    # Where the library errs, the row says that the two checks contradict each other.
    assert "math-verify: equal, own reading: different" in {v.reason for v in verdicts if v.status == "unsure"}


# Words and letters that change the number before them, which one reading stripped for both checks.
CHANGED = [
    ("5", "5 pi"), ("5", "5pi"), ("3", "3xy"), ("6", "6ab"), ("\\frac{3}{4}", "\\frac{3}{4}xy"),
    ("3\\sqrt{2}", "3\\sqrt{2} pi"), ("x+1", "x+1 \\text{million}"), ("5", "5 million"), ("12", "12 thousand dollars"),
    ("5", "5 squared"), ("2", "2 thirds"), ("10", "10 factorial"), ("5", "5 minus one"), ("12", "12 in base nine"),
    ("5", "5 dozen"), ("5", "5\\text{ cubed}"), ("3", "3 sin x"), ("3", "3xyz"), ("1", "1 out of five"),
    ("5", "5 theta"), ("8", "8 theta"), ("5", "5 xyzw"), ("4", "4 root two"),
]  # fmt: skip


def test_letters_and_words_that_change_a_number_never_leave_it_equal_to_the_bare_number(quick: Math) -> None:
    pairs = [*CHANGED, *((answer, gold) for gold, answer in CHANGED)]

    verdicts = quick.compare(pairs)

    assert [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.score == 1.0] == []


@pytest.mark.parametrize(
    "words", ["apples", "clips", "dollars per day", "of them", "square feet", "ms", "\\text{pens}"]
)
def test_words_that_say_what_is_counted_leave_a_number_as_it_is(quick: Math, words: str) -> None:
    assert [v.score for v in quick.compare([("18", f"18 {words}"), (f"18 {words}", "18")])] == [1.0, 1.0]


def test_a_number_with_a_word_that_changes_it_is_unknown_not_wrong(quick: Math) -> None:
    verdicts = quick.compare([("5000000", "5 million"), ("25", "5 squared"), ("60", "5 dozen")])

    assert {(verdict.score, verdict.status) for verdict in verdicts} == {(None, "unsupported")}


def test_many_answers_get_the_verdicts_of_single_ones_and_equal_pairs_are_asked_once(quick: Math) -> None:
    problems = [a_problem(answer=gold) for gold in GOLDS for _ in range(4)]
    answers = [answer for gold in GOLDS for answer in (gold, "17", gold, None)]

    many = quick.check_many(problems, answers, ["g"] * len(problems))

    assert many == [quick.check(problem, answer) for problem, answer in zip(problems, answers, strict=True)]
    assert len({id(verdict) for verdict in many}) == len(many)


def test_answers_written_another_way_are_accepted_and_near_misses_never(quick: Math) -> None:
    accepted, misses = _forms(GOLDS), _misses(GOLDS)

    found = quick.compare([(gold, answer) for gold, _, answer in accepted])
    missed = quick.compare([(gold, answer) for gold, _, answer in misses])

    assert len(accepted) > 60
    assert len(misses) > 150
    assert [form for form, v in zip(accepted, found, strict=True) if v.score != 1.0] == []
    assert [miss for miss, v in zip(misses, missed, strict=True) if v.score == 1.0] == []


def _forms(golds: list[str]) -> list[tuple[str, str, str]]:
    """(gold, rule, answer as extracted); those whose text is the gold's own are left out: they prove nothing."""
    read = [(gold, rule, extract_answer(text).answer or "") for gold in golds for rule, text in same(gold)]
    return [form for form in dict.fromkeys(read) if form[2].strip("$") != form[0]]


def _misses(golds: list[str]) -> list[tuple[str, str, str]]:
    rng = random.Random(0)
    return list(dict.fromkeys((gold, rule, answer) for gold in golds for rule, answer in different(gold, rng)))


def _check_hostile(verifier: Math, texts: list[str], found: list[tuple[str, str, float | None]]) -> None:
    for text in texts:
        for pair in ((text, "5"), ("5", text)):
            verdict = verifier.check(a_problem(answer=pair[0]), pair[1])
            found.append((text[:40], verdict.status, verdict.score))


def _hostile_texts_are_survived(verifier: Math, texts: list[str], where: str) -> None:
    found: list[tuple[str, str, float | None]] = []
    pool = workers.shared(TARGET, memory_mib=verifier.memory_mib)

    if where == "main thread":
        _check_hostile(verifier, texts, found)
    else:
        thread = threading.Thread(target=_check_hostile, args=(verifier, texts, found))
        thread.start()
        thread.join()

    assert len(found) == 2 * len(texts)
    assert [item for item in found if item[2] == 1.0] == []
    assert "timeout" in {status for _, status, _ in found}
    helper, *idle = pool.pids()
    assert {pid for pid in descendants(helper) if alive(pid)} == set(idle), "a hanging worker was left behind"
    resident = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (helper, *idle)) * 4096 / 2**20
    assert resident < 600, "memory was not returned"
    patient = Math(timeout_seconds=PATIENT_SECONDS, memory_mib=verifier.memory_mib)
    assert patient.compare([("2", "2.0")])[0].score == 1.0


# How soon is measured by `make bench WORKLOAD=limits`.
@pytest.mark.parametrize("where", ["main thread", "worker thread"])
def test_hostile_texts_end_at_the_limit_and_leave_no_worker_behind(quick: Math, where: str) -> None:
    _hostile_texts_are_survived(Math(timeout_seconds=0.3, memory_mib=512), HOSTILE[:5] + HOSTILE[-2:], where)


@pytest.mark.long
@pytest.mark.parametrize("where", ["main thread", "worker thread"])
def test_all_hostile_texts_end_at_the_limit_and_leave_no_worker_behind(quick: Math, where: str) -> None:
    assert len(HOSTILE) >= 20
    _hostile_texts_are_survived(quick, HOSTILE, where)


def test_a_killed_command_takes_its_workers_with_it(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mae_cli.checking import killable\nfrom mae_cli.plugins.verifiers.math import TARGET, Math\n"
        "m = Math(timeout_seconds=10**6)\nm.compare([('1', '1')])\n"
        "print(*killable.shared(TARGET, memory_mib=1024).pids(), flush=True)\nm.compare([('9^{9^{9^{9}}}', '5')])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=child_environment(), cwd=ROOT
    )
    assert process.stdout is not None
    pids = [int(number) for number in process.stdout.readline().split()]
    helper, worker = pids
    idle = cpu_ticks(worker)
    wait_until(lambda: cpu_ticks(worker) > idle + 5)  # it is at the text that never ends

    process.kill()
    process.wait()
    process.stdout.close()

    wait_until(lambda: not alive(helper) and not alive(worker))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("\\frac{1}{2004!}", "\\frac{1}{2005!}", False),
        ("\\sqrt{2}\\sqrt{3}", "\\sqrt{6}", True),
        ("\\sin^2 x + \\cos^2 x", "1", True),
        ("e^{i\\pi}", "-1", True),
        ("1\\frac{4}{5}", "9/5", True),
        ("\\frac43", "4/3", True),
        ("\\{1, 2, 3\\}", "3, 1, 2", True),
        ("x > 5", "(5, \\infty)", True),
        ("2x + 3y = 6", "4x + 6y = 12", True),
        ("2x + 3y = 6", "4x + 6y = 13", False),
        ("x < 2", "2 > x", True),
        ("x < 2", "x \\le 2", False),
        ("x = 5", "y = 5", False),
        ("50\\%", "0.5", True),
        ("2516_8", "2516_7", None),
        ("1, 2, \\ldots, n", "1, 2, \\ldots, n", None),
        ("\\int x dx", "x^2/2", None),
        ("x'", "x", None),
    ],
)
def test_the_own_reading_knows_what_it_knows(first: str, second: str, expected: bool | None) -> None:
    assert equality(first, second) is expected
    assert equality(second, first) is expected


def _benchmark_golds() -> tuple[list[str], list[str]]:
    math500, gsm8k = (
        [item["answer"].rpartition("####")[2].strip() for item in benchmark_items(name)]
        for name in ("math500", "gsm8k_test")
    )
    return math500, gsm8k


@pytest.mark.long
def test_forms_of_benchmark_answers_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    competition, school = _benchmark_golds()
    # Half of the forms from each set, and of each rule in turn, so that the many whole numbers do not fill the sample.
    by_rule: dict[str, list[tuple[str, str, str]]] = {}
    rng = random.Random(0)
    for golds in (competition, school):
        for form in rng.sample(forms := _forms(golds), len(forms)):
            by_rule.setdefault(form[1], []).append(form)
    chosen: list[tuple[str, str, str]] = []
    while len(chosen) < 500:
        chosen += [forms.pop(rng.randrange(len(forms))) for forms in by_rule.values() if forms]
    chosen = chosen[:500]

    verdicts = Math().compare([(gold, answer) for gold, _, answer in chosen])

    refused = [(form, v.reason) for form, v in zip(chosen, verdicts, strict=True) if v.score != 1.0]
    with capsys.disabled():
        print(f"\naccepted {500 - len(refused)} of 500 forms by {len(by_rule)} rules; refused: {refused}")
    assert len(refused) <= 10
    assert [item for item in refused if "math-verify: different, own reading: different" in item[1]] == []


@pytest.mark.long
def test_no_hard_unequal_pair_of_the_benchmarks_is_called_equal(capsys: pytest.CaptureFixture[str]) -> None:
    misses = _misses(sorted({gold for golds in _benchmark_golds() for gold in golds}))
    pairs = random.Random(1).sample(misses, 5000)

    verdicts = Math().compare([(gold, answer) for gold, _, answer in pairs])

    equal = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.score == 1.0]
    with capsys.disabled():
        print(f"\n5,000 unequal pairs: {Counter((v.status, v.score) for v in verdicts)}; called equal: {equal}")
    assert equal == []
