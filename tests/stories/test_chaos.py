"""A run that is disturbed at random moments ends as the one that nobody disturbed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mae_cli.runs.views.status import status_of
from tests.stories.chaos import Chaos
from tests.stories.kill_driver import folder_content
from tests.support import mae, write_sums

VOLATILE = ("events.jsonl", "summary.json", "run.state.json", "run.owner.json", "run.lock")
pytestmark = pytest.mark.timeout(7200)


def recipe(folder: Path) -> Path:
    path = folder / "r.yaml"
    path.write_text(
        f"""
engine: "scripted:accuracy=0.7,delay=0.02"
batch_size: 2
rounds: 3
seeds: {write_sums(folder / "seeds.jsonl", 12)}
pipeline: [propose, solve, judge, filter, eval]
propose: {{num_problems: 12}}
solve: {{num_problems: 8, rollouts_per_problem: 4}}
judge: {{verifier: arithmetic, max_unparsed: 1.0, votes: 1}}
filter: {{decontaminate: false}}
eval: {{benchmarks: [{write_sums(folder / "held_out.jsonl", 8)}]}}
"""
    )
    return path


def disturbed(folder: Path, seeds: range, disturbances: int) -> Counter[str]:
    path = recipe(folder)
    assert mae("run", path, "--run-dir", folder / "whole" / "run", "--quiet").returncode == 0
    expected = folder_content(folder / "whole" / "run", without=VOLATILE)
    done: Counter[str] = Counter()
    for seed in seeds:
        run = folder / f"seed-{seed}" / "run"
        chaos = Chaos(["run", path, "--run-dir", run, "--quiet"], run, seed)
        code = chaos.drive(disturbances)
        done += chaos.done
        assert code == 0, chaos.done
        assert folder_content(run, without=VOLATILE) == expected, chaos.done
        assert status_of(run).life == "finished"
        if done.total() >= disturbances:
            break
    print(dict(done))
    return done


@pytest.mark.slow
def test_a_dozen_disturbances_change_nothing(tmp_path: Path) -> None:
    assert disturbed(tmp_path, range(6), 12).total() >= 6


@pytest.mark.long
def test_two_hundred_disturbances_change_nothing(tmp_path: Path) -> None:
    assert disturbed(tmp_path, range(1000), 200).total() >= 200
