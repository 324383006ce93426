"""What the stages do: the functions behind ``datasets.collect``, ``train.py`` and ``plan.py``, with their configs."""

from __future__ import annotations

import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

import plan as planning_entry
import train as training_entry
from datasets.collect import collections
from datasets.collecting.config import CollectConfig
from envs.factors import Factors
from envs.process_vector import EnvWorkerError
from launch.command_line import overridden_keys, parse
from launch.composing import Composer, open_folder
from launch.conf import CONF
from launch.paths import readable_paths
from models.checkpoints.loading import EncoderConfig, load_for_planning, stored_normalizer
from models.checkpoints.native import read_checkpoint
from planning import diagnose as diagnosis
from planning.config import PlanConfig
from planning.gap import Visits, dataset_visits, one_step_error, planner_visits
from planning.goals import GoalRequest, make_problem
from planning.inspection import make_inspection
from planning.mpc import MPCController
from planning.observer import Observer
from planning.task import PlanningTask
from training.config import TrainConfig
from utils.schema import Settings

log = logging.getLogger("experiments")

S = TypeVar("S", bound=Settings)
GAP_SEED = 1_000_000  # first environment seed of the gap's tasks, away from those of the evaluation


def composed(schema: type[S], config_name: str, overrides: Sequence[str], config_dir: str | None = None) -> S:
    """Make the settings that a command line would have.

    Args:
        schema: Of the settings.
        config_name: Of the config.
        overrides: Of it.
        config_dir: A further folder of options, as ``--config-dir`` names it.
    """
    folder = None if config_dir is None else Path(config_dir)
    if folder is not None:
        open_folder(folder)
    return parse(Composer(config_name, folder).config(readable_paths(overrides)), schema)


def plan_config(env: str) -> str:
    """Name of the config that plans in an environment; one of a user's own has that of all, and names itself."""
    return f"plan_{env}" if (CONF / f"plan_{env}.yaml").exists() else "plan"


def factors(env: str, config_dir: str | None = None) -> Factors:
    """How episodes of an environment may differ."""
    name = plan_config(env)
    overrides = ["ckpt_path=unused", "run_dir=unused", *([f"env={env}"] if name == "plan" else [])]
    return composed(PlanConfig, name, overrides, config_dir).env.factors


def collect(overrides: Sequence[str]) -> dict[str, Any]:
    """``python -m datasets.collect``."""
    config = composed(CollectConfig, "collect", overrides)
    begin = time.perf_counter()
    for collection in collections(config):
        collection.run(1)
    return {"seconds": time.perf_counter() - begin, "trajectories": config.n_rollout}


def train(overrides: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """``python train.py``."""
    config = composed(TrainConfig, "train", overrides, config_dir)
    begin = time.perf_counter()
    folder = training_entry.train(config, overridden_keys(overrides))
    return {"seconds": time.perf_counter() - begin, "folder": str(folder)}


def evaluate(config_name: str, overrides: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """``python plan.py --config-name <config_name>.yaml``."""
    return planning_entry.plan(composed(PlanConfig, config_name, overrides, config_dir))


def diagnose(run_folder: str, beside: Sequence[str], episodes: int, settings: Sequence[str]) -> dict[str, Any]:
    """``python -m planning.diagnose <run_folder>``."""
    return diagnosis.diagnose(Path(run_folder), list(map(Path, beside)), episodes, settings=settings)


def inspect(run_folder: str, episodes: int, settings: Sequence[str]) -> dict[str, Any]:
    """Draw the first ``episodes`` of an evaluation for the page's plan inspector, as far as they can be drawn."""
    try:
        return make_inspection(Path(run_folder), range(episodes), settings)
    except EnvWorkerError as error:  # no OpenGL, which a model that sees no images can bear
        log.warning("no frames of %s: %s", run_folder, error)
        return {"episodes": []}


@torch.no_grad()
def measure_gap(
    models: dict[str, str],
    planned_by: str,
    config_name: str,
    overrides: Sequence[str],
    num_tasks: int,
    seed: int,
    config_dir: str | None = None,
) -> dict[str, Any]:
    """One-step errors of all models where the data set goes, and where one model's plans lead.

    Args:
        models: Name -> model directory.
        planned_by: The model whose plans are executed, once, for all.
        config_name, overrides: Of an evaluation with a GD planner; its open-loop planner and objective plan for goals
            from the same source.
        num_tasks: Trajectories of either kind.
        seed: Of the choice of windows, and of the planner's noise.
        config_dir: See ``composed``.
    """
    config = composed(PlanConfig, config_name, overrides, config_dir)
    runtime.set_threads(config.num_threads)
    observers, frameskip, size = {}, 0, 0
    for name, folder in models.items():
        checkpoint = read_checkpoint(Path(folder))
        model, architecture = load_for_planning(checkpoint, config.env.sizes, EncoderConfig(), torch.device("cpu"))
        normalizer = stored_normalizer(checkpoint, config.env.sizes)
        assert normalizer is not None, "models trained here carry their units"
        observers[name] = Observer(model, normalizer)
        frameskip, size = architecture.frameskip, architecture.img_size
    env = config.env.simulator.build(image_size=size)
    planner = MPCController.of(config.planner.build()).planner
    trajectories = config.env.data.build()
    validation = read_checkpoint(Path(models[planned_by])).about["validation"]
    request = GoalRequest(
        env,
        list(range(GAP_SEED, GAP_SEED + num_tasks)),
        config.goal_H,
        frameskip,
        lambda: (trajectories, validation),
        observers[planned_by].normalizer,
        unsolved_starts_only=config.unsolved_starts_only,
    )
    problem = make_problem(config.goal_source, request)
    objective, observer = config.objective.build(), observers[planned_by]
    goal = observer.present(env, env.reset(problem.seeds, problem.goal_states, problem.layouts))
    task = PlanningTask(env, observer, problem, goal, objective, seed, frameskip)
    visits: dict[str, Visits] = {
        "dataset": dataset_visits(trajectories, validation, num_tasks, planner.horizon * frameskip, seed),
        "planner": planner_visits(task, planner),
    }
    return {
        name: {where: one_step_error(env, observer, visited, frameskip) for where, visited in visits.items()}
        for name, observer in observers.items()
    }
