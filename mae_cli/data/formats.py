"""Training files of other tools: messages, prompt and completion, preference pairs, ShareGPT, Alpaca.

All formats are read into one neutral sample, so each format is one reader and one writer, and converting there and back
gives the same samples. A line that a format cannot hold is refused by its number, never dropped. Keys that no format
knows are kept. Source of the layouts: the documentation of TRL ("Dataset formats"), ShareGPT and Stanford Alpaca.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.data.chat_messages import SHAREGPT, RefusedLineError, says_nothing
from mae_cli.data.pair_readers import BLANK
from mae_cli.data.sample_readers import FORMATS, Format, Sample, detect, read_sample
from mae_cli.errors import ConfigError, DataError
from mae_cli.records import Message, Policy, Row, Sampling, new_row
from mae_cli.records.problems import problem_from
from mae_cli.records.read import is_record
from mae_cli.records.tables import read_trees


class ForeignFile(msgspec.Struct, frozen=True):
    """A file of another tool."""

    format: Format
    samples: list[Sample]
    lines: list[int]
    """Line number of each sample; in an array or a table its position."""
    places: list[str]
    """File and line of each sample."""


def read_foreign(path: Path) -> ForeignFile | None:
    """The samples of a file, or null where its rows are records or plain problems.

    Raises:
        DataError: rows of a layout that is not trained (named), of another format than the first (both places named),
            or that cannot be read as their format.
    """
    found: ForeignFile | None = None
    for number, (place, tree) in enumerate(read_trees(path), 1):
        try:
            kind = detect(tree)
            if found is None:
                if kind is None:
                    _refuse_unknown(tree, place)
                    return None
                found = ForeignFile(kind, [], [], [])
            if kind != found.format:
                what = kind or f"of no known format (keys: {', '.join(sorted(tree)) or 'none'})"
                raise DataError(f"{place}: {what}, but line {found.lines[0]} is {found.format}; one kind per file")
            found.samples.append(read_sample(tree, kind))
        except RefusedLineError as error:
            raise DataError(f"{place}: {error}{f'; read as {found.format}' if found else ''}") from error
        line = place.rpartition(":")[2]
        found.lines.append(int(line) if line.isdigit() else number)
        found.places.append(place)
    return found


def _refuse_unknown(tree: dict[str, Any], place: str) -> None:
    """Refuse a first row that is no sample, no record and no problem either.

    Raises:
        DataError: with its keys, and the formats that are known.
    """
    if is_record(tree):
        return
    try:
        problem_from(tree, place)
    except DataError as error:
        keys = ", ".join(sorted(tree)) or "none"
        raise DataError(
            f"{place}: neither rows of a stage nor a known training format (keys: {keys}); known: {', '.join(FORMATS)}"
        ) from error


def written(samples: Sequence[Sample], kind: Format, *, where: Callable[[int], str]) -> Iterator[bytes]:
    """The samples as JSON lines of a format, one per sample.

    Raises:
        DataError: a sample holds more than the format can; `where` names its place.
    """
    for index, sample in enumerate(samples):
        try:
            yield msgspec.json.encode(_line(sample, kind)) + b"\n"
        except RefusedLineError as error:
            raise DataError(f"{where(index)}: cannot be written as {kind}: {error}") from error


def _line(sample: Sample, kind: Format) -> dict[str, Any]:
    if sample.is_pair and kind != "preference":
        raise RefusedLineError("a preference pair would lose a side")
    if kind == "preference" and not sample.is_pair:
        raise RefusedLineError("no second answer to prefer this one to")
    extra = dict(sample.extra)
    tree = _WRITERS[kind](sample, extra)
    clash = sorted(tree.keys() & extra.keys())
    if clash:
        raise RefusedLineError(f'it has a key "{clash[0]}" of another meaning')
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

    Raises:
        DataError: an answer is empty or would be trained behind an empty prompt, a label is neither true nor false, or
            tool definitions or pictures would be lost.
    """
    rows = []
    for line, place, sample in zip(file.lines, file.places, file.samples, strict=True):
        _refuse_what_is_lost(sample, place)
        if sample.is_pair:
            _refuse_empty(sample.messages, place, without_system=True)
            _refuse_no_answer(sample.chosen[0], place)
            sides = ((sample.chosen, 1.0), (sample.rejected, 0.0))
            rows += [
                _row(file.format, line, sample.messages, side[0].content, index=index, reward=reward)
                for index, (side, reward) in enumerate(sides)
            ]
            continue
        reward = _label(sample, place)
        answers = [turn for turn, message in enumerate(sample.messages) if message.role == "assistant"]
        if not answers:
            raise DataError(f"{place}: no turn of the assistant: there is no answer to train on")
        # A conversation may begin with the end of an earlier answer; that turn is context alone.
        for turn in [turn for turn in answers if turn] or answers:
            before = sample.messages[:turn]
            _refuse_empty(before, place, without_system=file.format in ("alpaca", "prompt-completion"))
            _refuse_no_answer(sample.messages[turn], place)
            rows.append(_row(file.format, line, before, sample.messages[turn].content, turn=turn, reward=reward))
    return rows


