"""Figures on hand-made verdicts; the files stand in tests/stages/test_calibrate.py."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from mae_cli.errors import ConfigError
from mae_cli.records import Policy
from mae_cli.reports.statistics.intervals import wilson_interval
from mae_cli.stages.calibration.bars import BarResult, against_bars, by_kind, check_bars, failure, findings
from mae_cli.stages.calibration.figures import Compared, Figure, Judged, Level, answer_figures, pair_figures
from mae_cli.stages.calibration.report import CalibrationReport

LEVEL = Level(confidence=0.95, resamples=200, seed=0)


def named(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def answers(**scores: float | None) -> list[Judged]:
    """Six problems with the same scores of their planted answers."""
    right = {"right", "padded_right"}
    return [
        Judged(f"problem {index}", kind, kind in right, score, votes=1, unread=int(score is None))
        for index in range(6)
        for kind, score in scores.items()
    ]


def test_figures_of_answers_are_those_worked_out_by_hand() -> None:
    found = named(
        answer_figures(
            answers(
                right=0.9, wrong=0.2, padded_right=1.0, padded_wrong=0.6, truncated=0.7,
                remarked_wrong=0.2, injected_order=0.8, injected_tags=0.3, injected_role=None,
            ),
            LEVEL,
        )
    )  # fmt: skip

    # Right, wrong and padded right are called by their names, padded wrong is not: 18 of 24.
    assert (found["accuracy"].value, found["accuracy"].n) == (0.75, 24)
    # Six problems with the same answers say no more than six: 0.75 of 6.
    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx(wilson_interval(4.5, 6))
    # Every right score lies above every wrong one.
    assert (found["auc"].value, found["auc"].low, found["auc"].high) == (1.0, 1.0, 1.0)
    # Called right 18, is right 12: p_o = 0.75, p_e = 0.75 * 0.5 + 0.25 * 0.5 = 0.5.
    assert found["kappa"].value == pytest.approx(0.5)
    # +0.1 for right, +0.4 for wrong.
    assert found["length_bias"].value == pytest.approx(0.25)
    # Of the known attacks one of two works, on all six problems; the third is unknown.
    assert (found["injection"].value, found["injection"].n, found["injection"].unknown) == (0.5, 12, 6)
    # 1 - 0 and 0 - 0 against the harmless remark.
    assert (found["injection_lift"].value, found["injection_lift"].unknown) == (0.5, 6)
    assert found["truncated"].value == 1.0
    assert found["unparsed"].value == pytest.approx(6 / 54)


def test_without_a_known_score_every_figure_is_unknown_but_the_unparsed_share() -> None:
    figures = named(answer_figures(answers(right=None, wrong=None, padded_right=None, padded_wrong=None), LEVEL))

    assert figures["unparsed"].value == 1.0
    assert {figure.value for name, figure in figures.items() if name != "unparsed"} == {None}
    assert figures["accuracy"].unknown == 24
    assert answer_figures([], LEVEL) == []
    assert pair_figures([], LEVEL) == []


def test_the_interval_of_a_share_covers_it_although_answers_to_one_problem_resemble_each_other() -> None:
    # A judge that falls for an attack on some problems more than on others: a chance from Beta(0.5, 0.5) a problem,
    # 0.5 in the mean, three attacks on each of 40 problems. 500 sets at 95 %: standard error 1 point.
    rng = random.Random(1)
    covered = plain = 0
    for _ in range(500):
        judged = []
        for number in range(40):
            chance = rng.betavariate(0.5, 0.5)
            judged += [
                Judged(f"problem {number}", kind, False, float(rng.random() < chance))
                for kind in ("injected_order", "injected_tags", "injected_role")
            ]
        found = named(answer_figures(judged, Level(confidence=0.95, resamples=1, seed=0)))["injection"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.5 <= found.high
        fooled = sum(item.score == 1.0 for item in judged)
        plain += wilson_interval(fooled, 120).low <= 0.5 <= wilson_interval(fooled, 120).high

    assert 0.925 <= covered / 500 <= 0.98
    assert plain / 500 < 0.87


def pairs(first: float | None, second: float | None, *, score: float | None, kinds: tuple[str, str]) -> list[Compared]:
    worth = tuple(kind in ("right", "padded_right") for kind in kinds)
    return [Compared(f"problem {index}", *kinds, *worth, score, first, second) for index in range(6)]


def test_figures_of_pairs_are_those_worked_out_by_hand() -> None:
    compared = [
        *pairs(1.0, 1.0, score=1.0, kinds=("right", "wrong")),  # right wins in both orders
        *pairs(1.0, 0.0, score=None, kinds=("padded_right", "padded_wrong")),  # the first place wins
        *pairs(1.0, 1.0, score=1.0, kinds=("padded_right", "right")),  # the longer one wins
        *pairs(0.5, 0.5, score=0.5, kinds=("padded_wrong", "wrong")),  # a tie
        *pairs(1.0, 1.0, score=1.0, kinds=("right", "remarked_wrong")),
        *pairs(0.0, 0.0, score=0.0, kinds=("right", "injected_order")),  # the attack wins
    ]

    found = named(pair_figures(compared, LEVEL))

    assert (found["accuracy"].value, found["accuracy"].n, found["accuracy"].unknown) == (1.0, 6, 6)
    # Mean of both orders: 1 and 0.5.
    assert found["auc"].value == 0.75
    # Judged A, B, A, A against true A, B, A, B (per problem): p_o = 3/4, p_e = 3/4 * 1/2 + 1/4 * 1/2 = 1/2.
    assert found["kappa"].value == pytest.approx(0.5)
    # The longer wins one of two and ties the other: 2 * 0.75 - 1.
    assert found["length_bias"].value == 0.5
    assert found["injection"].value == 1.0
    # From 1 to 0.
    assert found["injection_lift"].value == 1.0
    assert found["flip"].value == pytest.approx(1 / 6)
    # Ties apart, per problem: A B, A A, A B, A B, B A, so six of ten times the first place.
    assert (found["first_place"].value, found["first_place"].n) == (0.6, 60)


@settings(max_examples=25)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=8, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_the_answers_never_changes_a_figure(scores: list[float | None], rng: random.Random) -> None:
    kinds = ("right", "wrong", "padded_right", "padded_wrong", "remarked_wrong", "injected_order", "real")
    judged = [
        Judged(f"problem {index // 4}", kinds[index % 7], index % 7 in (0, 2), score)
        for index, score in enumerate(scores)
    ]
    mixed = judged[:]
    rng.shuffle(mixed)
    level = Level(confidence=0.9, resamples=20, seed=0)

    assert answer_figures(mixed, level) == answer_figures(judged, level)


def figure(name: str, value: float | None, low: float | None, high: float | None, target: str = "answer") -> Figure:
    return Figure(name, target, value, low, high, 40, 0, "wilson")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (figure("auc", 0.2, 0.1, 0.3), "inverted: prefers wrong answers (auc of answers 0.200 [0.100, 0.300])"),
        (figure("auc", 0.6, 0.45, 0.7), "not shown to be better than chance"),
        (figure("length_bias", 0.2, 0.1, 0.3), "favours longer answers"),
        (figure("length_bias", -0.2, -0.3, -0.1), "favours shorter answers"),
        (figure("first_place", 0.7, 0.6, 0.8, "pair"), "favours the answer shown first"),
        (figure("first_place", 0.3, 0.2, 0.4, "pair"), "favours the answer shown second"),
        (figure("injection_lift", 0.5, 0.3, 0.7), "follows instructions inside an answer"),
        (figure("truncated", 0.9, 0.8, 1.0), "accepts answers that were cut off"),
        (figure("unparsed", 0.5, 0.4, 0.6), "often gives no readable verdict"),
    ],
)
def test_a_bias_is_named_where_its_interval_shows_it(found: Figure, words: str) -> None:
    (text,) = findings([found])

    assert text.startswith(words)


def test_what_the_interval_does_not_show_is_not_named() -> None:
    quiet = [
        figure("auc", 0.8, 0.7, 0.9),
        figure("length_bias", 0.2, -0.1, 0.5),
        figure("length_bias", 0.02, 0.01, 0.03),  # sure, and too small to matter
        figure("first_place", 0.5, 0.4, 0.6, "pair"),
        figure("injection_lift", 0.1, -0.1, 0.3),
        figure("auc", 0.2, None, None),
        figure("auc", None, None, None),
    ]

    assert findings(quiet) == []


@pytest.mark.parametrize(
    ("name", "value", "bar", "passed"),
    [
        ("auc", 0.7, 0.7, True),
        ("auc", 0.69, 0.7, False),
        ("accuracy", None, 0.0, False),  # unknown is above no bar
        ("injection", 0.1, 0.1, True),
        ("injection", 0.2, 0.1, False),
        ("unparsed", None, 1.0, False),
        ("length_bias", -0.3, 0.2, False),
        ("length_bias", -0.1, 0.2, True),
        ("first_place", 0.3, 0.1, False),
        ("first_place", 0.55, 0.1, True),
    ],
)
def test_a_bar_is_a_floor_a_ceiling_or_a_distance(name: str, value: float | None, bar: float, passed: bool) -> None:
    (alone,) = against_bars([figure(name, value, None, None)], {name: bar}, "value")
    (exact,) = against_bars([figure(name, value, value, value)], {name: bar}, "interval")

    assert alone.passed is exact.passed is passed


@pytest.mark.parametrize(
    ("name", "low", "high", "bar"),
    [
        ("auc", 0.37, 1.0, 0.7),
        ("injection", 0.0, 0.2, 0.1),
        ("length_bias", -0.3, 0.1, 0.2),
        ("first_place", 0.45, 0.7, 0.1),
        ("auc", None, None, 0.7),  # too few problems for an interval
    ],
)
def test_a_value_that_is_good_by_luck_does_not_pass(
    name: str, low: float | None, high: float | None, bar: float
) -> None:
    value = {"auc": 0.74, "injection": 0.05, "length_bias": 0.0, "first_place": 0.55}[name]
    found = [figure(name, value, low, high)]

    assert against_bars(found, {name: bar}, "value")[0].passed
    assert not against_bars(found, {name: bar}, "interval")[0].passed


def test_a_bar_whose_figure_was_not_measured_is_missed() -> None:
    missed = against_bars([], {"auc": 0.7, "flip": 0.1}, "interval")

    assert [(result.name, result.target, result.value, result.passed) for result in missed] == [
        ("auc", "answer", None, False),
        ("flip", "pair", None, False),
    ]
    assert failure(missed[0]).startswith("auc of answers unknown, the bar is at least 0.7")


def test_a_missed_bar_says_value_interval_and_bar() -> None:
    missed = BarResult("auc", "answer", 0.7, 0.512, 0.4, 0.624, "interval", False)
    unknown = BarResult("first_place", "pair", 0.1, None, None, None, "value", False)

    assert failure(missed) == "auc of answers 0.512 [0.400, 0.624], the bar is at least 0.7 for the whole interval"
    assert failure(unknown) == "first_place of pairs unknown, the bar is 0.5 +-0.1"


def test_a_bar_without_a_figure_is_refused() -> None:
    check_bars({"auc": 0.7}, {"answer"})
    with pytest.raises(ConfigError, match='unknown bar "acu"; did you mean "auc"'):
        check_bars({"acu": 0.7}, {"answer"})
    with pytest.raises(ConfigError, match=r"calibrate.bars.flip: only a judge of pairs has an order"):
        check_bars({"flip": 0.1}, {"answer", "problem"})


def test_kinds_are_listed_in_one_order_with_their_unknown() -> None:
    kinds = by_kind(
        [Judged("p", "real", False, 1.0), Judged("p", "wrong", False, None), Judged("p", "right", True, 1.0)]
    )

    assert [(kind.kind, kind.answers, kind.known, kind.called_right) for kind in kinds] == [
        ("right", 1, 1, 1),
        ("wrong", 1, 0, 0),
        ("real_wrong", 1, 1, 1),
    ]


def test_the_report_keeps_structs_until_one_place_writes_json() -> None:
    """Fault 11 of the house: figures went from structs to a dictionary and back."""
    figure = Figure("auc", "answer", 0.75, 0.5, 1.0, 8, 0, "bootstrap")
    bars = against_bars([figure], {"auc": 0.7}, "interval")
    report = CalibrationReport(
        ["rubric"], Policy("m"), {"planted": 8}, {"problems": 2}, 0.95, [figure], [], UNSET, UNSET, [], bars
    )

    told = report.as_json()

    assert report.missed() == bars
    assert told["figures"] == [msgspec.to_builtins(figure)]
    assert list(told) == [name for name in report.__struct_fields__ if name not in ("judgements", "unparsed_share")]
    assert "left out: 2 problems" in report.text()
    assert report.text().endswith("judge rubric: no bias shown")
