"""Templates, prompts and stop strings as users give them: by name, with marks of other editors, mistyped in a shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import CHAT_TEMPLATE, save_tiny_model
from tests.support import here, read_json_lines, write_json_lines

QUESTION = {"question": "what is one plus two", "answer": "three"}
CHATS = [
    [("user", "one"), ("assistant", "two")],
    [("user", "one"), ("user", "two"), ("assistant", "three")],
    [("user", "six"), ("assistant", "seven")],
]
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + CHAT_TEMPLATE
)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_json_lines(tmp_path / "q.jsonl", [QUESTION])
    return save_tiny_model(tmp_path / "model", context=64)


def solve(*more: object) -> int:
    common = ("--device", "cpu", "--rollouts-per-problem", 1, "--max-new-tokens", 4, "--overwrite")
    return here("solve", "q.jsonl", "-o", "r.jsonl", "-m", "model", *common, *more)


def give_named_templates(model: Path, *names: str) -> None:
    (model / "chat_template.jinja").unlink()
    path = model / "tokenizer_config.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "chat_template": [{"name": n, "template": CHAT_TEMPLATE} for n in names]}))


def test_named_templates_without_a_default_are_one_line_and_one_is_chosen_by_its_name(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give_named_templates(model, "rag", "tool_use")

    assert solve() == 2
    assert "(rag, tool_use)" in capsys.readouterr().err
    assert solve("--chat-template", "rag") == 0


def test_a_named_default_is_used(model: Path) -> None:
    give_named_templates(model, "default", "tool_use")

    assert solve() == 0


def test_marks_that_editors_leave_in_templates_and_prompts_are_no_tokens(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_bytes(b"\xef\xbb\xbf" + CHAT_TEMPLATE.encode())
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbf[user]\r\n{{ question }}\r\n")
    (tmp_path / "plain.txt").write_bytes(b"[user]\n{{ question }}\n")

    assert solve("--prompt", "p.txt", "--chat-template", "t.jinja") == 0
    marked = read_json_lines(tmp_path / "r.jsonl")[0]["prompt_token_ids"]
    assert solve("--prompt", "plain.txt") == 0

    assert read_json_lines(tmp_path / "r.jsonl")[0]["prompt_token_ids"] == marked


@pytest.mark.parametrize("stop", ["", "\\n", "\\nQuestion:", "\\t"])
def test_a_stop_string_that_cannot_be_meant_is_refused(
    stop: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert solve("--stop", stop) == 2
    assert "stop" in capsys.readouterr().err


@pytest.mark.parametrize("stop", ["\n", "\\neq", "END"])
def test_a_stop_string_that_can_be_meant_is_taken(stop: str, model: Path, tmp_path: Path) -> None:
    assert solve("--stop", stop) == 0
    assert read_json_lines(tmp_path / "r.jsonl")[0]["sampling"]["stop"] == [stop]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_chat_that_the_template_refuses_is_named_by_file_and_line(
    more: tuple[str, ...], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.jinja").write_text(ALTERNATES)
    chats = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in CHATS]
    write_json_lines(tmp_path / "t.jsonl", chats)

    code = here("finetune", "t.jsonl", "-o", "a", "-m", "model", "--device", "cpu", "--chat-template", "t.jinja", *more)

    assert code == 2
    assert "t.jsonl:2: the chat template refuses messages with roles user, user" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_dry_run_of_finetune_counts_tokens_and_what_is_dropped(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"prompt": "one", "completion": "two"}, {"prompt": "one " * 90, "completion": "two"}]
    write_json_lines(tmp_path / "t.jsonl", lines)

    more = ("--device", "cpu", "--max-length", 64, "--dry-run")
    assert here("finetune", "t.jsonl", "-o", "a", "-m", "model", *more) == 0

    told = capsys.readouterr().err
    assert "1 rows, " in told
    assert "trained tokens" in told
    assert "1 too_long" in told
    assert not (tmp_path / "a").exists()
