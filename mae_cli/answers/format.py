"""The format reward of MAE: whether a text has the tags it was asked for, exactly once.

Place in the flow: rewards call it with the text of one role. Contract: a pure function; unlike most scores it is never
unknown, because a missing tag is a fact. Left out: what stands inside the tags.
"""

from typing import Literal

from mae_cli.answers.tags import _tag_pattern, count_tag_pairs


def format_reward(
    text: str,
    tag: str,
    *,
    variant: Literal["paper", "code"],
) -> float:
    """Reward a response for its tag format: 0.0, 0.5 or 1.0.

    paper: 1.0 for exactly one pair, 0.5 for more, else 0.0, for every tag; a stray tag beside a pair does not matter.
    code: answer and score 1.0 for exactly one pair, 0.5 for more, else 0.0; question 1.0 for one to three pairs, 0.5
    for more, else 0.0; a stray tag gives 0.0.

    Empty text gives 0.0 in both: a policy's own malformed output is a measured fact. The released code pays 0.5 there.
    It also counts prompt and response together (two pairs come from the prompt of proposer and judge); here only the
    response is passed, so its constants are shifted by two.

    Args:
        text: the response alone, as it was written.
        tag: `question`, `answer` or `score`.
        variant: which of the two published rules.

    Source: MAE, arXiv:2510.23595, format reward, and its released code.
    """
    pairs = count_tag_pairs(text, tag)
    has_stray_tag = len(_tag_pattern((tag,)).findall(text)) != 2 * pairs
    if pairs == 0 or (variant == "code" and has_stray_tag):
        return 0.0
    full_up_to = 3 if variant == "code" and tag == "question" else 1
    return 1.0 if pairs <= full_up_to else 0.5
