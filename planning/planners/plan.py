"""What goes into a planner besides its settings, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

TERA = 1e12
ROUNDING = 1e-9  # relative, of sums of floating-point operations


class Work(NamedTuple):
    """Rollouts per episode.

    Attributes:
        evaluations: How many are imagined.
        gradients: How many of them are differentiated as well.
    """

    evaluations: int
    gradients: int = 0


NOTHING = Work(0)


class RolloutFlops(NamedTuple):
    """Floating-point operations of one rollout of an episode.

    Attributes:
        plain: Without a gradient.
        gradient: What a gradient takes beside that.
    """

    plain: float
    gradient: float

    def of(self, work: Work) -> float:
        """Floating-point operations of some rollouts."""
        return work.evaluations * self.plain + work.gradients * self.gradient


CostFn = Callable[..., Tensor]
"""z-scored actions (B, N, T, A) -> cost (B, N), differentiable.

Where only some problems are still searched, it is called with their candidates (b, N, T, A) and numbers (b,). It may
have three attributes: ``capturable``, that its work on a GPU may become a CUDA graph; ``progress``, called with the
number of rows just evaluated; and ``rollout_flops``, which turns a number of blocks into ``RolloutFlops``."""


@dataclass(frozen=True)
class Plan:
    """What a planner returns.

    Attributes:
        actions: (B, T, A) z-scored action blocks, of all that were evaluated those of lowest cost.
        cost: (B,) their cost under the model.
        trace: (step, (B,) cost) pairs, every ``eval_every`` optimisation steps; the last one is ``cost``.
        evaluations: (B,) rollouts imagined, on the CPU.
        gradient_evaluations: (B,) how many of them were differentiated as well.
        initial_cost: (B,) cost of the initial actions, where the search began with evaluating them; else NaN. None if
            the planner does not say.
    """

    actions: Tensor
    cost: Tensor
    trace: list[tuple[int, Tensor]]
    evaluations: Tensor
    gradient_evaluations: Tensor
    initial_cost: Tensor | None = None

    def to(self, device: torch.device) -> Plan:
        """Move the plan to ``device``."""
        trace = [(step, cost.to(device)) for step, cost in self.trace]
        initial = None if self.initial_cost is None else self.initial_cost.to(device)
        moved = replace(self, actions=self.actions.to(device), cost=self.cost.to(device), trace=trace)
        return replace(moved, initial_cost=initial)


def join_plans(plans: Sequence[Plan]) -> Plan:
    """Join plans to one for the episodes of all, in their order; after the end of a shorter one its cost stays."""
    if len(plans) == 1:
        return plans[0]
    traces = [dict(plan.trace[:-1]) for plan in plans]
    steps = sorted(set().union(*traces))
    pairs = list(zip(plans, traces, strict=True))
    joined = [(step, torch.cat([trace.get(step, plan.cost) for plan, trace in pairs])) for step in steps]
    cost, last = torch.cat([plan.cost for plan in plans]), max(plan.trace[-1][0] for plan in plans)
    initial = [plan.initial_cost for plan in plans if plan.initial_cost is not None]
    return Plan(
        torch.cat([plan.actions for plan in plans]),
        cost,
        [*joined, (last, cost)],
        torch.cat([plan.evaluations for plan in plans]),
        torch.cat([plan.gradient_evaluations for plan in plans]),
        torch.cat(initial) if len(initial) == len(plans) else None,
    )


@dataclass(frozen=True)
class ActionSpace:
    """What a planner may know of actions besides their cost.

    Attributes:
        zero: (A,) z-scored block that does nothing in raw units.
        env_action_dim: Length of one raw action; a block is A / env_action_dim of them, in time order.
        low: (A,) lowest z-scored actions of the data set; None where they are not known.
        high: (A,) highest ones.
        proposal: (B, T, A) blocks that the model proposes; None where it is not asked.
        alternatives: (B, n, T, A) other blocks that it proposes, for further starts; None where there are none.
    """

    zero: Tensor
    env_action_dim: int
    low: Tensor | None = None
    high: Tensor | None = None
    proposal: Tensor | None = None
    alternatives: Tensor | None = None

    @classmethod
    def plain(cls, like: Tensor) -> ActionSpace:
        """Make one of the size of ``like`` (..., A): zero does nothing, a block is one action, no range is known."""
        return cls(like.new_zeros(like.shape[-1]), like.shape[-1])


@dataclass(frozen=True)
class Budget:
    """What one plan may cost; None sets no limit.

    Attributes:
        milliseconds: Wall clock of a planning call, however many episodes it plans for. No step begins that would, at
            the pace of the last few, end later; the first one always runs.
        evaluations: Rollouts imagined per episode; one that is differentiated counts once.
        tflops: 10^12 floating-point operations per episode, see ``RolloutFlops``.
    """

    milliseconds: float | None = None
    evaluations: int | None = None
    tflops: float | None = None

    def allows(self, work: Work, flops: RolloutFlops | None, share: float = 1.0, reserve: Work = NOTHING) -> bool:
        """Whether an episode may have had so many rollouts, whatever they took in time.

        Args:
            work: The rollouts.
            flops: Of one; only read where they are limited.
            share: Of the limits.
            reserve: What has to be left of it.
        """
        if self.evaluations is not None and work.evaluations > share * self.evaluations - reserve.evaluations:
            return False
        if self.tflops is None or flops is None:
            return True
        return flops.of(work) <= (share * self.tflops * TERA - flops.of(reserve)) * (1 + ROUNDING)
