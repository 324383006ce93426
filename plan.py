"""Evaluate a world model by planning: ``python plan.py --config-name plan_wall.yaml ckpt_path=outputs/wall_single``."""

from __future__ import annotations

from launch import startup

if __name__ == "__main__":
    startup.check_command_line("python plan.py", __doc__, "plan_wall", entry="plan")  # before torch is loaded

# isort: split
import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import hydra
from omegaconf import DictConfig

from launch.command_line import one_line_errors, parse
from launch.entry import recorded
from launch.processes import start, together
from launch.run_folder import run_folder
from planning.config import PlanConfig
from planning.prepare_evaluation import prepare_evaluation
from planning.saved_evaluation import STATE
from utils import distributed
from utils.files import sync_files
from utils.interrupts import StopRequested

log = logging.getLogger(__name__)

BASELINES = {
    "do_nothing_rate": "doing nothing",
    "random_rate": "random actions",
    "expert_rate": "recorded actions",
}
"""Rates that results put beside success, as far as they have them, and what they are of."""


@hydra.main(version_base="1.3", config_path="conf", config_name="plan_wall")
@one_line_errors
@recorded(__file__, state=STATE)
def main(cfg: DictConfig) -> float:
    """Compose, check, run; returns the success rate, by which a search compares runs."""
    config = parse(cfg, PlanConfig)
    result = together(plan, config)
    log.info("%s; results: %s", summary(result), config.run_dir)
    return result["success_rate"]


def summary(result: Mapping[str, Any]) -> str:
    """Say in a line what an evaluation came to."""

    def percent(name: str) -> str:
        rate, low, high = (100 * result[f"{name}{end}"] for end in ("", "_low", "_high"))
        return f"{rate:.0f} % [{low:.0f}-{high:.0f}]"

    text = f"success {percent('success_rate')}"
    if result.get("dynamics") == "simulator":
        text += " with the simulator as the model (a ceiling of objective and search, not of the task)"
    for name, what in BASELINES.items():
        text += f", {what} {percent(name)}" if name in result else ""
    if "solved_at_start_rate" in result:  # older results do not say it
        text += f", {100 * result['solved_at_start_rate']:.0f} % begin solved"
    distinct = result.get("distinct_episodes", result["n_evals"])
    repeated = f" ({distinct} distinct)" if distinct < result["n_evals"] else ""
    seconds = result["planning_seconds_per_episode"]
    taken = f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"  # a policy takes a few
    return f"{text}, {result['n_evals']} episodes{repeated}, planning {taken} per episode"


def plan(config: PlanConfig) -> dict[str, Any]:
    """Run the evaluation that a config describes; returns the final metrics.

    A folder that holds an unfinished evaluation with the same settings is continued after its last MPC iteration.

    Args:
        config: Settings of ``conf/plan_<env>.yaml``.

    Raises:
        ValueError: Before any planning, if a setting, the goals or the checkpoint does not fit, or another process uses
            the folder.
        StopRequested: After SIGINT or SIGTERM, once the last iteration is saved.
    """
    with run_folder(config.folder) if distributed.is_main() else contextlib.nullcontext():
        return _plan(config)


def _plan(config: PlanConfig) -> dict[str, Any]:
    device = runtime.pick_device(config.device)
    runtime.set_threads(config.num_threads)
    with runtime.autocast(config.precision, device, keeps_casts=False):
        evaluation = prepare_evaluation(config, device)
        sync_files(evaluation.folder / ".hydra")  # resume= reads the command there, after a power loss too
        try:
            return evaluation.run()
        except StopRequested:
            log.warning("finished iterations are saved; continue with: python plan.py resume=%s", config.run_dir)
            raise
        finally:
            evaluation.task.close()


if __name__ == "__main__":
    start(main, plan, state=STATE, sweeps="plan_outputs/sweeps")
