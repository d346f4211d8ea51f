"""Programs in problems and completions: which problems ask for one, and where it stands in a text.

Place in the flow: `answers.stated` reads the program out of a completion with `extract_code`; the verifiers
`python_tests` and `python_call` put it together with the parts that the problem brings. Contract: pure functions over
text that never raise; nothing is run here.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Final

from mae_cli.answers.extract import NOT_FOUND, Extraction
from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.tags import tag_spans
from mae_cli.records import Problem

_FENCE = re.compile(r"[ \t]{0,3}(?P<mark>```+|~~~+)[ \t]*(?P<language>[\w+-]*)(?P<rest>.*)", re.DOTALL)
_PYTHON: Final = frozenset({"", "python", "python3", "py"})
_FIRST_LINE = re.compile(r"(?:def|class|import|from|async def)\s|@\w|[ \t]+(?:return|if|for|while|import|from)\b")
_MOST_LINES: Final = 400
"""Lines of an unfenced text among which a program is looked for: each may cost a parse."""


def is_code_problem(problem: Problem) -> bool:
    """Whether the answer to a problem is a program."""
    meta = problem.meta
    return entry_point_of(problem) is not None or any(meta.get(key) for key in TEST_KEYS)


def head_of(problem: Problem) -> str | None:
    """The question where it is itself the beginning of a program, as in HumanEval; null otherwise."""
    question = problem.question.rstrip()
    return question if "def " in question and is_python(question) else None


def whole_program(problem: Problem, code: str) -> str:
    """The program an answer stands for: behind the question where that is itself Python (HumanEval), else alone.

    A model may write the body alone or the whole function again; both work behind the head, and a helper or import of
    the head is there for both.
    """
    head = head_of(problem)
    # Code that does not parse behind the head (it holds a syntax error) is run as it stands: its own fault shows.
    if head is not None and is_python(joined := f"{head}\n{code}"):
        return joined
    return code


def defines(code: str, name: str) -> bool:
    """Whether a program binds a name at its top level, by the look of its lines."""
    return re.search(rf"^(?:async )?(?:def|class) {re.escape(name)}\b|^{re.escape(name)}\s*=", code, re.M) is not None


def extract_code(text: str, entry_point: str | None = None) -> Extraction:
    """Extract a program from a completion.

    Order: the last fenced Python block inside the last answer tag, or the tag's content (`answer_tag`); the last fenced
    block that defines the entry point, else the last fenced block (`code_fence`); the whole text where it is Python and
    holds more than a name or a number, else the program it begins or ends with (`code_text`). Fences of other languages
    are passed over; a fence that is never closed reaches to the end.

    Source: our cascade; AZR (arXiv:2505.03335) takes the last fence.
    """
    visible = split_named_reasoning(text).visible
    spans = tag_spans(visible, "answer")
    if spans and spans[-1].strip():
        inside = _fenced(spans[-1], entry_point)
        return Extraction(inside or spans[-1].strip("\n").rstrip(), "answer_tag")
    fenced = _fenced(visible, entry_point)
    if fenced:
        return Extraction(fenced, "code_fence")
    plain = visible.strip("\n").rstrip()
    if re.search(r"^\s*(?:def|return|import|from|class|for|while|if)\b", plain, re.MULTILINE) and (
        is_python(plain) or is_python(f"def f():\n{plain}")
    ):
        return Extraction(plain, "code_text")
    code = _unfenced(plain)
    return NOT_FOUND if code is None else Extraction(code, "code_text")


def _unfenced(text: str) -> str | None:
    """The longest program that starts at the first line which looks like one; text before and behind it is left out."""
    lines = text.split("\n")
    start = next((place for place, line in enumerate(lines) if _FIRST_LINE.match(line)), None)
    if start is None:
        return None
    for end in range(min(len(lines), start + _MOST_LINES), start, -1):
        # A body cut in the middle would be another program.
        if end < len(lines) and lines[end].startswith((" ", "\t")):
            continue
        code = "\n".join(lines[start:end]).rstrip()
        if is_python(code) or is_python(f"def f():\n{code}"):
            return code
    return None


def _fenced(text: str, entry_point: str | None) -> str | None:
    """The block that counts: an opening fence inside a block begins another one, as models that forget to close do."""
    blocks, opened = [], []
    current: list[str] | None = None
    mark = language = ""
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        bare = fence is not None and not fence["language"] and not fence["rest"].strip()
        if current is not None and (fence is None or (bare and not fence["mark"].startswith(mark))):
            current.append(line)
        elif current is not None and bare:
            blocks.append((language, current))
            current = None
        elif fence is not None and "`" not in fence["rest"]:
            if current is not None:
                opened.append((language, current))
            current, mark, language = [], fence["mark"], fence["language"].lower()
        elif current is not None:
            current.append(line)
    closed = _programs(blocks)
    if current is not None and (language or not closed):
        opened.append((language, current))
    found = closed or _programs(opened)
    named = [code for code in found if entry_point and defines(code, entry_point)]
    return (named or found)[-1] if found else None


def _programs(blocks: list[tuple[str, list[str]]]) -> list[str]:
    codes = ["\n".join(lines).rstrip() for language, lines in blocks if language in _PYTHON]
    return [code for code in codes if code.strip()]


MAX_PROGRAM: Final = 100_000
"""Longest program run, in characters."""
_PARSED_HERE: Final = 50_000


def is_python(text: str) -> bool:
    """Whether CPython's parser takes the text; nothing is compiled or run."""
    return parse(text) is not None


def parse(text: str) -> ast.Module | None:
    """The syntax tree of a program, or null; long texts are not parsed."""
    if len(text) > _PARSED_HERE:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


TEST_KEYS: Final = ("tests", "test", "test_list")


def entry_point_of(problem: Problem) -> str | None:
    """The name of the function that a problem asks for; null where it names none."""
    name = problem.meta.get("entry_point")
    return name if isinstance(name, str) and name.isidentifier() else None
