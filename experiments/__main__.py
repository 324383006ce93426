"""``python -m experiments <study>``: run a study, or compare checkpoints. Run again after an interruption, it goes on.

``python -m experiments compare models=[outputs/wall,outputs/wall/online/<run>] planners=[mpc_gd_lbfgs,mpc_cem]``
``python -m experiments demo env=pusht``, ``python -m experiments results``: configs of conf/, each with its environment
``python -m experiments collect <folder> ...``: one report of evaluations that were run before
"""

from __future__ import annotations

import sys

from experiments.words import GIVEN, in_hydras_words
from launch import startup

if __name__ == "__main__" and sys.argv[1:2] != ["collect"]:
    startup.check_command_line(
        "python -m experiments", __doc__, "compare", adds=True, words=in_hydras_words
    )  # before torch is loaded

# isort: split
import utils.runtime  # noqa: F401  (first: it sets the thread environment before torch is loaded)

# isort: split
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.collected import main as collect
from experiments.preflight import check
from experiments.run import Runner
from experiments.shorthand import study_config
from experiments.study import Study
from launch.command_line import one_line_errors, plain
from utils.folder_lock import holding
from utils.links import check_contents
from utils.slurm import requeued_when_stopped


@hydra.main(version_base="1.3", config_path="../conf", config_name="compare")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Check everything, run the stages that are not finished, and write what is known of all."""
    settings = HydraConfig.get()
    own = [source.path for source in settings.runtime.config_sources if source.provider == "command-line"]
    name = str(settings.job.config_name)
    study = Study(study_config(plain(cfg), name, *own[:1]), *own[:1])
    check(study)
    folder = study.folder
    check_contents(folder, strict=True)
    with requeued_when_stopped(), holding(folder, "study folder", "choose another folder=..."):
        Runner(study, ["python", "-m", "experiments", *GIVEN], _cluster(settings.launcher)).run()


def _cluster(launcher: Any) -> dict[str, Any] | None:
    """Settings of a launcher that has the stages run elsewhere; None: there is none."""
    found = OmegaConf.to_container(launcher, resolve=True)
    assert isinstance(found, dict)
    here = str(found.get("_target_", "")).endswith("BasicLauncher")
    return None if here else {str(key): value for key, value in found.items()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["collect"]:
        collect(sys.argv[2:])
    else:
        main()
