"""Adapters of a run, rows forward and back: a run folder written by hand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mae_cli.errors import ConfigError, DataError
from mae_cli.models.lineage import Lineage, base_reference, trained_rows
from mae_cli.records import Row, Term, Verdict
from mae_cli.records.atomic import write_json
from mae_cli.runs.views.adapters import adapters_of, descends_from
from mae_cli.runs.views.summary import refresh_cards
from mae_cli.runs.views.trace import trace_row, trace_text
from tests.support import a_problem, a_row, here, write_json_lines, write_rows


def lineage(adapter: str, parent: str | None, number: int) -> Lineage:
    return Lineage(
        adapter=adapter,
        parent=parent,
        base="tiny@0123",
        base_digest="0123",
        round=number,
        data=f"data{number}",
        rows=2,
        roles={"solver": 2},
        trained_tokens=7,
        seed=0,
        objective="Sft",
        steps=1,
        learning_rate=1e-4,
    )


PROBLEM = a_problem()
PROPOSAL = a_row("proposer", prompt="write a problem", raw="What is 3 + 4?", completion="What is 3 + 4?", kept=False)
ROLLOUT = a_row(problem=PROBLEM, prompt="What is 3 + 4?", parents=[PROPOSAL.id], raw="It is 7.", completion="It is 7.")
JUDGEMENT = a_row("judge", "grade", prompt="grade", parents=[ROLLOUT.id], raw="<score>9</score>", completion="9")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Three rounds: the second continues the first, the third begins anew and its weights are gone."""
    first = tmp_path / "round-001"
    first.mkdir()
    judged = msgspec.structs.replace(
        ROLLOUT,
        verdicts=[Verdict(name="rubric", kind="judge", target="answer", score=0.9, judge_id=JUDGEMENT.id)],
        reward=0.9,
        reward_terms=[Term("answer_score", 0.9)],
        kept=True,
    )
    dropped = msgspec.structs.replace(PROPOSAL, reasons=["dedup: said before"], stored=["questions"])
    write_rows(first / "1_problems.jsonl", [PROPOSAL])
    write_rows(first / "4_selected.jsonl", [judged, JUDGEMENT])
    write_rows(first / "4_dropped.jsonl", [dropped])
    told = [("aaaa", None, True), ("bbbb", "aaaa", True), ("cccc", None, False)]
    for number, (adapter, parent, has_weights) in enumerate(told, 1):
        folder = tmp_path / f"round-{number:03d}" / "5_adapter"
        folder.mkdir(parents=True)
        write_json(folder / "lineage.json", lineage(adapter, parent, number))
        seen = ROLLOUT.id if number == 1 else f"other{number}"
        line = {"id": seen, "role": "solver", "reward": 0.9, "advantage": 1.5, "tokens": 3, "passes": 2}
        write_json_lines(folder / "train_rows.jsonl", [line])
        if has_weights:
            (folder / "adapter_model.safetensors").touch()
    (tmp_path / "accepted").symlink_to("round-002")
    return tmp_path


