from __future__ import annotations

from mae_cli.plugins.contracts import Selection
from mae_cli.plugins.filters.finish_reason import KeepFinishReason
from tests.support import a_row


def test_cut_off_and_failed_rows_are_dropped_with_how_they_ended() -> None:
    rows = [a_row(finish_reason=reason) for reason in ("stop", "length", "error", None)]

    assert [selection.reason for selection in KeepFinishReason().select(rows)] == [
        None,
        "finish_reason:length",
        "finish_reason:error",
        "finish_reason:None",
    ]


def test_other_purposes_and_roles_not_named_are_let_be() -> None:
    rows = [a_row(purpose="difficulty", finish_reason="length"), a_row("judge", finish_reason="length")]

    assert KeepFinishReason(roles=("solver",)).select(rows) == [Selection(), Selection()]


def test_length_can_be_kept_by_name() -> None:
    assert KeepFinishReason(keep=("stop", "length")).select([a_row(finish_reason="length")]) == [Selection()]
