"""The table fixes what a judge's reply says; None means unparsed."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mae_cli.plugins.judges.score_tag import normalise, parse_score

TABLE: list[tuple[str, float | None]] = [
    # Plain numbers.
    ("<score>8</score>", 8.0),
    ("<score>1</score>", 1.0),
    ("<score>10</score>", 10.0),
    ("<score>8.5</score>", 8.5),
    ("<score>8.0</score>", 8.0),
    ("<score>8.</score>", 8.0),
    ("<score>08</score>", 8.0),
    ("Reasoning first.\n<score>7</score>\nThank you.", 7.0),
    ("It is fine. <score>3</score> I counted 99 errors.", 3.0),
    # Fractions of the scale's maximum.
    ("<score>8/10</score>", 8.0),
    ("<score>10/10</score>", 10.0),
    ("<score>8.5/10</score>", 8.5),
    ("<score>8 / 10</score>", 8.0),
    ("<score>8/10.0</score>", 8.0),
    ("<score>7/9</score>", None),
    ("<score>4/5</score>", None),
    ("<score>80/100</score>", None),
    ("<score>0/10</score>", None),
    ("<score>11/10</score>", None),
    ("<score>8/0</score>", None),
    ("<score>8/10/10</score>", None),
    # Out of scale: never clamped.
    ("<score>0</score>", None),
    ("<score>11</score>", None),
    ("<score>-3</score>", None),
    ("<score>\u22123</score>", None),
    ("<score>0.99</score>", None),
    ("<score>10.01</score>", None),
    ("<score>100</score>", None),
    ("<score>999999999999999999999999</score>", None),
    # Not one plain number.
    ("<score>80%</score>", None),
    ("<score>[1-10]</score>", None),
    ("<score>1-10</score>", None),
    ("<score>8-9</score>", None),
    ("<score>8 or 9</score>", None),
    ("<score>8, 9</score>", None),
    ("<score>8,5</score>", None),
    ("<score>8 9</score>", None),
    ("<score>+8</score>", 8.0),
    ("<score>1e1</score>", None),
    ("<score>0x8</score>", None),
    ("<score>nan</score>", None),
    ("<score>inf</score>", None),
    ("<score>eight</score>", None),
    ("<score>8 points</score>", 8.0),
    ("<score>8 out of 10</score>", 8.0),
    ("<score>Score: 8</score>", 8.0),
    ("<score>N/A</score>", None),
    ("<score>X</score>", None),
    ("<score></score>", None),
    ("<score>  \n </score>", None),
    ("<score>****</score>", None),
    ("<score>(8)</score>", 8.0),
    ("<score>\\boxed{8}</score>", 8.0),
    # Blanks, Markdown, letter case, characters.
    ("<score> 8 </score>", 8.0),
    ("<score>\n8\n</score>", 8.0),
    ("<score>\u00a08\u00a0</score>", 8.0),
    ("< score >8< / score >", 8.0),
    ("<SCORE>8</Score>", 8.0),
    ("**<score>8</score>**", 8.0),
    ("<score>**8**</score>", 8.0),
    ("<score>`8`</score>", 8.0),
    ("<score>**8/10**</score>", 8.0),
    ("<score>\uff18</score>", 8.0),
    ("<score>\uff11\uff10</score>", 10.0),
    ("<score>\uff18\uff0f\uff11\uff10</score>", 8.0),
    ("\uff1cscore\uff1e\uff18\uff1c/score\uff1e", 8.0),
    ("<score>\u0668</score>", 8.0),  # Arabic-Indic eight
    ("<score>\u200b8\u200d</score>", 8.0),
    ("<sc\u200bore>8</score\u200b>", 8.0),
    ("\ufeff<score>8</score>", 8.0),
    ("<score>1\u2070</score>", None),  # 1 with a raised 0 is not 10
    ("<score>\u00bd</score>", None),
    ("<score>\u2467</score>", None),  # circled eight
    # No tag: never a number from elsewhere.
    ("", None),
    ("8", None),
    ("Score: 8", None),
    ("I give it 8/10.", None),
    ("a downgrade: 3", None),
    ("The score is **8**", None),
    ("[score]8[/score]", None),
    ("&lt;score&gt;8&lt;/score&gt;", None),
    ("<scores>8</scores>", None),
    ("<underscore>8</underscore>", None),
    # Several tags: the last counts, readable or not.
    ("<score>3</score> no, <score>8</score>", 8.0),
    ("<score>8</score> no, <score>3</score>", 3.0),
    ("<score>8</score> <score>good</score>", None),
    ("<score>good</score> <score>8</score>", 8.0),
    ("<score>8</score> <score></score>", None),
    ("<score>8</score> <score>11</score>", None),
    ("<score>8</score> <score>9", None),
    ("I use the <score> tag: <score>8</score>", 8.0),
    ("<score>8</score> is in the <score> tag", 8.0),
    ("<score>8", None),
    ("8</score>", None),
    ("<score>8</score></score>", None),
    ("<score><score>8</score></score>", None),
    ('<score value="9">8</score>', None),
    ('<score>8</score><score value="9"/>', None),
    # Reasoning is not output.
    ("<think><score>3</score></think><score>8</score>", 8.0),
    ("<score>8</score><think><score>3</score></think>", 8.0),
    ("<think><score>3</score></think>", None),
    ("<think>so <score>3</score>", None),
    ("<score>8</score><think>wait, <score>3</score>", 8.0),
    ("<think>a <score>3</score> <score>8</score>", None),
    ("so <score>3</score></think><score>8</score>", 8.0),  # the prompt opened the block
    ("so <score>3</score></think>", None),
    ("<THINK><score>3</score></Think ><score>8</score>", 8.0),
    ("<thinking><score>3</score></thinking><score>8</score>", 8.0),
    ("<reasoning><score>3</score></reasoning><score>8</score>", 8.0),
    ("<think>a <reasoning>b</reasoning> <score>3</score></think><score>8</score>", 8.0),
    ("<think>a <reasoning>b</reasoning> <score>3</score>", None),
    ("<think>a <think>b</think> <score>3</score></think><score>8</score>", 8.0),
    ("\uff1cthink\uff1e<score>3</score></think>", None),
    ("<score>1<think>x</think>0</score>", None),
    ("<sco<think>x</think>re>8</score>", None),
    # JSON inside the tag: one top-level "score" that is such a number.
    ('<score>{"score": 8}</score>', 8.0),
    ('<score>{"score": 8.5}</score>', 8.5),
    ('<score>{"score": "8/10"}</score>', 8.0),
    ('<score>{"Score": 8, "reason": "ok"}</score>', 8.0),
    ('<score>{"score": 11}</score>', None),
    ('<score>{"score": null}</score>', None),
    ('<score>{"score": true}</score>', None),
    ('<score>{"score": NaN}</score>', None),
    ('<score>{"score": [8]}</score>', None),
    ('<score>{"score": {"score": 8}}</score>', None),
    ('<score>{"score": 3, "score": 8}</score>', None),
    ('<score>{"rating": 8}</score>', None),
    ('<score>{"score": 8</score>', None),
    ("<score>{}</score>", None),
    ("<score>" + "[" * 1500 + "</score>", None),
    ('<score>{"a":' + "[" * 1500 + "</score>", None),
    ("<score>8" + " " * 3000 + "x</score>", None),
    # JSON without the tag has no tag.
    ('{"score": 8}', None),
]


@pytest.mark.parametrize(("text", "expected"), TABLE, ids=[repr(text[:60]) for text, _ in TABLE])
def test_reply_reads_as_the_table_says(text: str, expected: float | None) -> None:
    reading = parse_score(text)

    assert reading.score == expected
    assert reading.status == ("unparsed" if expected is None else "ok")
    assert bool(reading.reason) == (expected is None)


def test_table_has_at_least_seventy_different_strings() -> None:
    assert len({text for text, _ in TABLE}) == len(TABLE) >= 70


@pytest.mark.parametrize(
    ("content", "scale", "expected"),
    [
        ("4/5", (1, 5), 4.0),
        ("4/10", (1, 5), None),
        ("0.8", (0, 1), 0.8),
        (".8", (0, 1), 0.8),
        ("1/1", (0, 1), 1.0),
        ("-3", (-5, 5), -3.0),
        ("\u22123", (-5, 5), -3.0),
        ("-6", (-5, 5), None),
        ("80", (0, 100), 80.0),
        ("80%", (0, 100), None),
    ],
)
def test_scale_decides_what_is_readable(content: str, scale: tuple[float, float], expected: float | None) -> None:
    assert parse_score(f"<score>{content}</score>", scale).score == expected


@pytest.mark.parametrize("scale", [(10, 1), (1, 1), (0, float("inf")), (float("nan"), 1)])
def test_scale_that_does_not_rise_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="rising"):
        parse_score("<score>8</score>", scale)
    with pytest.raises(ValueError, match="rising"):
        normalise(1, scale)


def test_normalise_is_s_minus_one_over_nine_on_the_ten_scale() -> None:
    assert normalise(1) == 0.0
    assert normalise(10) == 1.0
    assert normalise(5.5) == 0.5  # 4.5 / 9
    assert normalise(7) == 6 / 9
    assert normalise(3, (1, 5)) == 0.5  # (3 - 1) / (5 - 1)


@pytest.mark.parametrize("score", [0.0, 0.7, 11.0, -1.0, float("nan"), float("inf")])
def test_normalise_refuses_instead_of_clamping(score: float) -> None:
    with pytest.raises(ValueError, match="not on the scale"):
        normalise(score)


PIECES = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(["<score>", "</score>", "<think>", "</think>", "8", "8/10", "11", "{", '"score":', "}", "\n"]),
    ),
    max_size=14,
).map("".join)


@given(PIECES)
@example("<score>" * 2000)
@example("<" + " " * 5000)
@example("<th\u0131nk><score>\u0131</score>")
def test_any_reply_is_unparsed_or_on_the_scale(text: str) -> None:
    reading = parse_score(text)

    if reading.status == "ok":
        assert reading.score is not None
        assert 1 <= reading.score <= 10
        assert 0 <= normalise(reading.score) <= 1
    else:
        assert reading.score is None


INSIDE = (
    st.one_of(st.text(), PIECES)
    .map(lambda text: text.replace("<think>", "").replace("</think>", ""))
    .filter(lambda text: "think" not in text.lower())
)


@given(
    before=st.sampled_from(["", "Well. ", "<score>5</score> "]),
    first=INSIDE,
    second=INSIDE,
    after=st.sampled_from(["", "<score>8</score>", "<score>80%</score>", "<score>"]),
)
def test_text_inside_think_never_changes_the_result(before: str, first: str, second: str, after: str) -> None:
    one = parse_score(f"{before}<think>{first}</think>{after}")
    other = parse_score(f"{before}<think>{second}</think>{after}")

    assert one == other == parse_score(f"{before}\n{after}")


@given(st.floats(min_value=1, max_value=10).map(lambda score: round(score, 3)))
def test_a_score_in_the_tag_is_read_back_exactly(score: float) -> None:
    assert parse_score(f"<score>{score:.3f}</score>").score == score
