"""`mae run`: all six stages for N rounds in one process, each resumable.

The loop only calls the stages on the files of a run folder and keeps the model loaded between them; every file can be
made by the stage commands alone. Whatever is finished is skipped, so the same command goes on after any interruption.
After each round `promotion.py` decides, on items reported nowhere, which adapter the next round starts from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.answers.questions import question_key
from mae_cli.data import pools
from mae_cli.errors import CollapseError, ConfigError, GateError
from mae_cli.models.lineage import trained_rows
from mae_cli.plugins.check import check_plugins
from mae_cli.recipe.files import find_file
from mae_cli.records import Problem
from mae_cli.records.atomic import write_atomically, write_json
from mae_cli.records.lock import Lock
from mae_cli.records.read import read_json, read_rows
from mae_cli.reports import eval_figures, eval_report, page, role_figures
from mae_cli.reports.comparison import Side
from mae_cli.runs.gate import Sets, keep_sets, read_sets
from mae_cli.runs.layout import Round
from mae_cli.runs.manifest import open_run
from mae_cli.runs.promotion import NOT_TRAINED, Promotion, decide, promotion_line
from mae_cli.runs.round_pools import SELF_SEED_FACTOR, best_seeds, file_seeds, snapshot
from mae_cli.runs.views import summary
from mae_cli.stages.calibrate import check_calibration, run_calibrate
from mae_cli.stages.eval import attach, evaluate, load_eval, say_power
from mae_cli.stages.filter import run_filter
from mae_cli.stages.finetune import check_tuning, run_finetune
from mae_cli.stages.generation.session import Session
from mae_cli.stages.generation.summary import StageSummary
from mae_cli.stages.judge import run_judge
from mae_cli.stages.propose import run_propose
from mae_cli.stages.solve import run_solve


class Run:
    """One run folder and the session that works on it."""

    def __init__(self, session: Session, run_dir: Path, recipe_path: Path | None) -> None:
        self.session, self.run_dir, self.recipe_path = session, run_dir, recipe_path
        self.recipe = session.recipe
        self.totals: dict[str, float] = {"seconds": 0.0, "tokens": 0}
        self.overlap: dict[str, int] = {}
        self.sets = Sets([], [])

    def go(self) -> dict[str, Any]:
        """Work until all rounds are done.

        Raises:
            ConfigError: the folder holds a run of another recipe.
            GateError: a gate failed or no row was kept, and the recipe says to stop.
            CollapseError: the gate set shows harm, and the recipe says to stop.
        """
        check_plugins(self.recipe)
        check_tuning(self.recipe)
        check_calibration(self.recipe)
        if self.recipe.solve.num_problems and not (self.recipe.seeds or self.recipe.self_seeds):
            raise ConfigError("no seeds: the solver draws its problems from them; give --set seeds=FILE")
        with Lock(self.run_dir / "run"):
            open_run(self.session, self.run_dir, self.recipe_path)
            self.sets = keep_sets(read_sets(self.recipe.eval), self.run_dir / "benchmarks")
            self._say_sets()
            base = self._files(0)
            self._eval(base, self._adapter_of(base))
            seeds = self._seeds(base)
            self._say_overlap(seeds)
            return self._rounds(base, seeds)

    def _rounds(self, base: Round, seeds: Sequence[Problem]) -> dict[str, Any]:
        done: list[Round] = [base]
        decisions: list[Promotion] = []
        accepted = best = base
        for number in range(1, self.recipe.rounds + 1):
            current = self._files(number)
            is_closed = self._is_closed(current)
            is_trained = (
                current.adapter.exists()
                if is_closed
                else self._round(current, done[-1], seeds, self._adapter_of(accepted))
            )
            done.append(current)
            decision = self._decide(current, accepted, best, is_trained=is_trained)
            decisions.append(decision)
            accepted = current if decision.accepted else accepted
            best = current if decision.best else best
            for name, target in (("latest", current if is_trained else None), ("accepted", accepted), ("best", best)):
                if target is not None and target.number:
                    self._link(name, target.label)
            self._retire(done, accepted, best)
            if is_trained and not decision.accepted and self.recipe.on_harm == "stop":
                result = self._finish(done, decisions)
                self.session.progress.say(result.get("table", ""))
                raise CollapseError(f"{promotion_line(decision)}; stopped, accepted: {accepted.name}")
        return self._finish(done, decisions)

    def _adapter_of(self, current: Round) -> Path | None:
        if current.number:
            return current.adapter
        return Path(self.recipe.adapter) if self.recipe.adapter else None

    def _files(self, number: int) -> Round:
        return Round(self.run_dir / f"round-{number:03d}", number)

    # ---- what the folder tells

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
        made = work()
        if not made.skipped or made.seconds > 1.0 or made.written > made.skipped:
            self._event(current.label, made.stage, msgspec.to_builtins(made))
        self.totals["seconds"] += made.seconds
        self.totals["tokens"] += made.tokens
        self.session.progress.say(f"{current.label} {made.line()}")
        return made

    def _eval(self, current: Round, adapter: Path | None) -> None:
        for benchmarks, path in ((self.sets.reported, current.eval), (self.sets.gate, current.gate)):
            if benchmarks:
                self._stage(
                    current,
                    partial(evaluate, self.session, benchmarks, path, adapter=adapter, with_base=adapter is None),
                )

    def _round(self, current: Round, before: Round, seeds: Sequence[Problem], accepted: Path | None) -> bool:
        """All stages of a round; whether it has an adapter."""
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
            return False
        self._roles(current)
        self._eval(current, current.adapter)
        return True

    # ---- promotion

    def _decide(self, current: Round, accepted: Round, best: Round, *, is_trained: bool) -> Promotion:
        if not is_trained:
            decision = Promotion(current.label, accepted=False, best=False, reason=NOT_TRAINED)
        elif not self.sets.gate:
            decision = Promotion(current.label, accepted=True, best=False, reason="no gate set")
        else:
            candidate, parent, leader = ((r.name, load_eval(r.gate)) for r in (current, accepted, best))
            section = self.recipe.eval
            decision = decide(
                candidate,
                parent,
                leader,
                round_number=current.number,
                harm_alpha=section.harm_alpha,
                best_alpha=section.best_alpha,
            )
        if not current.promotion.exists():
            self._event(current.label, "promotion", msgspec.to_builtins(decision))
        write_json(current.promotion, msgspec.to_builtins(decision))
        self.session.progress.say(promotion_line(decision))
        return decision

    def _is_closed(self, current: Round) -> bool:
        """Whether a round need not be gone through again, because adapters before it may have been retired."""
        if not self.recipe.keep_adapters or not current.promotion.exists():
            return False
        return current.adapter.exists() or read_json(current.promotion)["reason"] == NOT_TRAINED

    def _retire(self, rounds: Sequence[Round], accepted: Round, best: Round) -> None:
        """Delete the weights of old rounds; everything else of them stays, so every row can still be traced."""
        keep = self.recipe.keep_adapters
        for old in rounds[1:-keep] if keep else []:
            if old.number not in (accepted.number, best.number):
                for weights in old.adapter.glob("*.safetensors"):
                    weights.unlink()

    def _calibration_problems(self) -> Path | None:
        name = self.recipe.calibrate.problems
        return find_file(name, beside=self.recipe_path.parent if self.recipe_path else None) if name else None

    def _roles(self, current: Round) -> None:
        rows = read_rows(current.selected) + (read_rows(current.dropped) if current.dropped.exists() else [])
        figures = role_figures.role_figures(rows, list(trained_rows(current.adapter).values()))
        write_json(current.folder / "roles.json", msgspec.to_builtins(figures))
        self.session.progress.say(role_figures.role_table(figures))

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
        items: dict[str, list[Problem]] = {}
        for benchmark in (*self.sets.reported, *self.sets.gate):
            items.setdefault(benchmark.source, []).extend(benchmark.problems)
        for source, problems in items.items():
            both = sum(question_key(item.question) in keys for item in problems)
            if both:
                self.overlap[source] = both
                self.session.progress.say(
                    f"WARNING: {both} of the {len(problems)} held-out items of {source} are among the seeds: "
                    f"what is measured on them is not held out"
                )

    def _say_sets(self) -> None:
        session, sets = self.session, self.sets
        say_power(session, sets.reported, paired=True)
        if sets.gate:
            decides = sum(len(benchmark.problems) for benchmark in sets.gate)
            reported = sum(len(benchmark.problems) for benchmark in sets.reported)
            removed = f" ({sets.removed} of its items are reported and left out)" if sets.removed else ""
            session.progress.say(f"gate: {decides} items decide about promotion{removed}, {reported} are reported")
        elif sets.reported:
            session.progress.say("no gate set: every round is accepted and none is called best")

    # ---- the end

    def _finish(self, rounds: Sequence[Round], decisions: Sequence[Promotion]) -> dict[str, Any]:
        accepted = [decision.round for decision in decisions if decision.accepted]
        best = [decision.round for decision in decisions if decision.best]
        result: dict[str, Any] = {
            "rounds": self.recipe.rounds,
            "run_dir": str(self.run_dir),
            "accepted": accepted[-1] if accepted else None,
            "best": best[-1] if best else None,
            "promotion": [msgspec.to_builtins(decision) for decision in decisions],
            "held_out_among_seeds": self.overlap,
            "seconds": round(self.totals["seconds"], 1),
            "tokens": int(self.totals["tokens"]),
        }
        evaluated = [r for r in rounds if r.eval.exists()]
        if evaluated:
            policies: list[Side] = [(r.name, load_eval(r.eval)) for r in evaluated]
            result.update(self._measured(policies, accepted))
            if self.sets.gate:
                result["gate"] = "\n".join(promotion_line(decision) for decision in decisions)
        else:
            self.session.progress.say("no eval.benchmarks: nothing was measured")
        write_json(self.run_dir / "summary.json", result)
        summary.refresh_cards(self.run_dir)
        self._page(rounds, result)
        return result

    def _measured(self, policies: Sequence[Side], accepted: Sequence[str]) -> dict[str, Any]:
        """The figures of the reported set; the final line is about the last accepted round."""
        confidence = self.recipe.eval.confidence
        figures = eval_figures.plain(eval_figures.figures_of(policies, confidence))
        last = [side for side in policies if side[0] in accepted]
        final = eval_report.final_line([policies[0], last[-1]]) if last else eval_report.unchanged_line(policies[0])
        return {
            "table": eval_report.progress_table(policies, confidence),
            "final": final,
            "comparisons": figures["comparisons"],
            "accuracy": figures["accuracy"],
        }

    def _page(self, rounds: Sequence[Round], result: dict[str, Any]) -> None:
        sections = [("Held-out items", f"{result['table']}\n\n{result['final']}")] if "table" in result else []
        if "gate" in result:
            sections.append(("Promotion", result["gate"]))
        for current in rounds:
            figures = current.folder / "roles.json"
            if figures.exists():
                roles = msgspec.convert(read_json(figures), list[role_figures.RoleFigures])
                sections.append((f"{current.label}: train rows by role", role_figures.role_table(roles)))
        sections.append(("Recipe", (self.run_dir / "recipe.resolved.yaml").read_text("utf-8")))
        html = page.html_page(f"mae run: {self.run_dir.name}", sections)
        write_atomically(self.run_dir / "report.html", html.encode())
