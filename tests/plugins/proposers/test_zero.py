from __future__ import annotations

import random

from mae_cli.plugins.contracts import Draw
from mae_cli.plugins.proposers.zero import Zero
from tests.support import a_problem


def test_no_proposal_refers_to_anything() -> None:
    assert Zero().draw(random.Random(0), [a_problem()]) == Draw(prompt="zero", references=())
