"""Several objectives in one training: each on its own rows, each mean weighted, one update."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from mae_cli.plugins import registry
from mae_cli.plugins.contracts import Needs, Objective, ObjectiveBatch, ObjectiveOutput, Plan, Unit
from mae_cli.records.rewarded import Rewarded


class MixPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One objective of a mix and the rows it sees."""

    objective: str | dict[str, Any]
    weight: Annotated[float, Meta(gt=0.0)] = 1.0
    """Of its mean loss."""
    rows: Literal["all", "rewarded", "unrewarded"] = "all"
    """By whether the reward is known; an objective that needs one never sees the others."""
    roles: list[str] = []
    """Only these; empty is all."""
    min_reward: float | None = None
    """Only rows with at least this reward."""

    def sees(self, row: Rewarded, *, needs_reward: bool) -> bool:
        """Whether the row is one of its own."""
        if self.roles and row.role not in self.roles:
            return False
        if row.reward is None:
            return not needs_reward and self.rows != "rewarded" and self.min_reward is None
        return self.rows != "unrewarded" and (self.min_reward is None or row.reward >= self.min_reward)


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The weighted sum of several objectives, such as a policy gradient with imitation that keeps it from drifting.

    A row may be trained by several parts. Units of all parts are spread evenly over the steps, and each part's loss is
    normalised over its own units of a step. Source: RL with a supervised term, arXiv:2203.02155 (PPO-ptx).
    """

    parts: Annotated[list[MixPart], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: [
            MixPart(objective="reinforce_pp"),
            MixPart(objective="sft", weight=0.1, rows="unrewarded"),
        ]
    )

    def __post_init__(self) -> None:
        """Wrong options of a part show when the recipe is read."""
        for part in self.parts:
            if registry.spec_name(part.objective) == "mix":
                raise ValueError("a mix holds no other mix")
        _ = self._objectives()

    def _objectives(self) -> list[Objective]:
        return [cast(Objective, registry.build("objectives", part.objective)) for part in self.parts]

    @property
    def needs(self) -> Needs:
        """The inputs that any part needs; rows without a reward stay if one part can use them."""
        needs = [objective.needs for objective in self._objectives()]
        names = ("entropy", "behaviour", "reference", "mismatched")
        shared = {name: any(getattr(need, name) for need in needs) for name in names}
        return Needs(reward=all(need.reward for need in needs), **shared)

    def plan(self, rows: Sequence[Rewarded], *, min_spread: float) -> Plan:
        """The units of all parts; a row is dropped when no part takes it."""
        units: list[Unit] = []
        dropped: Counter[str] = Counter()
        for number, (part, objective) in enumerate(zip(self.parts, self._objectives(), strict=True)):
            seen = [index for index, row in enumerate(rows) if part.sees(row, needs_reward=objective.needs.reward)]
            plan = objective.plan([rows[index] for index in seen], min_spread=min_spread)
            units += [Unit(tuple(seen[index] for index in unit.rows), unit.value, part=number) for unit in plan.units]
            name = registry.spec_name(part.objective)
            dropped.update({f"{name}_{reason}": count for reason, count in plan.dropped.items()})
        trained = {rows[index].role for unit in units for index in unit.rows}
        skipped = tuple(sorted({row.role for row in rows} - trained))
        return Plan(units=tuple(units), skipped=skipped, dropped=dict(sorted(dropped.items())))

    def scales(self, units: Sequence[Unit], tokens: Sequence[int]) -> list[float]:
        """The weights each part gives its units, times the weight of the part."""
        result = [0.0] * len(units)
        for number, (part, objective) in enumerate(zip(self.parts, self._objectives(), strict=True)):
            own = [index for index, unit in enumerate(units) if unit.part == number]
            if own:
                scales = objective.scales([units[index] for index in own], [tokens[index] for index in own])
                for index, scale in zip(own, scales, strict=True):
                    result[index] = part.weight * scale
        return result

    def loss(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        """The loss of the part that the batch belongs to; its metrics carry the part's name."""
        part = self.parts[batch.part]
        objective = cast(Objective, registry.build("objectives", part.objective))
        output = objective.loss(batch)
        name = registry.spec_name(part.objective)
        metrics = {f"{name}.{key}": value for key, value in output.metrics.items()}
        return ObjectiveOutput(losses=output.losses, metrics=metrics)
