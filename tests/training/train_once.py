"""One training in a process of its own, which may kill itself: python train_once.py '{"model": ..., ...}'."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch

from mae_cli.models.load import end_token_ids, load_model, load_tokenizer
from mae_cli.plugins.registry import build
from mae_cli.prompts.chat_template import open_chat
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records import Row
from mae_cli.training.job import TrainingTask
from mae_cli.training.logs import StepNote, TrainReport
from mae_cli.training.trainer import BaseModel, Callbacks, train


def train_once(job: dict[str, Any]) -> TrainReport:
    """Train with the tiny model; with `kill_after` the process dies after that step."""
    tokenizer = load_tokenizer(Path(job["model"]))
    chat = open_chat(tokenizer)
    model = load_model(Path(job["model"]), device=torch.device("cpu"), dtype=torch.float32)
    section = msgspec.convert(job["section"], FinetuneSection)
    lines = Path(job["rows"]).read_text("utf-8").splitlines()

    def on_step(note: StepNote, _: int) -> None:
        if note.step == job.get("kill_after"):
            os.kill(os.getpid(), signal.SIGKILL)

    rows = [msgspec.json.decode(line, type=Row) for line in lines]
    return train(
        BaseModel(model, chat, end_token_ids(model, tokenizer, chat.template), "tiny"),
        TrainingTask(rows, section, build("objectives", section.objective), 7),
        Path(job["output"]),
        checkpoint_dir=Path(job["checkpoints"]),
        callbacks=Callbacks(on_step),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_once(json.loads(sys.argv[1]))
