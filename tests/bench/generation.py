"""One side of a generation benchmark, in a process of its own; `run.py` starts both sides and compares.

    python -m tests.bench.generation WORKLOAD SIDE      SIDE: plain, mae, paged, vllm, distilabel

On CUDA, where there is one, in bfloat16; else on the CPU in float32. Both sides count only tokens up to the end token
(which counts) or the row's limit. Start-up and one small warm-up are left out. Prints one JSON object: tokens, seconds,
peak memory.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from tests.bench.workloads import BATCH, GENERATION, Workload, choice

MODEL = "smollm2-135m"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = {"cuda": "bfloat16", "cpu": "float32"}[DEVICE]


def requests_of(workload: Workload) -> list[tuple[list[dict[str, str]], int]]:
    """(chat, limit) per row, the samples of a chat side by side: file order."""
    return [
        (chat, limit)
        for chat, limit in zip(workload.chats, workload.limits, strict=True)
        for _ in range(workload.samples)
    ]


def load_plain() -> tuple[Any, Any]:
    """Model and tokenizer as a user would load them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mae_cli.models.locate import local_model

    folder = local_model(MODEL, None)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    dtype = getattr(torch, DTYPE)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").to(DEVICE).eval()
    return model, tokenizer


def end_ids(tokenizer: Any) -> list[int]:
    """The tokens that end a turn of this model."""
    return sorted({tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")})


def plain(workload: Workload) -> Iterator[int]:
    """`generate` over batches of 32 in file order, prompts repeated per sample, the longest limit of the batch."""
    model, tokenizer = load_plain()
    ends = end_ids(tokenizer)
    rows = requests_of(workload)
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat, _ in rows]

    def batch(start: int, size: int, cap: int | None = None) -> int:
        limits = torch.tensor([limit for _, limit in rows[start : start + size]])
        inputs = tokenizer(texts[start : start + size], return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(DEVICE)
        with torch.inference_mode():
            out = model.generate(
                **inputs, do_sample=True, temperature=workload.temperature, top_k=0, top_p=1.0,
                max_new_tokens=cap or int(limits.max()), eos_token_id=ends, pad_token_id=ends[0],
            )  # fmt: skip
        new = out[:, inputs.input_ids.shape[1] :].cpu()
        ended = torch.isin(new, torch.tensor(ends)).int()
        upto = (ended.cumsum(-1) - ended == 0).sum(-1)
        return int(torch.minimum(upto, limits).sum())

    batch(0, 2, 4)
    yield 0
    yield sum(batch(start, BATCH) for start in range(0, len(rows), BATCH))


def open_mae(engine: str = "hf") -> Any:
    """Our engine, with as many rows in flight as the other side."""
    from mae_cli.engines import vllm
    from mae_cli.engines.hf import engine as hf
    from mae_cli.recipe.load import load_recipe

    settings = [f"model={MODEL}", f"batch_size={BATCH}", f"dtype={DTYPE}", f"device={DEVICE}"]
    recipe = load_recipe(None, settings)
    if engine == "vllm":
        return vllm.open_engine(recipe, "gpu_memory_utilization=0.5")
    return hf.open_engine(recipe, engine.partition(":")[2])


def paged(workload: Workload) -> Iterator[int]:
    """The `hf:paged` engine, as many rows in flight."""
    return mae(workload, "hf:paged")


def vllm(workload: Workload) -> Iterator[int]:
    """The `vllm` engine, which decides for itself how many rows are in flight."""
    return mae(workload, "vllm")


def mae(workload: Workload, name: str = "hf") -> Iterator[int]:
    """The `hf` engine, 32 rows in flight."""
    from mae_cli.records import Message, Request, Sampling

    engine = open_mae(name)
    rows = requests_of(workload)
    requests = [
        Request(str(place), tuple(Message(**turn) for turn in chat), place, limit)
        for place, (chat, limit) in enumerate(rows)
    ]
    sampling = Sampling(max(limit for _, limit in rows), temperature=workload.temperature)
    engine.generate(requests[:2], Sampling(4))
    if name == "hf":
        engine.prefiller.forget()
    yield 0
    answers = engine.generate(requests, sampling)
    yield sum(len(answer.completion_token_ids) for answer in answers)


def distilabel(workload: Workload) -> Iterator[int]:
    """distilabel's TransformersLLM, batches of 32 in file order."""
    from distilabel.models.llms import TransformersLLM

    from mae_cli.models.locate import local_model

    llm = TransformersLLM(model=str(local_model(MODEL, None)), torch_dtype=DTYPE, device=DEVICE)
    llm.load()
    rows = requests_of(workload)
    limit = max(limit for _, limit in rows)

    def batch(start: int, size: int, tokens: int) -> int:
        chats = [chat for chat, _ in rows[start : start + size]]
        outs = llm.generate(
            inputs=chats, num_generations=1, max_new_tokens=tokens, do_sample=True, temperature=workload.temperature,
            top_k=0, top_p=1.0,
        )  # fmt: skip
        counted = [out["statistics"]["output_tokens"][0] for out in outs]
        return sum(min(count, own) for count, (_, own) in zip(counted, rows[start : start + size], strict=True))

    batch(0, 2, 4)
    yield 0
    yield sum(batch(start, BATCH, limit) for start in range(0, len(rows), BATCH))


def choice_plain() -> Iterator[int]:
    """Each option as a full prompt of its own, batches of 32 in file order, logits of the option's positions only."""
    model, tokenizer = load_plain()
    chats, options = choice()
    pairs = [
        (tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True), option)
        for chat, choices in zip(chats, options, strict=True)
        for option in choices
    ]

    def batch(chosen: list[tuple[str, str]]) -> list[float]:
        tails = [len(tokenizer(option, add_special_tokens=False).input_ids) for _, option in chosen]
        texts = [prompt + option for prompt, option in chosen]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(DEVICE)
        longest = max(tails)
        with torch.inference_mode():
            logits = model(**inputs, logits_to_keep=longest + 1).logits[:, :-1].float().log_softmax(-1)
        picked = logits.gather(-1, inputs.input_ids[:, -longest:, None])[..., 0]
        return [float(row[longest - tail :].sum()) for row, tail in zip(picked, tails, strict=True)]

    batch(pairs[:2])
    yield 0
    scores = [score for start in range(0, len(pairs), BATCH) for score in batch(pairs[start : start + BATCH])]
    print(f"first scores {[round(score, 3) for score in scores[:4]]}", file=sys.stderr)
    yield len(scores)


def choice_mae() -> Iterator[int]:
    """`score` of the `hf` engine."""
    from mae_cli.records import Message, Request

    engine = open_mae()
    chats, options = choice()
    requests = [Request(str(place), tuple(Message(**turn) for turn in chat), place) for place, chat in enumerate(chats)]
    engine.score(requests[:2], options[:2])
    engine.prefiller.forget()
    yield 0
    scores = engine.score(requests, options)
    print(f"first scores {[round(score, 3) for score in scores[0]]}", file=sys.stderr)
    yield sum(len(row) for row in scores)


def main(workload: str, side: str) -> None:
    """Run one side and print what it took."""
    if workload == "choice":
        steps = {"plain": choice_plain, "mae": choice_mae}[side]()
    else:
        steps = {"plain": plain, "mae": mae, "paged": paged, "vllm": vllm, "distilabel": distilabel}[side](
            GENERATION[workload]()
        )
    next(steps)
    start = time.perf_counter()
    count = next(steps)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if DEVICE == "cuda":
        peak = torch.cuda.max_memory_reserved()
    print(json.dumps({"count": count, "seconds": round(seconds, 2), "peak_mib": peak // 2**20}))


if __name__ == "__main__":
    main(*itertools.islice(sys.argv[1:], 2))