def test_the_adapters_of_a_run_know_parent_data_and_place(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = adapters_of(run_dir)

    assert [(entry.adapter, entry.parent, entry.data, entry.marks) for entry in found] == [
        ("aaaa", None, "data1", []),
        ("bbbb", "aaaa", "data2", ["accepted"]),
        ("cccc", None, "data3", ["retired"]),
    ]
    assert here("list", "adapters", "--run-dir", run_dir) == 0
    assert "round-002  5_adapter     bbbb    aaaa  data2     2       7  accepted" in capsys.readouterr().out


def test_descent_goes_over_several_rounds_and_not_beyond_a_new_beginning(run_dir: Path) -> None:
    assert [entry.adapter for entry in descends_from(adapters_of(run_dir), "aaaa")] == ["bbbb"]


def test_a_trained_row_is_followed_back_to_its_proposal_and_forward_to_every_adapter(run_dir: Path) -> None:
    found = trace_row(run_dir, ROLLOUT.id[:8])

    assert [parent.row.id for parent in found.parents] == [PROPOSAL.id]
    assert found.children == [JUDGEMENT.id]
    assert [judge.row.id for judge in found.judgements] == [JUDGEMENT.id]
    assert [(seen.round, seen.advantage, seen.passes) for seen in found.trained] == [("round-001", 1.5, 2)]
    assert [entry.round for entry in found.inherited] == ["round-002"]
    text = trace_text(found).splitlines()
    assert "verdict judge rubric on answer: 0.9 (ok)" in text
    assert "trained by round-001 (adapter aaaa, advantage 1.5, 2 passes)" in text
    assert "and so in round-002 (adapter bbbb), which continues it" in text


def test_a_dropped_row_says_why_and_that_nothing_was_trained_on_it(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("trace", PROPOSAL.id, "--run-dir", run_dir) == 0

    out = capsys.readouterr().out.splitlines()
    assert "not kept: dedup: said before" in out
    assert out[-1] == "no adapter of this run was trained on it"


def test_trace_writes_one_json_object(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("trace", ROLLOUT.id, "--run-dir", run_dir, "--json") == 0

    told = msgspec.json.decode(capsys.readouterr().out)
    assert msgspec.convert(told["row"]["row"], Row).id == ROLLOUT.id
    assert told["trained"][0]["adapter"] == "aaaa"


@pytest.mark.parametrize("identity", ["ffffffffffffffffffff", ""])
def test_an_unknown_row_is_one_line_and_exit_2(identity: str, run_dir: Path) -> None:
    assert here("trace", identity, "--run-dir", run_dir) == 2


def test_a_beginning_that_several_rows_share_is_refused_with_their_ids(run_dir: Path, tmp_path: Path) -> None:
    ids = [PROPOSAL.id, ROLLOUT.id, JUDGEMENT.id]
    twin = msgspec.structs.replace(ROLLOUT, id=ROLLOUT.id[:5] + "0" * 15)
    write_rows(run_dir / "round-001" / "2_rollouts.jsonl", [twin])

    with pytest.raises(ConfigError, match="2 rows begin so"):
        trace_row(run_dir, ROLLOUT.id[:5])
    assert trace_row(run_dir, ids[1]).row.row.id == ids[1]


def test_no_run_there_is_exit_2(tmp_path: Path) -> None:
    assert here("trace", "aa", "--run-dir", tmp_path) == 2
    assert here("list", "adapters", "--run-dir", tmp_path) == 2
    assert here("list", "adapters") == 2


def test_a_base_is_named_by_hub_id_or_by_name_and_content_and_never_by_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    assert base_reference("org/name", "12ab") == "org/name"
    assert base_reference("smollm2-135m", "12ab") == "smollm2-135m@12ab"
    assert base_reference(str(tmp_path / "mine"), "12ab") == "mine@12ab"


def test_the_runs_figures_stand_in_the_adapters_card_and_a_second_time_changes_nothing(run_dir: Path) -> None:
    figure = {"policy": "round-001", "reading": "strict", "low": 0.1, "high": 0.3, "share": 0.2}
    pair = {
        **{"first": "base", "second": "round-001", "reading": "strict", "items": 50},
        **{"first_share": 0.1, "second_share": 0.2, "p_value": 0.125},
    }
    write_json(run_dir / "summary.json", {"comparisons": [pair], "accuracy": [figure]})
    card = run_dir / "round-001" / "5_adapter" / "README.md"
    refresh_cards(run_dir)
    written = card.stat().st_mtime_ns
    refresh_cards(run_dir)

    assert "| strict | 50 | 10.0 % | 20.0 % | 10.0 % to 30.0 % | 0.12 |" in card.read_text("utf-8")
    assert card.stat().st_mtime_ns == written
    assert "- continues: aaaa" in (run_dir / "round-002" / "5_adapter" / "README.md").read_text("utf-8")


def test_a_trained_row_that_is_none_is_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "train_rows.jsonl").write_text('{"id": "a", "role": "solver", "tokens": 3}\n{"role": "solver"}\n')

    with pytest.raises(DataError, match=r"train_rows\.jsonl:2: not a trained row: .*`id`"):
        trained_rows(tmp_path)
