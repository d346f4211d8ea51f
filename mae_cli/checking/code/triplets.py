"""Program triplets (program, input, output): whether one is a valid task, and whether an answer to it is right.

Place in the flow: library code for proposers of programs and their rewards. A triplet is a program with a function `f`,
an input (the arguments of one call, as literals: `3, [1, 2]`) and the output f gives for it. Contract: programs run in
the sandbox alone; texts become values through a literal reader, never through `eval`; an output is whole or the triplet
is refused; a check that a limit or a missing feature stops is unknown (null), not wrong.

Source: Absolute Zero, arXiv:2505.03335, section 3.3 (validity: runs, is safe, is deterministic under j = 2 runs;
deduction by value equality, abduction by running the program on the predicted input, induction on the hidden cases).
Otherwise than in its released code: the import list is checked for whole names, the two runs also differ in
random start, outputs over the limit are refused instead of cut, and values are never read with `eval`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mae_cli.answers import program_parts
from mae_cli.checking.code import sandbox
from mae_cli.checking.code.plain_values import is_plain, values_equal
from mae_cli.checking.code.sandbox import DEFAULT_LIMITS
from mae_cli.records import VerdictStatus

ENTRY: Final = "f"
MAX_TEXT: Final = 400
"""Longest input or output, in characters; AZR cuts longer ones, which makes a wrong gold value."""
ALLOWED_IMPORTS: Final = frozenset(
    [
        "bisect",
        "collections",
        "copy",
        "dataclasses",
        "decimal",
        "functools",
        "itertools",
        "json",
        "math",
        "re",
        "string",
        "typing",
        "unicodedata",
    ]
)
"""Modules a task may use: nothing that reads a clock, chance, files or the system, nor hashes."""
BANNED_NAMES: Final = frozenset(
    [
        "open",
        "input",
        "print",
        "exec",
        "eval",
        "compile",
        "breakpoint",
        "exit",
        "quit",
        "help",
        "id",
        "hash",
        "globals",
        "locals",
        "vars",
        "dir",
        "getattr",
        "setattr",
        "delattr",
        "memoryview",
        "__import__",
        "__builtins__",
    ]
)
NO_ERROR: Final = "NoError"


class Checked(msgspec.Struct, frozen=True):
    """Result of a check: right, wrong, or null with the status that says why nothing is known."""

    correct: bool | None
    status: VerdictStatus = "ok"
    reason: str = ""


class Triplet(msgspec.Struct, frozen=True):
    """A validated task."""

    program: str
    input: str
    output: str
    """What the program gives, as a literal; with `error`, the empty text."""
    error: str = NO_ERROR
    """Class of the exception that the program raises on the input."""


class Validation(msgspec.Struct, frozen=True):
    """A triplet, or the reason why there is none."""

    triplet: Triplet | None
    reason: str = ""
    is_unknown: bool = False
    """The program may be fine: a limit or a missing feature decided."""


def read_literal(text: str) -> tuple[Any] | None:
    """The value a literal stands for, boxed in a tuple of one; null where the text is no plain literal."""
    if len(text) > 4 * MAX_TEXT:
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return (value,) if is_plain(value) and value == value else None


def read_arguments(text: str) -> tuple[Any, ...] | None:
    """The arguments of one call, written as in the call: `3, [1, 2]`; keywords are not read."""
    found = read_literal(f"({text.strip().rstrip(',')},)") if text.strip() else ((),)
    return None if found is None or not isinstance(found[0], tuple) else found[0]


def static_fault(program: str) -> str | None:
    """Reason to refuse a program before it runs; null where there is none."""
    tree = program_parts.parse(program)
    if tree is None:
        return "not Python, or too long"
    entry = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == ENTRY), None)
    if entry is None:
        return f"no function {ENTRY} at the top level"
    if not (entry.args.args or entry.args.posonlyargs or entry.args.vararg):
        return f"{ENTRY} takes no input"
    if not any(isinstance(node, ast.Return) and node.value is not None for node in ast.walk(entry)):
        return f"{ENTRY} returns nothing"
    for node in ast.walk(tree):
        fault = _fault_of(node)
        if fault:
            return fault
    return None


def _fault_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Import):
        names = [alias.name.partition(".")[0] for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [(node.module or "").partition(".")[0]]
    elif isinstance(node, ast.Name) and node.id in BANNED_NAMES:
        return f"uses {node.id}"
    elif isinstance(node, ast.Attribute) and node.attr.startswith("__"):
        return f"uses {node.attr}"
    elif isinstance(node, ast.Global):
        return "changes global state"
    else:
        return None
    banned = [name for name in names if name not in ALLOWED_IMPORTS]
    return f"imports {banned[0]}" if banned else None


def validate(
    program: str, input_text: str, *, limits: sandbox.Limits = DEFAULT_LIMITS, allow_error: bool = False
) -> Validation:
    """Run a proposed program on its input, twice, and record its output.

    Args:
        program: defines `f`.
        input_text: the arguments of one call, as literals.
        limits: of each run.
        allow_error: for tasks about the exception a program raises: raising makes a valid triplet too.
    """
    fault = static_fault(program)
    if fault:
        return Validation(None, fault)
    arguments = read_arguments(input_text)
    if arguments is None or len(input_text) > MAX_TEXT:
        return Validation(None, f"the input is not a list of literals of at most {MAX_TEXT} characters")
    runs = [_call(program, arguments, limits, seed=seed) for seed in (0, 1)]
    for run in runs:
        if run.status == "failed" and not allow_error:
            return Validation(None, run.reason)
        if run.status not in ("passed", "failed"):
            return Validation(None, run.reason, is_unknown=True)
    first, second = runs
    if first.status == "failed":
        if (first.status, first.error) != (second.status, second.error):
            return Validation(None, "not deterministic")
        return Validation(Triplet(program, input_text.strip(), "", first.error))
    if not all(value for run in runs for value in run.values):
        return Validation(None, "the value returned is not a plain value")
    if second.status != "passed" or not _same_twice([value for run in runs for (value,) in run.values]):
        return Validation(None, "not deterministic, or not a plain value equal to itself")
    ((value,), _) = first.values
    output = repr(value)
    if len(output) > MAX_TEXT:
        return Validation(None, f"the output has {len(output)} characters, the most is {MAX_TEXT}")
    read = read_literal(output)
    if read is None or not values_equal(read[0], value):
        return Validation(None, "the output cannot be written as a literal")
    return Validation(Triplet(program, input_text.strip(), output))


def _same_twice(values: Sequence[Any]) -> bool:
    """Both runs call f twice; all four values are one."""
    return all(values_equal(values[0], value) and repr(values[0]) == repr(value) for value in values)


def _call(program: str, arguments: tuple[Any, ...], limits: sandbox.Limits, *, seed: int = 0) -> sandbox.ProgramRun:
    """Call f on the arguments, twice in one interpreter, so that state kept between calls shows."""
    calls = [{"args": list(arguments)}] * 2
    return sandbox.run(sandbox.calls_order(program, ENTRY, calls, seed=seed, limits=limits))


def check_deduction(triplet: Triplet, predicted_output: str) -> Checked:
    """Check a predicted output: it is right where it is the value that the program gives."""
    expected, found = read_literal(triplet.output), read_literal(predicted_output)
    if expected is None:
        return Checked(None, "unsupported", "the triplet has no output that can be read")
    if found is None:
        return Checked(False, reason="the answer is not a literal")
    return Checked(values_equal(found[0], expected[0]), reason="values compared")


def check_abduction(triplet: Triplet, predicted_input: str, *, limits: sandbox.Limits = DEFAULT_LIMITS) -> Checked:
    """Check a predicted input: it is right where the program gives the triplet's output on it."""
    arguments, expected = read_arguments(predicted_input), read_literal(triplet.output)
    if expected is None:
        return Checked(None, "unsupported", "the triplet has no output that can be read")
    if arguments is None:
        return Checked(False, reason="the answer is not a list of literals")
    return _compared(_call(triplet.program, arguments, limits), expected[0])


