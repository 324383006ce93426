"""Writes down what the study found: numbers, tables, figures, and what they say."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from results import figures, tables
from results.jobs import Study
from results.scores import Scores, goals_hash
from utils.files import write_json, write_text

BEGIN, END = "<!-- begin generated -->", "<!-- end generated -->"


class Report:
    """Collects the stages' results.

    Args:
        study: what was run. results: job name -> result. environment: versions and hardware.
    """

    def __init__(self, study: Study, results: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.study, self.results, self.environment = study, results, environment
        self.scores = Scores(study, results)
        self.goals = goals_hash([study.folder / run.name for run in (*study.table, *study.curve)])

    def write(self) -> None:
        """Write ``report.json``, ``results.md`` and the figures into the study's folder."""
        write_json(self.study.folder / "report.json", self._numbers())
        write_text(self.study.folder / "results.md", self.markdown("."))
        figures.draw_all(self.scores, self.study.folder)

    def publish(self, docs: Path) -> None:
        """Put the tables between the markers of ``docs/results.md``, and the figures into ``docs/images``.

        Raises:
            ValueError: If the page lacks a marker.
        """
        page = docs / "results.md"
        text = page.read_text(encoding="utf-8")
        if BEGIN not in text or END not in text:
            raise ValueError(f"{page} needs the two lines {BEGIN} and {END}, between which the tables go")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        for path in figures.draw_all(self.scores, self.study.folder):
            shutil.copyfile(path, docs / "images" / f"results_{path.name}")
        write_text(page, f"{before}{BEGIN}\n{self.markdown('images/results_')}\n{END}{after}")

    def markdown(self, images: str) -> str:
        """Tables, figures and findings; ``images``: what stands before a figure's file name."""
        study, seeds, episodes = self.study, len(self.study.seeds), self.study.config["n_evals"]
        prefix = images if images.endswith("_") else f"{images}/"
        where = ", ".join(f"{key} {value}" for key, value in self.environment.items())
        comparisons = len(study.planners) * 2 * len(study.finetuned)
        return "\n\n".join(
            [
                f"{seeds} training seeds; {episodes} episodes, alike for all models and planners (SHA-256 of starts, "
                f"goals and layouts `{self.goals[:16]}`). {where}. Stages: {self._hours():.1f} hours of one core.",
                "### Success, %",
                "Mean over seeds and episodes, [95 % interval over both], (range over seeds).",
                tables.success_table(self.scores),
                f"![Success of every planner on every model]({prefix}success.png)",
                "### What finetuning adds, percentage points",
                "The same seeds and episodes compared, [95 % interval]; bold where it leaves out 0. Of these "
                f"{comparisons} comparisons up to {0.05 * comparisons:.0f} may be bold by chance (fewer, as intervals "
                "are rather too wide); they are not independent of each other.",
                tables.difference_table(self.scores),
                "### What planning takes",
                "Per episode, all models together; seconds are wall clock with other stages beside.",
                tables.cost_table(self.scores),
                "### Success at equal budgets",
                f"![Success against planning time and rollouts]({prefix}budgets.png)",
                "Rollouts and seconds of the table are of these models together; the figure has each model's own.",
                tables.budget_table(self.scores),
                "### The train-test gap of the model",
                "One-step visual error, [95 % interval].",
                tables.gap_table(self.scores),
                "### What the numbers say",
                "\n".join(f"- {sentence}" for sentence in self.findings()),
            ]
        )

    def findings(self) -> list[str]:
        """Whichever way they point."""
        sentences = [self._finding(model) for model in self.study.finetuned if model != "control"]
        control = self.scores.error("control", "planner").mean
        for model in self.study.finetuned:
            if model != "control":
                ratio = self.scores.error(model, "planner").mean / control
                sentences.append(f"{model}: the error where plans lead is {ratio:.2f} times that of the control.")
        return sentences

    def _finding(self, model: str) -> str:
        found = {name: self.scores.difference(model, "control", name) for name in self.study.planners}
        better = [name for name, change in found.items() if change.low > 0]
        worse = [name for name, change in found.items() if change.high < 0]
        mean = 100 * sum(change.mean for change in found.values()) / len(found)
        return (
            f"{model} against the control: {mean:+.1f} points on average over {len(found)} planners; better with "
            f"{'; '.join(better) or 'none'}; worse with {'; '.join(worse) or 'none'}; the others cannot be told apart."
        )

    def _hours(self) -> float:
        # evaluations report planning and simulation, trainings their whole time
        keys = ("seconds", "planning_seconds", "simulation_seconds")
        return sum(result.get(key, 0.0) for result in self.results.values() for key in keys) / 3600

    def _numbers(self) -> dict[str, Any]:
        scores, study, budgets = self.scores, self.study, self.study.config["budgets"]
        return {
            "config": dict(study.config),
            "environment": dict(self.environment),
            "goals_sha256": self.goals,
            "success": {m: {p: asdict(scores.success(m, p)) for p in study.planners} for m in study.models},
            "cost": {p: asdict(scores.cost(p, study.models)) for p in study.planners},
            "budgets": {
                model: {
                    planner: {
                        str(budget): asdict(scores.success(model, planner, budget))
                        | asdict(scores.cost(planner, [model], budget))
                        for budget in setting["evals"]
                    }
                    for planner, setting in budgets["planners"].items()
                }
                for model in budgets["models"]
            },
            "error": {m: {w: asdict(scores.error(m, w)) for w in ("dataset", "planner")} for m in study.models},
            "findings": self.findings(),
            "runs": dict(self.results),
        }
