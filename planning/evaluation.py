"""One evaluation from its config to its results: goals, planning, logs, pictures; resumable after every iteration."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.trajectories import Trajectories
from datasets.units.folding import fold_actions
from datasets.units.normalizer import Normalizer
from envs.config import EnvConfig
from envs.episode_seeds import episode_seeds
from models.checkpoints.loading import check_environment, load_for_planning, stored_normalizer
from models.checkpoints.native import Checkpoint, read_checkpoint
from planning.config import PlanConfig
from planning.episodes import Episodes
from planning.goals import GoalRequest, make_problem
from planning.metrics import final_metrics
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.problem import Problem
from planning.recording import Recorder
from planning.saved_evaluation import FINISHED, IDENTITY, STATE, TARGETS, agreed, read_finished, read_state
from planning.targets import read_targets
from planning.task import PlanningTask
from utils import distributed
from utils.files import remove_unfinished, write_json
from utils.interrupts import StopSignals
from utils.loggers import JsonLinesLogger, run_logger
from utils.retry import Retry
from utils.tensor_files import write_torch

log = logging.getLogger(__name__)

__all__ = ["FINISHED", "STATE", "TARGETS", "Evaluation"]


@dataclass
class Evaluation:
    """A prepared evaluation.

    Attributes:
        controller: runs the planner. task: what it is about. folder: of the results. logger: gets numbers.
        identity: what must be equal for a saved state to be continued.
        retry: while a disk is full or away.
    """

    controller: MPCController
    task: PlanningTask
    folder: Path
    logger: JsonLinesLogger
    identity: dict[str, Any]
    retry: Retry = field(default_factory=Retry)

    @classmethod
    def prepare(cls, config: PlanConfig, device: torch.device) -> Evaluation:
        """Build and check everything.

        Raises:
            ValueError: If a setting, the goals or the checkpoint does not fit, or the folder holds a state that is
                broken or belongs to other settings; the folder is left as it is.
        """
        controller = MPCController.of(config.planner.build())
        objective = config.objective.build()
        checkpoint = read_checkpoint(Path(config.ckpt_path), config.model_epoch)
        check_environment(checkpoint, config.env.name)
        folder = config.folder
        trained = {"model": [str(checkpoint.path), checkpoint.epoch, checkpoint.about.get("step")]}
        identity, is_begun = agreed({key: config.recorded[key] for key in IDENTITY} | trained, folder)
        if identity["objective"] != config.objective.settings:  # it was "last" by default when this was begun
            objective = GoalDistance("last", identity["objective"]["alpha"])
        model, architecture = load_for_planning(checkpoint, config.env.sizes, vars(config.encoder), device)
        speed = config.speed.build()
        speed.install(model)
        if controller.planner.sample_type == "proposal":
            model.require_proposal()
        data = _Data(config.env, checkpoint)
        observer = Observer(model, data.normalizer(), action_range=data.action_range(controller.planner.clip_actions))
        env = config.env.simulator.build(image_size=architecture["img_size"])
        request = GoalRequest(
            env,
            episode_seeds(config.seed, config.n_evals),
            config.goal_H,
            architecture["frameskip"],
            data.validation,
            observer.normalizer,
            Path(config.goal_file_path) if config.goal_file_path else None,
            identity.get("unsolved_starts_only", False),
        )
        if is_begun:  # goes on with its own episodes, even if today they would be drawn otherwise
            problem = read_targets(folder / TARGETS, env, config.n_evals)
        else:
            problem = make_problem(config.goal_source, request)
        _warn_of_far_goals(problem, controller, architecture["frameskip"])
        goal_states = env.reset(problem.seeds, problem.goal_states, problem.layouts)
        recorded = min(config.n_plot_samples, len(problem)) if distributed.is_main() else 0
        task = PlanningTask(
            env=env,
            observer=observer,
            problem=problem,
            goal=observer.present(env, goal_states),
            objective=objective,
            seed=config.seed,
            frameskip=architecture["frameskip"],
            memory_budget_gb=config.memory_budget_gb,
            initial_actions=_known_actions(problem, observer, architecture["frameskip"])
            if config.debug_dset_init
            else None,
            speed=speed,
            shared=True,
            recorder=Recorder(env.render(torch.arange(recorded))) if recorded else None,
        )
        logger = run_logger(config.logger, config.recorded, folder)
        advice = f"Finished iterations are saved; continue with: python plan.py resume={folder}"
        retry = Retry(config.disk_patience_minutes, folder / TARGETS, advice)
        return cls(controller, task, folder, logger, identity, retry)

    def run(self) -> dict[str, Any]:
        """Plan to the end, from the saved state if the folder holds one; returns the final metrics."""
        if distributed.is_main():
            remove_unfinished(self.folder)
        finished = self._finished()
        if finished is not None:
            log.info("%s is finished already: these are its results", self.folder)
            return finished
        total = self.controller.max_iter
        with StopSignals() as stop, tqdm(desc="planning", unit=" rollouts", unit_scale=True, smoothing=0.05) as bar:

            def progress(rollouts: int) -> None:
                bar.update(rollouts)
                # an iteration may take hours, and nothing of half an iteration can be kept: stop at once
                stop.raise_if_received()

            saved = self._saved()
            task = self.task
            distributed.barrier()  # all have read what there is before one of them writes
            if distributed.is_main():
                task.problem.save(self.folder / TARGETS)
            episodes = saved or task.start()
            if episodes.iteration:
                task.resume(episodes)
                log.info("resuming %s after iteration %d", self.folder, episodes.iteration)
            log.info("objective=%s: plans minimise %s", task.objective.mode, self.controller.objective(task, episodes))

            def after_iteration(now: Episodes) -> None:
                record = now.records[-1]
                bar.set_description(
                    f"planning {now.iteration}/{total or '?'}, {100 * record['success_rate']:.0f} % solved"
                )
                if task.recorder is not None:  # before the line is logged: some loggers show both
                    task.recorder.write_grid(self.folder / f"iteration_{now.iteration}.png", self.retry)
                self.logger.log(record)
                self._save(now)
                distributed.barrier()  # before a signal to one of the processes ends all
                stop.raise_if_received()

            self.controller.run(task, episodes, after_iteration, progress)
        return self._finish(episodes)

    def _finish(self, episodes: Episodes) -> dict[str, Any]:
        task = self.task
        metrics = {"unsolved_starts_only": self.identity.get("unsolved_starts_only", False)}
        iterations = episodes.iteration if self.controller.max_iter is None else self.controller.max_iter
        ends = [blocks * task.frameskip for blocks in self.controller.executed(iterations)]
        metrics |= final_metrics(task, episodes, ends)
        if task.recorder is not None:
            task.recorder.write_videos(self.folder, episodes.solved, self.retry)
        self.logger.log({f"final_eval/{name}": value for name, value in metrics.items()})
        self.retry.write("the log", self.logger.position)
        self.logger.close()
        if distributed.is_main():
            write_json(self.folder / "results.json", metrics, self.retry)
            write_json(self.folder / FINISHED, {"identity": self.identity, "metrics": metrics}, self.retry)
            # goes last: until then the evaluation can be finished again
            self.retry.write("the results", lambda: (self.folder / STATE).unlink(missing_ok=True))
        return metrics

    def _finished(self) -> dict[str, Any] | None:
        """The metrics of an evaluation with the same settings that ended in this folder."""
        if not (self.folder / FINISHED).exists() or (self.folder / STATE).exists():
            return None
        return read_finished(self.folder / FINISHED)["metrics"]

    def _save(self, episodes: Episodes) -> None:
        if not distributed.is_main():
            return
        recorded = self.task.recorder.state_dict() if self.task.recorder is not None else None
        position = self.retry.write("the log", self.logger.position)
        state = {"episodes": episodes.as_dict(), "film": recorded, "log": position, "identity": self.identity}
        write_torch(self.folder / STATE, state, self.retry)

    def _saved(self) -> Episodes | None:
        path = self.folder / STATE
        if not path.exists():
            self.logger.rewind(0)
            return None
        state = read_state(path)
        episodes = Episodes(**state["episodes"]).to(self.task.observer.device)
        self.logger.rewind(state["log"])
        if self.task.recorder is not None and state["film"] is not None:
            self.task.recorder.load_state_dict(state["film"])
        return episodes


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


class _Data:
    """The data set, opened only if something needs it: its statistics or its validation trajectories."""

    def __init__(self, env: EnvConfig, checkpoint: Checkpoint) -> None:
        self.env, self.checkpoint = env, checkpoint
        self._opened: Trajectories | None = None

    def _open(self) -> Trajectories:
        if self._opened is None:
            self._opened = self.env.data.build()
        return self._opened

    def normalizer(self) -> Normalizer:
        """The units the model was trained in: stored in our checkpoints, the data set's for DINO-WM's."""
        stored = stored_normalizer(self.checkpoint, self.env.sizes)
        return self._open().normalizer if stored is None else stored

    def action_range(self, wanted: bool) -> Tensor | None:
        """Raw range of the actions the model was trained on, if that is ``wanted``."""
        if not wanted:
            return None
        stored = self.checkpoint.about.get("action_range")
        return self._open().action_range() if stored is None else torch.tensor(stored)

    def validation(self) -> tuple[Trajectories, list[int]]:
        """Trajectories, and which of them the model was not trained on."""
        trajectories = self._open()
        numbers = self.checkpoint.about.get("validation")
        if numbers is None:
            numbers = trajectories.train_val()[1].tolist()
        if max(numbers) >= len(trajectories):
            raise ValueError(
                f"the model was trained on a data set with a validation trajectory number {max(numbers)}, this one has "
                f"{len(trajectories)} trajectories: use the data it was trained on, or goal_source=random_state"
            )
        return trajectories, numbers
