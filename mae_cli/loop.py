"""`mae run`: all six stages for N rounds in one process, each resumable.

The loop only calls the stages on the files of a run folder and keeps the model loaded between them; every file can be
made by the stage commands alone. Whatever is finished is skipped, so the same command goes on after any interruption.
Until a promotion gate exists every round is accepted, and the summary says so.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli import __version__, pools, report
from mae_cli.config import Recipe, find_file
from mae_cli.errors import ConfigError, GateError
from mae_cli.filters.decontaminate import question_key
from mae_cli.reading import read_json, read_lines, read_problems, read_rows
from mae_cli.records import Problem, Row, mean_score, verdicts_on
from mae_cli.roles import ROLES, is_fixed
from mae_cli.stages import Session, StageSummary, check_plugins
from mae_cli.stages.calibrate import check_calibration, run_calibrate
from mae_cli.stages.eval import attach, load_eval, run_eval
from mae_cli.stages.filter import run_filter
from mae_cli.stages.finetune import run_finetune
from mae_cli.stages.judge import run_judge
from mae_cli.stages.propose import run_propose
from mae_cli.stages.solve import run_solve
from mae_cli.store import Lock, compare_fingerprints, flatten, write_atomically, write_json

# May change between two calls of one run without changing what is in its files.
FREE_KEYS = {
    "rounds",
    "batch_size",
    "base_url",
    "api_key_env",
    "max_concurrent",
    "timeout_seconds",
    "device",
    "on_empty",
    "judge.max_unparsed",
    "finetune.micro_batch_tokens",
    "finetune.gradient_checkpointing",
    "finetune.save_every",
    "finetune.show_batch",
    # Where a role's model runs.
    *(f"roles.{role}.{key}" for role in ROLES for key in ("device", "base_url", "api_key_env")),
}
SELF_SEED_FACTOR = 4


def _is_free(key: str) -> bool:
    return key in FREE_KEYS or key.startswith("calibrate.bars.")  # a bar decides about files, and is in none


class Round:
    """The files of one round; names are the contract of README "A run"."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number, self.folder, self.label = number, folder, folder.name
        self.calibration = self.folder / "0_calibration.jsonl"
        self.questions = self.folder / "0_questions.jsonl"
        self.pairs = self.folder / "0_pairs.jsonl"
        self.problems = self.folder / "1_problems.jsonl"
        self.rollouts = self.folder / "2_rollouts.jsonl"
        self.judged = self.folder / "3_judged.jsonl"
        self.selected = self.folder / "4_selected.jsonl"
        self.dropped = self.folder / "4_dropped.jsonl"
        self.adapter = self.folder / "5_adapter"
        self.eval = self.folder / "6_eval.jsonl"


