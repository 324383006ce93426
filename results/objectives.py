"""``python -m results.objectives``: the study behind docs/objectives.md. Interrupted, it goes on when run again."""

from __future__ import annotations

from launch import door

if __name__ == "__main__":
    door.enter("python -m results.objectives", __doc__, "results_objectives", adds=True)  # before torch is loaded

# isort: split
import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig

from experiments import stages
from launch.command_line import one_line_errors, plain
from launch.conf import ROOT
from launch.jobs import Job, run_jobs
from launch.provenance import Provenance
from planning.config import PlanConfig
from planning.metrics import solved_by_doing_nothing
from planning.prepare_evaluation import prepare_evaluation
from utils.folder_lock import holding
from utils.links import check_contents
from utils.pages import markdown_table, write_block, write_numbers
from utils.statistics import wilson_interval

log = logging.getLogger("results")

NUMBERS, PAGE = Path("docs/published/objectives.json"), Path("docs/objectives.md")
NOTHING = "doing nothing"
KINDS = {"gradient": ("mpc_gd_lbfgs", "mpc_gd"), "sampling": ("mpc_cem",)}
WHOLE = "whole plans"  # what is there for comparison only


@dataclass(frozen=True)
class Run:
    """One evaluation: of a round, on a task, with a planner and an objective."""

    round: str
    task: str
    planner: str
    objective: str

    @property
    def name(self) -> str:
        """The name of its job and its folder."""
        return re.sub(r"\W+", "_", f"{self.round} {self.task} {self.planner} {self.objective}")


class Study:
    """All jobs of ``conf/results_objectives.yaml``, composed, as plain data."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config, self.folder = config, Path(config["folder"])

    def runs(self) -> Iterator[Run]:
        """All evaluations, the choice before the report."""
        for name, settings in self.config["rounds"].items():
            for task in self.config["tasks"]:
                for planner, chosen in settings["runs"].items():
                    objectives = self.config["objectives"] if chosen == "all" else chosen
                    yield from (Run(name, task, planner, objective) for objective in objectives)

    def idle(self) -> list[Run]:
        """What is solved without doing anything, in every round."""
        return [Run(name, task, "", NOTHING) for name in self.config["rounds"] for task in self.config["tasks"]]

    def jobs(self) -> list[Job]:
        """All stages, in the order in which they should start."""
        jobs = []
        for task, settings in self.config["tasks"].items():
            base, data = self.folder / task / "base", self.folder / task / "data"
            collect = [f"env={task}", *settings["collect"], "seed=0", f"data_path={data}"]
            train = [*settings["pretrain"], "method=offline", "training.seed=0", "num_threads=1", "has_decoder=false"]
            train += ["training.num_reconstruct_samples=0", f"env.dataset.data_path={data}"]
            train += [f"ckpt_path={base}", f"run_dir={base}"]
            jobs.append(Job(f"{task}_data", stages.collect, {"overrides": collect}))
            jobs.append(Job(f"{task}_base", stages.train, {"overrides": train}, [f"{task}_data"]))
        return [*jobs, *map(self._nothing, self.idle()), *map(self._evaluation, self.runs())]

    def _evaluation(self, run: Run) -> Job:
        chosen = [*self.config["planners"][run.planner], *self.config["objectives"][run.objective]]
        overrides = [*self._common(run.task, self.config["rounds"][run.round]), *chosen]
        overrides.append(f"run_dir={self.folder / run.name}")
        return Job(
            run.name, stages.evaluate, {"config_name": f"plan_{run.task}", "overrides": overrides}, [f"{run.task}_base"]
        )

    def _nothing(self, run: Run) -> Job:
        overrides = [*self._common(run.task, self.config["rounds"][run.round]), f"run_dir={self.folder / run.name}"]
        arguments = {"config_name": f"plan_{run.task}", "overrides": overrides}
        return Job(run.name, do_nothing, arguments, [f"{run.task}_base"])

    def _common(self, task: str, settings: Mapping[str, Any]) -> list[str]:
        return [
            *self.config["tasks"][task]["evaluate"],
            f"seed={settings['seed']}",
            f"n_evals={settings['n_evals']}",
            f"unsolved_starts_only={str(settings['unsolved_starts_only']).lower()}",
            "n_plot_samples=0",
            "num_threads=1",
            f"env.dataset.data_path={self.folder / task / 'data'}",
            f"ckpt_path={self.folder / task / 'base'}",
        ]

    def rows(self, results: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What is kept of the evaluations, one row each."""
        return [
            {
                "round": run.round,
                "seed": self.config["rounds"][run.round]["seed"],
                "task": run.task,
                "planner": run.planner,
                "objective": run.objective,
                "solved_at": results[run.name]["solved_at"],
                "planning_seconds_per_episode": results[run.name].get("planning_seconds_per_episode", 0.0),
            }
            for run in [*self.idle(), *self.runs()]
        ]


