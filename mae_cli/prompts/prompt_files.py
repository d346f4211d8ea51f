"""Prompt files: the instructions of each role, in text that a user can replace.

A prompt file is plain text split by lines that read `[system]`, `[user]` or `[assistant]`; the text under each is a
Jinja template. It is split before it is filled in, so text from a model can never open a message of its own.
A recipe names a shipped prompt (`prompts/solve.txt` is "solve") or a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, cast

from mae_cli.answers.programs import head_of, is_code_problem, is_script_problem
from mae_cli.answers.reasoning import REASONING_TAGS
from mae_cli.answers.tags import fold_text
from mae_cli.errors import ConfigError, did_you_mean
from mae_cli.records import Message, Problem, choices_of, digest

_MARKER = re.compile(r"^\[(system|user|assistant)\][ \t]*$", re.MULTILINE)
# What a role's own reply is read by; inside quoted text these are made harmless.
_TAGS = re.compile(
    r"<(\s*/?\s*(?:" + "|".join(("score", "question", "answer", *REASONING_TAGS)) + r")\b[^<>]*)>", re.IGNORECASE
)


class Prompt:
    """A checked prompt file.

    Attributes:
        digest: of the text, for the fingerprint: a changed prompt is another experiment.
        variables: the names its templates use.
    """

    def __init__(self, name: str, text: str) -> None:
        from jinja2 import StrictUndefined, TemplateSyntaxError, meta
        from jinja2.sandbox import SandboxedEnvironment

        self.name = name
        self.digest = digest(text)
        environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False)
        pieces = _MARKER.split(text)
        if pieces[0].strip() or len(pieces) < 3:
            raise ConfigError(f"{name}: a prompt file starts with a line [system] or [user]")
        try:
            self._parts = [
                (cast(Literal["system", "user", "assistant"], role), environment.from_string(body.strip()))
                for role, body in zip(pieces[1::2], pieces[2::2], strict=True)
            ]
            bodies = [environment.parse(body) for body in pieces[2::2]]
        except TemplateSyntaxError as error:
            raise ConfigError(f"{name}: {error.message} (template line {error.lineno})") from error
        self.variables = frozenset().union(*(meta.find_undeclared_variables(body) for body in bodies))

    def render(self, **values: Any) -> list[Message]:
        """The chat messages with the values filled in; an empty system text is left out.

        Raises:
            ConfigError: the template uses a name that is not given.
        """
        try:
            messages = [Message(role=role, content=body.render(**values).strip()) for role, body in self._parts]
        except Exception as error:
            # A template is the user's program: whatever it raises is a mistake in that file.
            raise ConfigError(
                f"{self.name}: {type(error).__name__}: {error}; given: {', '.join(sorted(values))}"
            ) from error
        return [message for message in messages if message.content or message.role != "system"]


FOLDER = Path(__file__).parent
"""Folder of the shipped prompts."""


@lru_cache(maxsize=64)
def load_prompt(name: str) -> Prompt:
    """The prompt of a shipped name or a file.

    Raises:
        ConfigError: neither exists, or the file is no prompt.
    """
    shipped = FOLDER / f"{name}.txt"
    path = shipped if shipped.is_file() and "/" not in name else Path(name)
    if not path.is_file():
        known = [file.stem for file in FOLDER.glob("*.txt")]
        raise ConfigError(f'no prompt "{name}": not a file, and {did_you_mean(name, known)}')
    try:
        return Prompt(name, path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt {path}: {getattr(error, 'strerror', None) or error}") from error


SOLVER_PROMPT: Final = "solve"
FITTING_PROMPTS: Final = {"choice": "solve_choice", "code": "solve_code", "script": "solve_script"}
"""What asks a problem that no prompt is named for, by what it asks for; any other problem gets `SOLVER_PROMPT`."""


def solver_messages(named: str | None, problem: Problem) -> list[Message]:
    """The chat messages that ask a problem, with the named prompt or with the one that fits it.

    Where none is named, a programming problem shows the tests that name its function (MBPP), and its starter code.
    """
    question = question_with_choices(problem.question, choices_of(problem))
    if named is not None:
        return load_prompt(named).render(question=question)
    kind = _asked_for(problem)
    if kind in ("code", "script"):
        question = "\n\n".join([question, *_shown_with_a_program(problem)])
    return load_prompt(FITTING_PROMPTS.get(kind, SOLVER_PROMPT)).render(question=question)


def solver_prompt_digests(named: str | None, problems: Iterable[Problem]) -> dict[str, str]:
    """The prompts that ask these problems, for a fingerprint."""
    digests = {"prompt": load_prompt(named or SOLVER_PROMPT).digest}
    kinds = {_asked_for(problem) for problem in problems} if named is None else set()
    return digests | {
        f"{kind}_prompt": load_prompt(name).digest for kind, name in FITTING_PROMPTS.items() if kind in kinds
    }


def _asked_for(problem: Problem) -> str:
    """What a problem asks for: choice, code (a function or a class), script, or answer."""
    if choices_of(problem):
        return "choice"
    if not is_code_problem(problem):
        return "answer"
    return "script" if is_script_problem(problem) else "code"


def _shown_with_a_program(problem: Problem) -> list[str]:
    tests, starter = problem.meta.get("test_list"), problem.meta.get("starter_code")
    parts = []
    if isinstance(tests, list) and head_of(problem) is None:
        parts.append("Your code should pass these tests:\n\n" + "\n".join(map(str, tests)))
    if isinstance(starter, str) and starter.strip():
        parts.append(f"Begin with this code:\n\n{starter.strip()}")
    return parts


def quoted(text: str) -> str:
    """Model text made safe to show to another role: tags that a parser reads are spelled with &lt; and &gt;."""
    # Parsers read full-width and zero-width disguises as the tag itself, so these are looked for as well.
    folded = fold_text(text)
    return _TAGS.sub(r"&lt;\1&gt;", folded) if _TAGS.search(folded) else text


def fence_nonce(run_seed: int, row_id: str) -> str:
    """The fence mark of one row's quoted text; the text was written before it existed and cannot contain it."""
    return digest("fence", run_seed, row_id)[:12]


def question_with_choices(question: str, choices: Sequence[str]) -> str:
    """The question as the solver sees it, choices lettered below it."""
    if not choices:
        return question
    lines = [f"({chr(ord('A') + index)}) {choice}" for index, choice in enumerate(choices)]
    return question + "\n" + "\n".join(lines)
