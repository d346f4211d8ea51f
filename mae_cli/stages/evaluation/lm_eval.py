"""`mae eval --via lm-eval`: tasks of lm-evaluation-harness on our model and adapter, its scores brought into our file.

The harness builds the prompts, generates and scores; we pair its items, compare policies and keep its own totals. An
item's verdicts carry its metrics, `acc` or `exact_match,strict-match` (metric, filter), as readings. Its answers to a
policy are cached beside the output while it runs, so an interrupted command asks no request twice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mae_cli.data.hub import cache_only, hub_is_reachable, hub_is_switched_off
from mae_cli.errors import ConfigError, DataError, MissingDependencyError, TemporaryError, did_you_mean
from mae_cli.models.digests import adapter_digest, is_whole_model, model_digest
from mae_cli.models.lineage import adapter_label
from mae_cli.models.locate import local_model
from mae_cli.records import Message, Policy, Problem, Row, Sampling, Verdict, digest, new_row
from mae_cli.records.atomic import write_json
from mae_cli.records.file_names import STDIO, beside, summary_path
from mae_cli.records.resumable_file import Output
from mae_cli.reports.eval_figures import by_policy, figures_of, plain
from mae_cli.reports.eval_report import power_lines
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary


def run_lm_eval(
    job: Job, tasks: Sequence[str], output_path: Path, *, adapter: Path | None, with_base: bool
) -> StageSummary:
    """Evaluate the base model, the adapter, or both, on tasks of the harness: its names, or task files of your own.

    Raises:
        MissingDependencyError: lm-eval is not installed.
        ConfigError: no such task, an engine that the harness cannot drive, or an output that cannot be a file.
        TemporaryError: a task's data set cannot be loaded now.
    """
    _check_possible(job, tasks, output_path)
    section = job.recipe.eval
    harness = Harness(*_task_manager(tasks))
    folder = local_model(job.recipe.model, job.recipe.revision)
    model = Policy(model=model_digest(folder), revision=job.recipe.revision)
    named: list[tuple[str, Path | None]] = [("base", None)] if with_base else []
    named += [(adapter_label(adapter), adapter)] if adapter is not None else []
    evaluated = [Evaluated(label, trained, _policy(model, trained)) for label, trained in named]
    options = _fingerprint(job, tasks, harness, model, evaluated)
    start = time.monotonic()
    totals: dict[str, dict[str, dict[str, float]]] = {}
    with job.output("eval", output_path, options) as output:
        rows = list(output.known.values())
        if not output.was_complete:
            # The harness looks its cache up by request alone, so its name says whose answers to what they are.
            caches = [
                beside(output_path, f".lm-eval-{digest(options, one.policy.weights if one.trained else None)}")
                for one in evaluated
            ]
            rows, totals = _ask_all(job, harness, folder, evaluated, caches, output)
    summary = StageSummary(stage="eval", path=str(output_path), read=len(rows), written=len(rows))
    summary.skipped = len(rows) if not totals else 0
    summary.seconds = round(time.monotonic() - start, 3)
    labels = {one.policy.weights: one.label for one in evaluated}
    summary.details = plain(figures_of(by_policy(rows, labels), section.confidence, section.group_by))
    if totals:
        summary.details["lm_eval"] = totals
        write_json(summary_path(output_path), summary.details)
    return summary


class Harness(NamedTuple):
    """The harness's catalogue and the tasks that are wanted of it."""

    manager: Any
    tasks: list[str]


class Evaluated(NamedTuple):
    """One policy that the harness evaluates: the model (`trained` is null), or what was trained on it."""

    label: str
    trained: Path | None
    policy: Policy


def _check_possible(job: Job, tasks: Sequence[str], output_path: Path) -> None:
    engine = job.recipe.engine
    if engine.partition(":")[0] != "hf":
        raise ConfigError(f'--via lm-eval drives a model in this process; engine "{engine}" has none')
    if job.shard is not None:
        raise ConfigError("--via lm-eval: --shard is not possible; give each machine tasks of its own")
    if not tasks:
        raise ConfigError("--via lm-eval: name tasks (lm-eval ls tasks) or task files")
    if output_path == STDIO:
        raise ConfigError("--via lm-eval: -o - is not possible, answers are cached beside the output; give a file")


