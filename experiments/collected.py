"""``python -m experiments collect <folder> ...``: the report of a study over evaluations that were run before.

Members of sweeps or single runs of ``plan.py``: what they differ in besides model, episodes and folder names the
planners. Nothing is run; unfinished runs are left out, with a line.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.build import Builder
from experiments.config import StudyConfig
from experiments.inputs import digests, relative
from experiments.outcomes import refuse_other_episodes
from experiments.publish import raw_config
from experiments.report import Made, Report
from experiments.result import Findings, Result
from experiments.run import write_report
from experiments.shorthand import ONLY, names_of, study_config
from experiments.study import Study
from experiments.terminal import as_text
from launch.command_line import one_line
from launch.sweep_results import OUTCOMES, Run, read_runs
from planning.episode_record import EPISODES
from utils.printable import write_printable

log = logging.getLogger("experiments")

OF_MODEL = ("ckpt_path", "model_epoch")
OF_GOALS = ("goal_source", "goal_H", "goal_file_path", "unsolved_starts_only", "vary")
OF_RUN = (
    "seed",
    "n_evals",
    "n_plot_samples",
    "num_threads",
    "device",
    "run_dir",
    "memory_budget_gb",
    "env",
    "save_latents",
)
"""Settings that make neither another model, nor other goals, nor another planner."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect; what goes wrong is one line on standard error and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m experiments collect", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="run folders of plan.py, or folders that hold some")
    parser.add_argument("--out", type=Path, help="folder of the report (default: the first one)")
    given = parser.parse_args(arguments)
    with one_line():
        report = collect(given.folders, given.out or given.folders[0])
        write_printable(f"{as_text(report)}\n", sys.stdout)


def collect(folders: Sequence[Path], out: Path) -> Report:
    """Write the report of all finished evaluations in ``folders`` into ``out``.

    Raises:
        ValueError: If there is none, they are of several environments, or of episodes that do not fit each other.
    """
    runs = [run for folder in folders for run in read_runs(folder) if OUTCOMES in run.numbers]
    for run in runs:
        if not run.is_finished:
            log.warning("%s is %s: left out", run.folder, run.record["status"])
    runs = [run for run in runs if run.is_finished]
    if not runs:
        raise ValueError(f"{', '.join(map(str, folders))}: there is no finished evaluation in it")
    study, results = _study(runs, out)
    refuse_other_episodes(results, "collect them apart")
    revisions = dict.fromkeys(str(run.record["environment"]["revision"]) for run in runs)
    environment = runs[-1].record["environment"]
    made = Made(
        date=max(str(run.record["attempts"][-1]["started"])[:10] for run in runs),
        revision=" and ".join(revisions),
        command=f"python -m experiments collect {' '.join(map(str, folders))}",
        versions={name: str(each) for name, each in environment.items() if name not in ("cpu", "revision")},
        machine=str(environment.get("cpu", "")),
    )
    inputs = digests(out, [run.folder / "results.json" for run in runs])
    commands = [str(run.record["command"]) for run in runs]
    findings = Findings(results=results)
    report = Builder(study, findings).report(made, commands=commands, inputs=inputs)
    write_report(out, report, findings, whole=True)
    return report


def _study(runs: Sequence[Run], out: Path) -> tuple[Study, list[Result]]:
    """The study that would have run these, and what it found; runs of several evaluation seeds are put together."""
    settings = [_settings(run) for run in runs]
    paths = list(dict.fromkeys(each["ckpt_path"] for each in settings))
    models = dict(zip(paths, names_of(paths), strict=True))
    planners = _named(settings, lambda key: key not in (*OF_MODEL, *OF_GOALS, *OF_RUN) and not key.startswith("hydra"))
    goals = _named(settings, lambda key: key in OF_GOALS)
    cells: dict[tuple[str, str, str], list[Run]] = {}
    for run, each, planner, goal in zip(runs, settings, planners, goals, strict=True):
        cells.setdefault((models[each["ckpt_path"]], planner[0], goal[0]), []).append(run)
    raw = _raw(runs, out)
    raw["models"] = {name: {"ckpt_path": [path]} for path, name in models.items()}
    raw["planners"], raw["goals"] = dict(planners), dict(goals)
    raw["cells"] = {
        " | ".join(key): {"models": [key[0]], "planners": [key[1]], "goals": [key[2]], "n_evals": _count(own)}
        for key, own in cells.items()
    }
    results = [_joined(own, *key, out) for key, own in cells.items()]
    config: StudyConfig = study_config(raw, "collected")
    return Study(config), results


def _settings(run: Run) -> dict[str, str]:
    """What a run was started with, and the model and planner that it had without being told."""
    config = run.record["config"]
    return {"ckpt_path": str(config["ckpt_path"]), **run.settings}


def _raw(runs: Sequence[Run], out: Path) -> dict[str, Any]:
    envs = {str(run.record["config"]["env"]["name"]) for run in runs}
    if len(envs) > 1:
        raise ValueError(f"evaluations of {', '.join(sorted(envs))} cannot be compared; collect them apart")
    seeds = [int(run.record["config"].get("seed", 0)) for run in runs]
    more = {"folder": str(out), "goals_seed": seeds[0], "ceiling": False, "n_evals": max(map(_episodes, runs))}
    return {**raw_config("compare"), "environment": envs.pop(), **more}


def _named(settings: Sequence[dict[str, str]], is_part: Any) -> list[tuple[str, list[str]]]:
    """Name each run's part of the settings by what differs among the runs."""
    own = [{key: value for key, value in each.items() if is_part(key)} for each in settings]
    keys = dict.fromkeys(key for each in own for key in each)
    varied = [key for key in keys if len({each.get(key) for each in own}) > 1]
    return [
        (
            ", ".join(_written(key, each[key]) for key in varied if key in each) or each.get("planner", ONLY),
            [f"{key}={value}" for key, value in each.items()],
        )
        for each in own
    ]


def _written(key: str, value: str) -> str:
    return value if key == "planner" else f"{key.removeprefix('planner.')}={value}"


def _episodes(run: Run) -> int:
    return len(run.numbers[OUTCOMES])


def _count(runs: Iterable[Run]) -> int:
    return sum(map(_episodes, runs))


def _joined(runs: Sequence[Run], model: str, planner: str, goals: str, out: Path) -> Result:
    """The episodes of several evaluation seeds one after the other."""
    ordered = sorted(runs, key=lambda run: int(run.record["config"].get("seed", 0)))
    metrics: dict[str, Any] = dict(ordered[0].numbers)
    for run in ordered[1:]:
        metrics |= _appended(metrics, run.numbers)
    about = {"model": model, "planner": planner, "goals": goals, "seed": 0}
    if len(ordered) > 1:
        metrics.pop("episode_set_hash", None)
    is_recorded = len(ordered) == 1 and (ordered[0].folder / EPISODES).exists()
    return Result.of_metrics(metrics, folder=relative(ordered[0].folder, out) if is_recorded else None, **about)


def _appended(first: dict[str, Any], second: Any) -> dict[str, Any]:
    """Lists one after the other; means weighted by the numbers of episodes."""
    n, m = len(first[OUTCOMES]), len(second[OUTCOMES])
    found: dict[str, Any] = {}
    for key, value in first.items():
        other = second.get(key)
        if isinstance(value, list) and isinstance(other, list):
            found[key] = [*value, *other]
        elif (
            key.endswith(("_rate", "_per_episode"))
            and isinstance(value, int | float)
            and isinstance(other, int | float)
        ):
            found[key] = (n * value + m * other) / (n + m)
    return found
