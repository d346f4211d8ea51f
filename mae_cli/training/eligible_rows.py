"""The rows that may be trained: those of the wanted purposes that the trained policy wrote itself.

Place in the flow: `finetune` calls it before it loads a model. Contract: pure functions over rows; every row that is
left out is counted with its reason. Left out: which rows are worth training (`filter`) and their tokens (`examples`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from mae_cli.plugins import contracts
from mae_cli.records import Policy, Row


def trainable(rows: list[Row], purposes: list[str], objective: contracts.Objective) -> tuple[list[Row], dict[str, int]]:
    """The rows to train on, and how many were left out for which reason."""
    left_out: dict[str, int] = {}
    chosen = []
    for row in rows:
        if row.purpose not in purposes:
            reason = f"purpose {row.purpose}"
        elif row.kept is False:
            reason = "only stored, not kept" if row.stored else "dropped by filter"
        elif row.status in ("error", "too_long") or not row.raw:
            reason = "nothing generated"
        elif row.reward is None and (objective.needs.reward or row.reward_terms):
            # Terms without a reward: somebody was asked about the row, and what was said is unknown.
            reason = "reward unknown"
        else:
            chosen.append(row)
            continue
        left_out[reason] = left_out.get(reason, 0) + 1
    return chosen, left_out


def own_rows(rows: list[Row], policy: Policy | None, fixed: Sequence[str]) -> tuple[list[Row], dict[str, int]]:
    """The rows that the trained policy wrote itself, and how many others wrote.

    A gradient that treats another model's text as the policy's own is no policy gradient. Rows of a role that the
    recipe gives to another policy are the other's, and rows whose policy names other weights are. Where a row names its
    model otherwise (a server's name for it) the two cannot be told apart, and it counts as the policy's own.
    """
    own: list[Row] = []
    left_out: dict[str, int] = {}
    for row in rows:
        if row.role in fixed or (policy is not None and _other_weights(row.policy, policy)):
            reason = f"{row.role} rows another policy wrote (finetune.other_models trains them)"
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            own.append(row)
    return own, left_out


def _other_weights(one: Policy, other: Policy) -> bool:
    return one.model != other.model and all(WEIGHTS_DIGEST.fullmatch(policy.model) for policy in (one, other))


def retokenised(row: Row, policy: Policy) -> Row:
    """A row of other weights without its token ids: another model's tokenizer may have made them."""
    if not _other_weights(row.policy, policy):
        return row
    return msgspec.structs.replace(row, prompt_token_ids=None, completion_token_ids=None)


WEIGHTS_DIGEST = re.compile("[0-9a-f]{20}")
"""Form of a policy's digest where the weights were at hand; see `models.digests`."""
