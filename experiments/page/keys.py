"""Which colour a model has and which shape a planner, the same in every figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from experiments.page.svg import NUM_COLOURS, SHAPES, marker

LONGEST = 18  # letters of a name in a figure


@dataclass(frozen=True)
class Keys:
    """Colours by model and shapes by planner; with more of them than there are, they come again.

    Args:
        models: Their names, in the report's order.
        planners: Likewise.
    """

    models: Sequence[str]
    planners: Sequence[str]

    def colour(self, model: str) -> int:
        """Number of a model's colour, as in the class ``c0``."""
        return self.models.index(model) % NUM_COLOURS if model in self.models else NUM_COLOURS - 1

    def shape(self, planner: str) -> str:
        """One of ``SHAPES``."""
        return SHAPES[self.planners.index(planner) % len(SHAPES)] if planner in self.planners else SHAPES[-1]

    def model_dot(self, model: str) -> Markup:
        """A dot in the model's colour, for a line of text."""
        return _small(marker("circle", 6, 6, 4.6, _class=f"mark c{self.colour(model)}"))

    def planner_mark(self, planner: str) -> Markup:
        """The planner's shape, for a line of text."""
        return _small(marker(self.shape(planner), 6, 6, 4.2, _class="mark ink"))


def _small(inner: Markup) -> Markup:
    return Markup('<svg class="key" viewBox="0 0 12 12" aria-hidden="true">{}</svg>').format(inner)


def short(name: str, longest: int = LONGEST) -> str:
    """Cut a name that would not fit."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
