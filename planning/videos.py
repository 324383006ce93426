"""Videos of finished episodes: the simulator at every raw step, and what the model had imagined meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.units.folding import fold_actions
from envs.base import simulate
from models.latent import Latent
from planning.episodes import Episodes
from planning.mpc import MPCController
from planning.recording import caption, decoded
from planning.replay import Replay
from planning.task import PlanningTask
from utils.pictures import captioned, tile, to_uint8, write_mp4
from utils.retry import Retry

FRAMES_PER_SECOND = 10  # one for each raw step
REST = 10  # frames that the last one stays
AT_A_TIME = 2  # episodes whose frames are in memory
TITLES = ("simulator, and imagined", "goal")


def chosen_episodes(solved: Tensor, count: int) -> list[int]:
    """Choose ``count`` episodes, half of them failures and half successes, each the first ones; fewer if there are."""
    kinds = [(solved == kind).nonzero().squeeze(1).tolist() for kind in (False, True)]
    failures = kinds[0][: max((count + 1) // 2, count - len(kinds[1]))]
    return sorted(failures + kinds[1][: count - len(failures)])


@dataclass(frozen=True)
class VideoMaker:
    """What videos of a finished evaluation are made of.

    Attributes:
        task: What it was about; the environment's episodes are replaced.
        controller: Ran the planner, which is not asked again.
        episodes: As they ended.
        replay: Their course.
    """

    task: PlanningTask
    controller: MPCController
    episodes: Episodes
    replay: Replay

    def write(self, folder: Path, count: int, retry: Retry | None = None) -> None:
        """Write ``output_final_<i>_<success|failure>.mp4`` of up to ``count`` episodes, i being an episode's number.

        The simulator is above, a frame for every raw step, and the imagination below, which changes with every block;
        the goal is at the right.
        """
        rows = torch.tensor(chosen_episodes(self.episodes.solved, count), dtype=torch.long)
        for some in rows.split(AT_A_TIME):
            for row, frames in zip(some.tolist(), self._frames(some), strict=True):
                path = folder / f"output_final_{row}_{'success' if self.episodes.solved[row] else 'failure'}.mp4"
                write_mp4(path, frames + [frames[-1]] * REST, FRAMES_PER_SECOND, retry)

    def _frames(self, rows: Tensor) -> Iterator[list[np.ndarray]]:
        """Yield the frames of one video after the other, of episodes ``rows`` (b,), until solved or the end."""
        task, replay = self.task, self.replay
        some, end = task.problem.part(rows), replay.ends[self.episodes.iteration]
        task.env.reset(some.seeds, some.goal_states, some.layouts)
        goals = to_uint8(task.env.render())
        seen = simulate(task.env, some.seeds, some.states, replay.actions[rows, :end], some.layouts, 1).frames
        assert seen is not None, "frames of every step were asked for"
        imagined = self._imagined(rows, seen[:, :: task.frameskip])
        for row, goal, frames, clip in zip(rows.tolist(), goals, to_uint8(seen), imagined, strict=True):
            solved = replay.ends[int(self.episodes.solved_at[row])] or None
            sheets = []
            for step in range((solved or end) + 1):
                below = [[clip[step // task.frameskip], goal]] if clip else []
                sheet = tile([[frames[step], goal], *below], titles=TITLES if clip else ("simulator", "goal"))
                sheets.append(captioned(sheet, self._caption(row, step, solved)))
            yield sheets

    def _caption(self, row: int, step: int, solved: int | None) -> str:
        inside = "inside the region" if self.replay.inside[row, step] else "not solved"
        return caption(row, step, self.replay.distances[row, step].item(), "solved" if step == solved else inside)

    @torch.no_grad()
    def _imagined(self, rows: Tensor, frames: Tensor) -> list[list[np.ndarray]]:
        """What the model had imagined for the end of each block of episodes ``rows`` (b,); nothing without a decoder.

        The actions that were carried out are imagined once more, from the same real ``frames`` (b, blocks + 1, ...), so
        that nothing had to be kept while planning.
        """
        task, controller, model = self.task, self.controller, self.task.observer.model
        if model.decoder is None:
            return [[] for _ in rows]
        clips = [[start] for start in to_uint8(frames[:, 0])]  # of which nothing had to be imagined
        part = replace(task, problem=task.problem.part(rows), goal=task.goal[rows.to(task.observer.device)])
        states = self.replay.states[rows, : self.replay.ends[self.episodes.iteration] + 1 : task.frameskip]
        latents = model.embed(task.observer.features(states, frames), task.observer.proprio(task.env, states))
        action_dim = task.env.env_action_dim
        again = Episodes.begin(states[:, 0], latents[:, :1], task.frameskip * action_dim, action_dim)
        if controller.adaptation is not None:
            again.adapted = controller.adaptation.begin(model, len(rows))
        for _ in range(self.episodes.iteration):
            for row, latent in self._next(part, again, rows, latents).items():
                clips[row] += list(decoded(model, latent))
        return clips

    def _next(self, part: PlanningTask, again: Episodes, rows: Tensor, latents: Latent) -> dict[int, Latent]:
        """Go on by one iteration; returns what is imagined (1, n) for each of ``rows`` that was planned for."""
        controller, device, skip = self.controller, part.observer.device, part.frameskip
        active, first = again.active, again.played.shape[1]
        last = self.replay.ends[again.iteration + 1]
        again_solved = self.episodes.solved_at[rows]
        if not len(active):
            return {}
        request = controller.request(part, again, active)
        raw = self.replay.actions[rows, first:last]
        blocks = part.observer.normalizer.actions_to_z(fold_actions(raw[active], skip)).to(device)
        imagined = request.cost.imagine(blocks)
        limit = part.observer.model.num_hist
        seen = latents[active.to(device), first // skip + 1 : last // skip + 1]
        seen = seen if controller.adaptation is not None else seen[:, -limit:]
        again.observe(active.to(device), blocks, seen, limit)
        again.played = torch.cat([again.played, raw], 1)
        again.iteration += 1
        again.solved_at = torch.where(again_solved <= again.iteration, again_solved, 0)
        if controller.adaptation is not None:
            controller.learn(part, again, active, request, blocks, seen)
        return {int(row): imagined[place : place + 1, 1:] for place, row in enumerate(active)}
