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
from typing import Final

from mae_cli.answers.extract import NOT_FOUND, Extraction
from mae_cli.answers.program_parts import defines, is_python, is_stub, parse, with_definitions
from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.run_on import parts_to_read
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
    re.compile(
        r"^(?P<mark>\'{3}|\"{3})(?:python3?|py)[ \t]*\n(?P<code>.*?)(?:^(?P=mark)|\Z)", re.DOTALL | re.MULTILINE
    ),
    re.compile(r"\A(?P<code>.*?)\n\[DONE\]", re.DOTALL),
)
_INLINE = re.compile(r"(?<!`)`(?P<code>(?:def|class)\s[^`\n]+)`(?!`)")
# A program on the line of its opening mark: "```python def f(x):", "```def f(x): return x```".
_ON_FENCE_LINE = re.compile(
    r"^(?P<mark>[ \t]*```+)[ \t]*(?P<language>(?:python3?|py)?)[ \t]*"
    r"(?P<code>(?:def|class|import|from|async def)\s[^`\n]+)(?P<end>```+)?[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
_PROMPT_OF_IPYTHON = re.compile(r"^\s*(?:In \[\d+\]|(?P<more>\.\.\.)): ?", re.MULTILINE)
_NO_PYTHON: Final = str.maketrans({"\u00a0": " ", "\u200b": None, "\ufeff": None})
_PYTHON: Final = frozenset({"", "python", "python3", "py"})
_FIRST_LINE = re.compile(
    r"(?:def|class|import|from|async def)\s|@\w|[ \t]+(?:return|if|for|while|import|from|def|class)\b"
)
# A script begins with an assignment or a call: "n = int(input())", "print(1)"; "Answer: 9" is neither.
_SCRIPT_LINE = re.compile(r"[A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*\s*=[^=]|(?:print|main|solve|exec)\(")
_MOST_LINES: Final = 400
"""Lines of an unfenced text among which a program is looked for: each may cost a parse."""


def is_code_problem(problem: Problem) -> bool:
    """Whether the answer to a problem is a program."""
    meta = problem.meta
    return entry_point_of(problem) is not None or any(meta.get(key) for key in TEST_KEYS)


def is_script_problem(problem: Problem) -> bool:
    """Whether a program is asked for that reads standard input: cases of input and output that name no function."""
    cases = problem.meta.get("input_output")
    if isinstance(cases, str):
        return '"fn_name"' not in cases and entry_point_of(problem) is None
    return isinstance(cases, dict) and not cases.get("fn_name") and entry_point_of(problem) is None


def head_of(problem: Problem) -> str | None:
    """The question, or the `prompt` beside it, where that is the beginning of a program; null otherwise.

    HumanEval's question is one; LeetCodeDataset has the imports and helpers of its tests in `prompt`.
    """
    for text in (problem.question, problem.meta.get("prompt")):
        if isinstance(text, str) and "def " in text and is_python(text.rstrip()):
            return text.rstrip()
    return None


def whole_program(problem: Problem, code: str) -> str:
    """The program an answer stands for: behind the question where that is itself Python (HumanEval), else alone.

    A model may write the body alone or the whole function again; both work behind the head, and a helper or import of
    the head is there for both.
    """
    head = head_of(problem)
    if head is None:
        return code
    # Where the prompt ended inside the body, the code begins without the blanks of its first line, or of all.
    for behind in (code, f"    {code}", textwrap.indent(code, "    ")):
        tree = parse(joined := f"{head}\n{behind}")
        if tree is not None and not _returns_outside(tree):
            return _future_first(joined)
    # Code that does not parse behind the head (it holds a syntax error) is run as it stands: its own fault shows.
    return f"{head}\n{code}" if is_python(f"{head}\n{code}") else code


def _future_first(program: str) -> str:
    """The program with its `from __future__` lines in front, where Python wants them."""
    futures = _FUTURE.findall(program)
    return "".join(f"{line}\n" for line in futures) + _FUTURE.sub("pass", program) if futures else program


def extract_code(text: str, entry_point: str | None = None) -> Extraction:
    """Extract a program from a completion.

    Order: the last fenced Python block inside the last answer tag, or the tag's content (`answer_tag`); the last
    fenced block that defines the entry point, else the last fenced block (`code_fence`; a block whose opening mark was
    the end of the prompt counts, and so do `[BEGIN]..[DONE]`, `[PYTHON]..[/PYTHON]` and the tags code, pre and
    python); the whole text where it is Python and holds more than a name or a number, else the program it begins or
    ends with, or one line of code in backticks (`code_text`). Fences of other languages are passed over; a fence that
    is never closed reaches to the end. Indented blocks are moved to the left, and of lines behind `>>>` and `...` the
    code alone is taken. A block that only shows the signature gives way to one with a body; what a block uses and
    another one defines is put before it. What stands behind an invented next question counts only where no whole
    program stands before it.

    Source: our cascade; AZR (arXiv:2505.03335) takes the last fence.
    """
    visible = _ON_FENCE_LINE.sub(
        _with_own_line, split_named_reasoning(text.replace("\r\n", "\n").lstrip("\ufeff")).visible
    )
    for part in parts_to_read(visible):
        found = _read_part(part, entry_point)
        is_whole = found.answer is not None and is_python(found.answer) and _ends_outside(part, visible)
        if part == visible or (is_whole and (entry_point is None or defines(found.answer or "", entry_point))):
            return found
    return NOT_FOUND


def _with_own_line(match: re.Match[str]) -> str:
    end = f"\n{match['end']}" if match["end"] else ""
    return f"{match['mark']}{match['language']}\n{match['code']}{end}"


def _ends_outside(part: str, visible: str) -> bool:
    """Whether a text is cut behind its fences; without fences `# Input` is a comment of the program."""
    fences = sum(_FENCE.match(line) is not None for line in _with_first_fence(part).split("\n"))
    return fences % 2 == 0 and (fences > 0 or not visible[len(part) :].lstrip().startswith("#"))


def _read_part(visible: str, entry_point: str | None) -> Extraction:
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
    inline = [match["code"] for match in _INLINE.finditer(visible) if is_python(match["code"])] if code is None else []
    code = inline[-1] if inline else code
    return NOT_FOUND if code is None else Extraction(code, "code_text")


def _is_program(text: str, *, is_script: bool) -> bool:
    """Whether a whole text is Python and says more than a name or a number."""
    says_much = re.search(r"^\s*(?:def|return|import|from|class|for|while|if)\b", text, re.MULTILINE)
    if not says_much and not (is_script and _SCRIPT_LINE.match(text)):
        return False
    # The first line of a body may have lost its blanks.
    starts = re.match(r"(?:return|if|for|while)\b|\w+\s?(?:[-+*/]?=|\()", text)
    return is_python(text) or is_python(f"def f():\n{text}") or bool(starts and is_python(f"def f():\n    {text}"))


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
    if not code.isascii() and not is_python(code):
        code = code.translate(_NO_PYTHON)
    code = _PROMPT_OF_IPYTHON.sub(lambda match: "... " if match["more"] else ">>> ", code)
    if re.search(r"^\s*>>> ", code, re.MULTILINE):
        lines = [line.strip() for line in code.split("\n")]
        code = "\n".join(line[4:] for line in lines if line[:3] in (">>>", "..."))
    moved = textwrap.dedent(code)
    return moved if moved != code and not _is_body(moved) else code


def _is_body(code: str) -> bool:
    """Whether a text is the body of a function: it returns outside of any, or it is no Python by itself."""
    tree = parse(code)
    return tree is None or _returns_outside(tree)


def _returns_outside(tree: ast.Module) -> bool:
    """Whether a program returns outside of any function."""
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Return | ast.Yield):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes.extend(ast.iter_child_nodes(node))
    return False


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
        code = _tidied("\n".join(lines[start:end]))
        if is_python(code) or is_python(f"def f():\n{code}"):
            return code
    return None


