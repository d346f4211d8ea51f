"""Training speed against TRL, both sides in one run, each in a process of its own with its peak memory.

sft: 128 questions with worked solutions of mixed length, one epoch, completions only, batches of 8. reinforce_pp: one
update over 64 fixed rollouts (8 questions, 8 texts each), against TRL's GRPO update on the same ids and advantages.
smollm2-135m, float32, LoRA rank 16 on all linear layers, no gradient checkpointing on either side (TRL is faster
without). Loading, tokenising on TRL's side, and generation are left out; our side is the whole `train` call.

    python -m tests.bench.training            both workloads
    python -m tests.bench.training sft trl    one side, as JSON
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.workloads import ROOT, questions

RANK, BATCH, MAX_LENGTH = 16, 8, 1024
SFT_ROWS, PROBLEMS, SAMPLES = 128, 8, 8
BARS = {"sft": 1.8, "reinforce_pp": 1.5}
WHAT = {
    "sft": f"{SFT_ROWS} rows, batches of {BATCH}, LoRA r {RANK}",
    "reinforce_pp": f"one update over {PROBLEMS} x {SAMPLES} fixed rollouts, LoRA r {RANK}",
}


def question(row: dict[str, Any]) -> list[dict[str, str]]:
    """The prompt of both sides."""
    return [{"role": "user", "content": row["question"]}]


def ours() -> tuple[Any, Any, Any]:
    """Model, chat and end ids."""
    from mae_cli.engines.hf.engine import open_engine
    from mae_cli.recipe.load import load_recipe

    engine: Any = open_engine(load_recipe(None, ["device=cpu"]), "")
    return engine.model, engine.chat, frozenset(engine.end_ids)


def train(rows: list[Any], objective: str, batch_size: int) -> float:
    """Seconds of the whole training."""
    from mae_cli.plugins.registry import build
    from mae_cli.recipe.sections import FinetuneSection
    from mae_cli.training.job import TrainingTask
    from mae_cli.training.trainer import BaseModel
    from mae_cli.training.trainer import train as run_training

    model, chat, end_ids = ours()
    section = FinetuneSection(batch_size=batch_size, lora_r=RANK, save_every=0, max_length=MAX_LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = run_training(
            BaseModel(model, chat, end_ids, "smollm2-135m"),
            TrainingTask(rows, section, build("objectives", objective), 0),
            Path(folder) / "adapter",
        )
        seconds = time.perf_counter() - start
    assert report.rows == len(rows), report
    return seconds


def sft_mae() -> tuple[int, float]:
    """Rows and seconds."""
    from mae_cli.data.formats import read_foreign, rows_of

    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for row in questions()[0][:SFT_ROWS]:
            answer = [{"role": "assistant", "content": row["solution"]}]
            file.write(json.dumps({"prompt": question(row), "completion": answer}) + "\n")
        file.flush()
        foreign = read_foreign(Path(file.name))
    assert foreign is not None
    rows = rows_of(foreign)
    return len(rows), train(rows, "sft", BATCH)


def trl_parts() -> tuple[Any, Any, Any]:
    """TRL's model, tokenizer and LoRA configuration."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mae_cli.models.locate import local_model

    folder = local_model("smollm2-135m", None)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    return model, AutoTokenizer.from_pretrained(folder), config


COMMON = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "per_device_train_batch_size": BATCH,
    "learning_rate": 1e-4,
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_strategy": "no",
}


