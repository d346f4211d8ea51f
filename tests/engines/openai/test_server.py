"""The engine against a server that we did not write: `transformers serve` with the embedded model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mae_cli.engines.openai.engine import open_engine
from mae_cli.errors import EngineError
from mae_cli.models.embedded import model_dir
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request
from tests.engines.openai.test_engine import free_url
from tests.support import ROOT, mae, read_json_lines

pytestmark = pytest.mark.slow
MODEL = str(model_dir("smollm2-135m"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    address = free_url()
    log = tmp_path_factory.mktemp("serve") / "log"
    # Listing models looks into the hub's cache, which need not exist.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    port = address.rpartition(":")[2].partition("/")[0]
    arguments = ["serve", MODEL, "--port", port, "--device", "cpu", "--dtype", "float32"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("transformers")), *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            _wait_for(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/models", timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


def test_greedy_rows_are_those_of_the_hf_engine_and_refused_fields_are_told(url: str, tmp_path: Path) -> None:
    lines = (ROOT / "data" / "arithmetic_heldout.jsonl").read_text().splitlines()[:4]
    problems = tmp_path / "problems.jsonl"
    problems.write_text("\n".join(lines) + "\n")
    sampling = ("--rollouts-per-problem", 1, "--max-new-tokens", 16, "-T", 0)

    served = mae(
        *("solve", problems, "-o", tmp_path / "served.jsonl", *sampling, "--engine", "openai", "--base-url", url),
        *("-m", MODEL, "--max-concurrent", 2),
    )
    local = mae("solve", problems, "-o", tmp_path / "local.jsonl", *sampling, "-m", "smollm2-135m")

    assert (served.returncode, local.returncode) == (0, 0), served.stderr + local.stderr
    ours, theirs = read_json_lines(tmp_path / "served.jsonl"), read_json_lines(tmp_path / "local.jsonl")
    for name in ("completion", "finish_reason", "answer"):
        assert [row[name] for row in ours] == [row[name] for row in theirs]
    assert [row["usage"]["prompt_tokens"] for row in ours] == [row["usage"]["prompt_tokens"] for row in theirs]
    for field in (b"top_k", b"min_p", b"repetition_penalty", b"return_token_ids"):
        assert served.stderr.count(b"the server refuses " + field) == 1


def test_a_server_that_passes_logprobs_over_cannot_score(url: str) -> None:
    engine = open_engine(Recipe(model=MODEL, base_url=url, max_concurrent=1), "")
    try:
        with pytest.raises(EngineError, match="gives no log-probabilities"):
            engine.score([Request("r", (Message("user", "A or B?"),), 1)], [["A", "B"]])
    finally:
        engine.close()
