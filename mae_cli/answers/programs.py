"""Programs in problems and completions: which problems ask for one, and where it stands in a text.

Place in the flow: `answers.stated` reads the program out of a completion with `extract_code`; the verifiers
`python_tests` and `python_call` put it together with the parts that the problem brings. Contract: pure functions over
text that never raise; nothing is run here.
"""

from __future__ import annotations

import ast
import html
import json
import re
import textwrap
import warnings
from typing import Final

from mae_cli.answers.extract import NOT_FOUND, Extraction
from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.tags import tag_spans
from mae_cli.records import Problem

# In front may stand blanks, the mark of a quotation, and that of a list.
_FENCE = re.compile(
    r"[ \t]*(?:>[ \t]?)*(?:(?:[-*+]|\d+[.)])[ \t]+)?(?P<mark>```+|~~~+)"
    r"[ \t]*\{?\.?(?P<language>[\w+-]*)\}?(?P<rest>.*)",
    re.DOTALL,
)
_FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)
_QUOTED = re.compile(r"[ \t]*>[ \t]?")
# Marks around a program other than fences; the last one may be missing.
_MARKED: Final = (
    re.compile(r"\[BEGIN\][ \t]*\n(?P<code>.*?)(?:\n\[DONE\]|\Z)", re.DOTALL),
    re.compile(r"\[PYTHON\](?P<code>.*?)(?:\[/PYTHON\]|\Z)", re.DOTALL | re.IGNORECASE),
    re.compile(
        r"<(?P<tag>code|pre|python)\b[^>]*>(?:\s*<code\b[^>]*>)?(?P<code>.*?)(?:</code>\s*)?</(?P=tag)>",
        re.DOTALL | re.IGNORECASE,
    ),
    re.compile(r"\A(?P<code>.*?)\n\[DONE\]", re.DOTALL),
)
_PYTHON: Final = frozenset({"", "python", "python3", "py"})
_FIRST_LINE = re.compile(r"(?:def|class|import|from|async def)\s|@\w|[ \t]+(?:return|if|for|while|import|from)\b")
# A script begins with an assignment or a call: "n = int(input())", "print(1)"; "Answer: 9" is neither.
_SCRIPT_LINE = re.compile(r"[A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*\s*=[^=]|(?:print|main|solve|exec)\(")
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
    if head is None or not is_python(joined := f"{head}\n{code}"):
        return code
    # `from __future__` must come first.
    futures = _FUTURE.findall(code)
    return "".join(f"{line}\n" for line in futures) + (_FUTURE.sub("pass", joined) if futures else joined)


def defines(code: str, name: str) -> bool:
    """Whether a program binds a name at its top level, by the look of its lines."""
    return re.search(rf"^(?:async )?(?:def|class) {re.escape(name)}\b|^{re.escape(name)}\s*=", code, re.M) is not None


def extract_code(text: str, entry_point: str | None = None) -> Extraction:
    """Extract a program from a completion.

    Order: the last fenced Python block inside the last answer tag, or the tag's content (`answer_tag`); the last
    fenced block that defines the entry point, else the last fenced block (`code_fence`; a block whose opening mark was
    the end of the prompt counts, and so do `[BEGIN]..[DONE]`, `[PYTHON]..[/PYTHON]` and the tags code, pre and
    python); the whole text where it is Python and holds more than a name or a number, else the program it begins or
    ends with (`code_text`). Fences of other languages are passed over; a fence that is never closed reaches to the
    end. Indented blocks are moved to the left, and of lines behind `>>>` and `...` the code alone is taken.

    Source: our cascade; AZR (arXiv:2505.03335) takes the last fence.
    """
    visible = split_named_reasoning(text.replace("\r\n", "\n").lstrip("\ufeff")).visible
    spans = tag_spans(visible, "answer")
    if spans and spans[-1].strip():
        inside = _marked(spans[-1], entry_point)
        return Extraction(inside or _tidied(spans[-1]), "answer_tag")
    marked = _marked(visible, entry_point)
    if marked:
        return Extraction(marked, "code_fence")
    plain = _tidied(_from_json(visible))
    if _is_program(plain, is_script=entry_point is None):
        return Extraction(plain, "code_text")
    code = _unfenced(plain, _FIRST_LINE) or (_unfenced(plain, _SCRIPT_LINE) if entry_point is None else None)
    return NOT_FOUND if code is None else Extraction(code, "code_text")


