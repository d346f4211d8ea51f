"""`mae export`: an adapter merged into its base as a plain model folder, and the GGUF of that folder.

What was trained as a whole needs no merging: it is written in the asked type and compared with what was trained.

Takes a run folder (its best, else accepted, else latest round), a round's folder or an adapter's. The folder appears
when it is whole and the comparison has passed; a GGUF is made from the finished folder, so nothing that fails there
can harm it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import msgspec

from mae_cli.errors import ConfigError, EngineError
from mae_cli.models.adapters import CONFIG
from mae_cli.models.cards import Score, write_merged_card
from mae_cli.models.digests import is_whole_model, model_digest, trained_digest
from mae_cli.models.embedded import EMBEDDED
from mae_cli.models.gguf import check_for_gguf, convert, find_converter, missing_files, trained_embeddings
from mae_cli.models.lineage import TRAIN_ROWS, Lineage, read_lineage, trained_rows
from mae_cli.models.locate import local_model
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message
from mae_cli.records.read import read_json, read_rows
from mae_cli.records.resumable_folder import FolderOutput
from mae_cli.runs.layout import (
    ACCEPTED,
    BEST,
    LATEST,
    MANIFEST,
    adapters_in,
    evaluations_in,
    outputs_of,
    position_of,
    rounds_of,
)
from mae_cli.runs.views.summary import scores_in
from mae_cli.stages.generation.progress import Progress

Dtype = Literal["float32", "bfloat16", "float16"]
NUM_PROMPTS = 8
MAX_PROMPT_TOKENS = 128
"""Of each compared prompt, from its end: longer ones add time, not evidence."""
BUILT_IN = (
    "What is 17 + 25?",
    "Name the capital of France.",
    "Write one sentence about the sea.",
    "A box holds 12 eggs. How many eggs are in 7 boxes?",
    "Translate to French: good morning.",
    "Why is the sky blue?",
    "List three prime numbers.",
    "def add(a, b):",
)


class ExportSummary(msgspec.Struct, kw_only=True):
    """Result of `mae export`."""

    path: str
    adapter: str
    base: str
    skipped: bool = False
    """The folder stood already."""
    comparison: dict[str, Any] | None = None
    gguf: str | None = None
    seconds: float = 0.0

    def line(self) -> str:
        """The summary in one line."""
        told = "up to date"
        if self.comparison is not None:
            same, base = self.comparison["from_adapter"], self.comparison["from_base"]
            pair = "saved = fully fine-tuned model" if base is None else "merged = base + adapter"
            apart = "" if base is None else f", differs from base by {base:.2g}"
            told = f"{pair} within {same:.2g} on {self.comparison['prompts']} prompts{apart}"
        made = f", {self.gguf}" if self.gguf else ""
        return f"export: {told}, {self.seconds:.1f} s -> {self.path}{made}"


class Source(NamedTuple):
    """An adapter and the place it was found in."""

    adapter: Path
    run_dir: Path | None
    label: str


def check_request(dtype: str, *, merge: bool, gguf: bool) -> Dtype:
    """Return the type of the saved weights, where the flags of the command make sense.

    Raises:
        ConfigError: both or none of merge and gguf, or an unknown type.
    """
    if merge == gguf:
        raise ConfigError("export: give one of --merge and --gguf (which writes the merged folder too)")
    for known in get_args(Dtype):
        if dtype == known:
            return cast(Dtype, known)
    raise ConfigError(f"--dtype {dtype}: expected float32, bfloat16 or float16")


def run_export(
    source: Path,
    output_dir: Path,
    *,
    model: str | None = None,
    revision: str | None = None,
    dtype: Dtype = "float32",
    gguf: bool = False,
    llama_cpp: Path | None = None,
    outtype: str = "f16",
    tolerance: float = 1e-4,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportSummary:
    """Merge, compare, write; with `gguf` convert the finished folder too.

    Args:
        source: run, round or adapter folder.
        output_dir: the model folder to make.
        model: the base; by default what the run's manifest or the adapter names.
        revision: hub revision of the base.
        dtype: of the saved weights; merging and comparing are done in float32.
        gguf: also call llama.cpp's converter.
        llama_cpp: folder that holds it.
        outtype: number format of the GGUF, as the converter names it.
        tolerance: largest difference of a logit that counts as equal.
        overwrite: move an existing folder aside.
        progress: where notices go.

    Raises:
        ConfigError: no adapter there, or the output was made from something else.
        EngineError: base or adapter cannot be loaded or do not belong together.
        GateError: merged and base + adapter differ, or merged equals the base.
        MissingDependencyError: the converter is not there; the folder is.
        TemporaryError: the converter failed; the folder stays.
    """
    start = time.monotonic()
    progress = progress or Progress()
    found = find_adapter(source)
    lineage = read_lineage(found.adapter)
    embeddings: list[str] = []
    base: Path | None = None
    if is_whole_model(found.adapter):
        name = lineage.base if lineage else found.adapter.name
    else:
        embeddings = trained_embeddings(found.adapter)
        name, revision = _base_name(found, lineage, model, revision)
        base = local_model(name, revision)
        _check_base(base, name, lineage)
        _check_tied(base, found.adapter, embeddings)
    adapter = trained_digest(found.adapter)
    summary = ExportSummary(path=str(output_dir), adapter=adapter, base=name)
    fingerprint = {"adapter": adapter, "base": base and model_digest(base), "dtype": dtype}
    inputs = [found.adapter, *([base] if base else [])]
    with FolderOutput(
        output_dir, stage="export", fingerprint=fingerprint, overwrite=overwrite, inputs=inputs
    ) as output:
        if output.is_done:
            summary.skipped = True
        else:
            made = output.work_dir / "model"
            report = _merge(found, base, made, dtype, tolerance)
            summary.comparison = msgspec.structs.asdict(report)
            progress.say(f"export: {_compared(report)} (tolerance {tolerance:.2g}; float32 weights)")
            _card(found, lineage, made, lineage.base if lineage else name, dtype, report)
            missing = missing_files(made)
            if missing:
                raise EngineError(
                    f"{base or found.adapter}: it lacks what a complete folder needs: {', '.join(missing)}"
                )
            output.finish(made)
        if gguf:
            check_for_gguf(output_dir, embeddings)
            converter = find_converter(llama_cpp)
            progress.say(f"export: {converter} on {output_dir}")
            summary.gguf = str(convert(converter, output_dir, outtype))
    summary.seconds = round(time.monotonic() - start, 3)
    return summary


def find_adapter(source: Path) -> Source:
    """The adapter that a run, a round or an adapter folder stands for.

    Raises:
        ConfigError: there is none.
    """
    if (source / CONFIG).is_file() or (source / TRAIN_ROWS).is_file():
        in_run = position_of(source.resolve()) is not None
        current = source.resolve().parent
        run_dir = current.parent if in_run and (current.parent / MANIFEST).is_file() else None
        return Source(source, run_dir, current.name if in_run else source.name)
    for folder in (source, *(source / name for name in (BEST, ACCEPTED, LATEST))):
        if folder.is_dir() and (trained := adapters_in(folder.resolve())):
            return find_adapter(trained[-1])
    raise ConfigError(
        f"{source}: no adapter there; expected a run folder with a trained round, a round's folder, or a folder with "
        f"{CONFIG}"
    )


def _base_name(
    found: Source, lineage: Lineage | None, model: str | None, revision: str | None
) -> tuple[str, str | None]:
    """(name, revision) of the base: as asked for, as the run's recipe has it, or as the adapter names it."""
    if model is not None:
        return model, revision
    if found.run_dir is not None:
        recipe = read_json(found.run_dir / MANIFEST).get("recipe", {})
        if recipe.get("model"):
            return recipe["model"], revision or recipe.get("revision")
    told = lineage.base if lineage else read_json(found.adapter / CONFIG).get("base_model_name_or_path") or ""
    name, _, digest = told.partition("@")
    if digest and name not in EMBEDDED:
        raise ConfigError(f"{found.adapter}: its base is a folder named {name} (content {digest}); give it with -m")
    return name or Recipe().model, revision or (lineage.base_revision if lineage else None)


