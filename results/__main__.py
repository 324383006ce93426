"""``python -m results``: the study behind docs/results.md. Run again after an interruption, it goes on."""

from __future__ import annotations

from launch import door

if __name__ == "__main__":
    door.enter("python -m results", __doc__, "results_wall", adds=True)  # before torch is loaded

# isort: split
import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import logging
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from launch.command_line import one_line_errors, plain
from launch.conf import ROOT
from launch.jobs import run_jobs, workers_or_default
from launch.provenance import Provenance
from results.jobs import Study
from results.report import Report
from utils.folder_lock import holding
from utils.links import check_contents

log = logging.getLogger("results")


@hydra.main(version_base="1.3", config_path="../conf", config_name="results_wall")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Run all stages and write the report."""
    config = plain(cfg)
    folder = Path(config["folder"])
    check_contents(folder, strict=True)
    with holding(folder, "study folder", "choose another folder=..."):
        _run(config, folder)


def _run(config: dict[str, Any], folder: Path) -> None:
    study = Study(config, folder)
    jobs = study.jobs()
    workers = workers_or_default(config["num_workers"])
    log.info("%d stages, %d at a time, in %s", len(jobs), workers, folder)
    begin = time.perf_counter()
    results = run_jobs(jobs, folder / "stages", workers)
    log.info("all stages are done; this call took %.0f minutes", (time.perf_counter() - begin) / 60)
    provenance = Provenance.read(folder / "stages", results)
    report = Report(study, results, runtime.describe_environment(), provenance)
    report.write()
    if config["publish"]:
        report.publish(ROOT)
    log.info("\n%s\n\ntables: %s", "\n".join(report.numbers.findings), folder / "results.md")


if __name__ == "__main__":
    main()
