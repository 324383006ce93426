"""Pictures and videos of a few episodes, and of what the model imagined meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.base import VectorEnv
from models.latent import Latent
from models.world_model import WorldModel
from utils.pictures import tile, to_uint8, write_mp4, write_png
from utils.retry import Retry


class Recorder:
    """A recorder of the first episodes of an evaluation, one frame per action block; only these are decoded.

    Args:
        goal_frames: (n, 3, S, S) images of the goals, 0..255; n episodes are recorded.
    """

    def __init__(self, goal_frames: Tensor) -> None:
        self.goals = to_uint8(goal_frames)
        self.real: list[list[Any]] = [[] for _ in self.goals]
        self.imagined: list[list[Any]] = [[] for _ in self.goals]

    def begin(self, env: VectorEnv) -> None:
        """Take the first frame of each recorded episode."""
        frames = to_uint8(env.render(torch.arange(len(self.goals))))
        self.real = [[frame] for frame in frames]
        self.imagined = [[frame] for frame in frames]

    def record(self, env: VectorEnv, rows: Tensor) -> None:
        """Take the present frame of the recorded ones among the planned episodes ``rows`` (b,)."""
        recorded = rows[rows < len(self.goals)]
        for row, frame in zip(recorded.tolist(), to_uint8(env.render(recorded)), strict=True):
            self.real[row].append(frame)

    @torch.no_grad()
    def record_imagined(self, imagined: Latent, rows: Tensor, model: WorldModel) -> None:
        """Add what the model had imagined for the frames just taken: latents (b, n + 1) of the episodes ``rows``."""
        for position in (rows < len(self.goals)).nonzero().squeeze(1).tolist():
            latent = imagined[position : position + 1, 1:]
            clip = self.imagined[int(rows[position])]
            if model.decoder is None:
                clip += [None] * latent.num_frames
            else:
                clip += list(to_uint8((model.decode(latent)[0] + 1) * 127.5))

    def write_grid(self, path: Path, retry: Retry | None = None) -> None:
        """Write one row per episode: start, present, what the model had imagined for the present, goal."""
        rows = [
            [real[0], real[-1], imagined[-1], goal]
            for real, imagined, goal in zip(self.real, self.imagined, self.goals, strict=True)
        ]
        write_png(path, tile(rows, titles=("start", "now", "imagined for now", "goal")), retry)

    def write_videos(self, folder: Path, solved: Tensor, retry: Retry | None = None) -> None:
        """Write ``output_final_<i>_<success|failure>.mp4``: simulator above, imagination below, goal at the right."""
        for i, (real, imagined, goal) in enumerate(zip(self.real, self.imagined, self.goals, strict=True)):
            titles = ("simulator, and imagined", "goal")
            frames = [
                tile([[above, goal], [below, goal]], titles=titles) for above, below in zip(real, imagined, strict=True)
            ]
            path = folder / f"output_final_{i}_{'success' if solved[i] else 'failure'}.mp4"
            write_mp4(path, frames + [frames[-1]] * 4, retry=retry)  # rest on the last frame

    def state_dict(self) -> dict[str, Any]:
        """What was recorded so far, as tensors."""
        return {
            name: [[None if frame is None else torch.from_numpy(frame.copy()) for frame in clip] for clip in clips]
            for name, clips in (("real", self.real), ("imagined", self.imagined))
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.real, self.imagined = (
            [[None if frame is None else frame.numpy() for frame in clip] for clip in state[name]]
            for name in ("real", "imagined")
        )
