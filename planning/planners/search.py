"""One run of a planner: what it has evaluated, what was best, and what it may still spend."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from models.speed.cuda_graphs import Captured
from planning.planners.patience import Patience, Stalling
from planning.planners.plan import ActionSpace, Budget, CostFn, Plan, RolloutFlops, Work

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
        patience: When the search for a problem's plan ends early; None: never.
        rollout_flops: Of one rollout; only read under a budget of floating-point operations.
        differentiates: Whether steps that do not say otherwise differentiate all that they evaluate.
    """

    def __init__(
        self,
        cost: CostFn,
        budget: Budget,
        eval_every: int,
        space: ActionSpace,
        clips: bool,
        rollout_seconds: float = 0.0,
        patience: Patience | None = None,
        rollout_flops: RolloutFlops | None = None,
        differentiates: bool = False,
    ) -> None:
        self._cost, self._budget, self._eval_every = cost, budget, eval_every
        self.space, self.clips, self._rollout_seconds = space, clips, rollout_seconds
        self.evaluations = self.gradient_evaluations = self.steps_done = 0
        self.trace: list[tuple[int, Tensor]] = []
        self._best: tuple[Tensor, Tensor] | None = None  # actions (B, T, A), cost (B,)
        self._first: tuple[Tensor, Tensor] | None = None  # the same, of the very first candidates
        self._pace: deque[float] = deque(maxlen=PACE_STEPS)  # seconds per evaluation of the last steps
        self._patience = patience
        self._rollout_flops, self._differentiates = rollout_flops, differentiates
        self._stalling: Stalling | None = None
        self._begin = self._now()

    def values(self, actions: Tensor) -> Tensor:
        """Evaluate candidates (B, N, T, A): costs (B, N)."""
        with torch.no_grad():
            values = self._evaluate(actions.detach())
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
            values = self._evaluate(leaf)
            # sum, not mean: a problem's gradient must not depend on how many are batched with it
            gradients = torch.autograd.grad(values.sum(), leaf)[0]
        self._keep_best(actions, values.detach())
        return values.detach(), gradients

    def count_gradients(self, actions: Tensor) -> None:
        """Count candidates (B, N, T, A) that were evaluated and differentiated."""
        self.gradient_evaluations += actions.shape[1]
        self.evaluations += actions.shape[1]

    def captured(self, work: Callable[[], None], calls: int) -> Captured:
        """Turn ``work``, which is called about so many times, into one CUDA graph if the cost function allows it.

        A graph can neither hold a clock nor let problems leave.
        """
        plain = self._budget.milliseconds is None and self._patience is None
        allowed = plain and getattr(self._cost, "capturable", False)
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
        return actions.clamp(self.space.low, self.space.high) if self.clips else actions

    def steps(self, most: int, work: Work | int, reserve: Work | int, until: float = 1.0) -> Iterator[int]:
        """Count optimisation steps while the budget lasts; the very first one is taken however small it is.

        A problem that stalls is evaluated no more; when all have, the steps end.

        Args:
            most: Steps at most.
            work: What a step takes. A plain number of evaluations counts as differentiated if the planner can do that.
            reserve: What is to be left for afterwards.
            until: Share of the budget after which no step begins; below 1, other steps follow, and nothing stalls yet.
        """
        once, left = (self._work(each) for each in (work, reserve))
        for step in range(most):
            if self.steps_done and not self._affords(once, left, until):
                return
            if self._stalling is not None and not len(self._stalling.going):
                return
            begin = self._now()
            yield step
            self.steps_done += 1
            if until == 1 and self._patience is not None:
                self._let_stop(self._patience)
            self._pace.append((self._now() - begin) / once.evaluations)

    def record(self, values: Tensor) -> None:
        """Note the cost (B,) that the current step starts from, once, if this step is traced."""
        noted = bool(self.trace) and self.trace[-1][0] == self.steps_done
        if self.steps_done % self._eval_every == 0 and not noted:
            if self._stalling is not None and self._best is not None:  # where there is none of this step, the plan's
                values = self._best[1].index_copy(0, self._stalling.going, values[self._stalling.going])
            self.trace.append((self.steps_done, values))

    def finish(self) -> Plan:
        """Return the best of everything that was evaluated."""
        assert self._best is not None, "a planner evaluates something"
        actions, cost = self._best
        trace = [*self.trace, (self.steps_done, cost)]
        counts = torch.tensor([[self.evaluations], [self.gradient_evaluations]]).repeat(1, len(cost))
        if self._stalling is not None:
            stopped = torch.ones(len(cost), dtype=torch.bool).index_fill(0, self._stalling.going.cpu(), False)
            counts = torch.where(stopped, self._stalling.spent.cpu(), counts)
        return Plan(actions, cost, trace, *counts)

    def initial_cost(self, start: Tensor) -> Tensor:
        """Cost (B,) of ``start`` (B, T, A) if the search began with it; NaN where it began with something else."""
        assert self._first is not None, "a planner evaluates something"
        actions, cost = self._first
        return cost.where((actions == start).flatten(1).all(1), torch.nan)

    def _let_stop(self, patience: Patience) -> None:
        """After a step: let problems stop that have stalled."""
        assert self._best is not None, "a step evaluates something"
        if self._stalling is None:
            self._stalling = Stalling(patience, self._best[1])
        else:
            self._stalling.notice(self._best[1], (self.evaluations, self.gradient_evaluations))

    def _evaluate(self, actions: Tensor) -> Tensor:
        """Costs (B, N) of candidates (B, N, T, A); infinite, and free, for problems that have stalled."""
        if self._stalling is None or len(self._stalling.going) == len(actions):
            return self._cost(actions)
        going = self._stalling.going
        if not len(going):
            return actions.new_full(actions.shape[:2], torch.inf)
        found = self._cost(actions[going], going)
        return found.new_full(actions.shape[:2], torch.inf).index_copy(0, going, found)

    def _work(self, work: Work | int) -> Work:
        if isinstance(work, Work):
            return work
        return Work(work, work if self._differentiates else 0)

    def _affords(self, work: Work, reserve: Work, until: float) -> bool:
        done = Work(self.evaluations + work.evaluations, self.gradient_evaluations + work.gradients)
        if not self._budget.allows(done, self._rollout_flops, until, reserve):
            return False
        if self._budget.milliseconds is None:
            return True
        pace = statistics.median(self._pace)  # one hiccup must not end the search
        at_the_end = max(pace * reserve.evaluations, self._rollout_seconds) if until == 1 else 0.0
        ends = self._now() - self._begin + pace * work.evaluations + at_the_end
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
        actions = actions.detach()
        if actions.shape[1] == 1:
            lowest, chosen = no_nan(values[:, 0]), actions[:, 0]
        else:
            lowest, at = no_nan(values).min(1)
            chosen = actions[torch.arange(len(actions), device=actions.device), at]
        if self._best is None:
            self._first = actions[:, 0].clone(), values[:, 0].clone()
            self._best = chosen.clone(), lowest.clone()
            return
        kept, cost = self._best
        torch.where((lowest < cost)[:, None, None], chosen, kept, out=kept)
        torch.minimum(lowest, cost, out=cost)


def no_nan(values: Tensor) -> Tensor:
    """Put infinity, which is worse than anything, in the place of what is no number."""
    return values.nan_to_num(torch.inf, torch.inf, -torch.inf)
