"""Readings of completions: ours, and lm-evaluation-harness's on the same texts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mae_cli.errors import ConfigError
from mae_cli.records import Row
from mae_cli.scoring import check_readings, check_rows, lm_eval_exact_match, lm_eval_flexible, lm_eval_strict
from mae_cli.stages.solve import read_solution
from mae_cli.verifiers.numeric import Numeric
from tests.support import a_problem, a_row, read_json_lines

READINGS = ("strict", "flexible", "lm_eval_strict", "lm_eval_flexible")
HARD = read_json_lines(Path(__file__).parent / "gsm8k_completions.jsonl")
"""Hand-written completions with the scores of lm-eval 0.4.13's gsm8k filters and, where ours differ, why."""


def scored(completion: str, reference: str, status: str = "ok") -> Row:
    row = a_row(problem=a_problem(answer=reference), raw=completion, completion=completion, status=status)
    check_rows([read_solution(row)], Numeric(), READINGS)
    return row


def scores(row: Row) -> dict[str, float | None]:
    return {verdict.name.rpartition("/")[2]: verdict.score for verdict in row.verdicts}


@pytest.mark.parametrize("case", HARD, ids=lambda case: str(case["completion"])[:40])
def test_the_harness_readings_give_the_harness_scores(case: dict[str, object]) -> None:
    found = scores(scored(str(case["completion"]), str(case["reference"])))

    assert (found["lm_eval_strict"], found["lm_eval_flexible"]) == (case["lm_eval_strict"], case["lm_eval_flexible"])


@pytest.mark.parametrize("case", HARD, ids=lambda case: str(case["completion"])[:40])
def test_ours_differ_from_the_harness_only_where_a_reason_is_written_down(case: dict[str, object]) -> None:
    found = scores(scored(str(case["completion"]), str(case["reference"])))

    differs = (found["strict"], found["flexible"]) != (case["lm_eval_strict"], case["lm_eval_flexible"])
    assert (found["strict"], found["flexible"]) == (case["strict"], case["flexible"])
    assert differs == bool(case["why"])


def test_the_stored_scores_are_those_of_the_installed_harness() -> None:
    extraction = pytest.importorskip("lm_eval.filters.extraction")
    metrics = pytest.importorskip("lm_eval.api.metrics")
    strict = extraction.RegexFilter(regex_pattern=r"#### (\-?[0-9\.\,]+)")
    flexible = extraction.RegexFilter(regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)

    for case in HARD:
        text = str(case["completion"])
        for stop in ("Question:", "</s>", "<|im_end|>"):
            text = text.split(stop)[0]
        for name, one in (("lm_eval_strict", strict), ("lm_eval_flexible", flexible)):
            (answer,) = one.apply([[text]], [{}])
            found = metrics.exact_match_hf_evaluate(
                predictions=answer,
                references=[f"worked out\n#### {case['reference']}"],
                regexes_to_ignore=[",", r"\$", "(?s).*#### ", r"\.$"],
                ignore_case=True,
            )
            assert float(found["exact_match"]) == case[name], (name, text)


def test_the_harness_reads_a_text_that_was_cut_off_and_ours_do_not() -> None:
    found = scores(scored("so #### 7", "7", status="truncated"))

    assert found == {"strict": 0.0, "flexible": 0.0, "lm_eval_strict": 1.0, "lm_eval_flexible": 1.0}


def test_the_harness_ends_a_text_at_the_next_question() -> None:
    assert lm_eval_strict("#### 7\nQuestion: #### 8") == "7"
    assert lm_eval_flexible("it is 7 Question: 8") == "7"
    assert lm_eval_flexible("no figure") == lm_eval_strict("7") == "[invalid]"


def test_the_harness_match_ignores_commas_dollars_and_one_stop() -> None:
    assert lm_eval_exact_match("$1,234.", "1234")
    assert lm_eval_exact_match("7", "three\nplus four\n#### 7")
    assert not lm_eval_exact_match("7.0", "7")


def test_without_a_reference_answer_the_harness_readings_are_unknown() -> None:
    row = a_row(problem=a_problem(answer=None), raw="7", completion="7")

    check_rows([read_solution(row)], Numeric(), READINGS)

    assert {verdict.score for verdict in row.verdicts} == {None}


def test_a_row_that_the_engine_failed_on_is_unknown_and_not_wrong() -> None:
    failed, cut, long = a_row(problem=a_problem(answer="7")), scored("It is", "7", "truncated"), a_row()
    failed.status, failed.error, failed.raw = "error", "HTTP 500: engine dead", None
    long.status, long.problem = "too_long", a_problem(answer="7")

    for row in (failed, cut, long):
        check_rows([row], Numeric(), ("strict", "flexible", "lm_eval_flexible"))

    assert [(verdict.score, verdict.status) for verdict in failed.verdicts] == [(None, "error")] * 3
    assert list(scores(cut).values())[:2] == list(scores(long).values())[:2] == [0.0, 0.0]


def test_an_unknown_reading_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='unknown reading "flexibel"; did you mean "flexible"'):
        check_readings(["strict", "flexibel"])
    with pytest.raises(ConfigError, match="each once"):
        check_readings(["strict", "strict"])
    assert msgspec.json.encode(READINGS)
