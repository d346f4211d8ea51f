"""Every effective key of a recipe with its value and its origin: default, a line of the file, a step, or `--set`.

Place in the flow: `mae recipe show` prints what is found here. Contract: values come from `load_recipe` alone, so what
is shown is what runs; the text is a recipe again, and loads to the same values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.load import load_recipe, set_value
from mae_cli.recipe.sections import SECTIONS, Recipe
from mae_cli.recipe.steps import Step, recipe_of_step, steps_of, written

Kind = Literal["default", "file", "set"]
_FLOAT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")


class Key(msgspec.Struct, frozen=True):
    """One effective key."""

    key: str
    """Dotted, as `--set` names it."""
    value: Any
    origin: Kind
    place: str
    """`default`, `FILE:LINE`, or `--set KEY=VALUE`; both of the last where `--set` changed a part of the file's."""


class ShownStep(msgspec.Struct, frozen=True):
    """One step of the pipeline with every key that holds for it."""

    position: int
    stage: str
    name: str
    place: str
    own: list[Key]
    """Keys that the step has of its own, its `name`, `from`, `when` and `every` among them."""
    keys: list[Key]
    """All keys of its stage's section as they hold for this step."""


class Shown(msgspec.Struct, frozen=True):
    """A whole recipe, key by key."""

    recipe: str
    keys: list[Key]
    steps: list[ShownStep]


def show_recipe(path: Path, settings: Sequence[str] = ()) -> Shown:
    """Return every key of a recipe and of its steps, with its origin.

    Raises:
        ConfigError: as `load_recipe`.
    """
    recipe = load_recipe(path, settings)
    origins = _Origins(path, settings)
    tree = msgspec.to_builtins(recipe)
    keys: list[Key] = []
    for name, _, _, _ in section_fields(Recipe):
        value = tree[name]
        if name in SECTIONS:
            keys += [origins.key(f"{name}.{key}", one) for key, one in value.items()]
        elif name == "roles" and value:
            for role, own in value.items():
                keys += [origins.key(f"roles.{role}.{key}", one) for key, one in own.items() if one is not UNSET]
                keys += [] if own else [origins.key(f"roles.{role}", {})]
        else:
            keys.append(origins.key(name, value))
    steps = [_shown_step(recipe, step, origins) for step in steps_of(recipe)]
    return Shown(str(path), keys, steps)


def _shown_step(recipe: Recipe, step: Step, origins: _Origins) -> ShownStep:
    entry = written(step)
    own = [] if isinstance(entry, str) else [origins.step_key(step, k, v) for k, v in entry[step.stage].items()]
    by_name = {one.key.rpartition(".")[2]: one for one in own}
    section = msgspec.to_builtins(getattr(recipe_of_step(recipe, step), step.stage))
    keys = [
        by_name[key] if key in step.settings else origins.key(f"{step.stage}.{key}", value)
        for key, value in section.items()
    ]
    keys = [Key(one.key, section[name], one.origin, one.place) for name, one in zip(section, keys, strict=True)]
    return ShownStep(step.position, step.stage, step.name, origins.step_place(step), own, keys)


class _Origins:
    """Where the keys of one recipe file and its `--set` texts stand."""

    def __init__(self, path: Path, settings: Sequence[str]) -> None:
        self._path = path
        self._lines = _lines_of(path)
        self._settings = [(text.partition("=")[0].strip(), text) for text in settings]

    def key(self, dotted: str, value: Any) -> Key:
        return self._found(dotted, [tuple(dotted.split("."))], [dotted], value)

    def step_key(self, step: Step, key: str, value: Any) -> Key:
        """A key that a step has of its own; `--set STAGE.KEY` reaches it too."""
        places = [("pipeline", str(step.position), step.stage, key)]
        return self._found(f"{step.name}.{key}", places, [f"{step.name}.{key}", f"{step.stage}.{key}"], value)

    def step_place(self, step: Step) -> str:
        """Where the step stands."""
        line = self._lines.get(("pipeline", str(step.position)))
        changed = [text for key, text in self._settings if key == "pipeline"]
        if changed:
            return f"--set {changed[-1]}"
        return f"{self._path}:{line}" if line else "default"

    def _found(self, dotted: str, places: Sequence[tuple[str, ...]], names: list[str], value: Any) -> Key:
        line = next((self._lines[place] for place in places if place in self._lines), None)
        place = f"{self._path}:{line}" if line else ""
        parts: list[str] = []
        for key, text in self._settings:
            if key in names or any(name.startswith(f"{key}.") and _names(text, name, key) for name in names):
                place, parts = "", [text]
            elif any(key.startswith(f"{name}.") for name in names):
                parts.append(text)
        told = [*([place] if place else []), *(f"--set {text}" for text in parts)]
        kind: Kind = "set" if parts else "file" if place else "default"
        return Key(dotted, value, kind, ", ".join(told) or "default")


def _names(text: str, name: str, key: str) -> bool:
    """Whether `--set solve={a: 1}` (or `--set pipeline=...`) names this key inside its value."""
    value = set_value(text)[1]
    for part in name.removeprefix(f"{key}.").split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _lines_of(path: Path) -> dict[tuple[str, ...], int]:
    """Line of each key of a YAML file, by its path; steps of the pipeline count from 1."""
    import yaml

    root = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    return dict(_walk(root, ())) if root is not None else {}


def _walk(node: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    yield from _walk(merged, above)
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                inner = (*above, str(key.value))
                yield inner, key.start_mark.line + 1
                yield from _walk(value, inner)
    elif isinstance(node, yaml.SequenceNode) and above == ("pipeline",):
        for position, entry in enumerate(node.value, 1):
            inner = (*above, str(position))
            yield inner, entry.start_mark.line + 1
            yield from _walk(entry, inner)


# ---- as text


def recipe_text(shown: Shown) -> str:
    """Return the recipe as YAML, a comment behind each key that says where it comes from; it loads to the same."""
    lines = [f"# {_plain(shown.recipe)}: every key that holds, and where it comes from"]
    section = ""
    for one in shown.keys:
        *above, name = one.key.split(".")
        if one.key == "pipeline":
            lines += ["pipeline:", *_pipeline_lines(shown.steps)]
            continue
        if above and above[0] != section:
            lines.append(f"{above[0]}:")
        section = above[0] if above else ""
        if above and above[0] == "roles":
            head = f"  {above[1]}:" if len(above) > 1 else ""
            if head and head not in lines[_last(lines, "roles:") :]:
                lines.append(head)
        lines.append(_line("  " * len(above), name, one))
    return "\n".join(lines)


def _pipeline_lines(steps: Sequence[ShownStep]) -> Iterator[str]:
    for step in steps:
        if not step.own:
            yield f"  - {step.stage}  # {_plain(step.place)}"
            continue
        yield f"  - {step.stage}:  # {_plain(step.place)}; keys not named here: section {step.stage}"
        for one in step.own:
            yield _line("      ", one.key.rpartition(".")[2], one)


def _last(lines: Sequence[str], wanted: str) -> int:
    return len(lines) - 1 - list(reversed(lines)).index(wanted)


def _line(indent: str, name: str, one: Key) -> str:
    return f"{indent}{_yaml(name)}: {_yaml(one.value)}  # {_plain(one.place)}"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _yaml(value: Any) -> str:
    """Return a value on one line of YAML, as `load_recipe` reads it back."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what our loader would take for a number, and keeps a text with line breaks on one line."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, data: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style='"' if "\n" in data else None)

    Dumper.add_representer(str, text)
    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    dumped = yaml.dump(
        [value], Dumper=Dumper, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False
    )
    return dumped.strip()[1:-1]
