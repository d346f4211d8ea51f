"""`mae run` with a gate: what the next round starts from, the links, the stop, what is deleted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.errors import GateError
from mae_cli.runs import loop, one_round
from mae_cli.runs.promotion import Promotion
from mae_cli.stages import filter
from tests.support import here, read_json_lines, write_sums


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(
        f"""
model: {tiny_model_dir}
device: cpu
rounds: 3
seeds: {write_sums(tmp_path / "seeds.jsonl", 4)}
propose: {{num_problems: 1, max_new_tokens: 4}}
solve: {{num_problems: 4, rollouts_per_problem: 1, max_new_tokens: 4}}
judge: {{verifier: numeric, judge: none, max_unparsed: 1.0, solver_reward: checked_solver}}
filter: {{filters: [{{name: quality}}], decontaminate: false}} # its seeds are among the held-out items
finetune: {{objective: sft, batch_size: 2, lora_r: 2}}
eval: {{benchmarks: [{write_sums(tmp_path / "held_out.jsonl", 12)}], max_new_tokens: 4}}
"""
    )
    return path


def scripted(monkeypatch: pytest.MonkeyPatch, states: dict[str, tuple[bool, bool]]) -> list[tuple[str, str, str]]:
    """Decisions as told, (accepted, best) by round; returns who was compared with whom."""
    asked: list[tuple[str, str, str]] = []

    def decide(candidate: Any, accepted: Any, best: Any, **_: Any) -> Promotion:
        asked.append((candidate[0], accepted[0], best[0]))
        return Promotion(candidate[0], *states[candidate[0]], "as told")

    monkeypatch.setattr(loop, "decide", decide)
    return asked


def links(run: Path) -> dict[str, str]:
    return {path.name: path.readlink().name for path in run.iterdir() if path.is_symlink()}


def start_of(run: Path, label: str) -> str | None:
    """The adapter that wrote a round's rollouts."""
    policies = {row["policy"]["adapter"] for row in read_json_lines(run / label / "2_rollouts.jsonl")}
    assert len(policies) == 1
    return policies.pop()  # type: ignore[no-any-return]


def adapter_of(run: Path, label: str) -> str:
    return read_json_lines(run / label / "6_eval.jsonl")[0]["policy"]["adapter"]  # type: ignore[no-any-return]


def summary(run: Path) -> Any:
    return msgspec.json.decode((run / "summary.json").read_bytes())


def test_a_round_that_is_not_accepted_is_not_continued_from(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = scripted(monkeypatch, {"round-001": (True, True), "round-002": (False, False), "round-003": (True, False)})

    assert here("run", recipe, "--run-dir", tmp_path / "run") == 0

    run = tmp_path / "run"
    assert asked == [
        ("round-001", "base", "base"), ("round-002", "round-001", "round-001"), ("round-003", "round-001", "round-001"),
    ]  # fmt: skip
    assert start_of(run, "round-001") is None
    assert start_of(run, "round-002") == start_of(run, "round-003") == adapter_of(run, "round-001")
    assert links(run) == {"latest": "round-003", "accepted": "round-003", "best": "round-001"}
    told = summary(run)
    assert (told["accepted"], told["best"]) == ("round-003", "round-001")
    assert [d["accepted"] for d in told["promotion"]] == [True, False, True]
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("final: base ")
    assert "-> round-003" in out[-1]
    assert "gate: round-002 not accepted: as told" in out
    assert "round-002 not accepted" in (run / "report.html").read_text()


def test_gate_items_are_not_reported_and_every_item_is_on_record(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, {"round-001": (True, False)})

    assert here("run", recipe, "--run-dir", tmp_path / "run", "--rounds", 1) == 0

    run = tmp_path / "run"
    sides = [
        {row["problem"]["id"] for row in read_json_lines(run / "round-001" / name)}
        for name in ("6_eval.jsonl", "6_gate.jsonl")
    ]
    assert [len(side) for side in sides] == [6, 6]
    assert not sides[0] & sides[1]
    assert [len(read_json_lines(run / "benchmarks" / part / "held_out.jsonl")) for part in ("reported", "gate")] == [
        6,
        6,
    ]
    assert {c["items"] for c in summary(run)["comparisons"]} == {6}


def test_harm_stops_the_run_where_the_recipe_says_so(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, {"round-001": (True, False), "round-002": (False, False)})
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run, "--set", "on_harm=stop") == 4

    assert "round-002 not accepted: as told; stopped, accepted: round-001" in capsys.readouterr().err
    assert links(run) == {"latest": "round-002", "accepted": "round-001"}
    assert not (run / "round-003").exists()
    assert summary(run)["final"].startswith("final: base ")
    # The same command says the same again, and generates nothing.
    assert here("run", recipe, "--run-dir", run, "--set", "on_harm=stop") == 4
    assert summary(run)["tokens"] == 0


