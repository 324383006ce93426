"""The study's numbers as text for pages: ``docs/results.md`` and the line in the README."""

from __future__ import annotations

import textwrap

from results import tables
from results.numbers import Numbers


def markdown(numbers: Numbers, images: str) -> str:
    """Tables, figures and findings; ``images``: what stands before a figure's file name."""
    comparisons = len(numbers.planners) * len(numbers.differences)
    return "\n\n".join(
        [
            _made(numbers),
            "### Success, %",
            "Mean over seeds and episodes, [95 % interval over both], (range over seeds).",
            tables.success_table(numbers),
            f"![Success of every planner on every model]({images}success.png)",
            "### What finetuning adds, percentage points",
            "The same seeds and episodes compared, [95 % interval]; bold where it leaves out 0. Of these "
            f"{comparisons} comparisons up to {0.05 * comparisons:.0f} may be bold by chance (fewer, as intervals "
            "are rather too wide); they are not independent of each other.",
            tables.difference_table(numbers),
            "### What planning takes",
            "Per episode, all models together; seconds are wall clock with other stages beside.",
            tables.cost_table(numbers),
            "### Success at equal budgets",
            f"![Success against planning time and rollouts]({images}budgets.png)",
            "Rollouts and seconds of the table are of these models together; the figure has each model's own where all "
            "are known.",
            tables.budget_table(numbers),
            "### The train-test gap of the model",
            "One-step visual error, [95 % interval].",
            tables.gap_table(numbers),
            "### What the numbers say",
            "\n".join(f"- {sentence}" for sentence in numbers.findings),
        ]
    )


def summary(numbers: Numbers) -> str:
    """One sentence: what the best budget of each planner solves after online finetuning."""
    rows = [row for row in numbers.budgets if "online" in row.own]
    parts = []
    for planner in dict.fromkeys(row.planner for row in rows):
        best = max((row for row in rows if row.planner == planner), key=lambda row: row.success["online"].mean)
        of, spent = best.success["online"], best.own["online"].evaluations
        parts.append(
            f"{planner} solves {100 * of.mean:.0f} % [{100 * of.low:.0f}, {100 * of.high:.0f}] with {spent:.0f}"
        )
    made = f"revision {numbers.made['environment']['revision']}, {numbers.made['date']}"
    text = (
        "With the best of the budgets tried for each planner, replanning after every block, after online finetuning: "
        f"{', '.join(parts)} imagined rollouts per episode ({made})."
    )
    return textwrap.fill(text, 120)


def _made(numbers: Numbers) -> str:
    made = numbers.made
    where = ", ".join(f"{key} {value}" for key, value in made["environment"].items())
    return (
        f"{numbers.seeds} training seeds; {numbers.episodes} episodes, alike for all models and planners (SHA-256 of "
        f"starts, goals and layouts `{made['goals_sha256'][:16]}`), {made['protocol']}. Made on {made['date']}: "
        f"{where}. Stages: {made['hours']:.1f} hours of one core.{made['note']}"
    )
