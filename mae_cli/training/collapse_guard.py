"""The collapse guard: it stops a training whose loss jumps or is not a number."""

from __future__ import annotations

from statistics import median

WINDOW = 20
"""Steps that a new one is compared with."""
FEWEST = 3
"""Steps before which nothing is called a jump."""


class Guard:
    """Watches the negative log-likelihood of the trained tokens, which every objective has in the same unit.

    A loss of a policy gradient moves around 0 and a preference loss saturates; a model that has broken down gives its
    own earlier texts no probability, whatever is trained.
    """

    def __init__(self, max_jump: float) -> None:
        self.max_jump = max_jump
        self.history: list[float] = []

    def check(self, nll: float) -> str | None:
        """Reason to stop after a step with this mean, in nats per token; null for a good one, which is remembered."""
        recent = self.history[-WINDOW:]
        if self.max_jump and len(recent) >= FEWEST and nll > median(recent) + self.max_jump:
            return f"jumped: {nll:.1f} nats per trained token, {median(recent):.1f} before (finetune.max_nll_jump)"
        self.history.append(nll)
        return None
