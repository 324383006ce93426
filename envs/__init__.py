"""Simulated environments; importing this package registers them with Gymnasium, e.g. ``gymnasium.make("wall")``."""

from __future__ import annotations

import gymnasium

gymnasium.register(
    id="wall",
    entry_point="envs.gym_env:SingleEpisodeEnv",
    max_episode_steps=300,
    kwargs={
        "vector_env": "envs.wall.vector_env:WallVectorEnv",
        "proprio_limits": (4.0, 60.0),
    },
)
for _name, _simulator, _limits in (
    # nothing stops a PushT agent; this is farther than 300 of the largest actions take it
    ("pusht", "envs.pusht.simulator:PushTSimulator", (-2e4, 2e4)),
    # m and m/s; the velocity is clipped to 5 before each step and may grow to about 6 within it
    *(
        (name, f"envs.point_maze.simulator:{simulator}", ((0.0, 0.0, -20.0, -20.0), (x, y, 20.0, 20.0)))
        for name, simulator, x, y in (
            ("point_maze", "PointMazeSimulator", 4.0, 4.0),
            ("point_maze_medium", "PointMazeMediumSimulator", 7.0, 7.0),
            ("point_maze_large", "PointMazeLargeSimulator", 8.0, 11.0),
        )
    ),
):
    gymnasium.register(
        id=_name,
        entry_point="envs.gym_env:SingleEpisodeEnv",
        max_episode_steps=300,
        kwargs={
            "vector_env": "envs.process_vector:ProcessVectorEnv",
            "simulator": _simulator,
            "num_workers": 0,  # one episode needs no process of its own
            "proprio_limits": _limits,
        },
    )
