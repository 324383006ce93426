"""A study that is small and fast: two tiny checkpoints with random weights, two planners, four episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.build import Builder
from experiments.publish import raw_config
from experiments.report import Made, Report
from experiments.result import Findings, Result
from experiments.run import Runner
from experiments.shorthand import study_config
from experiments.study import Study
from tests.builders import wall_model_directory

PLANNERS = {
    "gd": ["planner.opt_steps=2", "planner.horizon=2"],
    "cem": ["planner.opt_steps=2", "planner.horizon=2", "planner.num_samples=8", "planner.topk=2"],
}
EVALUATE = ["n_plot_samples=0", "device=cpu"]
MADE = Made(date="2026-01-01", revision="abc", command="python -m experiments tiny", versions={"torch": "9"})


def study(place: Path | str, **changed: Any) -> Study:
    """The study of two models that nothing has been trained for, unless they are ``changed``."""
    given = {"models": {"a": f"{place}/a", "b": f"{place}/b"}, "planners": PLANNERS, "evaluate": EVALUATE}
    given |= {
        "environment": "wall",
        "n_evals": 4,
        "ceiling_evals": 2,
        "why_evals": 0,
        "inspect_evals": 0,
        "num_workers": 2,
        "folder": f"{place}/study",
    }
    return Study(study_config(raw_config("compare") | given | changed, "tiny"))


def write_models(folder: Path) -> None:
    """Write both checkpoints."""
    for seed, name in enumerate("ab"):
        wall_model_directory(folder / name, seed=seed)


def run(place: Path, **changed: Any) -> Report:
    """Run the study of the models in ``place``."""
    return Runner(study(place, **changed), ["python", "-m", "experiments", "tiny"]).run()


def result(model: str, planner: str, solved: list[int], **more: Any) -> Result:
    """An evaluation of which each episode was solved at the given raw step, 0: not at all."""
    about = {"seed": 0, "goals": "as configured", "floors": {"nothing": 1.0}, "episodes": "e"} | more
    return Result(model=model, planner=planner, solved_at_step=solved, **about)


def report(of: Study, *results: Result, **more: Any) -> Report:
    """The report of made-up results."""
    return Builder(of, Findings(results=results, **more)).report(MADE)