def _label(sample: Sample, place: str) -> float | None:
    """The reward that a `label` of true or false says; null where there is none, or it is a text of another meaning.

    Raises:
        DataError: it may be a verdict or a class.
    """
    name = "label" if "label" in sample.extra else "kto_tag"
    label = sample.extra.get(name)
    if isinstance(label, bool):
        return float(label)
    if isinstance(label, str) and label.casefold() in _SIDES:
        return _SIDES[label.casefold()]
    if label in (0, 1) or (isinstance(label, str) and label.casefold() in ("0", "1", "true", "false")):
        raise DataError(
            f'{place}: field "{name}": {label!r} may be a verdict or a class; write true or false if it says '
            f"whether the answer is good, or leave the column out"
        )
    return None


_SIDES = {"chosen": 1.0, "rejected": 0.0, "desirable": 1.0, "undesirable": 0.0}
"""Labels in words that name one of two sides and can mean nothing else."""


def _refuse_empty(prompt: Sequence[Message], place: str, *, without_system: bool) -> None:
    """Refuse a prompt that says nothing: an answer to nothing is never meant.

    Args:
        prompt: the messages before the answer.
        place: file and line.
        without_system: a system message alone is no prompt, because the question stands in a column of its own.

    Raises:
        DataError: no message of it holds a text.
    """
    asked = [message for message in prompt if message.role != "system"] if without_system else prompt
    if says_nothing(asked):
        what = "no question" if asked != prompt and not says_nothing(prompt) else "an empty prompt"
        raise DataError(f"{place}: {what}: nothing stands before the answer that would be trained")


def _refuse_no_answer(message: Message, place: str) -> None:
    """Refuse to teach silence.

    Raises:
        DataError: the answer is empty.
    """
    if not message.content.strip():
        raise DataError(f"{place}: an empty answer: there is nothing to train on; leave this row out")


def _refuse_what_is_lost(sample: Sample, place: str) -> None:
    """Refuse tool definitions and pictures: the model would be trained without seeing them.

    Raises:
        DataError: the sample has some.
    """
    for names, what, remedy in _LOST:
        for name in names:
            value = sample.extra.get(name)
            if value and (not isinstance(value, str) or value.strip() not in ("", "[]", "null", "{}")):
                raise DataError(
                    f'{place}: field "{name}": {what} are not put into the prompt, so the model would be trained '
                    f"without them; {remedy}"
                )


_LOST = (
    (("tools", "functions"), "tool definitions", "write them into the system message, or leave the column out"),
    (("images", "image", "videos", "audios"), "pictures and sounds", "leave such rows out"),
)


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


def _chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _write_messages(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    return {"messages": _chat(sample.messages)}


def _write_prompt_completion(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    if not sample.messages or sample.messages[-1].role != "assistant":
        raise RefusedLineError("the conversation does not end with an answer")
    return {"prompt": _chat(sample.messages[:-1]), "completion": _chat(sample.messages[-1:])}


def _write_preference(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": _chat(sample.messages),
        "chosen": _chat(sample.chosen),
        "rejected": _chat(sample.rejected),
    }


def _write_sharegpt(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    if "system" in extra:
        raise RefusedLineError('its key "system" would be read as a system message')
    names = {role: name for name, role in SHAREGPT.items()}
    return {"conversations": [{"from": names[m.role], "value": m.content} for m in sample.messages]}


def _write_alpaca(sample: Sample, extra: dict[str, Any]) -> dict[str, Any]:
    messages = list(sample.messages)
    system = messages.pop(0).content if messages and messages[0].role == "system" else ""
    turns = [message.content for message in messages]
    if not turns or [message.role for message in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise RefusedLineError("its turns are not user and assistant by turns")
    if not system and len(messages) < len(sample.messages):
        raise RefusedLineError("its system message is empty")
    question, given = turns[-2], extra.get("alpaca_input", "")
    if given and question.endswith(f"{BLANK}{given}"):
        question = question.removesuffix(f"{BLANK}{given}")
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
