"""Figures of each step sent to a tracker through accelerate; nothing is imported or sent unless a recipe asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mae_cli.training.logs import StepNote


@contextmanager
def tracker(name: str, *, run: str, folder: Path) -> Iterator[Callable[[StepNote], None]]:
    """A function that sends the note of each step to a tracker; it does nothing for "none".

    Args:
        name: none, tensorboard, trackio or wandb; the stage has made sure that the package is there.
        run: what the tracker calls this training.
        folder: where a tracker that writes files does so.
    """
    if name == "none":
        yield lambda note: None
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # its loggers ask which process they are in
    kind = LOGGER_TYPE_TO_CLASS[name]
    made = kind(run, folder) if kind.requires_logging_directory else kind(run)
    made.start()
    try:
        yield lambda note: made.log(figures(note), step=note.step)
    finally:
        made.finish()


def figures(note: StepNote) -> dict[str, float]:
    """The numbers of a step, by the names of train_log.jsonl."""
    own = {key: float(getattr(note, key)) for key in ("loss", "nll", "learning_rate", "grad_norm", "tokens")}
    rewards = {f"reward_mean/{role.role}": role.reward_mean for role in note.roles if role.reward_mean is not None}
    return {**own, **rewards, **{f"metrics/{name}": value for name, value in note.metrics.items()}}