def sft_trl() -> tuple[int, float]:
    """Rows and seconds."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer, lora = trl_parts()
    data = Dataset.from_list(
        [
            {"prompt": question(row), "completion": [{"role": "assistant", "content": row["solution"]}]}
            for row in questions()[0][:SFT_ROWS]
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(output_dir=folder, max_length=MAX_LENGTH, num_train_epochs=1, **COMMON),
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=lora,
        )
        start = time.perf_counter()
        trainer.train()
        return len(data), time.perf_counter() - start


def rollouts() -> list[tuple[dict[str, Any], str, float]]:
    """(question row, text, reward): texts are worked solutions of other questions, so lengths are real."""
    rows = questions()[0]
    return [
        (rows[problem], rows[problem * SAMPLES + sample]["solution"], float(sample % 3 == 0) + 0.01 * problem)
        for problem in range(PROBLEMS)
        for sample in range(SAMPLES)
    ]


def reinforce_pp_mae() -> tuple[int, float]:
    """Rows and seconds."""
    from mae_cli.records import Message, Policy, Sampling, new_row

    made = []
    for number, (row, text, reward) in enumerate(rollouts()):
        new = new_row(
            "solve",
            role="solver",
            purpose="train",
            round_number=1,
            run_seed=0,
            messages=[Message("user", row["question"])],
            sampling=Sampling(max_new_tokens=512),
            policy=Policy(model="bench"),
            sample_index=number,
            group=row["question"],
        )
        new.raw = new.completion = text
        new.finish_reason, new.reward = "stop", reward
        made.append(new)
    return len(made), train(made, "reinforce_pp", len(made))


def reinforce_pp_trl() -> tuple[int, float]:
    """Rows and seconds: loss and gradient of every group of 8, then one optimizer step."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    model, tokenizer, lora = trl_parts()
    given = rollouts()
    rewards = torch.tensor([reward for _, _, reward in given])
    advantages = (rewards - rewards.mean()) / rewards.std(correction=0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            args=GRPOConfig(
                output_dir=folder,
                num_generations=SAMPLES,
                gradient_accumulation_steps=PROBLEMS,
                loss_type="dapo",
                beta=0.0,
                epsilon_high=0.28,
                delta=3.0,
                entropy_coef=0.001,
                **COMMON,
            ),
            train_dataset=Dataset.from_list([{"prompt": question(row)} for row, _, _ in given]),
            reward_funcs=lambda **more: [0.0],
            processing_class=tokenizer,
            peft_config=lora,
        )
        batches, total = [], 0
        for first in range(0, len(given), SAMPLES):
            chosen = given[first : first + SAMPLES]
            prompts = [
                tokenizer.apply_chat_template(question(row), add_generation_prompt=True, return_dict=False)
                for row, _, _ in chosen
            ]
            texts = [
                [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for _, text, _ in chosen
            ]
            longest = max(map(len, texts))
            total += sum(map(len, texts))
            batches.append(
                {
                    "prompt_ids": torch.tensor(prompts),
                    "prompt_mask": torch.ones(len(prompts), len(prompts[0]), dtype=torch.long),
                    "completion_ids": torch.tensor([ids + [0] * (longest - len(ids)) for ids in texts]),
                    "completion_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts]),
                    "advantages": advantages[first : first + SAMPLES],
                }
            )
        optimizer = torch.optim.AdamW([p for p in trainer.model.parameters() if p.requires_grad], lr=1e-4)
        trainer.current_gradient_accumulation_steps = len(batches)
        trainer.model.train()
        start = time.perf_counter()
        for batch in batches:
            batch["num_items_in_batch"] = torch.tensor(total)
            trainer._compute_loss(trainer.model, batch).backward()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        optimizer.step()
        return len(given), time.perf_counter() - start


SIDES: dict[tuple[str, str], Callable[[], tuple[int, float]]] = {
    ("sft", "mae"): sft_mae,
    ("sft", "trl"): sft_trl,
    ("reinforce_pp", "mae"): reinforce_pp_mae,
    ("reinforce_pp", "trl"): reinforce_pp_trl,
}


def measure(workload: str, side: str) -> dict[str, float]:
    """Rows, seconds and peak memory of one side in its own process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.training", workload, side],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{workload} {side}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def row(workload: str, sides: dict[str, dict[str, float]]) -> dict[str, Any]:
    """A row of the table; above 1 is faster, and memory is ours over theirs."""
    speeds = {side: found["rows"] / found["seconds"] for side, found in sides.items()}
    return {
        "workload": f"training: {workload}",
        "what": WHAT[workload],
        "other": "TRL SFTTrainer" if workload == "sft" else "TRL GRPO update",
        "theirs": f"{speeds['trl']:.2f} rows/s",
        "ours": f"{speeds['mae']:.2f} rows/s",
        "ratio": speeds["mae"] / speeds["trl"],
        "bar": f">= {BARS[workload]}",
        "memory": f"{sides['mae']['peak_mib'] / sides['trl']['peak_mib']:.2f}",
        "note": f"peak {sides['mae']['peak_mib']:.0f} against {sides['trl']['peak_mib']:.0f} MiB",
    }


def run() -> list[dict[str, Any]]:
    """Both sides of every workload, one after the other."""
    return [row(workload, {side: measure(workload, side) for side in ("trl", "mae")}) for workload in BARS]


def main() -> None:
    """One side as JSON, or the table."""
    if len(sys.argv) == 3:
        rows, seconds = SIDES[sys.argv[1], sys.argv[2]]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"rows": rows, "seconds": round(seconds, 2), "peak_mib": round(peak)}))
        return
    for made in run():
        print(f"{made['workload']}: {made['theirs']} -> {made['ours']}, ratio {made['ratio']:.2f}, {made['note']}")


if __name__ == "__main__":
    main()
