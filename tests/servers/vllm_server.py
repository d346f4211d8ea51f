"""vLLM's server on a CPU for tests, as a process that can be killed and started again at the same address."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mae_cli.models.embedded import model_dir
from tests.servers.llama import NAME, free_port
from tests.support import PATIENT_SECONDS

# Chunked prefill with a seed ends the CPU build (its generators have no offset); without chunks a step must hold the
# longest prompt. Compiling takes two minutes more.
FLAGS = (
    *("--host", "127.0.0.1", "--served-model-name", NAME, "--dtype", "float32", "--max-model-len", "2048"),
    *("--generation-config", "vllm", "--enforce-eager", "--no-enable-chunked-prefill"),
    *("--max-num-batched-tokens", "4096"),
)
LORA = ("--enable-lora", "--max-lora-rank", "16")


def environment() -> dict[str, str]:
    # One core: threads that wait for each other in a loop all but stop on a busy machine.
    core = str(min(os.sched_getaffinity(0)))
    return {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", core),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


class VllmServer:
    """One server; `lora` is how it is started for adapters."""

    def __init__(self, log: Path, *flags: str, lora: tuple[str, ...] = LORA) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._flags, self._log = (*FLAGS, *lora, *flags), log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # The `vllm` command of the CPU build asks for its own version by another name, and dies.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_dir(NAME))]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *self._flags],
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )

    def wait(self) -> None:
        until = time.monotonic() + 10 * PATIENT_SECONDS
        while True:
            assert self.process is not None
            assert self.process.poll() is None, self._log.read_text()[-4000:]
            assert time.monotonic() < until, "it never came up"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/models", timeout=5).close()
                return
            time.sleep(0.5)

    def kill(self) -> None:
        """End the server and the processes that hold its model."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def vllm_server(folder: Path, *flags: str, lora: tuple[str, ...] = LORA) -> Iterator[VllmServer]:
    """A server that answers, for one `with` block."""
    server = VllmServer(folder / "vllm.log", *flags, lora=lora)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()