class Run:
    """One run folder and the session that works on it."""

    def __init__(self, session: Session, run_dir: Path, recipe_path: Path | None) -> None:
        self.session, self.run_dir, self.recipe_path = session, run_dir, recipe_path
        self.recipe = session.recipe
        self.totals: dict[str, float] = {"seconds": 0.0, "tokens": 0}
        self.overlap: dict[str, int] = {}

    def go(self) -> dict[str, Any]:
        """Work until all rounds are done.

        Raises:
            ConfigError: the folder holds a run of another recipe.
            GateError: a gate failed or no row was kept, and the recipe says to stop.
        """
        check_plugins(self.recipe)
        check_calibration(self.recipe)
        if self.recipe.solve.num_problems and not (self.recipe.seeds or self.recipe.self_seeds):
            raise ConfigError("no seeds: the solver draws its problems from them; give --set seeds=FILE")
        with Lock(self.run_dir / "run"):
            self._open()
            base = self._files(0)
            accepted: Path | None = Path(self.recipe.adapter) if self.recipe.adapter else None
            self._eval(base, accepted)
            seeds = self._seeds(base)
            self._say_overlap(seeds)
            done = [base]
            for number in range(1, self.recipe.rounds + 1):
                current = self._files(number)
                accepted = self._round(current, done[-1], seeds, accepted)
                done.append(current)
            return self._finish(done)

    def _files(self, number: int) -> Round:
        return Round(self.run_dir / f"round-{number:03d}", number)

    # ---- opening

    def _open(self) -> None:
        import yaml

        tree = msgspec.to_builtins(self.recipe)
        manifest = self.run_dir / "manifest.json"
        if manifest.exists():
            old = {k: v for k, v in flatten(read_json(manifest)["recipe"]).items() if not _is_free(k)}
            new = {k: v for k, v in flatten(tree).items() if not _is_free(k)}
            compare_fingerprints(old, new, str(self.run_dir), "give another --run-dir")
        elif self.run_dir.exists() and any(self.run_dir.glob("round-*")):
            raise ConfigError(f"{self.run_dir}: holds rounds but no manifest.json; give another --run-dir")
        self.run_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(
            self.run_dir / "recipe.resolved.yaml",
            yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode(),
        )
        write_json(manifest, {"recipe": tree, **self._facts()})

    def _facts(self) -> dict[str, Any]:
        import importlib.metadata as metadata

        packages = ("torch", "transformers", "peft", "accelerate", "datasets")
        installed = {distribution.metadata["Name"].lower() for distribution in metadata.distributions()}
        versions = {name: metadata.version(name) for name in packages if name in installed}
        return {
            "mae": __version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "versions": versions,
            "recipe_file": self.recipe_path.name if self.recipe_path else None,
            "policy": msgspec.to_builtins(self.session.engine.policy),
            "deterministic": self.session.engine.deterministic,
            "notices": list(getattr(self.session.engine, "notices", [])),
            **self._other_policies(),
        }

    def _other_policies(self) -> dict[str, Any]:
        """The roles that another policy plays; their engines are opened now, so that a wrong one shows at once."""
        fixed = [role for role in ROLES if is_fixed(self.recipe, role)]
        return (
            {"roles": {role: msgspec.to_builtins(self.session.engine_for(role).policy) for role in fixed}}
            if fixed
            else {}
        )

    def _event(self, round_label: str, what: str, details: Any) -> None:
        event = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "round": round_label, "event": what, "details": details}
        with (self.run_dir / "events.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(event) + b"\n")

    def _link(self, name: str, target: str) -> None:
        link = self.run_dir / name
        temporary = self.run_dir / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, link)

    # ---- one round

    def _stage(self, current: Round, work: Callable[[], StageSummary]) -> StageSummary:
        self.session.round_number = current.number
        summary = work()
        if not summary.skipped or summary.seconds > 1.0 or summary.written > summary.skipped:
            self._event(current.label, summary.stage, msgspec.to_builtins(summary))
        self.totals["seconds"] += summary.seconds
        self.totals["tokens"] += summary.tokens
        self.session.progress.say(f"{current.label} {summary.line()}")
        return summary

    def _eval(self, current: Round, adapter: Path | None) -> None:
        if not self.recipe.eval.benchmarks:
            return
        paths = [find_file(name) for name in self.recipe.eval.benchmarks]
        self._stage(
            current,
            lambda: run_eval(self.session, paths, current.eval, adapter=adapter, with_base=adapter is None),
        )

    def _round(self, current: Round, before: Round, seeds: Sequence[Problem], accepted: Path | None) -> Path | None:
        session = self.session
        snapshot(self.recipe, current, before if before.number else None, seeds)
        attach(session, accepted)
        if self.recipe.calibrate.bars:
            # The judge is the policy, which the round before has changed.
            self._stage(current, lambda: run_calibrate(session, self._calibration_problems(), current.calibration))
        self._stage(current, lambda: run_propose(session, current.questions, current.problems))
        self._stage(
            current, lambda: run_solve(session, current.problems, current.rollouts, pool_path=current.questions)
        )
        self._stage(current, lambda: run_judge(session, current.rollouts, current.judged, pool_path=current.pairs))
        try:
            self._stage(
                current, lambda: run_filter(session, current.judged, current.selected, dropped_path=current.dropped)
            )
            self._stage(
                current, lambda: run_finetune(session, current.selected, current.adapter, start_adapter=accepted)
            )
        except GateError as error:
            if self.recipe.on_empty == "stop":
                raise
            self._event(current.label, "not trained", str(error))
            session.progress.say(f"{current.label}: not trained: {error}")
            self._roles(current)
            return accepted
        self._roles(current)
        self._eval(current, current.adapter)
        for name in ("latest", "accepted"):
            self._link(name, current.label)
        return current.adapter

    def _calibration_problems(self) -> Path | None:
        name = self.recipe.calibrate.problems
        return find_file(name, beside=self.recipe_path.parent if self.recipe_path else None) if name else None

    def _roles(self, current: Round) -> None:
        rows = read_rows(current.selected) + (read_rows(current.dropped) if current.dropped.exists() else [])
        listing = current.adapter / "train_rows.jsonl"
        trained = [msgspec.json.decode(line) for _, line in read_lines(listing)] if listing.exists() else []
        figures = report.role_figures(rows, trained)
        write_json(current.folder / "roles.json", msgspec.to_builtins(figures))
        self.session.progress.say(report.role_table(figures))

    # ---- seeds

    def _seeds(self, base: Round) -> list[Problem]:
        problems = file_seeds(self.recipe, self.recipe_path)
        return problems + (self._self_seeds(base) if self.recipe.self_seeds else [])

    def _self_seeds(self, base: Round) -> list[Problem]:
        """MAE zero: the base model writes its own seeds; the best distinct ones by its own quality judgement stay."""
        written = base.folder / "0_seeds.jsonl"
        if not written.exists():
            wanted = self.recipe.self_seeds
            propose = msgspec.structs.replace(
                self.recipe.propose, num_problems=wanted * SELF_SEED_FACTOR, proposer="zero"
            )
            recipe = msgspec.structs.replace(self.recipe, propose=propose)
            self.session.recipe = recipe
            try:
                self._stage(base, lambda: run_propose(self.session, None, base.problems))
                self._stage(base, lambda: run_judge(self.session, base.problems, base.judged))
            finally:
                self.session.recipe = self.recipe
            seeds = best_seeds(read_rows(base.judged), wanted)
            if len(seeds) < wanted:
                self.session.progress.say(
                    f"self seeds: only {len(seeds)} of {wanted} proposals are distinct questions with a known quality"
                )
            if not seeds:
                raise GateError("the base model wrote no seed question whose quality is known; give `seeds:` a file")
            pools.write_questions(written, seeds)
        return pools.read_questions(written)

    def _say_overlap(self, seeds: Sequence[Problem]) -> None:
        """A held-out item among the seeds is trained on, and then measures nothing."""
        keys = {question_key(problem.question) for problem in seeds}
        for name in self.recipe.eval.benchmarks:
            items = read_problems(find_file(name))
            both = sum(question_key(item.question) in keys for item in items)
            if both:
                self.overlap[name] = both
                self.session.progress.say(
                    f"WARNING: {both} of the {len(items)} held-out items of {name} are among the seeds: "
                    f"what is measured on them is not held out"
                )

    # ---- the end

    def _finish(self, rounds: Sequence[Round]) -> dict[str, Any]:
        evaluated = [r for r in rounds if r.eval.exists()]
        result: dict[str, Any] = {
            "rounds": self.recipe.rounds,
            "run_dir": str(self.run_dir),
            "accepted": "every round (no promotion gate yet)",
            "held_out_among_seeds": self.overlap,
            "seconds": round(self.totals["seconds"], 1),
            "tokens": int(self.totals["tokens"]),
        }
        if evaluated:
            policies = [("base" if r.number == 0 else r.label, load_eval(r.eval)) for r in evaluated]
            result["table"] = report.progress_table(policies, self.recipe.eval.confidence)
            result["final"] = report.final_line(policies)
            result["comparisons"] = [
                msgspec.to_builtins(report.compare(policies[0], policy, reading))
                for policy in policies[1:]
                for reading in report.READINGS
            ]
            result["accuracy"] = [
                msgspec.to_builtins(report.accuracy(label, rows, reading, self.recipe.eval.confidence))
                for label, rows in policies
                for reading in report.READINGS
            ]
        else:
            self.session.progress.say("no eval.benchmarks: nothing was measured")
        write_json(self.run_dir / "summary.json", result)
        self._page(rounds, result)
        return result

    def _page(self, rounds: Sequence[Round], result: dict[str, Any]) -> None:
        sections = [("Held-out items", f"{result['table']}\n\n{result['final']}")] if "table" in result else []
        for current in rounds:
            figures = current.folder / "roles.json"
            if figures.exists():
                roles = msgspec.convert(read_json(figures), list[report.RoleFigures])
                sections.append((f"{current.label}: train rows by role", report.role_table(roles)))
        sections.append(("Recipe", (self.run_dir / "recipe.resolved.yaml").read_text("utf-8")))
        page = report.html_page(f"mae run: {self.run_dir.name}", sections)
        write_atomically(self.run_dir / "report.html", page.encode())


