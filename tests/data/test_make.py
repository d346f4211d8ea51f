"""The shipped problem sets are what their commands make, and their halves are disjoint."""

import json

import pytest

from mae_cli.answers.questions import question_key
from mae_cli.data.imports import import_set
from mae_cli.data.make import make_set
from mae_cli.errors import ConfigError, DataError
from mae_cli.plugins.verifiers.arithmetic import Arithmetic
from mae_cli.recipe.files import shipped_dir
from mae_cli.records.read import read_problems

DATA = shipped_dir("data")
GYM = (
    "gym:chain_sum,simple_equations,number_sequence,letter_counting,word_sorting,family_relationships,"
    "calendar_arithmetic,syllogism"
)


@pytest.mark.parametrize(
    ("name", "stem", "train", "held_out"), [("arithmetic", "arithmetic", 300, 200), (GYM, "gym", 240, 96)]
)
def test_the_shipped_sets_are_made_again_byte_for_byte(tmp_path, name, stem, train, held_out):
    if name.startswith("gym:"):
        pytest.importorskip("reasoning_gym")
    paths = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    has_gate = stem == "arithmetic"
    gate = tmp_path / "gate.jsonl" if has_gate else None

    make_set(name, *paths, gate, num_train=train, num_held_out=held_out, num_gate=60, seed=0, replace=False)

    assert not has_gate or (tmp_path / "gate.jsonl").read_bytes() == (DATA / f"{stem}_gate.jsonl").read_bytes()
    assert paths[0].read_bytes() == (DATA / f"{stem}_train.jsonl").read_bytes()
    assert paths[1].read_bytes() == (DATA / f"{stem}_heldout.jsonl").read_bytes()


@pytest.mark.parametrize(("stem", "train", "held_out"), [("arithmetic", 300, 200), ("gym", 240, 96)])
def test_train_and_held_out_share_no_problem_in_any_wording(stem, train, held_out):
    keys = [
        {question_key(problem.question) for problem in read_problems(DATA / f"{stem}_{half}.jsonl")}
        for half in ("train", "heldout")
    ]

    assert [len(half) for half in keys] == [train, held_out]
    assert not keys[0] & keys[1]


def test_the_gate_of_the_quickstart_shares_no_problem_with_training_or_the_reported_items():
    keys = {
        part: {question_key(problem.question) for problem in read_problems(DATA / f"arithmetic_{part}.jsonl")}
        for part in ("train", "heldout", "gate")
    }

    assert len(keys["gate"]) == 60
    assert not keys["gate"] & (keys["train"] | keys["heldout"])


def test_every_arithmetic_item_is_right_by_an_independent_reading():
    for half in ("train", "heldout", "gate"):
        for problem in read_problems(DATA / f"arithmetic_{half}.jsonl"):
            assert Arithmetic().check(problem, problem.reference_answer).score == 1.0, problem.question


def test_an_import_keeps_unknown_fields_and_finds_the_usual_names(tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"problem": "What is 2 + 2?", "solution": "It is 4.", "answer": 4, "level": "easy"},
        {"question": "Pick one", "options": {"A": "red", "B": "blue"}, "answerKey": "B"},
        {"question": "How many?", "answer": "2 + 3 = 5\n#### 5"},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    import_set(str(source), output, limit=None, replace=False)
    first, second, third = read_problems(output)

    assert (first.question, first.reference_answer, first.meta["level"]) == ("What is 2 + 2?", "4", "easy")
    assert (second.reference_answer, second.meta["choices"]) == ("B", ["red", "blue"])
    assert (third.reference_answer, third.meta["solution"]) == ("5", "2 + 3 = 5\n#### 5")


def test_bad_sources_are_named_and_nothing_is_overwritten(tmp_path):
    existing = tmp_path / "out.jsonl"
    existing.write_text("mine\n")

    with pytest.raises(ConfigError, match="exists"):
        import_set("x.jsonl", existing, limit=None, replace=False)
    with pytest.raises(DataError, match="no such file"):
        import_set(str(tmp_path / "missing.jsonl"), tmp_path / "new.jsonl", limit=None, replace=False)
    with pytest.raises(ConfigError, match="no generator"):
        make_set("sums", tmp_path / "a", tmp_path / "b", num_train=1, num_held_out=1, seed=0, replace=False)
    assert existing.read_text() == "mine\n"
