"""The `openai` engine against llama.cpp's own server: the contract that `hf` sets, faults, and whole commands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from mae_cli.errors import EngineError
from mae_cli.records import Message, Request, Sampling
from tests.servers.adapters import make_embedded_adapter
from tests.servers.contract import GREEDY, MODEL, differing, local, opened, requests, samples
from tests.servers.llama import NAME, LlamaServer, embedded_gguf, llama_server
from tests.support import ROOT, mae, read_json_lines, start, wait_until

pytestmark = pytest.mark.slow
pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    with llama_server(embedded_gguf(), tmp_path_factory.mktemp("llama")) as running:
        yield running


def problems(folder: Path, count: int) -> Path:
    path = folder / "problems.jsonl"
    lines = (ROOT / "data" / "arithmetic_heldout.jsonl").read_text().splitlines()[:count]
    path.write_text("\n".join(lines) + "\n")
    return path


# ---- rows


def test_greedy_rows_are_those_of_hf(server: LlamaServer) -> None:
    asked = requests(6)
    with opened(server.url) as engine:
        served = engine.generate(asked, GREEDY)
    own = local().generate(asked, GREEDY)

    assert differing(asked, own, served) == []
    assert [row.finish_reason for row in served] == [row.finish_reason for row in own]
    for mine, theirs in zip(own, served, strict=True):
        assert mine.usage is not None
        assert theirs.usage is not None
        assert mine.usage.prompt_tokens == theirs.usage.prompt_tokens


def test_stop_strings_end_a_row_where_they_end_it_in_hf(server: LlamaServer) -> None:
    asked = requests(4)
    sampling = Sampling(24, temperature=0.0, stop=(".", " of"))
    with opened(server.url) as engine:
        served = engine.generate(asked, sampling)

    assert differing(asked, local().generate(asked, sampling), served) == []
    assert all("." not in (row.raw or "") for row in served)


def test_samples_are_distinct_and_n_gives_as_many_as_asked_for(server: LlamaServer) -> None:
    sampling = Sampling(12, temperature=1.0)
    with opened(server.url) as apart, opened(server.url, "samples=together") as together:
        one_by_one = apart.generate(samples(6), sampling)
        at_once = together.generate(samples(6), sampling)

    for rows in (one_by_one, at_once):
        assert all(row.status in ("ok", "truncated") for row in rows)
        assert len({row.raw for row in rows}) >= 5


def test_a_seeded_row_comes_again_and_is_not_promised_to(server: LlamaServer) -> None:
    sampling = Sampling(12, temperature=1.0)
    with opened(server.url, max_concurrent=1) as engine:
        first, second = (engine.generate(samples(8), sampling) for _ in range(2))
        assert not engine.facts.deterministic

    # Seen: 23 of 24. The rows of other slots change the kernels' sums.
    assert sum(a.raw == b.raw for a, b in zip(first, second, strict=True)) >= 6


def test_a_prompt_beyond_the_context_is_too_long_with_its_tokens(server: LlamaServer) -> None:
    long = Request("long", (Message("user", "word " * 3000),), 1)
    with opened(server.url) as engine:
        short, refused = engine.generate([*requests(1), long], GREEDY)

    assert short.status in ("ok", "truncated")
    assert (refused.status, refused.finish_reason) == ("too_long", "error")
    assert refused.usage is not None
    assert refused.usage.prompt_tokens == len(local().texts.prompt(long.messages).ids)


def test_scores_of_whole_texts_are_those_of_hf(server: LlamaServer) -> None:
    asked, options = requests(2), [["<score>1</score>", "<score>2</score>", " Yes, it is"]] * 2
    with opened(server.url) as engine:
        served = engine.score(asked, options)

    for mine, theirs in zip(served, local().score(asked, options), strict=True):
        # Its cache of keys and values is in 16 bits.
        assert mine == pytest.approx(theirs, abs=0.1)


def test_only_an_allowed_reply_is_written(server: LlamaServer) -> None:
    choices = ("<score>1</score>", "<score>2</score>")
    with opened(server.url) as engine:
        rows = engine.generate(requests(3), Sampling(4, temperature=0.7, choices=choices))

    assert all(row.completion in choices and row.status == "ok" for row in rows)


def test_a_name_that_it_does_not_list_is_told(server: LlamaServer) -> None:
    with opened(server.url, model="another") as engine:
        engine.generate(requests(1), Sampling(2, temperature=0.0))
        assert any(f'answers to "another", and lists {NAME}' in text for text in engine.facts.notices)


def test_an_adapter_is_refused_with_the_way_to_serve_one(server: LlamaServer, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    with (
        opened(server.url, adapter=str(tmp_path)) as engine,
        pytest.raises(EngineError, match=r"llama\.cpp, which takes adapters at its start only"),
    ):
        engine.generate(requests(1), GREEDY)


# ---- faults


def test_a_server_killed_and_started_again_in_the_middle_costs_no_row(tmp_path: Path) -> None:
    count, sampling = 24, Sampling(16, temperature=1.0)
    with llama_server(embedded_gguf(), tmp_path) as mortal, opened(mortal.url, max_concurrent=4) as engine:
        found = {}
        for number, answers in engine.stream(([one] for one in samples(count)), sampling):
            found[number] = answers[0]
            if len(found) == 4:
                mortal.kill()
                mortal.start()

    assert sorted(found) == list(range(count))
    assert all(row.status in ("ok", "truncated") for row in found.values())


def test_two_servers_share_the_work_and_one_killed_loses_no_row(tmp_path: Path) -> None:
    count, sampling = 24, Sampling(16, temperature=1.0)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    found = {}
    with (
        llama_server(embedded_gguf(), folders[0]) as one,
        llama_server(embedded_gguf(), folders[1]) as two,
        opened([one.url, two.url], max_concurrent=4) as engine,
    ):
        for number, answers in engine.stream(([ask] for ask in samples(count)), sampling):
            found[number] = answers[0]
            if len(found) == 8:
                two.kill()

    assert sorted(found) == list(range(count))
    assert all(row.status in ("ok", "truncated") for row in found.values())


def test_a_server_that_is_gone_is_exit_75_with_its_rows_kept_and_the_rerun_finishes(tmp_path: Path) -> None:
    path, out = problems(tmp_path, 6), tmp_path / "out.jsonl"
    with llama_server(embedded_gguf(), tmp_path) as mortal:
        line = [
            *("solve", path, "-o", out, "--rollouts-per-problem", 2, "--max-new-tokens", 12, "-T", 1, "-m", MODEL),
            *("--engine", "openai:retry_seconds=3", "--base-url", mortal.url, "--max-concurrent", 1),
        ]
        process = start(line)
        partial = out.with_name(f"{out.name}.partial")
        wait_until(lambda: partial.exists() and partial.read_bytes().count(b"\n") >= 2, process)
        mortal.kill()
        _, errors = process.communicate()
        assert process.returncode == 75, errors
        kept = partial.read_bytes().count(b"\n")
        assert 2 <= kept < 12
        assert b"what is done is kept" in errors

        mortal.start()
        mortal.wait()
        again = mae(*line)

    assert again.returncode == 0, again.stderr
    assert len(read_json_lines(out)) == 12


def test_a_key_is_asked_for_refused_and_written_nowhere(tmp_path: Path) -> None:
    key = "s3cret-of-this-test"
    path = problems(tmp_path, 1)
    with llama_server(embedded_gguf(), tmp_path, key=key) as guarded:
        line = [
            *("solve", path, "--rollouts-per-problem", 1, "--max-new-tokens", 4, "-T", 0, "-m", MODEL),
            *("--engine", "openai", "--base-url", guarded.url, "--api-key-env", "MY_KEY"),
        ]
        missing = mae(*line[:-2], "-o", tmp_path / "missing.jsonl", OPENAI_API_KEY="")
        wrong = mae(*line, "-o", tmp_path / "wrong.jsonl", MY_KEY="not-it")
        right = mae(*line, "-o", tmp_path / "right.jsonl", MY_KEY=key)

    assert (missing.returncode, wrong.returncode, right.returncode) == (2, 2, 0), right.stderr
    assert b"wants a key" in missing.stderr
    assert b"refuses the key" in wrong.stderr
    assert b"not-it" not in wrong.stderr
    files = [one for one in tmp_path.rglob("*") if one.is_file() and one.name != "llama.log"]
    assert files
    assert not any(key.encode() in one.read_bytes() for one in files)
    assert key.encode() not in right.stderr + right.stdout


# ---- whole commands


def test_solve_judge_filter_and_finetune_go_on_with_its_rows(server: LlamaServer, tmp_path: Path) -> None:
    path = problems(tmp_path, 2)
    at = ("-m", MODEL, "--engine", "openai", "--base-url", server.url)
    names = ["rollouts", "judged", "selected", "proposed", "exam"]
    rollouts, judged, selected, proposed, exam = (tmp_path / f"{name}.jsonl" for name in names)
    solve = mae(
        *("solve", path, "-o", rollouts, "--rollouts-per-problem", 2, "--max-new-tokens", 12, "-T", 1, *at),
        *("--prompt", "sums_solve"),
    )
    assert solve.returncode == 0, solve.stderr
    judge = mae(
        *("judge", rollouts, "-o", judged, *at, "--verifier", "none"),
        *("--set", "judge.judge={name: rubric, scale: 3-band, read: probability}"),
    )
    assert judge.returncode == 0, judge.stderr
    scores = [verdict["score"] for row in read_json_lines(judged) for verdict in row.get("verdicts", [])]
    assert scores
    assert all(score is not None and math.isfinite(score) for score in scores)
    assert mae("filter", judged, "-o", selected, "--set", "filter.filters=[]").returncode == 0
    tuned = mae(
        *("finetune", selected, "-o", tmp_path / "adapter", "-m", MODEL, "--objective", "sft"),
        *("--set", "finetune.max_steps=1", "--set", "finetune.batch_size=2"),
    )
    assert tuned.returncode == 0, tuned.stderr
    assert b"known by a name only (smollm2-135m)" in tuned.stderr
    refused = mae("finetune", selected, "-o", tmp_path / "other", "-m", MODEL, "--engine", "openai")
    assert refused.returncode == 2
    assert b"has no weights to train" in refused.stderr

    propose = mae("propose", "-o", proposed, *at, "--set", "propose.num_problems=2", "--max-new-tokens", 16)
    assert propose.returncode in (0, 3), propose.stderr
    assert len(read_json_lines(proposed)) >= 2
    asked = mae("eval", path, "-o", exam, *at, "--prompt", "sums_solve", "--max-new-tokens", 8)
    assert asked.returncode == 0, asked.stderr
    assert len(read_json_lines(exam)) == 2


def test_a_run_on_a_server_is_refused_before_a_round_is_generated(server: LlamaServer, tmp_path: Path) -> None:
    for more in ((), ("--dry-run",)):
        done = mae(
            *("run", "quickstart", "--run-dir", tmp_path / "run", "--engine", "openai", "--base-url", server.url),
            *("-m", MODEL, *more),
        )
        assert done.returncode == 2, done.stderr
        assert b"has no weights to train" in done.stderr
        assert not list(tmp_path.rglob("*rollouts*"))


# ---- adapters and exports


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedded_adapter(tmp_path_factory.mktemp("adapters") / "adapter", seed=3)


def test_an_exported_gguf_answers_as_the_merged_model_does(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    done = mae("export", adapter, "-o", out, "--gguf", "--outtype", "f32", "-m", MODEL)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.gguf")
    from mae_cli.engines.hf.engine import open_engine as open_hf
    from mae_cli.recipe.sections import Recipe

    merged = open_hf(Recipe(model=str(out), device="cpu", dtype="float32"), "")
    asked = requests(6)
    own = merged.generate(asked, GREEDY)
    base = local().generate(asked, GREEDY)
    merged.close()
    with llama_server(file, tmp_path) as serving, opened(serving.url) as engine:
        served = engine.generate(asked, GREEDY)

    # Near ties of the merged model are not told apart here: one row may part.
    assert sum(a.raw == b.raw for a, b in zip(own, served, strict=True)) >= 5
    assert sum(a.raw != b.raw for a, b in zip(own, base, strict=True)) >= 3


def test_it_serves_the_policy_of_a_model_without_an_adapter(server: LlamaServer, tmp_path: Path) -> None:
    path = problems(tmp_path, 2)
    recipe = tmp_path / "recipe.yaml"
    role = f"{{engine: openai, base_url: '{server.url}', model: {NAME}, serves_policy: true}}"
    recipe.write_text(f"model: {MODEL}\nroles: {{solver: {role}}}\n")
    line = ("solve", path, "--recipe", recipe, "--rollouts-per-problem", 1, "--max-new-tokens", 6, "-T", 0)

    served = mae(*line, "-o", tmp_path / "served.jsonl")
    local_rows = mae(*line[:2], *line[4:], "-m", MODEL, "-o", tmp_path / "local.jsonl")

    assert (served.returncode, local_rows.returncode) == (0, 0), served.stderr + local_rows.stderr
    assert b"played by the trained policy on" in served.stderr
    ours, theirs = read_json_lines(tmp_path / "served.jsonl"), read_json_lines(tmp_path / "local.jsonl")
    assert [row["policy"] for row in ours] == [row["policy"] for row in theirs]
    assert [row["raw"] for row in ours] == [row["raw"] for row in theirs]