def test_old_weights_are_deleted_but_never_those_accepted_or_best(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"round-001": (True, True), "round-002": (False, False), "round-003": (True, False)}
    scripted(monkeypatch, {**states, "round-004": (True, False)})
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run, "--set", "keep_adapters=1") == 0

    kept = [path.parts[-3] for path in sorted(run.glob("round-*/5_adapter/adapter_model.safetensors"))]
    assert kept == ["round-001", "round-003"]
    assert (run / "round-002" / "5_adapter" / "train_rows.jsonl").exists()
    # The run goes on over the closed rounds, whose weights are gone.
    assert here("run", recipe, "--run-dir", run, "--set", "keep_adapters=1", "--rounds", 4) == 0
    assert start_of(run, "round-004") == adapter_of(run, "round-003")
    kept = [path.parts[-3] for path in sorted(run.glob("round-*/5_adapter/adapter_model.safetensors"))]
    assert kept == ["round-001", "round-004"]


def test_a_round_without_training_is_not_gone_through_again_when_weights_before_it_are_gone(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, {"round-001": (True, False), "round-003": (True, False), "round-004": (True, False)})
    filters = filter.run_filter

    def nothing_in_round_two(job: Any, sources: list[Path], *args: Any, **kwargs: Any) -> Any:
        if sources[0].parent.name == "round-002":
            raise GateError("no row was kept")
        return filters(job, sources, *args, **kwargs)

    monkeypatch.setattr(one_round, "run_filter", nothing_in_round_two)
    run, options = tmp_path / "run", ("--set", "keep_adapters=1", "--set", "on_empty=skip")
    monkeypatch.setattr(one_round.RoundWork, "_say_roles", lambda self, current, steps: None)

    assert here("run", recipe, "--run-dir", run, *options) == 0
    assert not (run / "round-001" / "5_adapter" / "adapter_model.safetensors").exists()

    assert here("run", recipe, "--run-dir", run, *options, "--rounds", 4) == 0
    assert start_of(run, "round-004") == adapter_of(run, "round-003")


@pytest.mark.parametrize("engine", ["openai", "scripted"])
@pytest.mark.parametrize("place", ["api_key_env", "roles.judge.api_key_env"])
@pytest.mark.parametrize("key", ["sk-SECRET123", "hf_SECRET123"])
def test_a_key_given_in_place_of_its_variable_is_in_no_file_and_no_message(
    key: str, place: str, engine: str, tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The second key could be a name.
    run = tmp_path / "run"
    address = ("--base-url", "http://127.0.0.1:9/v1")

    assert here("run", recipe, "--run-dir", run, "--engine", engine, *address, "--set", f"{place}={key}") == 2

    said = capsys.readouterr()
    assert "never the key" in said.err
    assert "SECRET123" not in said.err + said.out
    assert not [path for path in run.rglob("*") if path.is_file() and b"SECRET123" in path.read_bytes()]
    assert not (run / "recipe.resolved.yaml").exists()


def test_without_a_gate_every_round_is_accepted_and_none_called_best(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run, "--rounds", 1, "--set", "eval.gate=none") == 0

    assert links(run) == {"latest": "round-001", "accepted": "round-001"}
    assert (summary(run)["best"], summary(run)["promotion"][0]["reason"]) == (None, "no gate set")
    assert "no gate set: every round is accepted and none is called best" in capsys.readouterr().err
    assert len({row["problem"]["id"] for row in read_json_lines(run / "round-001" / "6_eval.jsonl")}) == 12


def test_other_items_than_the_run_began_with_are_refused(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, {"round-001": (True, False)})
    run = tmp_path / "run"
    assert here("run", recipe, "--run-dir", run, "--rounds", 1) == 0
    write_sums(tmp_path / "held_out.jsonl", 11)

    assert here("run", recipe, "--run-dir", run, "--rounds", 1) == 2

    assert "holds other items than" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
