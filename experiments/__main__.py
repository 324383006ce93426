"""``python -m experiments --config-name recipe_wall``: run a study. Run again after an interruption, it goes on."""

from __future__ import annotations

from launch import door

if __name__ == "__main__":
    door.enter("python -m experiments", __doc__, "recipe_wall", adds=True)  # before torch is loaded

# isort: split
import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import logging
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from experiments.config import StudyConfig
from experiments.outcomes import Outcomes
from experiments.publish import publish, refuse_unpublishable
from experiments.study import Study
from experiments.tables import Tables
from launch.command_line import one_line_errors, parse
from launch.conf import ROOT
from launch.jobs import kept_results, run_jobs, workers_or_default
from launch.provenance import Provenance
from utils.files import write_text
from utils.folder_lock import holding
from utils.links import check_contents

log = logging.getLogger("experiments")


@hydra.main(version_base="1.3", config_path="../conf", config_name="recipe_wall")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Run the stages of ``seeds`` that are not finished, and write what is known of all."""
    config = parse(cfg, StudyConfig)
    folder = Path(config.folder)
    check_contents(folder, strict=True)
    with holding(folder, "study folder", "choose another folder=..."):
        _run(Study(config), folder)


def _run(study: Study, folder: Path) -> None:
    config, jobs = study.config, study.jobs()
    workers, kept = workers_or_default(config.num_workers), folder / "stages"
    if config.publish:
        refuse_unpublishable(ROOT, config, must_run=len(kept_results(jobs, kept)) < len(jobs))
    log.info("%d jobs, %d at a time, in %s", len(jobs), workers, folder)
    results = run_jobs(jobs, kept, workers)
    provenance = Provenance.read(kept, results)
    for seed in config.seeds:
        Outcomes.of(study, seed, results, _made(provenance)).write(folder / "outcomes")
    page = Tables(config, Outcomes.read(folder / "outcomes")).page()
    write_text(folder / "report.md", page)
    if config.publish:
        provenance.require_committed(folder)  # not of one revision: publishing a seed makes another
        publish(ROOT, config, folder / "outcomes")
    log.info("\n%s\n\ntables: %s", page, folder / "report.md")


def _made(provenance: Provenance) -> dict[str, Any]:
    versions = runtime.describe_environment()
    return {
        "date": provenance.date,
        "revision": " and ".join(provenance.revisions),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


if __name__ == "__main__":
    main()
