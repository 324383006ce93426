"""``python -m demo``: collect, pretrain, finetune, evaluate, report. Run again after an interruption, it goes on."""

from __future__ import annotations

from launch import door

if __name__ == "__main__":
    door.enter("python -m demo", __doc__, "demo_wall", adds=True)  # before torch is loaded

# isort: split
import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from demo.publish import publish
from demo.report import Report
from experiments import stages
from launch.command_line import one_line_errors, plain
from launch.jobs import Job, run_jobs, workers_or_default
from launch.provenance import Provenance
from utils.folder_lock import holding
from utils.links import check_contents

log = logging.getLogger("demo")


def make_jobs(config: Mapping[str, Any], folder: Path) -> list[Job]:
    """All stages of the demo, in the order in which they should start."""
    data, seed, evaluating = folder / "data", config["seed"], f"plan_{config['env']}"
    training = [f"env.dataset.data_path={data}", f"training.seed={seed}", "num_threads=1"]
    base = folder / "base"
    common = config["finetune"]["common"]
    methods = {name: overrides for name, overrides in config["finetune"].items() if name != "common"}
    planners = {name: overrides for name, overrides in config["evaluate"].items() if name != "common"}
    pretrain = [*config["pretrain"], *training, f"ckpt_path={base}", f"run_dir={base}"]
    jobs = [
        Job("collect", stages.collect, {"overrides": [*config["collect"], f"seed={seed}", f"data_path={data}"]}),
        Job("base", stages.train, {"overrides": pretrain}, ["collect"]),
    ]
    for name, overrides in methods.items():
        finetune = [*common, *overrides, *training, f"ckpt_path={base}", f"run_dir={folder / name}"]
        jobs.append(Job(name, stages.train, {"overrides": finetune}, ["base"]))
    evaluation = [*config["evaluate"]["common"], f"seed={99 + seed}", f"n_evals={config['n_evals']}", "num_threads=1"]
    evaluation.append(f"env.dataset.data_path={data}")
    for model in ("base", *methods):
        for planner, overrides in planners.items():
            results = folder / f"{model}_{planner}"
            settings = [*evaluation, *overrides, f"ckpt_path={folder / model}", f"run_dir={results}"]
            arguments = {"config_name": evaluating, "overrides": settings}
            jobs.append(Job(f"{model}_{planner}", stages.evaluate, arguments, [model]))
    gap = {
        "models": {name: str(folder / name) for name in ("base", *methods)},
        "planned_by": "base",
        "config_name": evaluating,
        "overrides": [
            *evaluation,
            *next(iter(planners.values())),
            "ckpt_path=unused",
            "run_dir=unused",
        ],
        "num_tasks": config["n_evals"],
        "seed": seed,
    }
    return [*jobs, Job("gap", stages.measure_gap, gap, ["base", *methods])]


def commands(jobs: Sequence[Job]) -> list[str]:
    """The command lines that do the same as the jobs."""
    entry = {
        "collect": "python -m datasets.collect",
        "train": "python train.py",
        "evaluate": "python plan.py --config-name {config_name}.yaml",
    }
    lines = []
    for job in jobs:
        if job.run.__name__ in entry:
            overrides = [text.replace("run_dir=", "hydra.run.dir=") for text in job.arguments["overrides"]]
            lines.append(" ".join([entry[job.run.__name__].format(**job.arguments), *map(shlex.quote, overrides)]))
    return lines


@hydra.main(version_base="1.3", config_path="../conf", config_name="demo_wall")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Run all stages and write the report."""
    config = plain(cfg)
    folder = Path(config["folder"])
    check_contents(folder, strict=True)
    with holding(folder, "demo folder", "choose another folder=..."):
        _run(config, folder)


def _run(config: dict[str, Any], folder: Path) -> None:
    jobs = make_jobs(config, folder)
    config["num_workers"] = workers_or_default(config["num_workers"])
    results = run_jobs(jobs, folder / "stages", config["num_workers"])
    provenance = Provenance.read(folder / "stages", results)
    report = Report(config, results, folder, commands(jobs), runtime.describe_environment(), provenance)
    report.write()
    if config["publish"]:
        provenance.require_one_revision(folder)
        publish(f"demo_{config['env']}", report.described())
    log.info("\n%s\n\nreport: %s", report.as_text(), folder / "report.html")


if __name__ == "__main__":
    main()
