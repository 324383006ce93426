"""Building an evaluation from its settings: everything is built and checked here, before any planning."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from datasets.units.folding import fold_actions
from envs.base import VectorEnv
from envs.episode_seeds import episode_seeds
from envs.factors import chosen_factors
from models.checkpoints.loading import check_environment, load_for_planning
from models.checkpoints.native import Checkpoint, read_checkpoint
from models.speed.calibration import FASTEST
from models.speed.fast_paths import FastPaths
from planning.config import PlanConfig
from planning.evaluation import Evaluation
from planning.goals import GoalRequest, make_problem
from planning.model_data import ModelData
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.planners.base import Planner
from planning.problem import Problem
from planning.recording import Recorder
from planning.request import flops_of_rollout
from planning.saved_evaluation import IDENTITY, TARGETS, agreed
from planning.simulated import NO_GRADIENTS
from planning.targets import read_targets
from planning.task import PlanningTask
from utils import distributed
from utils.loggers import run_logger
from utils.retry import Retry

log = logging.getLogger(__name__)


def prepare_evaluation(config: PlanConfig, device: torch.device) -> Evaluation:
    """Build and check everything.

    Raises:
        ValueError: If a setting, the goals or the checkpoint does not fit, or the folder holds a state that is
            broken or belongs to other settings; the folder is left as it is.
    """
    controller, objective = MPCController.of(config.planner.build()), config.objective.build()
    if config.dynamics == "simulator" and controller.planner.differentiates:
        raise ValueError(NO_GRADIENTS)
    if config.dynamics == "simulator" and controller.adaptation is not None:
        raise ValueError(
            "planner.adapt lets the model learn, which dynamics=simulator does not ask; set one of the two"
        )
    chosen_factors(config.env.factors, config.vary, config.env.name)
    checkpoint = read_checkpoint(Path(config.ckpt_path), config.model_epoch, config.foreign)
    check_environment(checkpoint, config.env.name)
    trained = {"model": [str(checkpoint.path), checkpoint.epoch, checkpoint.about.get("step")]}
    identity, is_begun = agreed({key: config.recorded[key] for key in IDENTITY} | trained, config.folder)
    if identity["objective"] != config.objective.settings:  # it was "last" by default when this was begun
        objective = GoalDistance("last", identity["objective"]["alpha"])
    loaded = load_model(config, checkpoint, controller.planner, device)
    request = _goal_request(config, loaded, identity.get("unsolved_starts_only", False))
    if is_begun:  # goes on with its own episodes, even if today they would be drawn otherwise
        problem = read_targets(config.folder / TARGETS, loaded.env, config.n_evals)
    else:
        problem = make_problem(config.goal_source, request)
    _warn_of_far_goals(problem, controller, request.frameskip)
    task = make_task(config, loaded, problem, objective)
    _check_budget(controller, task)
    logger = run_logger(config.logger, config.recorded, config.folder)
    advice = f"Finished iterations are saved; continue with: python plan.py resume={config.folder}"
    retry = Retry(config.disk_patience_minutes, config.folder / TARGETS, advice)
    return Evaluation(controller, task, config.folder, logger, identity, config.n_plot_samples, retry)


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint, ready to plan, and what it decides of an evaluation.

    Attributes:
        observer: Holds the model.
        data: What it was trained on.
        image_size: Side of the images that it sees, pixels.
        frameskip: Raw steps of an action block.
        speed: How it is prepared for rollouts.
    """

    observer: Observer
    data: ModelData
    image_size: int
    frameskip: int
    speed: FastPaths

    @cached_property
    def env(self) -> VectorEnv:
        """A simulator that draws images of that size."""
        return self.data.env.simulator.build(image_size=self.image_size)


