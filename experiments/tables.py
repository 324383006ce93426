"""What the outcomes of a study say, as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

import numpy as np

from experiments.config import StudyConfig
from experiments.estimate import Estimate
from experiments.outcomes import Outcomes
from utils.pages import markdown_table


class Tables:
    """Tables over all seeds that are there.

    Args:
        config: Of the study.
        outcomes: Of at least one seed.
    """

    def __init__(self, config: StudyConfig, outcomes: Sequence[Outcomes]) -> None:
        self.config, self.outcomes = config, outcomes

    def page(self) -> str:
        """Everything, one table after the other."""
        return "\n\n".join(
            [
                self._made(),
                "Success, %: mean over training seeds and episodes, [95 % interval over both], (range over seeds).",
                self.success(),
                "Differences, percentage points, on the same seeds and episodes, [95 % interval]; bold where it leaves "
                f"out 0. Of these {self._comparisons()} about {0.05 * self._comparisons():.0f} may be bold by chance.",
                self.differences(),
                "The same between planners, on the episodes that both met.",
                self.planner_differences(),
                "Cost per episode, all models together; seconds are wall clock of one core with other jobs beside.",
                self.cost(),
                "One-step visual error of the models, mean over seeds (range).",
                self.errors(),
            ]
        )

    def success(self) -> str:
        """Models by planners."""
        planners = self._planners()
        idle = ["doing nothing", *(self._nothing(planner) for planner in planners)]
        rows = [[model, *(self._success(model, planner) for planner in planners)] for model in self.config.models]
        return markdown_table(["model", *planners], [idle, *rows])

    def differences(self) -> str:
        """Compared pairs by planners."""
        planners = self._planners()
        rows = [[f"{a} - {b}", *(self._difference(a, b, p) for p in planners)] for a, b in self.config.compare]
        return markdown_table(["models", *planners], rows)

    def planner_differences(self) -> str:
        """Models by compared pairs of planners."""
        pairs = self.config.compare_planners
        rows = [[model, *(self._planner_difference(model, a, b) for a, b in pairs)] for model in self.config.models]
        return markdown_table(["model", *(f"{a} - {b}" for a, b in pairs)], [row for row in rows if any(row[1:])])

    def cost(self) -> str:
        """What each planner takes per episode."""
        rows = []
        for planner in self._planners():
            found = [of.cost[m][planner] for of in self.outcomes for m in of.cost if planner in of.cost[m]]
            spent = [f"{fmean(cost[key] for cost in found):.0f}" for key in ("evaluations", "gradients")]
            rows.append([planner, f"{median(cost['seconds'] for cost in found):.3f}", *spent])
        head = ["planner", "planning s, median", "rollouts, mean", "of these differentiated"]
        return markdown_table(head, rows)

    def errors(self) -> str:
        """One-step error where the data set goes, and where the base's plans lead."""
        rows = []
        for base, models in self.outcomes[0].errors.items():
            for model in models:
                found = [of.errors[base][model] for of in self.outcomes if model in of.errors.get(base, {})]
                rows.append([model, *(_range([each[where] for each in found]) for where in ("dataset", "planner"))])
        return markdown_table(["model", "data set windows", "where the base's plans lead"], rows)

    def _planners(self) -> list[str]:
        """Those that were used, in the order of the config."""
        used = {planner for of in self.outcomes for planners in of.solved_at.values() for planner in planners}
        return [planner for planner in self.config.planners if planner in used]

    def _success(self, model: str, planner: str) -> str:
        return "" if (table := self._table(model, planner)) is None else Estimate.of(table).as_percent()

    def _difference(self, model: str, to: str, planner: str) -> str:
        first, second = self._table(model, planner), self._table(to, planner)
        if first is None or second is None:
            return ""
        return Estimate.of(first - second, is_rate=False).as_points()

    def _planner_difference(self, model: str, planner: str, to: str) -> str:
        first, second = self._table(model, planner), self._table(model, to)
        if first is None or second is None:
            return ""
        both = min(first.shape[1], second.shape[1])
        return Estimate.of(first[:, :both] - second[:, :both], is_rate=False).as_points()

    def _comparisons(self) -> int:
        return sum(bool(self._difference(a, b, p)) for a, b in self.config.compare for p in self._planners())

    def _table(self, model: str, planner: str) -> np.ndarray | None:
        """(seeds, episodes) of 0 and 1; None where this was not evaluated."""
        if any(planner not in of.solved_at.get(model, {}) for of in self.outcomes):
            return None
        return np.array([of.solved(model, planner) for of in self.outcomes])

    def _nothing(self, planner: str) -> str:
        found = [of.cost[m][planner]["nothing"] for of in self.outcomes for m in of.cost if planner in of.cost[m]]
        return f"{100 * found[0]:.0f}"

    def _made(self) -> str:
        def each(key: str) -> str:
            return " and ".join(dict.fromkeys(str(of.made[key]) for of in self.outcomes))

        first, seeds = self.outcomes[0], ", ".join(str(of.seed) for of in self.outcomes)
        hashes = ", ".join(f"`{met[:12]}`" for met in dict.fromkeys(first.episodes.values()))
        return (
            f"Training seeds {seeds}; {self.config.n_evals} episodes unless a planner's name says otherwise, alike for "
            f"all models and seeds (SHA-256 of starts, goals and layouts {hashes}), none of which begins solved. Made "
            f"on {each('date')} at revision {each('revision')}: {each('versions')}."
        )


def _range(values: Sequence[float]) -> str:
    return f"{fmean(values):.4f} ({min(values):.4f}..{max(values):.4f})"