def check_induction(
    cases: Sequence[tuple[str, str]], program: str, *, limits: sandbox.Limits = DEFAULT_LIMITS
) -> Checked:
    """Check a predicted program: it is right where it gives the output of every hidden (input, output) case."""
    fault = static_fault(program)
    if fault:
        return Checked(False, reason=fault)
    if not cases:
        return Checked(None, "unsupported", "no hidden cases")
    for number, (input_text, output) in enumerate(cases, 1):
        arguments, expected = read_arguments(input_text), read_literal(output)
        if arguments is None or expected is None:
            return Checked(None, "unsupported", f"hidden case {number} cannot be read")
        checked = _compared(_call(program, arguments, limits), expected[0])
        if not checked.correct:
            return msgspec.structs.replace(checked, reason=f"hidden case {number}: {checked.reason}")
    return Checked(True, reason=f"{len(cases)} hidden cases")


def check_error(triplet: Triplet, predicted: str) -> Checked:
    """Check a predicted exception: its first word must name the one the program raises, or `NoError`, in any case."""
    words = predicted.split()
    first = words[0].strip("`'\".,:;()") if words else ""
    return Checked(first.casefold() == triplet.error.casefold(), reason=f"the program: {triplet.error}")


def _compared(run: sandbox.ProgramRun, expected: Any) -> Checked:
    if run.status == "timeout":
        return Checked(None, "timeout", run.reason)
    if run.status not in ("passed", "failed"):
        return Checked(None, "unsupported", run.reason)
    if run.status == "failed":
        return Checked(False, reason=run.reason)
    return Checked(bool(run.values[-1]) and values_equal(run.values[-1][0], expected), reason="values compared")