def load_model(config: PlanConfig, checkpoint: Checkpoint, planner: Planner, device: torch.device) -> LoadedModel:
    """Load the model of an evaluation.

    Raises:
        ValueError: If it does not fit, or lacks what ``planner`` needs.
    """
    model, architecture = load_for_planning(checkpoint, config.env.sizes, config.encoder, device)
    speed = config.speed.build()
    speed.install(model, kept=config.folder / FASTEST)
    if planner.sample_type == "proposal":
        model.require_proposal()
    data = ModelData(config.env, checkpoint)
    quantiles = data.action_quantiles(planner.clip_quantiles)
    observer = Observer(model, data.normalizer(), action_quantiles=quantiles)
    return LoadedModel(observer, data, architecture.img_size, architecture.frameskip, speed)


def _goal_request(config: PlanConfig, loaded: LoadedModel, unsolved_only: bool) -> GoalRequest:
    """Say what goals are to be like."""
    return GoalRequest(
        env=loaded.env,
        seeds=episode_seeds(config.seed, config.n_evals),
        goal_H=config.goal_H,
        frameskip=loaded.frameskip,
        validation=loaded.data.validation,
        normalizer=loaded.observer.normalizer,
        path=Path(config.goal_file_path) if config.goal_file_path else None,
        unsolved_starts_only=unsolved_only,
        vary=chosen_factors(loaded.env.factors, config.vary, loaded.env.name),
    )


def make_task(config: PlanConfig, loaded: LoadedModel, problem: Problem, objective: GoalDistance) -> PlanningTask:
    """Put starts, goals and what judges plans together."""
    env, observer, frameskip, speed = loaded.env, loaded.observer, loaded.frameskip, loaded.speed
    goal_states = env.reset(problem.seeds, problem.goal_states, problem.layouts)
    another = config.dynamics == "simulator"
    recorded = min(config.n_plot_samples, len(problem)) if distributed.is_main() else 0
    goal = observer.present(env, goal_states)
    recorder = _recorder(env, problem, recorded) if recorded else None
    return PlanningTask(
        env=env,
        observer=observer,
        problem=problem,
        goal=goal,
        objective=objective,
        seed=config.seed,
        frameskip=frameskip,
        memory_budget_gb=config.memory_budget_gb,
        initial_actions=_known_actions(problem, observer, frameskip) if config.debug_dset_init else None,
        speed=speed,
        saves_latents=config.save_latents,
        shared=True,
        rollout_env=config.env.simulator.build(image_size=env.image_size) if another else None,
        recorder=recorder,
    )


def _recorder(env: VectorEnv, problem: Problem, count: int) -> Recorder:
    """Make a recorder of the first ``count`` episodes; the environment is at the goals."""
    goals = env.render(torch.arange(count))
    env.reset(problem.seeds, problem.states, problem.layouts)
    return Recorder(env.render(torch.arange(count)), goals)


def _check_budget(controller: MPCController, task: PlanningTask) -> None:
    """Refuse ``planner.budget_tflops`` that does not allow one step of a plan, at its longest.

    Also without that budget operations are counted here, so that a model of which they cannot be fails at once.
    """
    planner, flops = controller.planner, task.observer.flops
    if task.rollout_env is None:
        given = 1 if controller.max_iter == 1 else flops.history
        planner.require_affordable(flops_of_rollout(flops, planner, planner.horizon, given))


def _warn_of_far_goals(problem: Problem, controller: MPCController, frameskip: int) -> None:
    """Say so if the goals are farther away than the evaluation can go."""
    if problem.actions is None or controller.max_iter is None:
        return
    away, most = problem.actions.shape[1] / frameskip, controller.executed(controller.max_iter)[-1]
    if away > most:
        log.warning(
            "goals may be out of reach: they are %g action blocks (goal_H) from their starts, and at most %d are "
            "executed (planner.max_iter x planner.n_taken_actions; open loop: planner.horizon); lower goal_H, or raise "
            "these",
            away, most,
        )  # fmt: skip


def _known_actions(problem: Problem, observer: Observer, frameskip: int) -> Tensor:
    """The z-scored blocks (B, T, A) that lead from start to goal."""
    if problem.actions is None:
        raise ValueError("debug_dset_init=true needs goals with known actions: goal_source=dset or random_action")
    return observer.normalizer.actions_to_z(fold_actions(problem.actions, frameskip)).to(observer.device)
