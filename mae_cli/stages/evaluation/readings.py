"""Readings: how a completion becomes the answer that is checked; ours, and those of lm-evaluation-harness.

Place in the flow: `eval` attaches one verdict per reading, named `<verifier>/<reading>`; reports compare policies
reading by reading. Contract: pure; ours count a cut-off completion as no answer, the harness's score the text as it
stands, as it does. Left out: how figures are made of the verdicts (`accuracy.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from mae_cli.answers.extract import STRICT_SOURCES
from mae_cli.errors import ConfigError, did_you_mean
from mae_cli.plugins import contracts
from mae_cli.records import Row, Verdict, choices_of

DEFAULT_READINGS = ("strict", "flexible")
# The task file gsm8k.yaml of lm-evaluation-harness 0.4.13, version 3.0.
_LM_EVAL_UNTIL = ("Question:", "</s>", "<|im_end|>")
_LM_EVAL_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_LM_EVAL_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_LM_EVAL_IGNORED = (re.compile(r","), re.compile(r"\$"), re.compile(r"(?s).*#### "), re.compile(r"\.$"))
_LM_EVAL_NOTHING = "[invalid]"


def read_strict(row: Row) -> str | None:
    """The answer in the asked format only: answer tag, box or four hashes; a choice only from its tag."""
    assert row.problem is not None
    if row.status == "truncated":
        return None
    if choices_of(row.problem):
        return row.answer if row.answer_source == "answer_tag" else None
    return row.answer if row.answer_source in STRICT_SOURCES else None


def read_flexible(row: Row) -> str | None:
    """The answer by any pattern, down to the last number."""
    return None if row.status == "truncated" else row.answer


def lm_eval_strict(text: str) -> str:
    """Return what the harness's GSM8K filter `strict-match` takes: the first number behind four hashes.

    Source: lm-evaluation-harness 0.4.13, tasks/gsm8k, filter regex (group_select 0), fallback "[invalid]".
    """
    found = _LM_EVAL_STRICT.findall(_until(text))
    return found[0].strip() if found else _LM_EVAL_NOTHING


def lm_eval_flexible(text: str) -> str:
    """Return what the harness's GSM8K filter `flexible-extract` takes: the last run of digits, signs, separators.

    Source: lm-evaluation-harness 0.4.13, tasks/gsm8k, filter regex (group_select -1), fallback "[invalid]".
    """
    found = _LM_EVAL_FLEXIBLE.findall(_until(text))
    return next(part for part in found[-1] if part).strip() if found else _LM_EVAL_NOTHING


def lm_eval_exact_match(answer: str, reference: str) -> bool:
    """The harness's exact_match of its GSM8K task: commas, dollar signs and one trailing stop ignored, then as text."""
    sides = [answer, reference]
    for pattern in _LM_EVAL_IGNORED:
        sides = [pattern.sub("", side) for side in sides]
    return sides[0].lower() == sides[1].lower()


def _until(text: str) -> str:
    for stop in _LM_EVAL_UNTIL:
        text = text.partition(stop)[0]
    return text


_OURS: dict[str, Callable[[Row], str | None]] = {"strict": read_strict, "flexible": read_flexible}
_LM_EVAL: dict[str, Callable[[str], str]] = {"lm_eval_strict": lm_eval_strict, "lm_eval_flexible": lm_eval_flexible}


def check_readings(names: Sequence[str]) -> None:
    """Refuse a reading nobody knows.

    Raises:
        ConfigError: an unknown name, one twice, or none.
    """
    known = (*_OURS, *_LM_EVAL)
    for name in names:
        if name not in known:
            raise ConfigError(f'eval.readings: unknown reading "{name}"; {did_you_mean(name, known)}')
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"eval.readings: expected one or more of {', '.join(known)}, each once")


def check_rows(rows: Sequence[Row], verifier: contracts.Verifier, readings: Sequence[str] = DEFAULT_READINGS) -> None:
    """Attach the verdict of every reading to solved rows; a missing answer is a wrong one, never an unknown one.

    Only where the engine failed (status "error") nobody knows what the model would have answered: the score is null.
    Rows of an earlier run keep theirs, unless answers have joined their group since.
    """
    grown = {_group(row) for row in rows if not row.verdicts}
    todo = [row for row in rows if _group(row) in grown and row.problem is not None]
    checked = [_check(name, todo, verifier) for name in readings]
    for row, *verdicts in zip(todo, *checked, strict=True):
        row.verdicts = [_unknown(verdict) for verdict in verdicts] if row.status == "error" else verdicts


def _unknown(verdict: Verdict) -> Verdict:
    return msgspec.structs.replace(verdict, score=None, status="error", reason="not answered: the engine failed")


def _group(row: Row) -> str:
    """The answers of one policy to one item."""
    return f"{row.group_id}/{row.policy.weights}"


def _check(reading: str, rows: Sequence[Row], verifier: contracts.Verifier) -> list[Verdict]:
    if reading in _LM_EVAL:
        return [_lm_eval_verdict(row, reading) for row in rows]
    problems = [row.problem for row in rows if row.problem is not None]
    answers = [_OURS[reading](row) for row in rows]
    verdicts = contracts.check_answers(verifier, problems, answers, [_group(row) for row in rows])
    return [msgspec.structs.replace(verdict, name=f"{verdict.name}/{reading}", reading=reading) for verdict in verdicts]


def _lm_eval_verdict(row: Row, reading: str) -> Verdict:
    assert row.problem is not None
    verdict = Verdict(f"gsm8k/{reading}", "verifier", "answer", reading=reading)
    if row.problem.reference_answer is None:
        verdict.status, verdict.reason = "unsupported", "no reference answer"
        return verdict
    answer = _LM_EVAL[reading](row.raw or row.completion or "")
    verdict.score = float(lm_eval_exact_match(answer, row.problem.reference_answer))
    verdict.reason = f"read {answer[:60]!r}"
    return verdict
