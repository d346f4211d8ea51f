"""Tokens/s of `hf`, llama.cpp's server, vLLM's server and vLLM in process, on the solve workload, in one run.

16 problems x 4 samples x 48 new tokens at temperature 1; generated tokens are counted, and a row may end early.
Start-up is left out: each side answers two rows before the clock starts. The sides take turns
`--repeats` times, each in a process of its own, and the middle figure counts. vLLM in process is measured beside
vLLM's own `LLM.generate` with the same prompts and settings in the same process. Needs a quiet machine.

    python -m tests.bench.servers --vllm-python .venv-vllm/bin/python
    python -m tests.bench.servers --only hf,llama-q8_0 --problems 2 --samples 2 --tokens 8 --repeats 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support import ROOT

SIDES = (
    *("hf-32", "hf-64", "hf-auto", "llama-f32", "llama-q8_0", "llama-f16"),
    *("vllm-server", "vllm-process", "vllm-own"),
)
SLOTS = 16
MODEL = "smollm2-135m"


def asked(problems: int, samples: int) -> list[Any]:
    """One request per row: the shipped word problems, each under several seeds."""
    from mae_cli.records import Message, Request

    lines = (ROOT / "data" / "arithmetic_train.jsonl").read_text("utf-8").splitlines()[:problems]
    questions = [json.loads(line)["question"] for line in lines]
    return [
        Request(f"{number}:{sample}", (Message("user", f"Solve step by step: {question}"),), 100 * number + sample)
        for number, question in enumerate(questions)
        for sample in range(samples)
    ]


def timed(generate: Callable[[Sequence[Any]], int], rows: Sequence[Any]) -> dict[str, float]:
    """Tokens and seconds of all rows, after two that warm it up."""
    generate(rows[:2])
    start = time.perf_counter()
    tokens = generate(rows)
    return {"tokens": tokens, "seconds": time.perf_counter() - start}


def tokens_of(engine: Any, sampling: Any, batch_size: int) -> Callable[[Sequence[Any]], int]:
    """A call that answers rows the way a stage does, segment by segment, and counts their tokens."""

    def generate(rows: Sequence[Any]) -> int:
        segments = [[rows[place] for place in plan] for plan in engine.plan(rows, batch_size)]
        if engine.facts.streams:
            found = [answer for _, answers in engine.stream(iter(segments), sampling) for answer in answers]
        else:
            found = [answer for segment in segments for answer in engine.generate(segment, sampling)]
        assert all(answer.status in ("ok", "truncated") for answer in found), found[0]
        return sum(answer.usage.completion_tokens for answer in found if answer.usage)

    return generate


def hf(rows: Sequence[Any], sampling: Any, batch_size: int | str) -> dict[str, float]:
    from mae_cli.engines.hf.engine import open_engine
    from mae_cli.recipe.sections import Recipe
    from mae_cli.stages.generation.job import AUTO_BATCH_SIZE

    engine = open_engine(Recipe(model=MODEL, device="cpu", dtype="float32", batch_size=batch_size), "")
    size = AUTO_BATCH_SIZE if batch_size == "auto" else int(batch_size)
    return timed(tokens_of(engine, sampling, size), rows)


def served(url: str, rows: Sequence[Any], sampling: Any) -> dict[str, float]:
    from mae_cli.engines.openai.engine import open_engine
    from mae_cli.recipe.sections import Recipe

    engine = open_engine(Recipe(model=MODEL, base_url=url, max_concurrent=SLOTS), "")
    try:
        return timed(tokens_of(engine, sampling, SLOTS), rows)
    finally:
        engine.close()


def llama(rows: Sequence[Any], sampling: Any, outtype: str) -> dict[str, float]:
    from tests.servers.llama import embedded_gguf, llama_server

    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        model = embedded_gguf(outtype)
        with llama_server(model, Path(folder), slots=SLOTS, context=1024, threads=threads) as server:
            return served(server.url, rows, sampling)


def vllm_server(rows: Sequence[Any], sampling: Any) -> dict[str, float]:
    from tests.servers.vllm_server import vllm_server as running

    with tempfile.TemporaryDirectory() as folder, running(Path(folder), lora=()) as server:
        return served(server.url, rows, sampling)


def vllm_process(rows: Sequence[Any], sampling: Any) -> dict[str, dict[str, float]]:
    """The engine and vLLM's own call, in turn on one loaded model; the second of two turns counts."""
    from mae_cli.engines import vllm
    from mae_cli.recipe.sections import Recipe

    engine = vllm.open_engine(Recipe(model=MODEL, dtype="float32"), "lora=false,kv_cache_gib=1,max_model_len=1024")
    prompts = {row.id: {"prompt_token_ids": engine.texts.prompt(row.messages).ids} for row in rows}

    def own(some: Sequence[Any]) -> int:
        params = [engine._params(row, sampling) for row in some]
        outputs = engine._llm.generate([prompts[row.id] for row in some], params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    found = {}
    for _ in range(2):
        found = {"vllm-process": timed(tokens_of(engine, sampling, 64), rows), "vllm-own": timed(own, rows)}
    engine.close()
    return found


def measure(side: str, problems: int, samples: int, tokens: int) -> dict[str, dict[str, float]]:
    """What one side took, by name; vLLM in process comes with vLLM's own."""
    from mae_cli.records import Sampling

    rows, sampling = asked(problems, samples), Sampling(tokens, temperature=1.0)
    kind, _, option = side.partition("-")
    if kind == "hf":
        return {side: hf(rows, sampling, option if option == "auto" else int(option))}
    if kind == "llama":
        return {side: llama(rows, sampling, option)}
    return {side: vllm_server(rows, sampling)} if side == "vllm-server" else vllm_process(rows, sampling)


def run_side(side: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Tokens/s by name, measured in a process of its own."""
    python = arguments.vllm_python if side.startswith("vllm") else sys.executable
    numbers = [str(number) for number in (arguments.problems, arguments.samples, arguments.tokens)]
    done = subprocess.run(
        [python, "-m", "tests.bench.servers", "--side", side, *numbers],
        cwd=ROOT,
        env={
            **os.environ,
            **{"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{side}: {done.stderr.strip()[-2000:]}")
    found: dict[str, dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: told["tokens"] / told["seconds"] for name, told in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(side for side in SIDES if side != "vllm-own"))
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vllm-python", default=str(ROOT / ".venv-vllm" / "bin" / "python"))
    arguments = parser.parse_args()
    speeds: dict[str, list[float]] = {}
    for _ in range(arguments.repeats):
        for side in arguments.only.split(","):
            for name, speed in run_side(side, arguments).items():
                speeds.setdefault(name, []).append(speed)
                print(f"{name}: {speed:.1f} tokens/s", file=sys.stderr, flush=True)
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    base = middle.get("hf-auto") or next(iter(middle.values()))
    print(f"| engine | tokens/s | range | against {'hf-auto' if 'hf-auto' in middle else next(iter(middle))} |")
    print("|---|---|---|---|")
    for name, speed in middle.items():
        values = speeds[name]
        print(f"| {name} | {speed:.0f} | {min(values):.0f}-{max(values):.0f} | {speed / base:.2f} |")
    if {"vllm-process", "vllm-own"} <= middle.keys():
        share = middle["vllm-process"] / middle["vllm-own"]
        print(f"\nvLLM in process against vLLM's own call: {share:.3f} ({'met' if share >= 0.95 else 'failed'}: 0.95)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        print(json.dumps(measure(sys.argv[2], *map(int, sys.argv[3:6]))))
    else:
        main()
