"""One run of a planner: what it has evaluated, what was best, and what it may still spend."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from models.speed.cuda_graphs import Captured
from planning.planners.plan import ActionSpace, Budget, CostFn, Plan

PACE_STEPS = 5  # that a step's length is judged by


class Search:
    """Evaluates candidates for a planner and keeps the account.

    Args:
        cost: What is minimised.
        budget: What the search may spend.
        eval_every: Steps between two entries of the trace.
        space: Its range is what ``clip`` clips to.
        clips: Whether ``clip`` does anything.
        rollout_seconds: At least so long takes what is evaluated at the end; only read under a time budget.
    """

    def __init__(
        self,
        cost: CostFn,
        budget: Budget,
        eval_every: int,
        space: ActionSpace,
        clips: bool,
        rollout_seconds: float = 0.0,
    ) -> None:
        self._cost, self._budget, self._eval_every = cost, budget, eval_every
        self.space, self._clips, self._rollout_seconds = space, clips, rollout_seconds
        self.evaluations = self.gradient_evaluations = self.steps_done = 0
        self.trace: list[tuple[int, Tensor]] = []
        self._best: tuple[Tensor, Tensor] | None = None  # actions (B, T, A), cost (B,)
        self._pace: deque[float] = deque(maxlen=PACE_STEPS)  # seconds per evaluation of the last steps
        self._begin = self._now()

    def values(self, actions: Tensor) -> Tensor:
        """Evaluate candidates (B, N, T, A): costs (B, N)."""
        with torch.no_grad():
            values = self._cost(actions.detach())
        self.evaluations += actions.shape[1]
        self._keep_best(actions, values)
        return values

    def gradients(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate and differentiate candidates (B, N, T, A): costs (B, N) and gradients (B, N, T, A)."""
        found = self.differentiate(actions)
        self.count_gradients(actions)
        return found

    def differentiate(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Do the work of ``gradients`` without counting it, which whoever captures this work does beside it."""
        with torch.enable_grad():
            leaf = actions.detach().requires_grad_()
            values = self._cost(leaf)
            # sum, not mean: a problem's gradient must not depend on how many are batched with it
            gradients = torch.autograd.grad(values.sum(), leaf)[0]
        self._keep_best(actions, values.detach())
        return values.detach(), gradients

    def count_gradients(self, actions: Tensor) -> None:
        """Count candidates (B, N, T, A) that were evaluated and differentiated."""
        self.gradient_evaluations += actions.shape[1]
        self.evaluations += actions.shape[1]

    def captured(self, work: Callable[[], None], calls: int) -> Captured:
        """Turn ``work``, which is called about so many times, into one CUDA graph if the cost function allows it."""
        allowed = getattr(self._cost, "capturable", False) and self._budget.milliseconds is None
        return Captured(work, self.space.zero.device, allowed, calls)

    def show_progress(self, actions: Tensor) -> None:
        """Report candidates (B, N, T, A) that a replay evaluated, of which the cost function does not know."""
        progress = getattr(self._cost, "progress", None)
        if progress is not None:
            progress(actions.shape[0] * actions.shape[1])

    def seconds_of_one(self, actions: Tensor) -> float:
        """Seconds that candidates (B, N, T, A) take without gradients, after a first evaluation with them."""
        self.gradients(actions)
        begin = self._now()
        self.values(actions)
        return self._now() - begin

    def clip(self, actions: Tensor) -> Tensor:
        """Clip ``actions`` (..., A) to the data set's range, if that was asked for."""
        return actions.clamp(self.space.low, self.space.high) if self._clips else actions

    def steps(self, most: int, evaluations: int, reserve: int, until: float = 1.0) -> Iterator[int]:
        """Count optimisation steps while the budget lasts; the very first one is taken however small it is.

        Args:
            most: Steps at most.
            evaluations: How many a step takes.
            reserve: Evaluations to be left for afterwards.
            until: Share of the budget after which no step begins.
        """
        for step in range(most):
            if self.steps_done and not self._affords(evaluations, reserve, until):
                return
            begin = self._now()
            yield step
            self.steps_done += 1
            self._pace.append((self._now() - begin) / evaluations)

    def record(self, values: Tensor) -> None:
        """Note the cost (B,) that the current step starts from, once, if this step is traced."""
        noted = bool(self.trace) and self.trace[-1][0] == self.steps_done
        if self.steps_done % self._eval_every == 0 and not noted:
            self.trace.append((self.steps_done, values))

    def finish(self) -> Plan:
        """Return the best of everything that was evaluated."""
        assert self._best is not None, "a planner evaluates something"
        actions, cost = self._best
        trace = [*self.trace, (self.steps_done, cost)]
        return Plan(actions, cost, trace, self.evaluations, self.gradient_evaluations)

    def _affords(self, evaluations: int, reserve: int, until: float) -> bool:
        limit = self._budget.evaluations
        if limit is not None and self.evaluations + evaluations > until * limit - reserve:
            return False
        if self._budget.milliseconds is None:
            return True
        pace = statistics.median(self._pace)  # one hiccup must not end the search
        at_the_end = max(pace * reserve, self._rollout_seconds) if until == 1 else 0.0
        ends = self._now() - self._begin + pace * evaluations + at_the_end
        return ends <= until * self._budget.milliseconds / 1000

    def _now(self) -> float:
        """Seconds on the clock, with everything done that was asked for; the clock is only read under a time budget."""
        if self._budget.milliseconds is None:
            return 0.0
        if self.space.zero.is_cuda:
            torch.cuda.synchronize(self.space.zero.device)  # or the clock sees only the launches
        return time.perf_counter()

    def _keep_best(self, actions: Tensor, values: Tensor) -> None:
        """Update the best in place; a cost that is not a number is no better than anything."""
        lowest, at = no_nan(values).min(1)
        chosen = actions.detach()[torch.arange(len(actions), device=actions.device), at]
        if self._best is None:
            self._best = chosen.clone(), lowest.clone()
            return
        kept, cost = self._best
        kept.copy_(torch.where((lowest < cost)[:, None, None], chosen, kept))
        torch.minimum(lowest, cost, out=cost)


def no_nan(values: Tensor) -> Tensor:
    """Put infinity, which is worse than anything, in the place of what is no number."""
    return values.masked_fill(values.isnan(), torch.inf)
