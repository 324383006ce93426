"""A picture of the first episodes after every MPC iteration; videos are made at the end, see ``planning.videos``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from envs.base import VectorEnv
from models.latent import Latent
from models.world_model import WorldModel
from utils.pictures import captioned, tile, to_uint8, write_png
from utils.retry import Retry

TITLES = ("start", "now", "imagined for now", "goal")


class Recorder:
    """A recorder of the first episodes of an evaluation; only these are drawn and decoded.

    Args:
        starts: (n, 3, S, S) images of the starts, 0..255; n episodes are recorded.
        goals: (n, 3, S, S) images of the goals.
    """

    def __init__(self, starts: Tensor, goals: Tensor) -> None:
        self._starts, self._goals = to_uint8(starts), to_uint8(goals)
        self._now, self._imagined = self._starts, dict[int, np.ndarray]()

    @property
    def count(self) -> int:
        """How many episodes are recorded."""
        return len(self._goals)

    def record(self, env: VectorEnv, imagined: Latent, rows: Tensor, model: WorldModel) -> None:
        """Take what the episodes show now, and what had been imagined for it: latents (b, 1) of the planned ``rows``.

        The picture of what was imagined stays white where nothing was planned any more, or the model has no decoder.
        """
        self._now = to_uint8(env.render(torch.arange(len(self._goals))))
        self._imagined = {}
        if model.decoder is None:
            return
        for position in (rows < len(self._goals)).nonzero().squeeze(1).tolist():
            self._imagined[int(rows[position])] = decoded(model, imagined[position : position + 1])[0]

    def write_grid(self, path: Path, captions: list[str], retry: Retry | None = None) -> None:
        """Write one row per episode: start, present, what the model had imagined for the present, goal.

        Args:
            path: Of the picture.
            captions: One line per episode.
            retry: See ``utils.files.write_file``.
        """
        rows = zip(captions, self._starts, self._now, self._goals, strict=True)
        sheets = [
            captioned(tile([[start, now, self._imagined.get(row), goal]], titles=None if row else TITLES), caption)
            for row, (caption, start, now, goal) in enumerate(rows)
        ]
        write_png(path, np.concatenate(sheets), retry)


@torch.no_grad()
def decoded(model: WorldModel, latents: Latent) -> np.ndarray:
    """Draw latents (1, T): uint8 (T, H, W, 3)."""
    return to_uint8((model.decode(latents)[0] + 1) * 127.5)


def caption(row: int, step: int, distance: float, state: str) -> str:
    """Say which episode a picture shows, when, and how far it is from its goal."""
    return f"episode {row}, raw step {step}, distance {distance:.3g}, {state}"
