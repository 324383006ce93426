"""Goals of an agent: from an image file, a recorded episode, or a state that a simulator draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from datasets.trajectories import Trajectories
from envs.base import VectorEnv


@dataclass(frozen=True)
class Goal:
    """What is to be seen at the end, of one episode or, with a leading axis B, of several.

    Attributes:
        image: (H, W, 3) uint8, see ``planning.senses.frames_of``; None for a model that looks at states.
        proprio: (E,) raw units.
        state: (S,) raw units, for a model that looks at states.
    """

    image: ArrayLike | Tensor | None = None
    proprio: ArrayLike | Tensor | None = None
    state: ArrayLike | Tensor | None = None

    @classmethod
    def from_file(cls, path: str | Path, proprio: ArrayLike | None = None) -> Goal:
        """Read an image file of any usual format.

        Args:
            path: Of the file.
            proprio: (E,) what the robot would sense there, raw units.

        Raises:
            ValueError: If it is no image.
            OSError: If it cannot be read.
        """
        try:
            with Image.open(path) as image:
                return cls(np.asarray(image.convert("RGB")), proprio)
        except UnidentifiedImageError:
            raise ValueError(f"{path} is no image file that can be read") from None

    @classmethod
    def from_episode(cls, trajectories: Trajectories, episode: int, step: int = -1) -> Goal:
        """Take a moment of a recorded episode.

        Args:
            trajectories: The data set, e.g. ``agent.trajectories()``.
            episode: Its number.
            step: Raw step, from 0; negative ones count from the end.

        Raises:
            ValueError: If there is no such episode or step.
        """
        if not 0 <= episode < len(trajectories):
            raise ValueError(f"there is no episode {episode}: the data set has {len(trajectories)}, from 0")
        length = int(trajectories.lengths[episode])
        if not -length <= step < length:
            raise ValueError(f"there is no step {step}: episode {episode} has {length}, from 0")
        step %= length
        frame = trajectories.frames(episode, [step])[0]
        return cls(_as_image(frame), trajectories.proprio(episode)[step].numpy(), trajectories.states[episode][step])

    @classmethod
    def from_state(
        cls, env: VectorEnv, state: ArrayLike | Tensor, layout: Mapping[str, ArrayLike] | None = None, seed: int = 0
    ) -> Goal:
        """Let a simulator draw a state.

        Args:
            env: The simulator, e.g. ``agent.simulator()``; its episodes are replaced.
            state: (S,) raw units.
            layout: What else differs between episodes, name -> value of one; None is the environment's default.
            seed: Of the episode.

        Raises:
            ValueError: If state or layout is not one of this environment.
        """
        states = torch.as_tensor(state, dtype=torch.float64)[None]
        layouts = {name: torch.as_tensor(value)[None] for name, value in (layout or {}).items()}
        states = env.reset([seed], states, env.default_layouts(1) | layouts)
        return cls(_as_image(env.render()[0]), env.proprio(states)[0].cpu().numpy(), states[0].cpu())


def _as_image(frame: Tensor) -> NDArray[Any]:
    """(3, H, W) as (H, W, 3), in the numbers that it has."""
    return np.ascontiguousarray(frame.cpu().numpy().transpose(1, 2, 0))
