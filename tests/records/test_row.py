from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.records import (
    Completion,
    Message,
    Policy,
    Problem,
    Row,
    Sampling,
    complete_row,
    digest,
    mean_score,
    new_row,
    problem_id,
    seed_from,
)
from mae_cli.records.file_names import STDIO
from mae_cli.records.read import decode_row
from mae_cli.records.resumable_file import encode_rows
from tests.support import POLICY, a_problem, a_row

KEYS = {field.name for field in msgspec.structs.fields(Row)}
PROBLEM_KEYS = {field.name for field in msgspec.structs.fields(Problem)}
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FOREIGN = st.dictionaries(st.text(max_size=12).filter(lambda key: key not in KEYS), VALUES, max_size=4)
FOREIGN_OF_PROBLEM = st.dictionaries(
    st.text(max_size=12).filter(lambda key: key not in PROBLEM_KEYS), VALUES, max_size=4
)


def plan(**changes: Any) -> Row:
    values: dict[str, Any] = {
        "role": "solver",
        "purpose": "train",
        "round_number": 1,
        "run_seed": 0,
        "messages": [Message("user", "p")],
        "sampling": Sampling(max_new_tokens=8),
        "policy": POLICY,
        "problem": a_problem(),
    }
    return new_row("solve", **{**values, **changes})


@given(completion=st.text(max_size=50), status=st.sampled_from(["ok", "truncated", "error"]))
def test_an_id_never_depends_on_the_completion(completion: str, status: Any) -> None:
    done = complete_row(plan(), Completion(raw=completion, completion=completion, status=status))

    assert (done.id, done.seed, done.rollout_id, done.group_id) == (
        plan().id,
        plan().seed,
        plan().rollout_id,
        plan().group_id,
    )


def test_an_id_depends_on_each_of_its_parts() -> None:
    variants = [
        plan(),
        plan(role="judge"),
        plan(purpose="difficulty"),
        plan(round_number=2),
        plan(problem=a_problem("What is 1 + 1?")),
        plan(messages=[Message("user", "q")]),
        plan(sample_index=1),
        plan(turn=1),
        plan(policy=Policy(model="other")),
    ]

    assert len({row.id for row in variants}) == len(variants)


def test_the_run_seed_changes_a_rows_seed_and_not_its_id() -> None:
    first, second = plan(run_seed=0), plan(run_seed=1)

    assert first.id == second.id
    assert first.seed != second.seed


def test_samples_of_one_problem_share_a_group_and_other_problems_do_not() -> None:
    assert plan(sample_index=0).group_id == plan(sample_index=1).group_id
    assert plan().group_id != plan(problem=a_problem("What is 1 + 1?")).group_id


@given(parts=st.lists(VALUES, max_size=4))
def test_seeds_fit_into_every_json_readers_integers(parts: list[Any]) -> None:
    assert 0 <= seed_from(*parts) < 2**52


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_white_space_does_not_make_another_problem_and_a_superscript_does() -> None:
    assert problem_id("What  is\n5 ?") == problem_id(" What is 5 ?")
    assert problem_id("5² = ?") != problem_id("52 = ?")
    assert problem_id("Which?", ["a", "b"]) != problem_id("Which?", ["b", "a"])


def test_unknown_scores_stay_out_of_a_mean_and_only_unknown_ones_have_none() -> None:
    from mae_cli.records import Verdict

    known, unknown = Verdict("v", "judge", "answer", 0.5), Verdict("v", "judge", "answer", None, "unparsed")

    assert mean_score([known, unknown]) == 0.5
    assert mean_score([unknown]) is None
    assert mean_score([]) is None


def test_every_row_carries_every_key() -> None:
    written = msgspec.json.decode(encode_rows([a_row("proposer")]))

    assert set(written) == KEYS


@given(foreign=FOREIGN, of_problem=FOREIGN_OF_PROBLEM, text=st.text(max_size=60))
def test_a_record_with_foreign_keys_survives_reading_and_writing(
    foreign: dict[str, Any], of_problem: dict[str, Any], text: str
) -> None:
    tree = msgspec.to_builtins(a_row(problem=a_problem(), completion=text))
    tree.update(foreign)
    tree["problem"].update(of_problem)

    row = decode_row(STDIO, 1, msgspec.json.encode(tree))
    again = decode_row(STDIO, 1, encode_rows([row]))

    assert row.problem is not None
    assert row.extra == foreign
    assert row.problem.meta == of_problem
    assert row.completion == text
    assert again == row
    assert encode_rows([again]) == encode_rows([row])