def _fingerprint(
    job: Job, tasks: Sequence[str], harness: Harness, model: Policy, evaluated: Sequence[Evaluated]
) -> dict[str, Any]:
    recipe, section = job.recipe, job.recipe.eval
    return {
        "via": {
            "lm-eval": _version(),
            "tasks": list(harness.tasks),
            "files": {Path(name).name: digest(Path(name).read_text("utf-8")) for name in tasks if _is_file(name)},
            "few_shot": section.num_fewshot,
            "chat": section.chat,
        },
        "dtype": recipe.dtype,
        "policies": {one.policy.weights if one.trained else "base": one.label for one in evaluated},
        "policy": msgspec.to_builtins(model),
        "limit": section.limit or job.limit,
    }


def _ask_all(
    job: Job,
    harness: Harness,
    folder: Path,
    evaluated: Sequence[Evaluated],
    caches: Sequence[Path],
    output: Output,
) -> tuple[list[Row], dict[str, dict[str, dict[str, float]]]]:
    """(rows of all policies, the harness's own figures by label and task); the output is finished."""
    section, names = job.recipe.eval, harness.tasks
    with _muted(), _loading():
        sizes = _sizes(harness.manager, names, section.limit or job.limit)
    for line in power_lines(sizes, section.confidence, paired=len(evaluated) > 1):
        job.progress.say(line)
    rows: list[Row] = []
    totals = {}
    output.begin([])
    for one, cache in zip(evaluated, caches, strict=True):
        job.progress.say(f"lm-eval: {one.label}, tasks {', '.join(names)}")
        with _muted():
            results = _evaluate(job, harness.manager, names, folder, one.trained, cache)
        totals[one.label] = _totals(results["results"])
        made = list(rows_of(results["samples"], one.policy, job))
        output.append(made)
        rows += made
    output.finish(rows)
    for cache in caches:
        for left in cache.parent.glob(cache.name + "*"):
            left.unlink()
    return rows, totals


def _policy(model: Policy, trained: Path | None) -> Policy:
    """The model, with an adapter on it, or a whole model in its place."""
    if trained is None:
        return model
    if is_whole_model(trained):
        return Policy(model=model_digest(trained))
    return msgspec.structs.replace(model, adapter=adapter_digest(trained))


