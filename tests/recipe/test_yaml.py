"""Recipes as people write them: each value is what its writer meant, or is refused with its line.

Kinds from public reports: snowflakedb/ArcticTraining#85 (octal, 1:30), yaml/pyyaml#173 and calliope-project/calliope#57
(1e-5 as text), adrienverge/yamllint#495, and the "Norway problem" of YAML 1.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mae_cli.errors import ConfigError
from mae_cli.recipe.load import load_recipe
from mae_cli.recipe.sections import Recipe


def read(folder: Path, text: str | bytes, *settings: str) -> Recipe:
    path = folder / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe(path, settings)


def refused(folder: Path, text: str | bytes, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *settings)
    assert "\n" not in str(caught.value).strip()
    return str(caught.value).replace(str(folder / "r.yaml"), "r.yaml")


def value_of(recipe: Any, key: str) -> Any:
    for name in key.split("."):
        recipe = recipe[name] if isinstance(recipe, dict) else getattr(recipe, name)
    return recipe


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        # numbers
        ("finetune: {learning_rate: 1e-5}", "finetune.learning_rate", 1e-5),
        ("finetune: {learning_rate: 5E-4}", "finetune.learning_rate", 5e-4),
        ("finetune: {learning_rate: 1.e-5}", "finetune.learning_rate", 1e-5),
        ("finetune: {learning_rate: .5e-3}", "finetune.learning_rate", 5e-4),
        ("finetune: {learning_rate: +2e-05}", "finetune.learning_rate", 2e-5),
        ("finetune: {learning_rate: 1}", "finetune.learning_rate", 1.0),
        ("finetune: {lora_r: 16.0}", "finetune.lora_r", 16),
        ("solve: {max_new_tokens: 1e3}", "solve.max_new_tokens", 1000),
        ("finetune: {max_length: 1_000}", "finetune.max_length", 1000),
        ("seed: 0o10", "seed", 8),
        ("seed: 0x1F", "seed", 31),
        ("seed: 0", "seed", 0),
        ("seed: +7", "seed", 7),
        # words that YAML 1.1 takes for something else
        ("revision: no", "revision", "no"),
        ("revision: on", "revision", "on"),
        ("revision: 0123456", "revision", "0123456"),
        ("revision: 12345678", "revision", "12345678"),
        ("revision: 25921e05", "revision", "25921e05"),
        ("revision: 1:30", "revision", "1:30"),
        ("revision: 2024-01-01", "revision", "2024-01-01"),
        ("revision: true", "revision", "true"),
        ("revision: 1.10", "revision", "1.10"),
        ("revision: 0o17", "revision", "0o17"),
        ("revision: ~", "revision", None),
        ("revision: null", "revision", None),
        ("revision: none", "revision", None),
        ("revision:", "revision", None),
        ('revision: "null"', "revision", "null"),
        ("model: 1e5", "model", "1e5"),
        ("solve: {stop: [no, 1, 1e3, 010, 12:30, ~x]}", "solve.stop", ["no", "1", "1e3", "010", "12:30", "~x"]),
        ('solve: {stop: ["\\n", "a\\tb"]}', "solve.stop", ["\n", "a\tb"]),
        ("think_tags: [<yes>, </yes>]", "think_tags", ["<yes>", "</yes>"]),
        ("engine: scripted:accuracy=0.5", "engine", "scripted:accuracy=0.5"),
        # true and false
        ("finetune: {full: yes}", "finetune.full", True),
        ("finetune: {full: Off}", "finetune.full", False),
        ("finetune: {full: TRUE}", "finetune.full", True),
        # keys are texts, values below free mappings keep their kind
        ("chat_template_kwargs: {yes: no, 1: 2, no: 1e-2, off: 1:30, d: 2024-01-01, n: ~}",
         "chat_template_kwargs", {"yes": False, "1": 2, "no": 0.01, "off": "1:30", "d": "2024-01-01", "n": None}),
        ("filter: {filters: [{name: length, a: 1e2}]}", "filter.filters", [{"name": "length", "a": 100.0}]),
        # anchors and merges
        ("solve: &s {top_k: 3, temperature: 0.5}\neval: {<<: *s, top_k: 4}", "eval.top_k", 4),
        ("solve: &s {top_k: 3, temperature: 0.5}\neval: {<<: *s, top_k: 4}", "eval.temperature", 0.5),
        ("solve: &s {top_k: 3}\njudge: &j {top_p: 0.5}\neval: {<<: [*s, *j]}", "eval.top_p", 0.5),
        ("solve: &s {top_k: 3}\njudge: *s", "judge.top_k", 3),
        # files as editors leave them
        ("\ufeffseed: 3", "seed", 3),
        ("seed: 3\r\nrounds: 2\r\n", "rounds", 2),
        ("---\nseed: 3\n", "seed", 3),
        ("%YAML 1.2\n---\nseed: 3\n...\n", "seed", 3),
        ("# nothing\n", "seed", 0),
        ("", "seed", 0),
        ("solve:\n", "solve.temperature", 1.0),
        ("solve: !!map {temperature: !!float 1}", "solve.temperature", 1.0),
        ('model: !!str 7', "model", "7"),
        ("model: >-\n  folded\n  text\n", "model", "folded text"),
    ],
)  # fmt: skip
def test_a_value_is_what_its_writer_meant(tmp_path: Path, text: str, key: str, value: object) -> None:
    found = value_of(read(tmp_path, text), key)

    assert (found, type(found)) == (value, type(value))


def test_a_recipe_in_utf_16_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "seed: 3\n".encode("utf-16")).seed == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solve: {top_k: 1}\nseed: 1\nsolve: {top_p: 0.5}", 'r.yaml:3: "solve" stands on line 1 too'),
        ("solve:\n  top_k: 1\n  top_k: 2\n", 'r.yaml:3: "solve.top_k" stands on line 2 too'),
        ("seed: 1\n'seed': 2\n", 'r.yaml:2: "seed" stands on line 1 too'),
        ("chat_template_kwargs: {a: 1, a: 1}", '"chat_template_kwargs.a" stands on line 1 too'),
        ("pipeline: [{judge: {name: a, name: b}}]", '"pipeline[1].judge.name" stands on line 1 too'),
        ("seed: 010", 'r.yaml:1: seed: 010 is 8 to some readers of YAML and 10 to others'),
        ("rounds: 2\nseed: -007", "r.yaml:2: seed: -007 is"),
        ("filter: {filters: [{name: length, max_tokens: 0100}]}", "0100 is 64 to some"),
        ("solve: {max_new_tokens: 1:30}", "solve.max_new_tokens: expected int"),
        ("solve: {temperature: 1:30.5}", "solve.temperature: expected float"),
        ("solve: {temperature: .inf}", "solve.temperature: expected a finite number"),
        ("solve: {temperature: .nan}", "r.yaml:1: solve.temperature: expected float >= 0"),
        ("solve: {temperature: 1e999}", "solve.temperature: expected a finite number"),
        ("finetune: {learning_rate: .inf}", "finetune.learning_rate: expected a finite number"),
        ("finetune: {objective: {name: grpo, clip: -.INF}}", "finetune.objective.clip: expected a finite number"),
        ("solve: {temperature: inf}", "solve.temperature: expected float, got str"),
        ("solve: {temperature: 1e-30}", "solve.temperature: 1e-30 is too small to divide by; 0 is greedy"),
        ("pipeline: [{solve: {temperature: 1e-30}}]", "temperature: 1e-30 is too small to divide by"),
        ("seed: -1", "seed: expected int >= 0"),
        ("seed: 18446744073709551616", "seed: expected a number below 2**63"),
        ("seed: 9223372036854775808", "seed: expected a number below 2**63"),
        ("seed: 1.5", "seed: expected int, got float"),
        ("seed: true", "seed: expected int, got bool"),
        ('seed: "5"', "seed: expected int, got str"),
        ("batch_size: 0", "batch_size: expected int >= 1"),
        ("batch_size: -4", "batch_size: expected int >= 1"),
        ("max_concurrent: 0", "max_concurrent: expected int >= 1"),
        ("timeout_seconds: 0", "timeout_seconds: expected float > 0"),
        ("solve: {max_new_tokens: 0}", "solve.max_new_tokens: expected int >= 1"),
        ("solve: {rollouts_per_problem: 0}", "solve.rollouts_per_problem: expected int >= 1"),
        ("solve: {top_k: -1}", "solve.top_k: expected int >= 0"),
        ("solve: {top_p: 0}", "solve.top_p: expected float > 0"),
        ("solve: {top_p: 1.01}", "solve.top_p: expected float <= 1"),
        ("solve: {temperature: -1}", "solve.temperature: expected float >= 0"),
        ("finetune: {lora_dropout: 1.5}", "finetune.lora_dropout: expected float <= 1"),
        ("model:", "model: expected str, got null"),
        ("solve: [a]", '"solve" is a section; found'),
        ("- a", "expected a mapping of sections, found list"),
        ("text", "expected a mapping of sections, found str"),
        ("yes: 1", 'unknown key "yes"'),
        ("1: 2", 'unknown key "1"'),
        ("? [a]\n: 1", "r.yaml:1: a key is a text"),
        ("a: 1\n---\nb: 2\n", "r.yaml:2: a second document"),
        ("solve:\n\ttop_k: 1", "r.yaml:2: not YAML"),
        ("model: “x”", "r.yaml:1: model: “x” has typographic quotes"),
        ("seed: !!python/object:os.system 1", "r.yaml:1: not YAML: the tag"),
        ("seed: !secret x", "r.yaml:1: not YAML: the tag"),
        ("a: &a [*a]", "nested too deeply"),
        ("x: " + "[" * 2000, "r.yaml"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)),
         "too many values"),
        ("seed: 1\x00", "not YAML"),
        ('model: "a\\0b"', "model: holds a zero byte"),
        ("seed: 1\nsolve: {a: [}\n", "r.yaml:2: not YAML: "),
        (b"seed: \xff\n", "not YAML"),
        ("solve: {<<: 3}", "r.yaml:1: << merges mappings"),
    ],
)  # fmt: skip
def test_what_has_two_readings_or_none_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("finetune.learning_rate=1e-5", "finetune.learning_rate", 1e-5),
        ("revision=010", "revision", "010"),
        ("revision=no", "revision", "no"),
        ("revision=a=b=c", "revision", "a=b=c"),
        ('revision="quoted"', "revision", "quoted"),
        ("solve.stop=['a=b', no]", "solve.stop", ["a=b", "no"]),
        ('solve.stop=["\\n"]', "solve.stop", ["\n"]),
        ("finetune.full=yes", "finetune.full", True),
        ("chat_template_kwargs.enable_thinking=false", "chat_template_kwargs", {"enable_thinking": False}),
        ("finetune.lora_r=8.0", "finetune.lora_r", 8),
        ("solve={temperature: 1e-1, stop: [off]}", "solve.stop", ["off"]),
        ("chat_template_kwargs.date=2024-01-01", "chat_template_kwargs", {"date": "2024-01-01"}),
    ],
)
def test_a_value_of_set_is_read_as_in_a_file(tmp_path: Path, setting: str, key: str, value: object) -> None:
    assert value_of(read(tmp_path, "", setting), key) == value


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed=010", "--set seed=010: seed: 010 is 8 to some"),
        ("solve.temperature=.inf", "--set solve.temperature=.inf: solve.temperature: expected a finite number"),
        ("solve.temperature=1e-300", "1e-300 is too small"),
        ("solve={top_k: 1, top_k: 2}", "stands on line 1 too"),
        ("seed", "expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("solve..top_k=3", "expected section.key=value"),
    ],
)
def test_a_value_of_set_is_refused_as_in_a_file(tmp_path: Path, setting: str, message: str) -> None:
    assert message in refused(tmp_path, "", setting)


def test_what_is_refused_by_a_flag_is_named_by_the_flag() -> None:
    for value in ("inf", "nan", "-inf", "1e-30"):
        with pytest.raises(ConfigError, match=r"^--temperature: solve\.temperature: "):
            load_recipe(None, (), {"solve.temperature": float(value)})
