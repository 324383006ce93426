"""Simulated environments; importing this package registers them with Gymnasium, e.g. ``gymnasium.make("wall")``."""

from __future__ import annotations

import gymnasium

gymnasium.register(
    id="wall",
    entry_point="envs.gym_env:SingleEpisodeEnv",
    max_episode_steps=300,
    kwargs={
        "vector_env": "envs.wall:WallVectorEnv",
        "proprio_limits": (4.0, 60.0),
    },
)