def do_nothing(config_name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Say of each episode whether doing nothing for ten blocks solves it: 1, else 0."""
    task = prepare_evaluation(stages.composed(PlanConfig, config_name, overrides), torch.device("cpu")).task
    ends = range(0, 11 * task.frameskip, task.frameskip)
    solved = solved_by_doing_nothing(task.env, task.problem, ends)
    task.env.close()
    return {"solved_at": solved.int().tolist()}


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """One table per round: solved in %, [95 % Wilson interval]."""
    parts = []
    for name in dict.fromkeys(row["round"] for row in rows):
        own = [row for row in rows if row["round"] == name]
        found = {(row["task"], row["planner"], row["objective"]): row["solved_at"] for row in own}
        tasks = list(dict.fromkeys(row["task"] for row in own))
        planners = [planner for planner in dict.fromkeys(row["planner"] for row in own) if planner]
        head = ["objective", *(f"{task}, {planner}" for task in tasks for planner in planners)]
        cells = [[NOTHING, *(_rate(found[task, "", NOTHING]) for task in tasks for _ in planners)]]
        for objective in dict.fromkeys(row["objective"] for row in own if row["planner"]):
            keys = [(task, planner, objective) for task in tasks for planner in planners]
            cells.append([objective, *(_rate(found[key]) if key in found else "" for key in keys)])
        episodes = len(own[0]["solved_at"])
        parts.append(
            f"### {name.capitalize()}: seed {own[0]['seed']}, {episodes} episodes\n\n{markdown_table(head, cells)}"
        )
    losses = [[kind, name, f"{loss:.0f}"] for kind, own in largest_losses(rows).items() for name, loss in own.items()]
    head = ["planners", "objective", "largest loss over the tasks, points"]
    return "\n\n".join([*parts, f"### What the choice rests on\n\n{markdown_table(head, losses)}"])


def largest_losses(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Kind of planner -> objective -> percentage points that it solves less than the best one, on its worst task.

    Of planners of a kind those episodes are pooled that the objective met with all of them.
    """
    rate: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for kind, planners in KINDS.items():
            if row["round"] == "choice" and row["planner"] in planners and WHOLE not in row["objective"]:
                solved = 100 * sum(at > 0 for at in row["solved_at"]) / len(row["solved_at"])
                rate.setdefault((kind, row["task"], row["objective"]), []).append(solved)
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        most = max((len(rates) for key, rates in rate.items() if key[0] == kind), default=0)
        full = {key[1:]: sum(rates) / most for key, rates in rate.items() if key[0] == kind and len(rates) == most}
        best = {task: max(value for (other, _), value in full.items() if other == task) for task, _ in full}
        losses: dict[str, float] = {}
        for (task, objective), value in full.items():
            losses[objective] = max(losses.get(objective, 0.0), best[task] - value)
        found[kind] = dict(sorted(losses.items(), key=lambda item: item[1]))
    return found


def _rate(solved_at: Sequence[int]) -> str:
    solved, num = sum(at > 0 for at in solved_at), len(solved_at)
    low, high = wilson_interval(solved, num)
    return f"{100 * solved / num:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def publish(root: Path, numbers: Mapping[str, Any]) -> None:
    """Write a checkout's published numbers, and the tables of the page from them."""
    write_numbers(root / NUMBERS, numbers)
    write_block(root / PAGE, "objectives", tables(numbers["rows"]))


@hydra.main(version_base="1.3", config_path="../conf", config_name="results_objectives")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Run all stages; print the tables."""
    study = Study(plain(cfg))
    check_contents(study.folder, strict=True)
    with holding(study.folder, "study folder", "choose another folder=..."):
        _run(study)


def _run(study: Study) -> None:
    results = run_jobs(study.jobs(), study.folder / "stages", study.config["num_workers"])
    rows = study.rows(results)
    log.info("\n%s", tables(rows))
    if study.config["publish"]:
        made = Provenance.read(study.folder / "stages", results)
        environment = runtime.describe_environment() | {"revision": made.require_one_revision(study.folder)}
        publish(ROOT, {"made": {"date": made.date, "environment": environment}, "rows": rows})


if __name__ == "__main__":
    main()