def _check_base(base: Path, name: str, lineage: Lineage | None) -> None:
    """A LoRA merged into other weights is another model, and nothing else would say so."""
    digest = model_digest(base)
    if lineage is not None and lineage.base_digest is not None and digest != lineage.base_digest:
        raise EngineError(
            f"{name}: its content is {digest}, but the adapter was trained on {lineage.base} (content "
            f"{lineage.base_digest}); give that model with -m"
        )


def _check_tied(base: Path, adapter: Path, embeddings: list[str]) -> None:
    if embeddings and read_json(base / "config.json").get("tie_word_embeddings"):
        raise EngineError(
            f"{adapter}: trains {', '.join(embeddings)} of a model that ties input and output embeddings; one file "
            "cannot hold both after a merge; train without them"
        )


def _compared(report: Any) -> str:
    apart = "" if report.from_base is None else f", of merged and base by {report.from_base:.2g}"
    pair = "saved and trained model" if report.from_base is None else "merged and base + adapter"
    return (
        f"{report.prompts} prompts, {report.tokens} tokens: logits of {pair} differ by at most "
        f"{report.from_adapter:.2g}{apart}"
    )


def _merge(found: Source, base: Path | None, made: Path, dtype: Dtype, tolerance: float) -> Any:
    """The model folder, compared; without a base what was trained is a whole model."""
    import torch

    from mae_cli.models.load import load_tokenizer
    from mae_cli.models.merge import merge_and_save
    from mae_cli.prompts.chat_template import open_chat

    has_own = (found.adapter / "tokenizer_config.json").is_file()
    own = found.adapter if base is None or has_own else base
    chat = open_chat(load_tokenizer(own))
    return merge_and_save(
        base or found.adapter,
        found.adapter if base else None,
        made,
        compared_prompts(found, chat),
        tokenizer_from=own,
        template=chat.template,
        dtype=getattr(torch, dtype),
        tolerance=tolerance,
    )


