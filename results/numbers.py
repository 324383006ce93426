"""What a study found, in the form that ``docs/published`` keeps and tables and figures are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from experiments.estimate import Estimate


@dataclass(frozen=True)
class Cost:
    """What planning took, over the runs of all seeds and models.

    Attributes:
        seconds: Median wall clock per episode.
        evaluations, gradients: Rollouts imagined per episode, and how many of them were differentiated (None: unknown).
    """

    seconds: float
    evaluations: float
    gradients: float | None = None


@dataclass(frozen=True)
class Budget:
    """A planner that may imagine so many rollouts per plan.

    Attributes:
        success: By model.
        cost: Of all models together.
        own: Of each model, as far as it is known.
    """

    planner: str
    rollouts: int
    success: Mapping[str, Estimate]
    cost: Cost
    own: Mapping[str, Cost]


@dataclass(frozen=True)
class Error:
    """One-step visual error of a model on data set windows and where the base's plans lead, and their ratio."""

    dataset: Estimate
    planner: Estimate
    ratio: float


@dataclass(frozen=True)
class Numbers:
    """All that the tables and figures of a study show.

    Attributes:
        made: When, with what and under which protocol.
        seeds, episodes: How many.
        success: Model -> planner -> rate in [0, 1].
        differences: "model - other" -> planner -> difference.
        nothing: Planner -> rate of doing nothing as long as it may act; empty in numbers of before.
        cost: By planner.
        budgets: The curve, planner by planner.
        errors: By model.
        findings: In sentences.
    """

    made: Mapping[str, Any]
    seeds: int
    episodes: int
    success: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Estimate]]
    cost: Mapping[str, Cost]
    budgets: Sequence[Budget]
    errors: Mapping[str, Error]
    findings: Sequence[str]
    nothing: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """The models, in the order of the table."""
        return list(self.success)

    @property
    def planners(self) -> list[str]:
        """The planners, in the order of the table."""
        return list(self.cost)

    def as_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        return asdict(self)

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Numbers:
        """Make them of what ``as_json`` gave."""
        budgets = [
            Budget(
                row["planner"],
                row["rollouts"],
                {model: Estimate(**e) for model, e in row["success"].items()},
                Cost(**row["cost"]),
                {model: Cost(**cost) for model, cost in row["own"].items()},
            )
            for row in data["budgets"]
        ]
        errors = {
            model: Error(Estimate(**row["dataset"]), Estimate(**row["planner"]), row["ratio"])
            for model, row in data["errors"].items()
        }
        return cls(
            made=data["made"],
            seeds=data["seeds"],
            episodes=data["episodes"],
            success=_estimates(data["success"]),
            differences=_estimates(data["differences"]),
            cost={planner: Cost(**row) for planner, row in data["cost"].items()},
            budgets=budgets,
            errors=errors,
            findings=data["findings"],
            nothing={planner: Estimate(**row) for planner, row in data.get("nothing", {}).items()},
        )


def _estimates(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Estimate]]:
    return {name: {planner: Estimate(**e) for planner, e in row.items()} for name, row in rows.items()}