def _totals(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The harness's own figures per task, `metric,filter` to value."""
    return {
        task: {name: float(value) for name, value in figures.items() if "," in name and isinstance(value, (int, float))}
        for task, figures in results.items()
    }


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Off a terminal, nothing of the harness's bars and of the programs it starts reaches standard error."""
    if sys.stderr.isatty():
        yield
        return
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _version() -> str:
    import importlib.metadata as metadata

    return metadata.version("lm_eval")


def _task_manager(tasks: Sequence[str]) -> tuple[Any, list[str]]:
    """The harness's catalogue, with the folders of task files added, and the tasks' names."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingDependencyError("--via lm-eval needs: pip install 'mae-cli[lm-eval]'") from error
    files = [Path(name) for name in tasks if _is_file(name)]
    names = [_name_in(Path(name)) if Path(name) in files else name for name in tasks]
    manager = TaskManager(
        include_path=sorted({str(path.parent) for path in files}) or None, include_defaults=len(files) < len(tasks)
    )
    for name in names:
        if name not in manager.all_tasks:
            raise ConfigError(f'lm-eval has no task "{name}"; {did_you_mean(name, manager.all_tasks)[:200]}')
    return manager, names


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


def _name_in(path: Path) -> str:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads past the harness's `!function` tags; only the name is wanted."""

    Loader.add_multi_constructor("", lambda loader, suffix, node: None)
    try:
        tree = yaml.load(path.read_text("utf-8"), Loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("task"), str):
        raise DataError(f'{path}: field "task": expected the name of a task of lm-evaluation-harness')
    return str(tree["task"])


def _sizes(manager: Any, names: Sequence[str], limit: int | None) -> dict[str, int]:
    """Items of each task that will be asked; groups and tags are taken apart."""
    found = {name: len(task.eval_docs) for name, task in manager.load(list(names))["tasks"].items()}
    return {name: min(size, limit or size) for name, size in found.items()}


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """The harness at work on a hub that may be away, its errors as ours.

    Raises:
        ConfigError: a file is missing, or a data set is not in the cache and the hub is switched off.
        TemporaryError: a data set cannot be loaded now.
    """
    is_off = hub_is_switched_off()
    try:
        with contextlib.nullcontext() if hub_is_reachable() else cache_only():
            yield
    except ConnectionError as error:
        told = str(error).splitlines()[0]
        if is_off:
            raise ConfigError(
                f"lm-eval: a data set is not in the cache, and the hub is switched off (HF_HUB_OFFLINE): {told}"
            ) from error
        raise TemporaryError(f"lm-eval: a data set cannot be loaded: {told}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"lm-eval: {str(error).splitlines()[0]}") from error


def _evaluate(
    job: Job, manager: Any, names: Sequence[str], folder: Path, trained: Path | None, cache: Path
) -> dict[str, Any]:
    from lm_eval.evaluator import simple_evaluate

    from mae_cli.models.load import resolve_device, resolve_dtype

    recipe, section = job.recipe, job.recipe.eval
    device = resolve_device(recipe.device)
    is_whole = trained is not None and is_whole_model(trained)
    with _loading():
        results: dict[str, Any] | None = simple_evaluate(
            model="hf",
            model_args={
                "pretrained": str(trained if is_whole else folder),
                "dtype": resolve_dtype(recipe.dtype, device),
                "trust_remote_code": False,
                **({"peft": str(trained)} if trained and not is_whole else {}),
            },
            tasks=list(names),
            num_fewshot=section.num_fewshot,
            batch_size=1 if recipe.batch_size == "auto" else recipe.batch_size,
            device=str(device),
            use_cache=str(cache),
            limit=section.limit or job.limit,
            apply_chat_template=section.chat,
            bootstrap_iters=0,
            task_manager=manager,
            random_seed=recipe.seed,
            numpy_random_seed=recipe.seed,
            torch_random_seed=recipe.seed,
            fewshot_random_seed=recipe.seed,
        )
    if results is None:
        raise ConfigError("lm-eval gave no result; only one process is supported")
    return results


def rows_of(samples: Mapping[str, Sequence[Mapping[str, Any]]], policy: Policy, job: Job) -> Iterator[Row]:
    """One row per task and item, with a verdict per metric and filter that is right or wrong.

    Args:
        samples: task to logged samples, one per item and filter, as the harness returns them.
        policy: who answered.
        job: its seed and round.
    """
    for task, logged in samples.items():
        graded = {
            (metric, sample["filter"])
            for sample in logged
            for metric in sample["metrics"]
            if not _is_right_or_wrong(sample.get(metric))
        }
        found: dict[int, Row] = {}
        for sample in logged:
            row = found.setdefault(sample["doc_id"], _row(task, sample, policy, job))
            for metric in sample["metrics"]:
                # Graded metrics (F1, perplexity) stay in the harness's totals: counting only the items that happen to
                # have 0 or 1 would be another figure.
                if (metric, sample["filter"]) not in graded:
                    row.verdicts.append(_verdict(task, metric, sample["filter"], float(sample[metric])))
        yield from (found[number] for number in sorted(found))


def _is_right_or_wrong(score: object) -> bool:
    return isinstance(score, (bool, int, float)) and score in (0, 1)


def _verdict(task: str, metric: str, filter_name: str, score: float) -> Verdict:
    reading = metric if filter_name == "none" else f"{metric},{filter_name}"
    return Verdict(f"lm-eval:{task}/{reading}", "verifier", "answer", score=score, reading=reading)


def _row(task: str, sample: Mapping[str, Any], policy: Policy, job: Job) -> Row:
    prompt = str(sample["arguments"][0][0])
    row = new_row(
        "eval",
        role="solver",
        purpose="eval",
        round_number=job.round_number,
        run_seed=job.recipe.seed,
        messages=[Message("user", prompt)],
        sampling=Sampling(max_new_tokens=1, temperature=0.0),
        policy=policy,
        problem=Problem(
            id=digest("lm-eval", task, sample["doc_id"], sample["doc_hash"]),
            question=prompt,
            reference_answer=str(sample["target"]),
            meta={"benchmark": task, "doc_id": sample["doc_id"]},
        ),
    )
    first = sample["resps"][0][0]
    if isinstance(first, str):
        filtered = sample["filtered_resps"][0]
        row.raw = row.completion = first
        row.answer = filtered if isinstance(filtered, str) else str(filtered)
    elif len(sample["arguments"]) > 1:
        # Choices scored by their log-likelihood: the likeliest is the answer.
        likelihoods = [response[0][0] for response in sample["resps"]]
        row.answer = str(sample["arguments"][likelihoods.index(max(likelihoods))][1]).strip()
    row.answer_source, row.finish_reason = "lm-eval", "stop"
    return row
