"""The commands about whole runs: run, list, diff, trace, export."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mae_cli.cli.command import is_dry_run, open_command, print_json
from mae_cli.cli.options import Common, with_options
from mae_cli.recipe.sections import Recipe

_PANEL: dict[str, Any] = {"show_default": False}


def export(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="run, round or adapter folder", **_PANEL)],
    output: Annotated[Path, typer.Option("-o", "--output", help="model folder to write", **_PANEL)],
    merge: Annotated[bool, typer.Option("--merge", help="write a plain model folder")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="write that, then a GGUF with llama.cpp's converter")] = False,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="the base; default: the run's or adapter's")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="hub revision of the base")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="saved weights [float32|bfloat16|float16]")] = "float32",
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0.0, help="largest difference of a logit that counts as equal")
    ] = 1e-4,
    llama_cpp: Annotated[
        Path | None, typer.Option("--llama-cpp", metavar="DIR", help="folder with convert_hf_to_gguf.py")
    ] = None,
    outtype: Annotated[str, typer.Option("--outtype", help="number format of the GGUF: f32, f16, bf16, q8_0")] = "f16",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="move an existing folder aside")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="say nothing on success")] = False,
    json: Annotated[bool, typer.Option("--json", help="end with one JSON object on standard output")] = False,
) -> None:
    """Merge an adapter into its base, checked, as a model folder or GGUF.

    Example: mae export runs/demo-0 -o merged --merge
    """
    from mae_cli.runs.export import check_request, run_export
    from mae_cli.stages.generation.progress import Progress

    summary = run_export(
        source,
        output,
        model=model,
        revision=revision,
        dtype=check_request(dtype, merge=merge, gguf=gguf),
        gguf=gguf,
        llama_cpp=llama_cpp,
        outtype=outtype,
        tolerance=tolerance,
        overwrite=overwrite,
        progress=Progress(quiet=quiet),
    )
    if not quiet:
        print(summary.line(), file=sys.stderr)
    if json:
        print_json(summary)


def trace(
    identity: Annotated[str, typer.Argument(metavar="ID", help="id of a row, or its first letters", **_PANEL)],
    run_dir: Annotated[Path, typer.Option("--run-dir", help="folder of the run", **_PANEL)],
    json: Annotated[bool, typer.Option("--json", help="one JSON object instead of text")] = False,
) -> None:
    """Where a row comes from, and which adapters saw it.

    Example: mae trace 3d1e1b00 --run-dir runs/demo-0
    """
    from mae_cli.runs.views.trace import trace_row, trace_text

    found = trace_row(run_dir, identity)
    if json:
        print_json(found)
    else:
        print(trace_text(found))


@with_options(None)
def run(
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help="recipe file, or a shipped one's name")],
    run_dir: Annotated[Path, typer.Option("--run-dir", help="folder of the run", show_default=False)],
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="STEP|HH:MM", help="stop after this step of the first unfinished round, or at this time"
        ),
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="go on although the lock names a process of another machine")
    ] = False,
    *,
    recipe: Recipe,
    common: Common,
) -> None:
    """All steps of a recipe for N rounds, resumable.

    Example: mae run quickstart --run-dir runs/first
    """
    from mae_cli.cli.run_outcome import announcer, carry_out
    from mae_cli.recipe.files import find_recipe
    from mae_cli.runs.loop import Run

    job = open_command(recipe, common, None)
    path = find_recipe(recipe_name)
    make = partial(Run, job, run_dir, path, until=until, take_over=take_over, announce=announcer(common))
    if common.dry_run:
        make().check_inputs()
    if not is_dry_run(job, common):
        carry_out(make, run_dir, common)


def list_command(
    kind: Annotated[
        str, typer.Argument(help="verifiers, filters, ... or recipes, prompts, suites, keys, adapters, steps, rules")
    ] = "kinds",
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="run whose adapters (or rules) are listed")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-c", help="recipe whose steps (or rules) are listed")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="over the recipe")] = None,
    round_number: Annotated[int, typer.Option("--round", min=0, help="round whose rules are listed")] = 1,
) -> None:
    """What can be named in a recipe, the steps of one, or the adapters of a run.

    Example: mae list verifiers
    """
    from mae_cli.cli.listing import listing, of_recipe, of_run

    if kind == "adapters":
        print(of_run(run_dir))
    elif kind in ("steps", "rules"):
        print(of_recipe(kind, recipe, settings or [], run_dir, round_number))
    else:
        print(listing(kind))


def diff(
    first: Annotated[Path, typer.Argument(help="run folder or eval file", show_default=False)],
    second: Annotated[Path | None, typer.Argument(help="another; without it the policies of one file")] = None,
    num_examples: Annotated[int, typer.Option("--examples", min=0, help="examples of each kind")] = 2,
    json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """What changed between two runs or eval files: settings, items won and lost, significance.

    Example: mae diff runs/first runs/second
    """
    from mae_cli.runs.views.diff import difference, difference_text

    found = difference(first, second, num_examples=num_examples)
    if json:
        print_json(found)
    else:
        print(difference_text(found))
