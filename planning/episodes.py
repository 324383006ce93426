"""The state of all episodes of an evaluation between two MPC iterations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from models.latent import Latent
from planning.history import Iteration
from planning.planners.plan import Plan


@dataclass
class Episodes:
    """All episodes as plain tensors and lists, which can be saved after an iteration and continued later.

    Rows of solved episodes are kept for their numbers; nothing reads their history any more, so it stays empty.

    Attributes:
        states: (B, S) true states.
        played: (B, n, env_action_dim) all raw actions that were executed.
        visual: (B, F, P, D) latents of the last F <= H real frames, oldest first.
        proprio: (B, F, E) their other part.
        past_actions: (B, F - 1, A) z-scored blocks executed between these frames.
        warm_start: (B, t, A) what the last plan left over; t = 0 before the first plan.
        iteration: MPC iterations done.
        solved_at: (B,) number (from 1) of the iteration that solved the episode, 0 where none has.
        divergence: (B, 2) visual and proprio distance of the imagined to the true latent after the last execution.
        planning_seconds: (B,) wall-clock seconds of planning, shared evenly by the episodes planned together.
        evaluations: (B,) rollouts imagined while planning.
        records: One dict of numbers per iteration.
        adapted: Weights (B, *shape) that each episode has for itself, by name; see ``planning.adaptation``.
        history: What is kept of each iteration for each episode, see ``planning.history``.
    """

    states: Tensor
    played: Tensor
    visual: Tensor
    proprio: Tensor
    past_actions: Tensor
    warm_start: Tensor
    iteration: int
    solved_at: Tensor
    divergence: Tensor
    planning_seconds: Tensor
    evaluations: Tensor
    records: list[dict[str, Any]] = field(default_factory=list)
    adapted: dict[str, Tensor] = field(default_factory=dict)
    history: list[Iteration] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        states: Tensor,
        latent: Latent,
        action_dim: int,
        env_action_dim: int,
        warm_start: Tensor | None = None,
    ) -> Episodes:
        """Episodes at their starts.

        Args:
            states: (B, S) true states.
            latent: (B, 1) what is seen of them.
            action_dim: A, length of an action block.
            env_action_dim: Length of a raw action.
            warm_start: (B, t, A) blocks that the first plan starts from.
        """
        num = states.shape[0]
        empty = latent.proprio.new_empty(num, 0, action_dim)
        return cls(
            states=states,
            played=torch.zeros(num, 0, env_action_dim),
            visual=latent.visual,
            proprio=latent.proprio,
            past_actions=empty,
            warm_start=empty if warm_start is None else warm_start,
            iteration=0,
            solved_at=torch.zeros(num, dtype=torch.long),
            divergence=torch.zeros(num, 2),
            planning_seconds=torch.zeros(num, dtype=torch.float64),
            evaluations=torch.zeros(num, dtype=torch.long),
        )

    def to(self, device: torch.device) -> Episodes:
        """Move everything that the model reads to its ``device``; the numbers stay on the CPU."""
        moved = {name: getattr(self, name).to(device) for name in ("visual", "proprio", "past_actions", "warm_start")}
        return replace(self, **moved, adapted={name: value.to(device) for name, value in self.adapted.items()})

    @property
    def active(self) -> Tensor:
        """Numbers (b,) of the episodes that are not solved yet."""
        return (self.solved_at == 0).nonzero().squeeze(1)

    @property
    def solved(self) -> Tensor:
        """Whether each episode is solved: (B,) bool."""
        return self.solved_at > 0

    def context(self, rows: Tensor, num_context: int | None) -> tuple[Latent, Tensor]:
        """Latents (b, F) and blocks (b, F - 1, A) that a planner which sees ``num_context`` frames starts from."""
        seen = self.visual.shape[1] if num_context is None else min(num_context, self.visual.shape[1])
        skip = self.visual.shape[1] - seen
        latent = Latent(self.visual[rows][:, skip:], self.proprio[rows][:, skip:])
        return latent, self.past_actions[rows][:, skip:]

    def observe(self, rows: Tensor, executed: Tensor, seen: Latent, limit: int) -> None:
        """Append executed blocks (b, n, A) and the latents (b, m <= n) of the last frames; keep ``limit`` frames."""
        visual = torch.cat([self.visual[rows], seen.visual], 1)
        frames = min(limit, visual.shape[1] if seen.num_frames == executed.shape[1] else seen.num_frames)
        proprio = torch.cat([self.proprio[rows], seen.proprio], 1)
        past = torch.cat([self.past_actions[rows], executed], 1)
        self.visual = self._spread(rows, visual[:, -frames:])
        self.proprio = self._spread(rows, proprio[:, -frames:])
        self.past_actions = self._spread(rows, past[:, past.shape[1] - (frames - 1) :])

    def remember_plan(self, rows: Tensor, rest: Tensor) -> None:
        """Keep the blocks (b, t, A) that were planned and not executed."""
        self.warm_start = self._spread(rows, rest)

    def note(
        self,
        rows: Tensor,
        plan: Plan,
        objective: str,
        distance: Tensor,
        planning: float,
        simulation: float,
        more: Mapping[str, float],
    ) -> None:
        """Count what the last iteration took, and record its numbers.

        Args:
            rows: (b,) the episodes that were planned for.
            plan: Theirs.
            objective: What it minimised.
            distance: (B,) true distances of all episodes to their goals.
            planning: Seconds of it.
            simulation: Seconds of it.
            more: Numbers to record beside these.
        """
        self.planning_seconds[rows] += planning / len(rows)
        self.evaluations[rows] += plan.evaluations
        self.records.append(
            {
                "iteration": self.iteration,
                "raw_steps": self.played.shape[1],
                "planned_episodes": len(rows),
                "objective": objective,
                "success_rate": self.solved.double().mean().item(),
                "mean_state_dist": distance.double().mean().item(),
                "mean_div_visual_emb": self.divergence[rows, 0].mean().item(),
                "mean_div_proprio_emb": self.divergence[rows, 1].mean().item(),
                "planned_cost": finite_mean(plan.cost),
                "cost_trace": [[step, finite_mean(cost)] for step, cost in plan.trace],
                "planning_seconds": planning,
                "simulation_seconds": simulation,
                "model_evaluations": plan.evaluations.double().mean().item(),
                "gradient_evaluations": plan.gradient_evaluations.double().mean().item(),
                **more,
            }
        )

    def _spread(self, rows: Tensor, values: Tensor) -> Tensor:
        """Put rows (b, ...) in their places among all (B, ...); the others are zero."""
        full = values.new_zeros(len(self.solved_at), *values.shape[1:])
        full[rows] = values
        return full

    def as_dict(self) -> dict[str, Any]:
        """Give all attributes by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def finite_mean(costs: Tensor) -> float:
    """Average what is finite of ``costs`` (B,): one diverged episode must not hide the others."""
    return costs[costs.isfinite()].mean().item()
