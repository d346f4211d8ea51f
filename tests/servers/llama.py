"""llama.cpp's server for tests: the embedded model converted once, and a process that can be killed and restarted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mae_cli.models import gguf
from mae_cli.models.embedded import model_dir
from mae_cli.records.cache import cache_dir
from tests.support import PATIENT_SECONDS

NAME = "smollm2-135m"
SERVER = Path(__file__).with_name("llama_server.py")


def converted(model: Path, folder: Path, outtype: str = "f32") -> Path:
    """A model folder as GGUF, made once by the installed converter; test processes take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{model.name}-{outtype}.gguf"
    with (folder / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            command = [sys.executable, gguf.find_converter(None), model, "--outfile", f"{target}.part"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run([*command, "--outtype", outtype], check=True, capture_output=True, env=environment)
            os.replace(f"{target}.part", target)
    return target


def embedded_gguf(outtype: str = "f32") -> Path:
    """The embedded model as GGUF, in the cache of mae."""
    return converted(model_dir(NAME), cache_dir() / "tests", outtype)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class LlamaServer:
    """One server, which keeps its address when it is started again."""

    def __init__(self, model: Path, log: Path, **more: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        told = {"model": str(model), "port": self.port, "slots": 4, "context": 1024, "name": NAME, **more}
        self._told, self._log = told, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            # One thread: two spin for each other and all but stop on a busy machine.
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
            command = [sys.executable, str(SERVER), json.dumps(self._told)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def wait(self) -> None:
        """Until it lists its model."""
        until = time.monotonic() + 5 * PATIENT_SECONDS
        assert self.process is not None
        while True:
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < until, "it never came up"
            with contextlib.suppress(OSError, urllib.error.URLError):
                request = urllib.request.Request(f"{self.url}/models")
                if self._told.get("key"):
                    request.add_header("Authorization", f"Bearer {self._told['key']}")
                with urllib.request.urlopen(request, timeout=5) as reply:
                    if json.load(reply)["data"]:
                        return
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def llama_server(model: Path, folder: Path, **more: object) -> Iterator[LlamaServer]:
    """A server that answers, for one `with` block."""
    server = LlamaServer(model, folder / "llama.log", **more)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()
