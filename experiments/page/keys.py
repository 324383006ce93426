"""Which colour a model has and which shape a planner, the same in every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from experiments.page.svg import NUM_COLOURS, SHAPES, marker
from experiments.report import Report


@dataclass(frozen=True)
class Keys:
    """Colours by model and shapes by planner or curve; with more of them than there are, they come again.

    Args:
        models: Their names, in the report's order.
        planners: Likewise.
        curves: Planner -> the curve that it is a point of, or None.
    """

    models: Sequence[str]
    planners: Sequence[str]
    curves: Mapping[str, str | None]

    @classmethod
    def of(cls, report: Report) -> Keys:
        """Choose the keys of the models and planners that a report has rows of."""
        models, planners = ({getattr(row, key) for row in report.rows} for key in ("model", "planner"))
        return cls(
            [name for name in report.models if name in models],
            [name for name in report.planners if name in planners],
            {name: planner.curve for name, planner in report.planners.items()},
        )

    @property
    def families(self) -> list[str]:
        """Names of planners and curves in figures, in the report's order."""
        return list(dict.fromkeys(self.family(planner) for planner in self.planners))

    def colour(self, model: str) -> int:
        """Number of a model's colour, as in the class ``c0``."""
        return self.models.index(model) % NUM_COLOURS if model in self.models else NUM_COLOURS - 1

    def shape(self, planner: str) -> str:
        """The planner's shape, one of ``SHAPES``."""
        family = self.family(planner)
        return SHAPES[self.families.index(family) % len(SHAPES)] if family in self.families else SHAPES[-1]

    def model_dot(self, model: str) -> Markup:
        """A dot in the model's colour, for a line of text."""
        return _small(marker("circle", 6, 6, 4.6, _class=f"mark c{self.colour(model)}"))

    def family(self, planner: str) -> str:
        """What a planner is called in figures: the curve that it is a point of, or itself."""
        return self.curves.get(planner) or planner

    def planner_mark(self, planner: str) -> Markup:
        """The planner's shape, for a line of text."""
        return _small(marker(self.shape(planner), 6, 6, 4.2, _class="mark ink"))


def _small(inner: Markup) -> Markup:
    return Markup('<svg class="key" viewBox="0 0 12 12" aria-hidden="true">{}</svg>').format(inner)


def used_goals(report: Report) -> list[str]:
    """Names of the sets of goals that rows have, nearest first."""
    used = {row.goals for row in report.rows}
    return sorted((name for name in report.goals if name in used), key=lambda name: report.goals[name].raw_steps or 0)
