"""The commands `mae data ...`: results are printed on standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mae_cli.cli.group import Group

data_app = typer.Typer(cls=Group, help="Make, import and describe problem files.", no_args_is_help=True)
Out = Annotated[Path, typer.Option("-o", "--output", help="output file", show_default=False)]


@data_app.command("make")
def data_make(
    name: Annotated[str, typer.Argument(help="arithmetic, or gym:NAME,NAME,... of reasoning-gym")],
    train: Annotated[Path, typer.Option("--train", help="file for the training problems", show_default=False)],
    held_out: Annotated[Path, typer.Option("--held-out", help="file for the held-out problems", show_default=False)],
    gate: Annotated[Path | None, typer.Option("--gate", help="file for problems that decide about promotion")] = None,
    num_train: Annotated[int, typer.Option("--num-train", min=1, help="training problems")] = 600,
    num_held_out: Annotated[int, typer.Option("--num-held-out", min=1, help="held-out problems")] = 200,
    num_gate: Annotated[int, typer.Option("--num-gate", min=1, help="gate problems, where --gate names a file")] = 60,
    seed: Annotated[int, typer.Option("--seed", help="the set is a function of it")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace existing files")] = False,
) -> None:
    """Build a problem set from a generator; train, held-out and gate share no problem.

    Example: mae data make arithmetic --train t.jsonl ...
    """
    from mae_cli.data.make import make_set

    numbers = {"num_train": num_train, "num_held_out": num_held_out, "num_gate": num_gate}
    print(make_set(name, train, held_out, gate, **numbers, seed=seed, replace=overwrite))


@data_app.command("import")
def data_import(
    source: Annotated[
        str, typer.Argument(help="JSONL, JSON, CSV, TSV or parquet file, or hub:ORG/NAME[/CONFIG][:SPLIT] of the hub")
    ],
    output: Out,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=COLUMN,...", help="columns of question, answer, choices, passage"),
    ] = None,
    encoding: Annotated[str | None, typer.Option("--encoding", help="of a text file that is not UTF-8: cp1252")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="take the first N problems only")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing file")] = False,
) -> None:
    """Turn the rows of a public set, or of a table of your own, into a problem file.

    Example: mae data import questions.csv -o problems.jsonl --map question=Frage,answer=Loesung
    """
    from mae_cli.data.imports import import_set, parse_fields

    fields = parse_fields(columns or [])
    for line in import_set(source, output, limit=limit, replace=overwrite, fields=fields, encoding=encoding):
        print(line, file=sys.stderr)


@data_app.command("convert")
def data_convert(
    source: Annotated[Path, typer.Argument(help="training file of any known format, or records of a stage")],
    output: Out,
    to: Annotated[str, typer.Option("--to", help="messages, prompt-completion, preference, sharegpt or alpaca")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing file")] = False,
) -> None:
    """Write a training file in the format of another tool; what that cannot hold is refused, never dropped.

    Of records, the rows that would be trained are written; as preference, best against worst of each group.

    Example: mae data convert selected.jsonl -o train.jsonl --to messages
    """
    from mae_cli.data.convert import convert

    print(convert(source, output, to, replace=overwrite), file=sys.stderr)


@data_app.command("pools")
def data_pools(
    folder: Annotated[Path, typer.Argument(help="folder of the round, e.g. runs/mine/round-002")],
    recipe_name: Annotated[str, typer.Option("--recipe", "-c", help="recipe file or name", show_default=False)],
    before: Annotated[Path | None, typer.Option("--before", help="folder of the round before; none in round 1")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="section.key=value, over the recipe")
    ] = None,
) -> None:
    """Write the question and pair pools of a round, as `mae run` does."""
    from mae_cli.recipe.files import find_recipe
    from mae_cli.recipe.load import load_recipe
    from mae_cli.runs.round_pools import write_pools

    path = find_recipe(recipe_name)
    write_pools(load_recipe(path, settings or []), path, folder, before)


@data_app.command("merge")
def data_merge(
    shards: Annotated[list[Path], typer.Argument(help="all outputs of one command with --shard 1/N to N/N")],
    output: Out,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="move an existing output aside")] = False,
) -> None:
    """Put the shards of one command together, as one process would have written them.

    Example: mae data merge part-*.jsonl -o rollouts.jsonl
    """
    from mae_cli.records.merge_shards import merge_shards

    merged = merge_shards(shards, output, overwrite=overwrite)
    done = f"{merged.shards} shards, {merged.rows} rows -> {output}" if merged.is_new else f"{output} is up to date"
    figures = "; the same mae eval without --shard prints the figures" if merged.stage == "eval" else ""
    print(f"merge: {merged.stage}: {done}{figures}", file=sys.stderr)


@data_app.command("features")
def data_features() -> None:
    """The record schema as `datasets` features, for load_dataset("json", features=Features.from_dict(...))."""
    from mae_cli.data.features import record_features

    print(msgspec.json.format(msgspec.json.encode(record_features()), indent=1).decode())
