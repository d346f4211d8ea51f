"""Learning is real: an objective lifts a simple skill on held-out prompts, and does not with shuffled rewards.

The skill: words with the letter e. A tiny random model writes 8 replies to each of 96 training prompts, a reply earns
the share of its tokens that hold an e, one training follows, and replies to 96 other prompts are read, before and
after. `-s` prints the numbers, which stand in recipes/LOG.md.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.models.load import load_tokenizer
from mae_cli.records import Row
from mae_cli.records.read import read_rows
from tests.support import here, write_json_lines, write_rows

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

OBJECTIVES: dict[str, Any] = {
    "sft": "sft",
    "dpo": {"name": "dpo", "pairs": "best_vs_worst"},
    "reinforce_pp": "reinforce_pp",
    "grpo": "grpo",
}
EPOCHS = {"sft": 4, "dpo": 8, "reinforce_pp": 4, "grpo": 8}
WORDS = ["apples", "coins", "books", "sam", "ana", "ben", "zoe", "red", "blue", "green", "small", "large"]


def questions(seed: int, count: int = 96) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [{"question": " ".join(rng.choices(WORDS, k=6)) + f" {seed} {index}"} for index in range(count)]


def replies(problems: Path, out: Path, model: Path, *options: object) -> list[Row]:
    given = ("-m", model, "--device", "cpu", "--rollouts-per-problem", 8, "--max-new-tokens", 8)
    assert here("solve", problems, "-o", out, *given, *options) == 0
    rows, tokenizer = read_rows(out), load_tokenizer(model)
    for row in rows:
        row.reward = skill(row, tokenizer)
    return rows


def skill(row: Row, tokenizer: Any) -> float:
    """Share of the tokens of a reply that hold an e."""
    pieces = [tokenizer.decode([token]) for token in row.completion_token_ids or []]
    return sum("e" in piece for piece in pieces) / max(1, len(pieces))


def mean(rows: list[Row]) -> float:
    return sum(row.reward or 0.0 for row in rows) / len(rows)


@pytest.fixture(scope="module")
def start(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Path, float]:
    """Rollouts on the training prompts, the held-out prompts, and the skill on them before training."""
    folder = tmp_path_factory.mktemp("learning")
    train = write_json_lines(folder / "train.jsonl", questions(1))
    held_out = write_json_lines(folder / "held_out.jsonl", questions(2))
    rows = replies(train, folder / "rollouts.jsonl", tiny_model_dir)
    return rows, held_out, mean(replies(held_out, folder / "before.jsonl", tiny_model_dir))


def lift(objective: str, *, shuffled: bool, model: Path, start: tuple[list[Row], Path, float], folder: Path) -> float:
    """Skill on the held-out prompts after training, minus before."""
    rows, held_out, before = start
    rows = [msgspec.structs.replace(row) for row in rows]
    if shuffled:
        rewards = [row.reward for row in rows]
        random.Random(0).shuffle(rewards)
        for row, reward in zip(rows, rewards, strict=True):
            row.reward = reward
    if objective == "sft":
        # What the filter does for imitation: the best 2 of each 8.
        for group in {row.group_id for row in rows}:
            members = sorted((row for row in rows if row.group_id == group), key=lambda row: -(row.reward or 0.0))
            for place, row in enumerate(members):
                row.kept = place < 2
    given = write_rows(folder / "selected.jsonl", rows)
    section = {"objective": OBJECTIVES[objective], "epochs": EPOCHS[objective], "learning_rate": 1e-2}
    section |= {"batch_size": 32, "lora_r": 8, "lora_alpha": 16}
    recipe = folder / "recipe.yaml"
    recipe.write_bytes(msgspec.yaml.encode({"finetune": section, "seed": 0}))
    options = ("-m", model, "--device", "cpu", "--recipe", recipe)
    assert here("finetune", given, "-o", folder / "adapter", *options) == 0
    after = replies(held_out, folder / "after.jsonl", model, "--adapter", folder / "adapter")
    return mean(after) - before


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_held_out_prompts_gain_and_do_not_with_shuffled_rewards(
    objective: str, start: tuple[list[Row], Path, float], tiny_model_dir: Path, tmp_path: Path
) -> None:
    lifts = {}
    for shuffled in (False, True):
        folder = tmp_path / str(shuffled)
        folder.mkdir()
        lifts[shuffled] = lift(objective, shuffled=shuffled, model=tiny_model_dir, start=start, folder=folder)
    print(f"{objective}: before {start[2]:.3f}, gain {lifts[False]:+.3f}, with shuffled rewards {lifts[True]:+.3f}")

    # 768 replies of up to 8 tokens: the difference of two such means has a standard error near 0.007.
    assert lifts[False] > 0.04
    assert abs(lifts[True]) < lifts[False] / 3