def _is_program(text: str, *, is_script: bool) -> bool:
    """Whether a whole text is Python and says more than a name or a number."""
    says_much = re.search(r"^\s*(?:def|return|import|from|class|for|while|if)\b", text, re.MULTILINE)
    if not says_much and not (is_script and _SCRIPT_LINE.match(text)):
        return False
    return is_python(text) or is_python(f"def f():\n{text}")


def _marked(text: str, entry_point: str | None) -> str | None:
    """The program inside fences or other marks; null where there are none."""
    fenced = _fenced(text, entry_point)
    if fenced:
        return fenced
    for pattern in _MARKED:
        found = [_tidied(html.unescape(match["code"])) for match in pattern.finditer(text)]
        found = [code for code in found if code.strip() and (is_python(code) or pattern is not _MARKED[-1])]
        if found:
            named = [code for code in found if entry_point and defines(code, entry_point)]
            return (named or found)[-1]
    return None


def _tidied(code: str) -> str:
    """A program without empty lines around it, moved to the left where it is whole, and without interpreter prompts."""
    code = code.strip("\n").rstrip()
    if re.search(r"^\s*>>> ", code, re.MULTILINE):
        lines = [line.strip() for line in code.split("\n")]
        code = "\n".join(line[4:] for line in lines if line[:3] in (">>>", "..."))
    moved = textwrap.dedent(code)
    return moved if moved != code and not _is_body(moved) else code


def _is_body(code: str) -> bool:
    """Whether a text is the body of a function: it returns outside of any, or it is no Python by itself."""
    tree = parse(code)
    nodes: list[ast.AST] = [] if tree is None else [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Return | ast.Yield):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes.extend(ast.iter_child_nodes(node))
    return tree is None


def _from_json(text: str) -> str:
    """The program of a text that is a JSON object with one; any other text unchanged."""
    if text.lstrip()[:1] != "{":
        return text
    try:
        found = json.loads(text)
    except ValueError:
        return text
    codes = [found.get(key) for key in ("code", "program", "solution", "answer")] if isinstance(found, dict) else []
    return next((code for code in codes if isinstance(code, str)), text)


def _unfenced(text: str, first_line: re.Pattern[str]) -> str | None:
    """The longest program that starts at the first line which looks like one; text before and behind it is left out."""
    lines = text.split("\n")
    start = next((place for place, line in enumerate(lines) if first_line.match(line)), None)
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
    blocks: list[tuple[str, list[str]]] = []
    opened: list[tuple[str, list[str]]] = []
    text = _with_first_fence(text)
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


def _with_first_fence(text: str) -> str:
    """The text with the opening mark that stood at the end of the prompt, where its first mark closes a program."""
    lines = text.split("\n")
    marks = [place for place, line in enumerate(lines) if _FENCE.match(line)]
    first = _FENCE.match(lines[marks[0]]) if marks else None
    if first is None or first["language"] or first["rest"].strip():
        return text
    before = lines[1:] if lines[0].strip().lower() in _PYTHON - {""} else lines
    code = "\n".join(before[: marks[0] - (len(lines) - len(before))])
    is_open = bool(_FIRST_LINE.match(code) or _SCRIPT_LINE.match(code)) and is_python(code)
    return "\n".join([f"{first['mark']}python", *before]) if is_open else text


def _programs(blocks: list[tuple[str, list[str]]]) -> list[str]:
    codes = []
    for language, lines in blocks:
        if language in _PYTHON:
            is_quoted = all(_QUOTED.match(line) for line in lines if line.strip())
            codes.append(
                _tidied("\n".join(_QUOTED.sub("", line, count=1) for line in lines) if is_quoted else "\n".join(lines))
            )
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


UNIT_TEST_KEYS: Final = ("tests", "test", "test_list")
TEST_KEYS: Final = (*UNIT_TEST_KEYS, "input_output")


def entry_point_of(problem: Problem) -> str | None:
    """The name of the function that a problem asks for; null where it names none."""
    name = problem.meta.get("entry_point")
    return name if isinstance(name, str) and name.isidentifier() else None