def file_seeds(recipe: Recipe, recipe_path: Path | None) -> list[Problem]:
    """The seeds of the recipe's file, or the drawn `num_seeds` of them."""
    if not recipe.seeds:
        return []
    problems = read_problems(find_file(recipe.seeds, beside=recipe_path.parent if recipe_path else None))
    return pools.draw(problems, recipe.num_seeds, recipe.seed, "seeds") if recipe.num_seeds else problems


def snapshot(recipe: Recipe, current: Round, before: Round | None, seeds: Sequence[Problem]) -> None:
    """Write the pools of a round, unless they stand: the seeds at first, then what the round before stored."""
    if current.questions.exists() and current.pairs.exists():
        return
    questions, pairs = next_pools(recipe, before, seeds)
    pools.write_pairs(current.pairs, pairs)
    pools.write_questions(current.questions, questions)


def next_pools(
    recipe: Recipe, before: Round | None, seeds: Sequence[Problem]
) -> tuple[list[Problem], list[pools.Pair]]:
    """The questions and pairs a round starts from."""
    if before is None:
        questions = list(seeds)
        pairs = pools.seed_pairs(seeds) if recipe.seed_pairs else []
    else:
        rows = read_rows(before.selected) if before.selected.exists() else []
        questions = pools.grow_questions(pools.read_questions(before.questions), rows, recipe.pool_limit)
        pairs = pools.grow_pairs(pools.read_pairs(before.pairs), rows, recipe.pool_limit)
    return questions, pairs


def best_seeds(rows: Sequence[Row], wanted: int) -> list[Problem]:
    """The distinct proposed questions with the highest known quality, best first, at most `wanted`."""
    quality: dict[str, tuple[float, int, Problem]] = {}
    for position, row in enumerate(rows):
        if row.role != "proposer" or row.problem is None or row.problem.id in quality:
            continue
        score = mean_score(verdicts_on(row, "problem"))
        if score is not None:
            quality[row.problem.id] = (score, position, row.problem)
    best = sorted(quality.values(), key=lambda entry: (-entry[0], entry[1]))
    return [problem for _, _, problem in best[:wanted]]
