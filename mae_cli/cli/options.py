"""Command-line options made from the recipe's own fields, so that a flag, its help and its key cannot drift apart.

Every scalar field of a section is a flag of its command; the keys above the sections are flags of every command.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import typer

from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.load import load_recipe
from mae_cli.recipe.sections import SECTIONS, Recipe

SHORT = {"model": "-m", "temperature": "-T"}
# Of the keys above the sections, those that make sense for one stage; the rest belong to `mae run`.
COMMON = (
    "model",
    "revision",
    "adapter",
    "engine",
    "base_url",
    "api_key_env",
    "max_concurrent",
    "timeout_seconds",
    "device",
    "dtype",
    "batch_size",
    "seed",
    "chat_template",
)
# A command without a model takes no model's flags, and training none of a server's: nothing is accepted without effect.
NOT_TAKEN: dict[str, frozenset[str]] = {
    "filter": frozenset(COMMON) - {"seed"},
    "finetune": frozenset({"base_url", "api_key_env", "max_concurrent", "timeout_seconds"}),
}
OWN_BATCH = "finetune__batch_size"
GENERATING = ("propose", "solve", "judge", "calibrate", "eval")
RETRYING = ("propose", "solve", "judge", "eval")


class Common(msgspec.Struct):
    """The flags every stage has that are not recipe keys."""

    recipe: str | None = None
    settings: list[str] = []
    step: str | None = None
    limit: int | None = None
    shard: str | None = None
    devices: str | None = None
    round_number: int = 1
    dry_run: bool = False
    overwrite: bool = False
    allow_incomplete: bool = False
    retry_failed: bool = False
    quiet: bool = False
    json: bool = False


_PLAIN: dict[str, tuple[Any, Any]] = {
    "recipe": (str | None, typer.Option("--recipe", "-c", help="recipe file, or the name of a shipped one")),
    "settings": (list[str], typer.Option("--set", help="section.key=value, over the recipe", metavar="KEY=VALUE")),
    "step": (str | None, typer.Option("--step", metavar="NAME", help="which step of the recipe's pipeline")),
    "limit": (int | None, typer.Option("--limit", min=1, help="work on the first N input rows only")),
    "shard": (str | None, typer.Option("--shard", metavar="I/N", help="do part I of N only; see mae data merge")),
    "devices": (
        str | None,
        typer.Option("--devices", metavar="LIST", help="a worker process per device: all, N, cuda:0,cuda:1 or cpu:2"),
    ),
    "round_number": (int, typer.Option("--round", min=0, help="round the rows belong to")),
    "dry_run": (bool, typer.Option("--dry-run", help="check everything, generate nothing, write nothing")),
    "overwrite": (bool, typer.Option("--overwrite", help="move an existing output aside and begin anew")),
    "allow_incomplete": (bool, typer.Option("--allow-incomplete", help="read the output of an interrupted command")),
    "retry_failed": (bool, typer.Option("--retry-failed", help="ask again for rows that ended in an error, no others")),
    "quiet": (bool, typer.Option("--quiet", "-q", help="say nothing on success")),
    "json": (bool, typer.Option("--json", help="end with one JSON object on standard output")),
}


def _flag_type(kind: Any) -> tuple[Any, str] | None:
    """(type of the flag, note for its help) of a recipe field; none where it can only be given with --set."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        if set(inner) == {str, dict[str, Any]}:
            return str | None, ""
        if len(inner) == 1:
            return _flag_type(inner[0])
        if set(inner) == {str, list[str]}:
            return list[str] | None, ""
        return str | None, ""
    if get_origin(kind) is Literal:
        return str | None, " [" + "|".join(get_args(kind)) + "]"
    if get_origin(kind) is list:
        return list[str] | None, ""
    if get_origin(kind) is dict:
        return None
    if isinstance(kind, type) and issubclass(kind, (bool, int, float, str)):
        return kind | None, ""
    return None


