"""The tests a problem brings, as orders for the sandbox: unit tests, cases of a script, calls of a function.

Place in the flow: the verifier `python_tests` sends what is made here. Contract: pure functions over a problem and a
text that never raise; nothing is run. Understood are the fields of HumanEval and HumanEval+ (`test`, `entry_point`),
of MBPP and MBPP+ (`test_list`, `test`, `test_setup_code`, `test_imports`), of APPS, TACO and LiveCodeBench
(`input_output`, with or without `fn_name`), and our own `tests`: Python, doctest lines, or a list of `{input,
output}`.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from typing import Any, Final

import msgspec

from mae_cli.answers.program_parts import defines, parse
from mae_cli.answers.programs import UNIT_TEST_KEYS, entry_point_of, head_of, whole_program
from mae_cli.checking.code import sandbox
from mae_cli.checking.code.guest import instrument, values
from mae_cli.records import Problem

_SETUP_KEYS: Final = ("test_imports", "test_setup_code")
TOLERANCE: Final = 1e-9
"""Of floats that a call-based test returns, relative and at least absolute."""


class Cases(msgspec.Struct, frozen=True):
    """Inputs and outputs of a problem: texts for a script, or arguments and values for a function."""

    inputs: list[Any]
    outputs: list[Any]
    function: str | None = None
    """The function (or method of `Solution`) that is called; null where the program is run as a script."""
    seconds: float | None = None
    """Limit of time of a case, where the problem sets one."""


def tests_order(problem: Problem, answer: str, limits: sandbox.Limits) -> sandbox.Order | str:
    """The order that tests a program, or the reason why there is none."""
    program = whole_program(problem, answer)
    cases = cases_of(problem)
    if isinstance(cases, Cases):
        return _cases_order(cases, program, limits)
    plan = plan_of(problem)
    if plan is None:
        return cases or "the problem brings no tests that can be read"
    imports = _imports_for(program, f"{plan['setup']}\n{plan['source']}")
    return sandbox.Order(kind="tests", source=program, content={"plan": plan, "imports": imports}, limits=limits)


def has_tests(problem: Problem) -> bool:
    """Whether a problem brings tests that can be read."""
    return isinstance(cases_of(problem), Cases) or plan_of(problem) is not None


def plan_of(problem: Problem) -> dict[str, Any] | None:
    """What the guest of the tests runs (see `guest.tests.Runner`); null where no unit tests can be read."""
    meta = problem.meta
    found = next((meta[key] for key in UNIT_TEST_KEYS if meta.get(key)), None)
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        found = "\n".join(found)
    if not isinstance(found, str) or not found.strip():
        return None
    setup = "\n".join(text for key in _SETUP_KEYS for text in _texts(meta.get(key)) if text.strip())
    tree, is_doctest = parse(found), False
    if tree is None and ">>>" in found:
        tree, is_doctest = _examples(found), True
    if tree is None:
        return None
    entry_point = entry_point_of(problem) or _method_of(meta.get("entry_point"))
    takes_candidate = any(_takes_one(node) for node in tree.body)
    asked = [entry_point.partition("(")[0]] if entry_point else _called(tree)
    if parse(setup) is None:
        setup = "raise SyntaxError('the setup code of the tests is no Python')"
    return {
        "head": head_of(problem) or "",
        "setup": setup,
        "source": found,
        "asked": asked,
        "candidate": entry_point if takes_candidate else None,
        "is_doctest": is_doctest,
    }


def cases_of(problem: Problem) -> Cases | str | None:
    """Inputs and outputs that a problem brings; a reason where they cannot be read, null where there are none."""
    raw = problem.meta.get("input_output")
    if raw is None:
        raw = _listed(problem.meta.get("tests"))
    if raw is None:
        return None
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError as error:
            return f"input_output is no JSON: {error}"
    if not isinstance(raw, dict):
        return "input_output is no object with inputs and outputs"
    inputs, outputs = raw.get("inputs"), raw.get("outputs")
    if not (isinstance(inputs, list) and isinstance(outputs, list) and inputs and len(inputs) == len(outputs)):
        return "input_output has no inputs with as many outputs"
    function = raw.get("fn_name") or None
    if function is None:
        texts = [[_script_text(item) for item in side] for side in (inputs, outputs)]
        if any(text is None for side in texts for text in side):
            function = entry_point_of(problem)
            if function is None:
                return "input_output holds no texts, and no function is named"
        else:
            return Cases(texts[0], texts[1], None, _seconds(problem))
    if not isinstance(function, str):
        return "fn_name is no name"
    try:
        return Cases([_arguments(item) for item in inputs], [_result(item) for item in outputs], function)
    except ValueError as error:
        return f"the inputs of {function} cannot be read: {error}"


def _method_of(name: object) -> str | None:
    """An entry point such as `Solution().twoSum`; null for anything else."""
    return name if isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w*\(\)\.[A-Za-z_]\w*", name) else None


def _listed(tests: object) -> dict[str, Any] | None:
    """Our own `tests: [{input, output}, ..]` in the form of `input_output`."""
    if not (isinstance(tests, list) and tests and all(isinstance(item, dict) for item in tests)):
        return None
    return {
        "inputs": [item.get("input", item.get("stdin")) for item in tests],
        "outputs": [
            next((item[k] for k in ("output", "expected_output", "stdout") if k in item), None) for item in tests
        ],
    }


def _script_text(item: object) -> str | None:
    """Standard input or output of one case: a text, or its lines."""
    if isinstance(item, str):
        return item
    if isinstance(item, list) and all(isinstance(line, str) for line in item):
        return "\n".join(item)
    return None


def _arguments(item: Any) -> list[Any]:
    """The arguments of one call: a list, or (LiveCodeBench) one JSON value a line."""
    if isinstance(item, str):
        return [json.loads(line) for line in item.split("\n") if line.strip()]
    return item if isinstance(item, list) else [item]


def _result(item: Any) -> Any:
    return json.loads(item) if isinstance(item, str) else item


def _seconds(problem: Problem) -> float | None:
    found = problem.meta.get("time_limit")
    return float(found) if isinstance(found, int | float) and 0 < found <= 60 else None


def _cases_order(cases: Cases, program: str, limits: sandbox.Limits) -> sandbox.Order | str:
    if cases.function is None:
        return sandbox.script_order(program, cases.inputs, cases.outputs, limits=limits)
    calls = [{"args": arguments} for arguments in cases.inputs]
    try:
        return sandbox.calls_order(
            program, cases.function, calls, outputs=cases.outputs, tolerance=TOLERANCE, limits=limits, unwraps=True
        )
    except values.CannotCrossError as error:
        return f"the cases cannot be sent: {error}"


def _imports_for(program: str, tests: str) -> str:
    """The imports and classes of the tests that a program mentions: published sets run both in one namespace.

    A class is copied where the program does not define it: LeetCode's `ListNode`, which stands in the tests alone.
    """
    tree, words = parse(tests), set(re.findall(r"\w+", program))
    found = []
    for node in tree.body if tree else ():
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            if names & words and getattr(node, "module", "") != "__future__":
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ClassDef) and node.name in words and not defines(program, node.name):
            found.append(ast.unparse(node))
    return "\n".join(f"try:\n{textwrap.indent(line, '    ')}\nexcept Exception:\n    pass" for line in found)


def _examples(text: str) -> ast.Module | None:
    """The statements of doctest lines as one tree; null where they are none."""
    lines = [line.strip() for line in text.split("\n")]
    code = [line[4:] for line in lines if line.startswith((">>> ", "... "))]
    return parse("\n".join(code)) if code else None


def _called(tree: ast.Module) -> list[str]:
    """Free names that the tests call: what a program without a named entry point has to define.

    Where they call nothing but built-in functions, the first of these is meant: MBPP asks for a function `sum`.
    """
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    called = list(dict.fromkeys(node.func.id for node in calls if isinstance(node.func, ast.Name)))
    free = [name for name in instrument.free_names(tree) if name in called and not name.startswith("assert")]
    return free or called[:1]


def _takes_one(node: ast.stmt) -> bool:
    """Whether a statement defines a test of the form `check(candidate)`."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith(("check", "test")):
        return False
    needed = len(node.args.args) + len(node.args.posonlyargs) - len(node.args.defaults)
    return needed == 1 and not node.decorator_list


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
