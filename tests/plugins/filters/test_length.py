from __future__ import annotations

from mae_cli.plugins.contracts import Selection
from mae_cli.plugins.filters.length import Length
from tests.support import a_row


def test_tokens_are_counted_where_known_and_words_elsewhere() -> None:
    rows = [
        a_row(completion="one two three", completion_token_ids=[1]),
        a_row(completion="one two three"),
        a_row(completion=None),
    ]

    assert [selection.reason for selection in Length(low=2, high=3).select(rows)] == ["length:1", None, "length:0"]


def test_both_bounds_belong_to_the_range_and_no_high_is_no_limit() -> None:
    row = a_row(completion="one two three")

    assert Length(low=3, high=3).select([row]) == [Selection()]
    assert Length(high=2).select([row]) == [Selection(reason="length:3")]
    assert Length().select([a_row(completion="word " * 5000)]) == [Selection()]


def test_rows_that_are_not_trained_are_let_be() -> None:
    assert Length(high=1).select([a_row("judge", "grade", completion="one two")]) == [Selection()]