def _recipe_options(prefix: str, struct: type[msgspec.Struct], only: tuple[str, ...] | None) -> dict[str, Any]:
    """Parameter name -> (dotted key, annotation)."""
    found: dict[str, Any] = {}
    for name, kind, doc, default in section_fields(struct):
        if only is not None and name not in only:
            continue
        if prefix and (name in COMMON or name in _PLAIN) and f"{prefix}{name}" != OWN_BATCH:
            continue  # eval.limit is another thing than the flag of that name: use --set
        flag_type = _flag_type(kind)
        if flag_type is None:
            continue
        declared, note = flag_type
        flag = "--" + name.replace("_", "-")
        names = [flag, *([SHORT[name]] if name in SHORT else [])]
        if declared == bool | None:
            names = [f"{flag}/--no-{flag[2:]}"]
        shown = "" if default in (None, [], "") or isinstance(default, dict) else f" [default: {default}]"
        option = typer.Option(*names, help=f"{doc}{note}{shown}", show_default=False)
        found[f"{prefix}{name}"] = (f"{prefix}{name}".replace("__", "."), Annotated[declared, option])
    return found


def with_options(section: str | None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of its section and the common ones.

    The wrapped function gets its own parameters, then `recipe` (a checked `Recipe`) and `common` (a `Common`).
    """
    # Training generates nothing, so its --batch-size is the rows of an optimizer step.
    left_out = NOT_TAKEN.get(section or "", frozenset())
    common = tuple(name for name in COMMON if name not in left_out and f"{section}__{name}" != OWN_BATCH)
    options = _recipe_options("", Recipe, common if section else None)
    if section is not None:
        options |= _recipe_options(f"{section}__", dict(section_structs())[section], None)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            function(**_arguments(section, options, values))

        parameters = _parameters(function, section, options)
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__doc__ = function.__doc__
        command.__name__ = function.__name__
        return command

    return decorate


def _arguments(section: str | None, options: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """What the command's function is called with, from all flags as they were parsed."""
    plain = {name: values.pop(name) for name in _PLAIN if name in values}
    flags = {options[name][0]: values.pop(name) for name in list(options) if name in values}
    flags = {key: value for key, value in flags.items() if value not in (None, [], ())}
    for key in ("batch_size", "max_concurrent"):
        if isinstance(flags.get(key), str) and flags[key].isdigit():
            flags[key] = int(flags[key])
    if section is None:  # `mae run RECIPE`: its recipe is an argument
        plain["recipe"] = values["recipe_name"]
    common = Common(**plain)
    return {**values, "recipe": _load(common, flags), "common": common}


def _parameters(function: Callable[..., None], section: str | None, options: dict[str, Any]) -> list[inspect.Parameter]:
    """The command's own parameters, then its recipe options, then the plain flags that make sense for it."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    declared = inspect.signature(function, eval_str=True).parameters.values()
    own = [parameter.replace(kind=keyword) for parameter in declared if parameter.name not in ("recipe", "common")]
    taken = {parameter.name for parameter in own}
    recipe = [
        inspect.Parameter(name, keyword, default=None, annotation=annotation)
        for name, (_, annotation) in options.items()
    ]
    plain = [
        inspect.Parameter(name, keyword, default=getattr(Common(), name), annotation=Annotated[kind, option])
        for name, (kind, option) in _PLAIN.items()
        if name not in taken and _takes(section, name)
    ]
    return [*own, *recipe, *plain]


def _takes(section: str | None, flag: str) -> bool:
    """Whether a plain flag makes sense for the command of this section; none is `mae run`."""
    if flag == "shard":
        return section in GENERATING
    if flag == "retry_failed":
        return section in RETRYING
    if section is not None and flag in ("limit", "step"):
        return section != {"limit": "finetune", "step": "calibrate"}[flag]
    if flag == "devices":
        return section in (*GENERATING, None)
    return section is not None or flag not in ("recipe", "step", "round_number", "limit")


def _load(common: Common, flags: dict[str, Any]) -> Recipe:
    from mae_cli.recipe.files import find_recipe

    path: Path | None = find_recipe(common.recipe) if common.recipe else None
    return load_recipe(path, common.settings, flags)


def section_structs() -> list[tuple[str, type[msgspec.Struct]]]:
    """The sections and their structs, in the order of the stages."""
    kinds = {name: kind for name, kind, _, _ in section_fields(Recipe)}
    return [(name, kinds[name]) for name in SECTIONS]
