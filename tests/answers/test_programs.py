from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.answers.programs import extract_code, is_code_problem, whole_program
from mae_cli.checking.code.unit_tests import has_tests, plan_of
from tests.support import a_problem

FUNCTION = "def f(x):\n    return x + 1"


@pytest.mark.parametrize(
    ("text", "code", "source"),
    [
        (f"Here:\n```python\n{FUNCTION}\n```\nDone.", FUNCTION, "code_fence"),
        (f"```\n{FUNCTION}\n```", FUNCTION, "code_fence"),
        (f"~~~py\n{FUNCTION}\n~~~", FUNCTION, "code_fence"),
        (f"```python\n{FUNCTION}\n```\nIt prints\n```text\n3\n```", FUNCTION, "code_fence"),
        (f"```python\n{FUNCTION}\n```\nUse:\n```python\nprint(f(2))\n```", FUNCTION, "code_fence"),
        (f"<answer>\n```python\n{FUNCTION}\n```\n</answer>", FUNCTION, "answer_tag"),
        (f"<answer>\n{FUNCTION}\n</answer>", FUNCTION, "answer_tag"),
        (f"<think>```python\nwrong()\n```</think>\n{FUNCTION}\n", FUNCTION, "code_text"),
        ("    return x + 1\n", "    return x + 1", "code_text"),
        # As small models write: a fence too many, a fence never closed, no fence but words around.
        (f"```\n\n```python\n{FUNCTION}\n```", FUNCTION, "code_fence"),
        (f"Sure:\n```python\n{FUNCTION}", FUNCTION, "code_fence"),
        (f"```python\nf = 1\n```\nBetter:\n```python\n{FUNCTION}", "f = 1", "code_fence"),
        (f"```python\n{FUNCTION}\n```\nThat is all.\n```\nIt adds one.", FUNCTION, "code_fence"),
        (f"{FUNCTION}\n\nThis function adds one, doesn't it?", FUNCTION, "code_text"),
        (f"Here it is:\n\n{FUNCTION}\n\nIt adds one.", FUNCTION, "code_text"),
        ("    return x + 1\n\nIt adds one.", "    return x + 1", "code_text"),
        ("from what I see, nothing can be said.", None, None),
        ("The answer is 42.", None, None),
        ("42", None, None),
        ("", None, None),
    ],
)
def test_the_program_is_found_with_its_source(text: str, code: str | None, source: str | None) -> None:
    found = extract_code(text, "f")

    assert (found.answer, found.source) == (code, source)


@given(st.text(alphabet="`~ \npython<answer>/def:()", max_size=80))
def test_extracting_never_raises(text: str) -> None:
    extract_code(text, "f")


def test_the_fields_of_the_usual_sets_are_understood() -> None:
    human_eval = plan_of(a_problem(test="def check(candidate):\n    assert candidate(1) == 2", entry_point="f"))
    mbpp = plan_of(a_problem(test_list=["assert f(1) == 2", "assert max(f(2), g(1)) == 3"], test_setup_code="n = 1"))

    assert human_eval is not None
    assert mbpp is not None
    assert (human_eval["asked"], human_eval["candidate"]) == (["f"], "f")
    assert (mbpp["asked"], mbpp["candidate"], mbpp["setup"]) == (["f", "g"], None, "n = 1")
    assert not has_tests(a_problem())
    assert not has_tests(a_problem(tests=["assert f("]))
    assert not is_code_problem(a_problem())
    assert is_code_problem(a_problem(entry_point="f"))


def test_a_body_alone_and_a_whole_function_both_work_behind_the_head() -> None:
    head = 'from typing import List\n\n\ndef f(x: List[int]) -> int:\n    """Add one."""\n'
    problem = a_problem(head)

    assert whole_program(problem, "    return x + 1").endswith('one."""\n    return x + 1')
    assert whole_program(problem, FUNCTION).startswith("from typing import List")
    assert whole_program(a_problem("Write a function f."), FUNCTION) == FUNCTION
