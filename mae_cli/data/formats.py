"""Training files of other tools: messages, prompt and completion, preference pairs, ShareGPT, Alpaca.

All formats are read into one neutral sample, so each format is one reader and one writer, and converting there and back
gives the same samples. A line that a format cannot hold is refused by its number, never dropped. Keys that no format
knows are kept. Source of the layouts: the documentation of TRL ("Dataset formats"), ShareGPT and Stanford Alpaca.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from mae_cli.errors import ConfigError, DataError
from mae_cli.records import Message, Policy, Row, Sampling, new_row
from mae_cli.records.read import decode_object, read_lines

Format = Literal["messages", "prompt-completion", "preference", "sharegpt", "alpaca"]
FORMATS: tuple[Format, ...] = get_args(Format)
ChatRole = Literal["system", "user", "assistant", "tool"]
_ROLES: dict[str, ChatRole] = {name: name for name in get_args(ChatRole)}
_SHAREGPT: dict[str, ChatRole] = {"system": "system", "human": "user", "gpt": "assistant", "tool": "tool"}
_SHAREGPT_ALSO: dict[str, ChatRole] = {"user": "user", "assistant": "assistant", "observation": "tool"}
_BLANK = "\n\n"
"""Text between an Alpaca instruction and its input."""


class Sample(msgspec.Struct, frozen=True):
    """One line: a conversation, or a prompt with a chosen and a rejected continuation."""

    messages: tuple[Message, ...]
    """The whole conversation; of a pair, its prompt."""
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    extra: dict[str, Any] = {}
    """Keys that belong to no format, by name."""

    @property
    def is_pair(self) -> bool:
        """Whether it holds two continuations."""
        return bool(self.chosen or self.rejected)


class ForeignFile(msgspec.Struct, frozen=True):
    """A file of another tool."""

    format: Format
    samples: list[Sample]
    lines: list[int]
    """Line number of each sample."""


class _RefusedError(ValueError):
    """One line is not as its format wants it; the message says why."""


def detect(tree: dict[str, Any]) -> Format | None:
    """The format of a line by its keys, or null for a problem, a record or anything else."""
    if "schema" in tree and "role" in tree:
        return None
    if "chosen" in tree and "rejected" in tree:
        return "preference"
    if "messages" in tree:
        return "messages"
    if "conversations" in tree:
        return "sharegpt"
    if "prompt" in tree and "completion" in tree:
        return "prompt-completion"
    if "instruction" in tree and "output" in tree:
        return "alpaca"
    return None


def read_foreign(path: Path) -> ForeignFile | None:
    """The samples of a file, or null where its first line is of no foreign format.

    Raises:
        DataError: a line of another format (both lines named), or one that cannot be read as its format.
    """
    samples: list[Sample] = []
    lines: list[int] = []
    kind: Format | None = None
    for number, line in read_lines(path):
        tree = decode_object(path, number, line)
        found = detect(tree)
        if kind is None:
            if found is None:
                return None
            kind = found
        if found != kind:
            what = found or f"of no known format (keys: {', '.join(sorted(tree)) or 'none'})"
            raise DataError(f"{path}:{number}: {what}, but line {lines[0]} is {kind}; one kind per file")
        try:
            samples.append(_READERS[kind](tree))
        except _RefusedError as error:
            raise DataError(f"{path}:{number}: {error}; read as {kind}") from error
        lines.append(number)
    return None if kind is None else ForeignFile(kind, samples, lines)


def written(samples: Sequence[Sample], kind: Format, *, where: Callable[[int], str]) -> Iterator[bytes]:
    """The samples as JSON lines of a format, one per sample.

    Raises:
        DataError: a sample holds more than the format can; `where` names its place.
    """
    for index, sample in enumerate(samples):
        try:
            yield msgspec.json.encode(_line(sample, kind)) + b"\n"
        except _RefusedError as error:
            raise DataError(f"{where(index)}: cannot be written as {kind}: {error}") from error


def _line(sample: Sample, kind: Format) -> dict[str, Any]:
    if sample.is_pair and kind != "preference":
        raise _RefusedError("a preference pair would lose a side")
    if kind == "preference" and not sample.is_pair:
        raise _RefusedError("no second answer to prefer this one to")
    extra = dict(sample.extra)
    tree = _WRITERS[kind](sample, extra)
    clash = sorted(tree.keys() & extra.keys())
    if clash:
        raise _RefusedError(f'it has a key "{clash[0]}" of another meaning')
    return {**tree, **extra}


def checked_format(name: str) -> Format:
    """A format by name.

    Raises:
        ConfigError: no such format.
    """
    if name not in FORMATS:
        raise ConfigError(f"--to {name}: unknown format; known: {', '.join(FORMATS)}")
    return name


def rows_of(file: ForeignFile) -> list[Row]:
    """The samples as rows to train: one per assistant turn, or one per side of a pair.

    These rows have no token ids, because no engine generated them, and their policy is the file. A pair is a group of
    two with rewards 1 and 0; a sample with a `label` (true or false, as KTO files have) has it as its reward, any other
    has none.
    """
    rows = []
    for line, sample in zip(file.lines, file.samples, strict=True):
        if sample.is_pair:
            sides = ((sample.chosen, 1.0), (sample.rejected, 0.0))
            rows += [
                _row(file.format, line, sample.messages, side[0].content, index=index, reward=reward)
                for index, (side, reward) in enumerate(sides)
            ]
            continue
        label = sample.extra.get("label")
        for place, message in enumerate(sample.messages):
            if message.role == "assistant" and place:
                reward = float(label) if isinstance(label, bool) else None
                rows.append(
                    _row(file.format, line, sample.messages[:place], message.content, turn=place, reward=reward)
                )
    return rows


def _row(
    kind: Format,
    line: int,
    messages: Sequence[Message],
    text: str,
    *,
    reward: float | None,
    index: int = 0,
    turn: int = 0,
) -> Row:
    row = new_row(
        "import",
        role="solver",
        purpose="train",
        round_number=0,
        run_seed=0,
        messages=messages,
        sampling=Sampling(max_new_tokens=1),
        policy=Policy(model=f"{kind} file, line {line}"),
        sample_index=index,
        turn=turn,
        group=line,
    )
    row.raw = row.completion = text
    row.finish_reason = "stop"
    row.reward = reward
    return row


def _messages(value: Any, field: str, role: Literal["user", "assistant"] = "user") -> tuple[Message, ...]:
    """Chat messages, or a text as one message of the given role."""
    if isinstance(value, str):
        return (Message(role, value),)
    if not isinstance(value, list):
        raise _RefusedError(f'field "{field}": expected text or messages, found {type(value).__name__}')
    return tuple(_message(item, f"{field}[{index}]", "role", "content", _ROLES) for index, item in enumerate(value))


def _message(item: Any, field: str, role_key: str, text_key: str, names: dict[str, ChatRole]) -> Message:
    if not isinstance(item, dict):
        raise _RefusedError(f'field "{field}": expected an object, found {type(item).__name__}')
    name = item.get(role_key)
    role = names.get(name) if isinstance(name, str) else None
    if role is None:
        raise _RefusedError(f'field "{field}.{role_key}": unknown role {name!r}; known: {", ".join(names)}')
    if not isinstance(item.get(text_key), str):
        raise _RefusedError(f'field "{field}.{text_key}": expected text, found {type(item.get(text_key)).__name__}')
    odd = sorted(item.keys() - {role_key, text_key})
    if odd:
        raise _RefusedError(f'field "{field}.{odd[0]}": not understood, and it would be lost')
    return Message(role, item[text_key])


def _rest(tree: dict[str, Any], *known: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in known}


def _read_messages(tree: dict[str, Any]) -> Sample:
    if not isinstance(tree["messages"], list):
        raise _RefusedError(f'field "messages": expected a list, found {type(tree["messages"]).__name__}')
    return Sample(_messages(tree["messages"], "messages"), extra=_rest(tree, "messages"))


def _read_prompt_completion(tree: dict[str, Any]) -> Sample:
    completion = _messages(tree["completion"], "completion", "assistant")
    if len(completion) != 1 or completion[0].role != "assistant":
        raise _RefusedError('field "completion": expected one assistant message')
    return Sample((*_messages(tree["prompt"], "prompt"), *completion), extra=_rest(tree, "prompt", "completion"))


def _read_preference(tree: dict[str, Any]) -> Sample:
    sides = [_messages(tree[name], name, "assistant") for name in ("chosen", "rejected")]
    prompt = _messages(tree["prompt"], "prompt") if tree.get("prompt") is not None else ()
    if not prompt:
        # The prompt may stand in both sides instead: what they begin with, up to the first answer that differs.
        shared = 0
        while shared < min(map(len, sides)) - 1 and sides[0][shared] == sides[1][shared]:
            shared += 1
        prompt, sides = sides[0][:shared], [side[shared:] for side in sides]
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        if len(side) != 1 or side[0].role != "assistant":
            raise _RefusedError(f'field "{name}": expected one assistant message behind the common prompt')
    return Sample(prompt, sides[0], sides[1], _rest(tree, "prompt", "chosen", "rejected"))


def _read_sharegpt(tree: dict[str, Any]) -> Sample:
    turns = tree["conversations"]
    if not isinstance(turns, list):
        raise _RefusedError(f'field "conversations": expected a list, found {type(turns).__name__}')
    names = {**_SHAREGPT, **_SHAREGPT_ALSO}
    messages = [_message(turn, f"conversations[{n}]", "from", "value", names) for n, turn in enumerate(turns)]
    extra = _rest(tree, "conversations", "system")
    if not isinstance(tree.get("system"), str | None):
        raise _RefusedError(f'field "system": expected text, found {type(tree["system"]).__name__}')
    if tree.get("system"):
        messages.insert(0, Message("system", tree["system"]))
    return Sample(tuple(messages), extra=extra)


def _read_alpaca(tree: dict[str, Any]) -> Sample:
    for name in ("instruction", "input", "output", "system"):
        if not isinstance(tree.get(name, ""), str | None):
            raise _RefusedError(f'field "{name}": expected text, found {type(tree[name]).__name__}')
    for name in ("instruction", "output"):
        if tree.get(name) is None:
            raise _RefusedError(f'field "{name}": expected text, found null')
    messages = [Message("system", tree["system"])] if tree.get("system") else []
    history = tree.get("history") or []
    for turn in history:
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise _RefusedError('field "history": expected pairs of texts')
        messages += [Message("user", turn[0]), Message("assistant", turn[1])]
    given = tree.get("input") or ""
    extra = _rest(tree, "instruction", "input", "output", "system", "history")
    if given:
        extra["alpaca_input"] = given
    question = f"{tree['instruction']}{_BLANK}{given}" if given else tree["instruction"]
    messages += [Message("user", question), Message("assistant", tree["output"])]
    return Sample(tuple(messages), extra=extra)


_READERS: dict[Format, Callable[[dict[str, Any]], Sample]] = {
    "messages": _read_messages,
    "prompt-completion": _read_prompt_completion,
    "preference": _read_preference,
    "sharegpt": _read_sharegpt,
    "alpaca": _read_alpaca,
}


def _chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _write_messages(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    return {"messages": _chat(sample.messages)}


def _write_prompt_completion(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    if not sample.messages or sample.messages[-1].role != "assistant":
        raise _RefusedError("the conversation does not end with an answer")
    return {"prompt": _chat(sample.messages[:-1]), "completion": _chat(sample.messages[-1:])}


def _write_preference(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": _chat(sample.messages),
        "chosen": _chat(sample.chosen),
        "rejected": _chat(sample.rejected),
    }


def _write_sharegpt(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    if "system" in extra:
        raise _RefusedError('its key "system" would be read as a system message')
    names = {role: name for name, role in _SHAREGPT.items()}
    return {"conversations": [{"from": names[m.role], "value": m.content} for m in sample.messages]}


def _write_alpaca(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    messages = list(sample.messages)
    system = messages.pop(0).content if messages and messages[0].role == "system" else ""
    turns = [message.content for message in messages]
    if not turns or [message.role for message in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise _RefusedError("its turns are not user and assistant by turns")
    if not system and len(messages) < len(sample.messages):
        raise _RefusedError("its system message is empty")
    question, given = turns[-2], extra.get("alpaca_input", "")
    if given and question.endswith(f"{_BLANK}{given}"):
        question = question.removesuffix(f"{_BLANK}{given}")
        del extra["alpaca_input"]
    else:
        given = ""
    line: dict[str, Any] = {"instruction": question, "input": given, "output": turns[-1]}
    if system:
        line["system"] = system
    if len(turns) > 2:
        line["history"] = [[turns[place], turns[place + 1]] for place in range(0, len(turns) - 2, 2)]
    return line


_WRITERS: dict[Format, Callable[[Sample, dict[str, Any]], dict[str, Any]]] = {
    "messages": _write_messages,
    "prompt-completion": _write_prompt_completion,
    "preference": _write_preference,
    "sharegpt": _write_sharegpt,
    "alpaca": _write_alpaca,
}
