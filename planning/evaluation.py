"""One evaluation: planning, logs, pictures, results; resumable after every iteration."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from models.speed.calibration import FASTEST
from planning.arithmetic import EpisodeTflop
from planning.episode_record import EPISODES, EpisodeRecord
from planning.episode_set import MANIFEST, write_manifest
from planning.episodes import Episodes
from planning.history import reconstructed
from planning.metrics import final_metrics
from planning.mpc import MPCController
from planning.recording import caption
from planning.replay import Replay
from planning.saved_evaluation import FINISHED, STATE, TARGETS, read_finished, read_state
from planning.task import PlanningTask
from planning.videos import VideoMaker
from utils import distributed
from utils.files import remove_unfinished, write_json
from utils.interrupts import StopSignals
from utils.loggers import JsonLinesLogger
from utils.retry import Retry
from utils.tensor_files import write_torch

log = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """A prepared evaluation, see ``planning.prepare_evaluation``.

    Attributes:
        controller: Runs the planner.
        task: What it is about.
        folder: Of the results.
        logger: Gets numbers.
        identity: What must be equal for a saved state to be continued.
        videos: How many videos are made at the end.
        retry: While a disk is full or away.
    """

    controller: MPCController
    task: PlanningTask
    folder: Path
    logger: JsonLinesLogger
    identity: dict[str, Any]
    videos: int = 0
    retry: Retry = field(default_factory=Retry)

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
                task.speed.keep(self.folder / FASTEST)
                write_manifest(self.folder / MANIFEST, task.problem, task.env.name, self.identity, self.retry)
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
                self._draw(now)  # before the line is logged: some loggers show both
                self.logger.log(record)
                self._save(now)
                distributed.barrier()  # before a signal to one of the processes ends all
                stop.raise_if_received()

            self.controller.run(task, episodes, after_iteration, progress)
        return self._finish(episodes)

    def _draw(self, episodes: Episodes) -> None:
        """Show the recorded episodes as they are now."""
        task = self.task
        if task.recorder is None:
            return
        distance = task.env.success(episodes.states, task.problem.goal_states).state_dist
        shown = zip(distance.tolist(), episodes.solved.tolist(), strict=True)
        step = episodes.played.shape[1]
        captions = [
            caption(row, step, away, "solved" if done else "not solved") for row, (away, done) in enumerate(shown)
        ]
        path = self.folder / f"iteration_{episodes.iteration}.png"
        task.recorder.write_grid(path, captions[: task.recorder.count], self.retry)

    def _finish(self, episodes: Episodes) -> dict[str, Any]:
        task = self.task
        protocol = {"unsolved_starts_only": False, "dynamics": "model"}
        metrics = {name: self.identity.get(name, before) for name, before in protocol.items()}
        iterations = episodes.iteration if self.controller.max_iter is None else self.controller.max_iter
        ends = [blocks * task.frameskip for blocks in self.controller.executed(iterations)]
        replay = Replay.of(task.env, task.problem, episodes.played, ends)
        metrics |= final_metrics(task, episodes, replay, EpisodeTflop.of(task, self.controller, episodes))
        if task.recorder is not None:
            VideoMaker(task, self.controller, episodes, replay).write(self.folder, self.videos, self.retry)
        self.logger.log({f"final_eval/{name}": value for name, value in metrics.items()})
        self.retry.write("the log", self.logger.position)
        self.logger.close()
        if distributed.is_main():
            record = EpisodeRecord.of(episodes, replay, task.frameskip, self.controller.planner.horizon)
            record.write(self.folder / EPISODES, self.retry)
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
        position = self.retry.write("the log", self.logger.position)
        state = {"episodes": episodes.as_dict(), "log": position, "identity": self.identity}
        write_torch(self.folder / STATE, state, self.retry)

    def _saved(self) -> Episodes | None:
        path = self.folder / STATE
        if not path.exists():
            self.logger.rewind(0)
            return None
        state = read_state(path)
        episodes = Episodes(**state["episodes"]).to(self.task.observer.device)
        missing = episodes.iteration - len(episodes.history)  # begun before there was a history
        episodes.history[:0] = reconstructed(episodes.records[:missing], episodes.solved_at)
        self.logger.rewind(state["log"])
        return episodes