def compared_prompts(found: Source, chat: Any) -> list[list[int]]:
    """Token ids of 8 different prompts: of rows the adapter was trained on, of held-out items, then built-in ones."""
    asked: dict[tuple[Message, ...], None] = {}
    if found.run_dir is not None:
        current = found.run_dir / found.label
        trained = trained_rows(found.adapter)
        selected = [(path, trained) for path in outputs_of(current, "filter") or outputs_of(current, "judge")]
        for path, ids in (*selected, *((path, None) for path in evaluations_in(current))):
            if len(asked) < NUM_PROMPTS:
                for row in read_rows(path):
                    if (ids is None or row.id in ids) and len(asked) < NUM_PROMPTS:
                        asked.setdefault(tuple(row.messages))
    for text in BUILT_IN:
        if len(asked) < NUM_PROMPTS:
            asked.setdefault((Message("user", text),))
    return [chat.render(messages)[-MAX_PROMPT_TOKENS:] for messages in asked]


def _card(found: Source, lineage: Lineage | None, made: Path, base: str, dtype: Dtype, report: Any) -> None:
    scores: list[Score] = scores_in(found.run_dir, found.label) if found.run_dir else []
    facts = [f"weights saved as {dtype}{'' if report.from_base is None else ', merged in float32'}", _compared(report)]
    run = found.run_dir.name if found.run_dir else None
    write_merged_card(made, _line_of(found, lineage), base=base, run=run, facts=facts, scores=scores)


def _line_of(found: Source, lineage: Lineage | None) -> list[Lineage]:
    """The adapter's lineage, then its parents' as far as the run has them."""
    line = [lineage] if lineage is not None else []
    if not line or found.run_dir is None:
        return line
    known = [
        other for folder in rounds_of(found.run_dir) for path in adapters_in(folder) if (other := read_lineage(path))
    ]
    while (parent := next((other for other in known if other.adapter == line[-1].parent), None)) is not None:
        line.append(parent)
    return line
