from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from mae_cli.models.load import end_token_ids, load_model, load_tokenizer
from mae_cli.plugins.registry import build
from mae_cli.prompts.chat_template import Chat, open_chat
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records import Message, Policy, Row, Sampling, new_row

if TYPE_CHECKING:
    from mae_cli.training.full_tuning import ModelFolders
    from mae_cli.training.logs import StepNote, TrainReport

ANSWERS = {"proposer": " how many apples has sam", "solver": " the answer is ten", "judge": " score one good"}


class Tiny(NamedTuple):
    model: Any
    chat: Chat
    end_ids: frozenset[int]


def load_tiny(folder: Path) -> Tiny:
    import torch

    tokenizer = load_tokenizer(folder)
    chat = open_chat(tokenizer)
    model = load_model(folder, device=torch.device("cpu"), dtype=torch.float32)
    return Tiny(model, chat, end_token_ids(model, tokenizer, chat.template))


@pytest.fixture
def tiny(tiny_model_dir: Path) -> Tiny:
    """A model of its own for each test, so that one cannot see what another left behind."""
    return load_tiny(tiny_model_dir)


def train_tiny(
    tiny: Tiny,
    rows: Sequence[Row],
    section: FinetuneSection,
    output: Path,
    *,
    objective: Any = None,
    base_name: str = "tiny",
    seed: int = 0,
    start_adapter: Path | None = None,
    folders: ModelFolders | None = None,
    checkpoint_dir: Path | None = None,
    on_step: Callable[[StepNote, int], None] | None = None,
    on_text: Callable[[str], None] | None = None,
) -> TrainReport:
    """One training of a loaded model, with lineage and card as `finetune` writes them."""
    from mae_cli.stages.tuning.adapter_files import describe
    from mae_cli.training.job import TrainingTask
    from mae_cli.training.trainer import BaseModel, Callbacks, Start, train

    task = TrainingTask(rows, section, objective or build("objectives", section.objective), seed)
    return train(
        BaseModel(tiny.model, tiny.chat, tiny.end_ids, base_name),
        task,
        output,
        start=Start(start_adapter, folders),
        checkpoint_dir=checkpoint_dir,
        callbacks=Callbacks(on_step, on_text, lambda folder, facts: describe(folder, facts, task, base_name=base_name)),
    )


def make_row(
    chat: Chat,
    question: str,
    completion: str,
    *,
    role: Any = "solver",
    reward: float | None = 1.0,
    index: int = 0,
    group: object = None,
) -> Row:
    """A row as the hf engine leaves it: prompt and completion ids, the end token included."""
    row = new_row(
        "solve",
        role=role,
        purpose="train",
        round_number=1,
        run_seed=0,
        messages=[Message("user", question)],
        sampling=Sampling(max_new_tokens=64),
        policy=Policy(model="tiny"),
        sample_index=index,
        group=group,
    )
    row.raw = row.completion = completion
    row.prompt_token_ids = chat.render(row.messages)
    row.completion_token_ids = chat.tokenizer.encode(completion + "<|im_end|>", add_special_tokens=False)
    row.finish_reason = "stop"
    row.reward = reward
    return row


def make_rows(chat: Chat, number: int = 12) -> list[Row]:
    """Rows of three roles with different lengths and rewards."""
    roles = list(ANSWERS)
    return [
        make_row(
            chat,
            "what is the sum of" + " two plus three" * (index % 4),
            ANSWERS[roles[index % 3]] * (1 + index % 5),
            role=roles[index % 3],
            reward=(index * 7 % 10) / 10,
            index=index,
        )
        for index in range(number)
    ]


def make_groups(chat: Chat, number: int = 4, size: int = 3) -> list[Row]:
    """Problems with several rollouts each, of different texts and rewards."""
    words = ["ten", "two plus three", "six apples left", "zoe", "nine"]
    return [
        make_row(
            chat,
            "what is the sum of" + " one plus four" * (problem % 3 + 1) + f" {problem}",
            " the answer is" + f" {words[(problem + sample) % 5]}" * (1 + sample % 3),
            reward=((problem * 3 + sample * 7) % 10) / 10,
            index=sample,
            group=problem,
        )
        for problem in range(number)
        for sample in range(size)
    ]
