"""What one evaluation found, as reports are made of it: from a stage's result, a run folder, or published outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOORS = {
    "nothing": ("do_nothing_rate", "solved_by_doing_nothing"),
    "random": ("random_rate", "solved_by_random_actions"),
    "expert": ("expert_rate", "solved_by_expert"),
}
"""Floors, and the rate and the list of ``results.json`` that say them."""

COST = {
    "rollouts": "model_evaluations_per_episode",
    "gradients": "gradient_evaluations_per_episode",
    "tflop": "tflop_per_episode",
    "tflop_encoder": "tflop_encoder_per_episode",
    "tflop_forward": "tflop_forward_per_episode",
    "tflop_backward": "tflop_backward_per_episode",
    "planning_seconds": "planning_seconds_per_episode",
    "simulation_seconds": "simulation_seconds_per_episode",
    "peak_memory_gb": "peak_memory_gb",
}
"""What is kept of an evaluation's cost, and its name in ``results.json``; what older results lack is not known."""

LISTS = {
    "episode_hash": "episode_hash",
    "episode_seed": "episode_seed",
    "solved_at_iteration": "solved_at",
    "state_dist_at_end": "state_dist_at_end",
    "rollouts": "model_evaluations",
    "gradients": "gradient_evaluations",
    "tflop": "tflop",
}
"""Columns of ``episodes.csv`` that are lists of ``results.json``."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One evaluation.

    Attributes:
        model, planner, goals: Their names.
        seed: Of the model's training.
        solved_at_step: (B,) raw steps until each episode was solved; 0 or less: it was not.
        final: (B,) whether it was inside its success region at the end; None: not known.
        episodes: What tells the set of episodes from others; None: not known.
        floors: "nothing", "random", "expert" -> number of episodes that it solves, as far as it is known.
        budget_steps: Raw steps that the planner may execute; None: not known.
        cost: The keys of ``COST``; None: not known.
        lists: Further columns of ``episodes.csv``, B values each.
        unsolved_starts_only: How the episodes were drawn; None: not known.
        folder: Of the run; None: there is none here.
    """

    model: str
    planner: str
    goals: str
    seed: int
    solved_at_step: Sequence[int]
    final: Sequence[bool] | None = None
    episodes: str | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    budget_steps: int | None = None
    cost: Mapping[str, float | None] = field(default_factory=dict)
    lists: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    unsolved_starts_only: bool | None = None
    folder: str | None = None

    @classmethod
    def of_metrics(cls, metrics: Mapping[str, Any], **about: Any) -> Result:
        """Take it from the content of a ``results.json``; ``about``: model, planner, goals, seed and folder."""
        num = len(metrics["solved_at"])
        steps = metrics.get("solved_at_step", metrics["solved_at"])
        floors = {name: num * metrics[rate] for name, (rate, _) in FLOORS.items() if rate in metrics}
        lists = {column: metrics[name] for column, name in LISTS.items() if isinstance(metrics.get(name), list)}
        return cls(
            solved_at_step=[step if at > 0 else 0 for step, at in zip(steps, metrics["solved_at"], strict=True)],
            final=metrics.get("final"),
            episodes=metrics.get("episode_set_hash") or " ".join(metrics.get("episode_hash", [])) or None,
            floors=floors,
            budget_steps=metrics.get("do_nothing_steps"),
            cost={key: metrics.get(name) for key, name in COST.items()},
            lists=lists,
            unsolved_starts_only=metrics.get("unsolved_starts_only", False),
            **about,
        )

    @property
    def solved(self) -> NDArray[np.float64]:
        """Whether each episode was solved: (B,) of 0 and 1."""
        return (np.asarray(self.solved_at_step) > 0).astype(float)

    @property
    def count(self) -> int:
        """Number of episodes."""
        return len(self.solved_at_step)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known of a study.

    Attributes:
        results: Of all finished evaluations.
        errors: Base -> model -> "dataset" or "planner" -> (seeds, trajectories) one-step visual errors.
        why: Diagnoses.
    """

    results: Sequence[Result]
    errors: Mapping[str, Mapping[str, Mapping[str, NDArray[np.float64]]]] = field(default_factory=dict)
    why: Sequence[Mapping[str, Any]] = ()
