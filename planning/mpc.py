"""Model-predictive control: plan, execute some blocks, look, plan again. One controller for every planner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from models.latent import Latent, cat_latents
from planning.adaptation import Adaptation
from planning.episodes import Episodes, finite_mean
from planning.history import kept_latents, kept_of_execution, kept_of_plan, timing
from planning.objectives import GoalDistance
from planning.planners.base import Planner
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import Plan, join_plans
from planning.request import Decision, PlanRequest
from planning.task import Aim, PlanningTask
from utils import distributed
from utils.ranges import Count, Limit, Small

log = logging.getLogger(__name__)

SHRINKING = ("none", "plan", "budget")


class MPCController:
    """A closed loop around a planner, which ends when every episode is solved or a cap is reached.

    Solved episodes leave the batch: they cost no more planning and take zero raw actions from then on. Whether an
    episode is solved is the simulator's knowledge; the planner never sees it.

    Args:
        sub_planner: Any planner.
        max_iter: Cap on iterations, >= 1; None only together with ``time_limit_minutes``.
        n_taken_actions: Blocks executed per iteration, 1 <= n <= horizon; the rest of the plan starts the next one.
        shrinking: How many blocks are planned: "none": always the planner's horizon; "plan": as many as are left until
            the first plan ends, then anew from the full horizon; "budget": no more than can still be executed.
        time_limit_minutes: No new iteration begins after that long, > 0; None sets no limit.
        adapt: Settings of an ``Adaptation``, which lets the model learn in each episode; None leaves it as it is.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    def __init__(
        self,
        sub_planner: Planner,
        max_iter: Count | None = 10,
        n_taken_actions: Small = 1,
        time_limit_minutes: Limit | None = None,
        shrinking: str = "none",
        adapt: Mapping[str, Any] | None = None,
    ) -> None:
        if shrinking not in SHRINKING:
            raise ValueError(f"planner.shrinking must be one of {', '.join(SHRINKING)}, got {shrinking!r}")
        if max_iter is None and shrinking == "budget":
            raise ValueError("planner.shrinking=budget needs planner.max_iter, the budget")
        if max_iter is None and time_limit_minutes is None:
            raise ValueError(
                "planner.max_iter=null would never end on an episode that cannot be solved: set planner.max_iter, or "
                "planner.time_limit_minutes beside it"
            )
        if max_iter is not None and max_iter < 1:
            raise ValueError(f"planner.max_iter must be at least 1, got {max_iter}")
        if time_limit_minutes is not None and not time_limit_minutes > 0:
            raise ValueError(f"planner.time_limit_minutes must be > 0 or null, got {time_limit_minutes}")
        if not 1 <= n_taken_actions <= sub_planner.horizon:
            raise ValueError(
                f"planner.n_taken_actions must be in [1, {sub_planner.horizon}], the horizon, got {n_taken_actions}"
            )
        self.planner, self.max_iter, self.n_taken_actions = sub_planner, max_iter, n_taken_actions
        self.time_limit_minutes, self.shrinking = time_limit_minutes, shrinking
        self.adaptation = None if adapt is None else Adaptation.of(adapt)

    @classmethod
    def of(cls, planner: Planner | MPCController) -> MPCController:
        """Turn a ``planner`` option into a controller: a planner alone makes one plan, carried out to its end."""
        if isinstance(planner, MPCController):
            return planner
        return cls(planner, max_iter=1, n_taken_actions=planner.horizon)

    def horizon(self, iteration: int, executed: int) -> int:
        """Blocks to plan in an iteration, counted from 0, before which so many were executed."""
        full = self.planner.horizon
        if self.shrinking == "plan":
            return full - executed % full
        if self.shrinking == "budget" and self.max_iter is not None:
            return min(full, (self.max_iter - iteration) * self.n_taken_actions)
        return full

    def executed(self, iterations: int) -> list[int]:
        """Blocks executed after 0, 1, ... ``iterations`` iterations."""
        counts = [0]
        for iteration in range(iterations):
            counts.append(counts[-1] + min(self.n_taken_actions, self.horizon(iteration, counts[-1])))
        return counts

    def run(
        self,
        task: PlanningTask,
        episodes: Episodes,
        after_iteration: Callable[[Episodes], None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Iterate in place until done.

        Args:
            task: What the episodes are about.
            episodes: As they stand.
            after_iteration: Called after each iteration, e.g. to log and to save.
            progress: Called with the number of rollouts just imagined, many times in an iteration.
        """
        deadline = None if self.time_limit_minutes is None else time.monotonic() + 60 * self.time_limit_minutes
        while len(episodes.active) and (self.max_iter is None or episodes.iteration < self.max_iter):
            if deadline is not None and task.any_process(time.monotonic() > deadline):
                return
            self.iterate(task, episodes, progress)
            if after_iteration is not None:
                after_iteration(episodes)

    def iterate(self, task: PlanningTask, episodes: Episodes, progress: Callable[[int], None] | None = None) -> None:
        """Plan for the unsolved episodes, execute, observe; in place. ``progress``: see ``run``."""
        begin = time.perf_counter()
        rows, request, plan, imagined, actions = self.decide(task, episodes, progress)
        planned = time.perf_counter()
        seen = task.execute(episodes, rows, actions, sees_all=self.adaptation is not None)
        executed = time.perf_counter()
        distance = task.judge(episodes)
        judged = time.perf_counter()
        learnt = self.learn(task, episodes, rows, request, actions, seen) if self.adaptation is not None else {}
        planned += (learning := time.perf_counter() - judged)
        executed += learning
        if task.recorder is not None:
            task.recorder.record(task.env, imagined[:, -1:], rows, task.observer.model)
        episodes.divergence[rows] = _distance(imagined[:, -1:], seen[:, -1:])
        episodes.history.append(
            kept_of_plan(plan, rows, task.observer.raw_actions(plan.actions))
            | kept_of_execution(imagined, seen, request.goal, task.objective.alpha)
            | (kept_latents(request.cost.imagine(plan.actions)) if task.saves_latents else {})
            | timing(rows, planned - begin, executed - planned)
        )
        episodes.note(rows, plan, str(request.objective), distance, planned - begin, executed - planned, learnt)

    def decide(self, aim: Aim, episodes: Episodes, progress: Callable[[int], None] | None = None) -> Decision:
        """Plan for the unsolved episodes, and keep what is left of their plans; ``progress``: see ``run``.

        Whoever calls it carries the actions out, and puts what is seen then into ``episodes``.
        """
        if self.adaptation is not None and not episodes.adapted:
            episodes.adapted = self.adaptation.begin(aim.observer.model, len(episodes.solved))
        rows = episodes.active
        request = self.request(aim, episodes, rows, progress)
        plan, imagined = self._plan(aim, episodes, request, rows)
        episodes.remember_plan(rows.to(plan.actions.device), plan.actions[:, self.n_taken_actions :])
        episodes.iteration += 1
        return Decision(rows, request, plan, imagined, plan.actions[:, : self.n_taken_actions])

    def learn(
        self, aim: Aim, episodes: Episodes, rows: Tensor, request: PlanRequest, actions: Tensor, seen: Latent
    ) -> dict[str, float]:
        """Let the model of each episode that goes on learn from what it just saw; numbers for the log."""
        goes_on = (~episodes.solved[rows]).nonzero().squeeze(1).to(actions.device)
        if self.adaptation is None or not len(goes_on):
            return {}
        past = actions[:, :0] if request.past_actions is None else request.past_actions
        frames = cat_latents([request.context, seen], 1)[goes_on]
        done, places = torch.cat([past, actions], 1)[goes_on], rows.to(actions.device)[goes_on]
        own = {name: value[places] for name, value in episodes.adapted.items()}
        own, losses = self.adaptation.learn(aim.observer.model, own, frames, done, seen.num_frames)
        for name, value in own.items():
            episodes.adapted[name][places] = value
        return {"adaptation_loss": finite_mean(losses)}

    def objective(self, aim: Aim, episodes: Episodes) -> GoalDistance:
        """What the next plan minimises."""
        return aim.objective.at(aim.executed(episodes), self.planner.horizon, self.n_taken_actions)

    def request(
        self, aim: Aim, episodes: Episodes, rows: Tensor, progress: Callable[[int], None] | None = None
    ) -> PlanRequest:
        """What the planner is asked in the next iteration for episodes ``rows`` (b,). ``progress``: see ``run``."""
        device = aim.observer.device
        noise = EpisodeNoise.derive(aim.seed, aim.noise_seeds(rows), episodes.iteration, device)
        branches = aim.branches(episodes, rows)
        rows = rows.to(device)
        context, past_actions = episodes.context(rows, self.planner.rollout.num_context)
        return PlanRequest(
            planner=self.planner,
            observer=aim.observer,
            frameskip=aim.frameskip,
            objective=self.objective(aim, episodes),
            context=context,
            goal=aim.goal[rows],
            noise=noise,
            past_actions=past_actions,
            warm_start=episodes.warm_start[rows],
            horizon=self.horizon(episodes.iteration, aim.executed(episodes)),
            speed=aim.speed,
            memory_budget_gb=aim.memory_budget_gb,
            progress=progress,
            branches=branches,
            adapted={name: value[rows] for name, value in episodes.adapted.items()} if episodes.iteration else {},
        )

    def _plan(self, aim: Aim, episodes: Episodes, request: PlanRequest, rows: Tensor) -> tuple[Plan, Latent]:
        """Plan for the rows, and imagine the latents (b, n + 1) of the part of the plan that will be executed."""
        device = aim.observer.device
        if aim.shared and distributed.size() > 1:
            plan = self._share_planning(aim, episodes, request, rows)
        else:
            plan = request.plan()
        diverged = ~(plan.cost.isfinite() & plan.actions.isfinite().flatten(1).all(1))
        if diverged.any():
            # one episode must not take the others down with it: it waits, and plans anew from the start
            log.warning("the plans of %d episodes diverged; try a lower planner learning rate", int(diverged.sum()))
            plan.actions[diverged] = aim.observer.normalizer.zero_block(aim.frameskip).to(device)
        imagined = request.cost.imagine(plan.actions[:, : self.n_taken_actions])
        aim.observer.wait()  # or the clock stops before the work does
        return plan, imagined

    def _share_planning(self, aim: Aim, episodes: Episodes, request: PlanRequest, rows: Tensor) -> Plan:
        """Plan for this process's share of the rows, and get the other processes' plans."""
        share, own = distributed.share(len(rows)), None
        if share.count:
            part = self.request(aim, episodes, rows[share.rows], request.progress)
            own = part.plan().to(torch.device("cpu"))  # on its way to processes with other GPUs
        return join_plans([part for part in distributed.gather(own) if part is not None]).to(aim.observer.device)


def _distance(a: Latent, b: Latent) -> Tensor:
    """(B, 2) Euclidean distances of the visual and proprio parts."""
    parts = ((a.visual, b.visual), (a.proprio, b.proprio))
    return torch.stack([(x.float() - y).flatten(1).norm(dim=1).cpu() for x, y in parts], 1)
