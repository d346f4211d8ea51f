"""Completions in the layouts of public benchmarks, read by lm-evaluation-harness's own filters and by us.

The filters come from the task files of the installed harness. Each completion is made with the answer it states, so it
is known who reads it. Wherever a filter finds the stated answer we find it too; the layouts where a filter reads
something else stand in `OTHERWISE` with the reason, and in the table of `mae_cli/answers/README.md`.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mae_cli.answers.choices import extract_choice
from mae_cli.answers.extract import extract_answer
from mae_cli.answers.numbers import read_number

filters = pytest.importorskip("lm_eval.filters.extraction")
CITIES = ("Paris", "London", "Rome", "Berlin")
VALUES = tuple(f"value {number}" for number in range(1, 11))
NAMES = ("Ann", "Tom", "Mia", "Raj", "Lee")
THINGS = ("apples", "pens", "miles", "tickets", "cookies")


class Made(NamedTuple):
    """A completion, the task it belongs to, its layout, the answer it states and the choices it is about."""

    task: str
    layout: str
    text: str
    stated: str
    choices: tuple[str, ...] = ()


NUMBERS = {
    "hashes": "{work}\n#### {n}",
    "hashes, words behind": "{work}\n#### {n}\n\nI hope this helps 3 of you.",
    "hashes, unit": "{work}\n#### {n} {thing}",
    "hashes, dollars": "{work}\n#### ${n}",
    "stated": "{work} The answer is {n}.",
    "stated, unit": "{work} The answer is {n} {thing}.",
    "stated, then more": "{work} The answer is {n} {thing}, so {name} is glad.",
    "stated, then a check": "{work} The answer is {n}. Check: {n} - 1 + 1 and 2 * 3 = 6.",
    "bold": "{work}\n\n**Answer:** {n} {thing}",
    "box": "{work} So the result is $\\boxed{{{n}}}$.",
    "only a sentence": "{work} So {name} has {n} {thing} left.",
    "run on": "{work}\n#### {n}\n\nQuestion: Bob has 3 dogs.\nAnswer: 3 + 2 = 5\n#### 5",
    "run on, other words": "{work} The answer is {n}.\n\nQ: Bob has 3 dogs.\nA: The answer is 5.",
}
LETTERS = {
    "stated": "{why} The answer is ({x}).",
    "stated, bare": "{why} The answer is {x}.",
    "stated with its text": "{why} The answer is ({x}) {text}.",
    "colon": "{why}\n\nAnswer: {x}",
    "bold": "{why}\n\n**The correct answer is ({x}) {text}.**",
    "letter first": "{x}. {text}",
    "brackets first": "({x})",
    "brackets first, then others": "({x}) is correct, ({other}) is wrong.",
    "stated, then others": "{why} The answer is ({x}). ({other}) is too small.",
    "denied first": "{why} The answer is not ({other}). The answer is ({x}).",
    "corrected": "The answer is ({other}). Wait, that is wrong. The answer is ({x}).",
    "box": "{why} $\\boxed{{{x}}}$",
    "option": "{why} So the correct option is {x}.",
    "text": "{text}",
    "run on": "The answer is ({x}).\n\nQuestion: Which is the largest?\nAnswer: The answer is ({other}).",
}


def completions() -> list[Made]:
    """400 completions, the same ones each time."""
    rng = random.Random(11)
    made = [*_numbers(rng, 150), *_letters(rng, "mmlu", CITIES, 120), *_letters(rng, "mmlu_pro", VALUES, 72)]
    return made + _of_languages(rng, 58)


def _numbers(rng: random.Random, count: int) -> list[Made]:
    found = []
    for index in range(count):
        layout = list(NUMBERS)[index % len(NUMBERS)]
        a, b = rng.randint(11, 999), rng.randint(11, 999)
        shown = rng.choice((str(a + b), f"{a + b + 1000:,}", f"{(a * 4 + b) / 4:.2f}"))
        values = {"name": rng.choice(NAMES), "thing": rng.choice(THINGS), "n": shown}
        work = f"{values['name']} has {a} {values['thing']} and gets {b} more on day 2."
        found.append(Made("gsm8k", layout, NUMBERS[layout].format(work=work, **values), shown))
    return found


def _letters(rng: random.Random, task: str, choices: tuple[str, ...], count: int) -> list[Made]:
    found = []
    for index in range(count):
        layout = list(LETTERS)[index % len(LETTERS)]
        place, other = rng.sample(range(len(choices)), 2)
        values = {"x": chr(65 + place), "other": chr(65 + other), "text": choices[place]}
        why = rng.choice(
            ("Let's think step by step. It is an old question.", "I compared all of them.", "We know the rule.")
        )
        found.append(Made(task, layout, LETTERS[layout].format(why=why, **values), values["x"], choices))
    return found


def _of_languages(rng: random.Random, count: int) -> list[Made]:
    """The sentence that each language of MMLU-ProX asks for, taken from the pattern that its filter looks for."""
    found = []
    for index in range(count):
        language = languages()[index % len(languages())]
        letter = rng.choice("ABCDEFGHJ")
        (pattern,) = [
            one["regex_pattern"] for one in task_filters(f"mmlu_prox/{language}/_{language}_template_yaml")[0]
        ]
        shown = (f"({letter})", letter)[index // len(languages()) % 2]
        sentence = pattern.replace("\\(?([ABCDEFGHIJ])\\)?", shown)
        found.append(Made(f"mmlu_prox_{language}", "asked sentence", f"1 + 1 = 2. {sentence}", letter, VALUES))
    return found


@cache
def folder() -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


@cache
def languages() -> list[str]:
    return sorted(
        path.name for path in (folder() / "mmlu_prox").iterdir() if (path / f"_{path.name}_template_yaml").exists()
    )


@cache
def task_filters(name: str) -> list[list[dict[str, Any]]]:
    """The filter pipelines of a task file, without `take_first`."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!function", lambda loader, suffix, node: None)
    tree = yaml.load((folder() / name).read_text("utf-8"), Loader)
    return [[step for step in one["filter"] if step["function"] != "take_first"] for one in tree["filter_list"]]


