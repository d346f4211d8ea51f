"""What the `openai` engine costs over a bare asyncio httpx loop, all sides against one server in one run.

4,000 requests, 256 in flight, 20 ms latency. The bare loop is what one writes by hand: one AsyncClient, a semaphore,
`post(json=...)`, `response.json()`; it handles no fault. A second one has a client per connection, as the engine
has. Each side is a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.engines.openai.fault_server import running

REQUESTS, IN_FLIGHT, LATENCY_SECONDS, WARM_UP, TURNS = 4000, 256, 0.02, 300, 3
ROOT = Path(__file__).parents[2]


def ask(index: int) -> dict[str, Any]:
    """The body of one request; the engine sends the like."""
    return {
        "model": "test-model",
        "messages": [{"role": "user", "content": f"What is {index} + 4?"}],
        **{"max_tokens": 64, "temperature": 1.0, "top_p": 1.0, "seed": index},
    }


async def loop(url: str, clients: list[Any]) -> float:
    """Seconds that a loop of requests takes, spread over these clients."""
    semaphore = asyncio.Semaphore(IN_FLIGHT)

    async def one(index: int) -> str:
        async with semaphore:
            reply = await clients[index % len(clients)].post(f"{url}/chat/completions", json=ask(index))
            text: str = reply.json()["choices"][0]["message"]["content"]
            return text

    await asyncio.gather(*(one(index) for index in range(WARM_UP)))
    start = time.perf_counter()
    answers = await asyncio.gather(*(one(index) for index in range(REQUESTS)))
    assert len(answers) == REQUESTS
    return time.perf_counter() - start


def bare(url: str) -> float:
    """One client for all requests, as one writes it by hand."""
    import httpx2

    limits = httpx2.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    return asyncio.run(loop(url, [httpx2.AsyncClient(limits=limits, timeout=60)]))


def many_clients(url: str) -> float:
    """The same loop with what makes httpx quick: a client per connection."""
    import httpx2

    context = httpx2.create_ssl_context()
    return asyncio.run(loop(url, [httpx2.AsyncClient(verify=context, timeout=60) for _ in range(IN_FLIGHT)]))


def engine(url: str) -> float:
    """Seconds that the engine takes, each request a segment."""
    from mae_cli.engines.openai.engine import open_engine
    from mae_cli.recipe.sections import Recipe
    from mae_cli.records import Message, Request, Sampling

    opened = open_engine(Recipe(model="test-model", base_url=url, max_concurrent=IN_FLIGHT), "")

    def answers(number: int) -> int:
        segments = ([Request(str(i), (Message("user", f"What is {i} + 4?"),), i)] for i in range(number))
        return sum(completion.status == "ok" for _, (completion,) in opened.stream(segments, Sampling(64)))

    answers(WARM_UP)
    start = time.perf_counter()
    assert answers(REQUESTS) == REQUESTS
    seconds = time.perf_counter() - start
    opened.close()
    return seconds


def side(name: str, url: str) -> dict[str, float]:
    """One side in a process of its own: rows a second, peak memory."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.openai_client", name, url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


SIDES = {"bare": bare, "many_clients": many_clients, "engine": engine}
OTHERS = {"bare": "bare httpx loop", "many_clients": "bare httpx loop, a client per connection"}


def run() -> list[dict[str, Any]]:
    """All sides in turns; the middle ratio against each other side."""
    turns = []
    with running(latency=LATENCY_SECONDS) as server:
        for turn in range(TURNS):
            order = list(SIDES) if turn % 2 == 0 else list(SIDES)[::-1]
            turns.append({name: side(name, server.url) for name in order})
            print(f"openai_client: {turns[-1]}", flush=True)
    rows = []
    for name, other in OTHERS.items():
        ratios = [made["engine"]["rows_per_second"] / made[name]["rows_per_second"] for made in turns]
        middle = ratios.index(sorted(ratios)[len(ratios) // 2])
        made = turns[middle]
        rows.append(
            {
                "workload": "openai_client",
                "what": f"{REQUESTS} requests, {IN_FLIGHT} in flight, {LATENCY_SECONDS * 1000:.0f} ms",
                "other": other,
                "theirs": f"{made[name]['rows_per_second']:.0f} rows/s",
                "ours": f"{made['engine']['rows_per_second']:.0f} rows/s",
                "ratio": ratios[middle],
                "bar": ">= 0.85" if name == "bare" else "",
                "memory": f"{made['engine']['peak_mib'] / made[name]['peak_mib']:.2f}",
                "note": f"peak {made['engine']['peak_mib']:.0f} MiB; turns: " + ", ".join(f"{r:.2f}" for r in ratios),
            }
        )
    return rows


def peak_mib() -> float:
    """Of this program alone: getrusage also counts what the process was before it became this program."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    taken = SIDES[sys.argv[1]](sys.argv[2])
    print(json.dumps({"rows_per_second": REQUESTS / taken, "peak_mib": peak_mib()}))
