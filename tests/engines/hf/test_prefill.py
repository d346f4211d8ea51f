"""Which prompts share a prefill, and in which order they start."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.engines.hf.prefill import MIN_SHARED, common_length, left_pad, order_for_sharing, take

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=60), min_size=1, max_size=12)


def test_padding_stands_on_the_left() -> None:
    ids, mask = left_pad([[1, 2, 3], [4]], 0, torch.device("cpu"))

    assert ids.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_two_sequences_have_their_beginning_in_common() -> None:
    assert common_length([1, 2, 3], [1, 2, 4]) == 2
    assert common_length([1, 2], [1, 2, 4]) == 2


@given(PROMPTS)
def test_every_prompt_starts_once_and_families_stay_together_longest_first(prompts: list[list[int]]) -> None:
    order = order_for_sharing(prompts)

    assert sorted(order) == list(range(len(prompts)))
    keys = [tuple(prompts[index][: 2 * MIN_SHARED]) for index in order]
    for key in {key for key in keys if keys.count(key) > 1}:
        places = [place for place, other in enumerate(keys) if other == key]
        assert places == list(range(places[0], places[-1] + 1))
        lengths = [len(prompts[order[place]]) for place in places]
        assert lengths == sorted(lengths, reverse=True)


@given(PROMPTS, st.integers(1, 20))
def test_a_forward_pass_takes_at_least_one_prompt_and_no_more_rows_than_needed(
    prompts: list[list[int]], wanted: int
) -> None:
    count = take(prompts, [2] * len(prompts), wanted, 2048)

    assert 1 <= count <= len(prompts)
    assert 2 * (count - 1) < wanted


def test_a_forward_pass_keeps_to_the_token_budget() -> None:
    assert take([[place] * 30 for place in range(9)], [1] * 9, 9, 100) == 3
    # Forty tokens are shared, so ten per prompt are left: ten prompts make a hundred.
    shared = [[1] * 40 + [place] * 10 for place in range(12)]
    assert take(shared, [1] * 12, 12, 100) == 10
    # What is shared counts from the second prompt on, however long it is.
    assert take([[1] * 90 + [place] * 10 for place in range(12)], [1] * 12, 12, 100) == 10


def test_a_prompt_that_begins_otherwise_waits_for_the_next_forward_pass() -> None:
    family = [[1] * 40 + [place] for place in range(3)]

    assert take([*family, [2] * 40], [1] * 4, 4, 2048) == 3
