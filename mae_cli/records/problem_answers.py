"""The reference answer of a problem row: any value of an answer column as one text, or read out of a worked solution.

Place in the flow: `records.problems` calls it for rows of any published set. Contract: a pure function of the value;
what is no answer is null; a value that nobody can read is an error with its place. Left out: letters of choices
(`problem_choices`).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from mae_cli.errors import DataError

_BOXES = ("\\boxed", "\\fbox")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_LAST_LINE = re.compile(r"(?:^|\n)(?:####[^\n]*\n)?The answer is:? ?(\S[^\n]*?)\s*$")
_NUMBER = re.compile(r"[-+−]?[\d.,/%\\{}a-z()^ ]*\d[\d.,/%\\{}a-z()^ ]*", re.IGNORECASE)
_WITH_UNIT = re.compile(r"([^()]+?) \([^()]*\)")
_DATE = ("day", "month", "year")
_DICT_KEYS = ("value", "text", "answer", "target", "ground_truth", "number", "spans", "date")
_YES_OR_NO = re.compile(
    r"(?:is|are|was|were|am|do|does|did|can|could|has|have|had|will|would|shall|should|may|might|must)\b", re.IGNORECASE
)


def answer_text(value: Any, where: str, *, question: str, alternatives: bool) -> str | None:
    """Return the answer as one text; null where the value holds none.

    Args:
        value: of an answer column.
        where: file, line and field, for errors.
        question: what is asked: a truth value answers "Is it ...?" with yes or no.
        alternatives: whether a list holds wordings of one answer, so that the first stands for all; else its parts are
            joined with commas.

    Raises:
        DataError: the value is of a kind that is no answer.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        asked = question.strip().rpartition("\n")[2].strip()
        asks_whether = _YES_OR_NO.match(asked) and not re.search(r"\b(?:true|false)\b", question, re.IGNORECASE)
        return {True: "yes", False: "no"}[value] if asks_whether else str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) >= 1e16:
        return str(int(value))
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        wordings = _listed(value) if alternatives else None
        return wordings[0].strip() if wordings else value.strip() or None
    if isinstance(value, dict):
        return _of_dict(value, where, question, alternatives)
    if isinstance(value, list):
        parts = [answer_text(part, where, question=question, alternatives=alternatives) for part in value]
        return _joined([part for part in parts if part is not None], alternatives)
    raise DataError(f"{where}: expected text or a number, found {type(value).__name__}")


def _listed(text: str) -> list[str] | None:
    """The texts of a list that a set has made a text of (`["Ann", "A. B"]`); null for any other text."""
    if not text.lstrip().startswith('["'):
        return None
    try:
        found = msgspec.json.decode(text, type=list[str])
    except (msgspec.DecodeError, RecursionError):
        return None
    return [part for part in found if part.strip()]


def _of_dict(value: dict[str, Any], where: str, question: str, alternatives: bool) -> str | None:
    if all(part in value for part in _DATE):
        return " ".join(str(value[part]).strip() for part in _DATE if str(value[part]).strip()) or None
    known = [key for key in _DICT_KEYS if key in value]
    if not known:
        raise DataError(f"{where}: expected text or a number, found an object with {', '.join(value) or 'nothing'}")
    for key in known:
        # Several annotators' texts in SQuAD; the parts of one answer in DROP.
        found = answer_text(value[key], where, question=question, alternatives=alternatives and key != "spans")
        if found is not None:
            return found
    return None


def _joined(parts: list[str], alternatives: bool) -> str | None:
    distinct = list(dict.fromkeys(_without_dollars(part) for part in parts))
    if not distinct:
        return None
    return distinct[0] if alternatives else ", ".join(distinct)


def _without_dollars(text: str) -> str:
    inner = text[1:-1] if len(text) > 2 and text.startswith("$") and text.endswith("$") else text
    return inner.strip("$ ") if "$" not in inner.strip("$ ") else text


def without_solution(text: str) -> tuple[str, bool]:
    """(answer, whether a worked solution stood before it) of an answer in the style of GSM8K."""
    solution, hashes, last = text.rpartition("####")
    first, _, more = last.strip().partition("\n")
    if not hashes or (more.strip() and not more.lstrip().startswith("The answer is")):
        return text.strip(), False  # a heading, or the comment of a program
    return first.strip(), bool(solution.strip())


def without_unit(text: str) -> str:
    """The number of an answer in the style of ASDiv, `9 (apples)`."""
    found = _WITH_UNIT.fullmatch(text)
    return found[1] if found and _NUMBER.fullmatch(found[1]) else text


def answer_in_solution(text: str) -> str | None:
    """The answer that a worked solution marks, or the solution itself where it is only a value; null otherwise.

    Order: four hashes, the last answer tag, the last box, a last line "The answer is: 3"; then a text of at most 40
    characters without a blank, which is how some sets write a bare answer into this column.
    """
    answer, has_solution = without_solution(text)
    if has_solution or answer != text.strip():
        return answer or None
    tags = _TAG.findall(text)
    if tags:
        return last_box(tags[-1]) or tags[-1].strip() or None
    box = last_box(text)
    if box is not None:
        return box
    last_line = _LAST_LINE.search(text)
    if last_line:
        return last_line[1].rstrip(".") or None
    bare = text.strip()
    return _without_dollars(bare) if bare and len(bare) <= 40 and not re.search(r"\s", bare) else None


def last_box(text: str) -> str | None:
    """The content of the last complete LaTeX box of a text, stripped; null where there is none."""
    for start, name in sorted(((m.start(), m[0]) for m in re.finditer(r"\\boxed|\\fbox", text)), reverse=True):
        begin = start + len(name)
        while begin < len(text) and text[begin] == " ":
            begin += 1
        if begin < len(text) and text[begin] == "{":
            inner = _braced(text, begin)
            if inner is not None:
                return inner.strip() or None
        elif begin > start + len(name):
            return text[begin:].split()[0].rstrip("$.,") if text[begin:].split() else None
    return None


def _braced(text: str, begin: int) -> str | None:
    depth = 0
    for place in range(begin, len(text)):
        character = text[place]
        if text[place - 1] == "\\":
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[begin + 1 : place]
    return None