def read_by_harness(pipeline: list[dict[str, Any]], made: Made) -> str:
    """What a pipeline of filters takes, as the harness calls it: on the text up to its stop words."""
    text = re.split(r"Question:|Q:|</s>|<\|im_end\|>", made.text)[0]
    for step in pipeline:
        options = {key: value for key, value in step.items() if key != "function"}
        kind = {"regex": filters.RegexFilter, "multi_choice_regex": filters.MultiChoiceRegexFilter}[step["function"]]
        [[text]] = kind(**options).apply([[text]], [{"choices": list(made.choices)}])
    return text


PIPELINES = {
    "gsm8k": "gsm8k/gsm8k.yaml",
    "mmlu": "mmlu/flan_cot_zeroshot/_mmlu_flan_cot_zeroshot_template_yaml",
    "mmlu_pro": "mmlu_pro/_default_template_yaml",
}


def pipelines(made: Made) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    task, _, language = made.task.partition("mmlu_prox_")
    yield from enumerate(
        task_filters(f"mmlu_prox/{language}/_{language}_template_yaml" if language else PIPELINES[task])
    )


def is_stated(made: Made, answer: str | None) -> bool:
    """Whether an answer is the stated one, with the harness's own tolerance for punctuation and case."""
    if made.choices:
        return (answer or "").strip("()., ").upper() == made.stated
    bare = re.sub(r"[,$]|\.$", "", answer or "")
    return bare == made.stated.replace(",", "") or read_number(answer or "") == read_number(made.stated)


def read_by_us(made: Made) -> str | None:
    if not made.choices:
        return extract_answer(made.text).answer
    labels = [chr(65 + index) for index in range(len(made.choices))]
    return extract_choice(made.text, labels, made.choices).answer


# (task, which of its pipelines, layout): why the harness reads another answer there, or none.
OTHERWISE = {
    ("gsm8k", 0): ("the strict filter reads only a number directly behind four hashes", {
        "hashes, dollars", "stated", "stated, unit", "stated, then more", "stated, then a check", "bold", "box",
        "only a sentence", "run on, other words",
    }),
    ("gsm8k", 1): ("the flexible filter takes the last run of figures, points and dollar signs of the text", {
        "hashes, words behind", "stated, then a check", "box",
    }),
    ("mmlu", 0): ("the strict filter takes the rest of the line behind \"answer is\"", {
        "stated with its text", "colon", "bold", "letter first", "brackets first", "brackets first, then others",
        "stated, then others", "denied first", "corrected", "box", "option", "text",
    }),
    ("mmlu", 1): ("the flexible filter takes the last letter in brackets, else a text, else a letter behind a colon", {
        "stated, bare", "brackets first, then others", "stated, then others", "box", "option",
    }),
    ("mmlu_pro", 0): ("the filter takes the first \"answer is (X)\" and no other form", {
        "colon", "letter first", "brackets first", "brackets first, then others", "corrected", "box", "option", "text",
    }),
}  # fmt: skip


def test_there_are_four_hundred_completions_of_many_layouts() -> None:
    made = completions()

    assert len(made) == 400
    assert len({(one.task, one.layout) for one in made}) >= 60
    assert made == completions()


def test_we_read_every_stated_answer() -> None:
    assert [(one, read_by_us(one)) for one in completions() if not is_stated(one, read_by_us(one))] == []


def test_the_harness_reads_otherwise_where_the_table_says_so() -> None:
    lost: dict[tuple[str, int], set[str]] = {}
    found = Counter()
    for made in completions():
        for index, pipeline in pipelines(made):
            if is_stated(made, read_by_harness(pipeline, made)):
                found[made.task.partition("_prox")[0], index] += 1
                assert is_stated(made, read_by_us(made)), made
            else:
                lost.setdefault((made.task, index), set()).add(made.layout)

    assert lost == {key: layouts for key, (_, layouts) in OTHERWISE.items()}
    assert min(found.values()) >= 8