def _fenced(text: str, entry_point: str | None) -> str | None:
    """The block that counts, with what it uses of the others.

    A closing mark that is indented by four more belongs to a docstring, where only so the program is whole.
    """
    text = _with_first_fence(text)
    found = _blocks(text, deepest=None)
    if found and not any(is_python(code) for code in found):
        found = [code for code in _blocks(text, deepest=3) if is_python(code)] or found
    named = [code for code in found if entry_point and defines(code, entry_point)]
    written = [code for code in named if entry_point and not is_stub(code, entry_point)]
    if not found:
        return None
    code = (written or named or found)[-1]
    return with_definitions(code, found) if named else code


def _blocks(text: str, *, deepest: int | None) -> list[str]:
    """The fenced programs: an opening fence inside a block begins another one, as models that forget to close do.

    Args:
        text: with its opening marks.
        deepest: blanks that a closing mark may stand behind its opening one; null is any number.
    """
    blocks: list[tuple[str, list[str]]] = []
    opened: list[tuple[str, list[str]]] = []
    current: list[str] | None = None
    mark = language = ""
    column = 0
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        bare = fence is not None and not fence["language"] and not fence["rest"].strip()
        if fence is not None and current is not None and deepest is not None:
            fence = fence if fence.start("mark") <= column + deepest else None
        if current is not None and (fence is None or (bare and not fence["mark"].startswith(mark))):
            current.append(line)
        elif current is not None and bare:
            blocks.append((language, current))
            current = None
        elif fence is not None and "`" not in fence["rest"]:
            if current is not None:
                opened.append((language, current))
            current, mark, language, column = [], fence["mark"], fence["language"].lower(), fence.start("mark")
        elif current is not None:
            current.append(line)
    closed = _programs(blocks)
    if current is not None and (language or not closed):
        opened.append((language, current))
    return closed or _programs(opened)


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

UNIT_TEST_KEYS: Final = ("tests", "test", "test_list")
TEST_KEYS: Final = (*UNIT_TEST_KEYS, "input_output")


def entry_point_of(problem: Problem) -> str | None:
    """The name of the function that a problem asks for; null where it names none."""
    name = problem.meta.get("entry_point")
    return name if isinstance(name, str) and name.isidentifier() else None
