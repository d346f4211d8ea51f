from __future__ import annotations

import pytest

from mae_cli.models.shared_prefix import common_prefix_length


@pytest.mark.parametrize(
    ("prompts", "length"),
    [
        ([[1, 2, 3, 4], [1, 2, 5, 4, 6]], 2),
        # The last token of each still has to be fed for its output.
        ([[1, 2, 3], [1, 2, 3]], 2),
        ([[1, 2, 3], [1, 2]], 1),
        ([[1, 2, 3, 4], [1, 2, 3]], 2),
        ([(1,), (1, 2)], 0),
        ([[1, 2], [3, 2]], 0),
        ([[7]], 0),
        ([[], [1]], 0),
        ([[1, 2, 3], (1, 2, 3)], 2),
    ],
)
def test_the_common_beginning_leaves_every_prompt_a_token(prompts: list[list[int]], length: int) -> None:
    assert common_prefix_length(prompts) == length
