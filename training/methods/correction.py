"""What the simulator makes of the model's own plans for the samples of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.batch import Batch
from datasets.units.folding import unfold_actions
from envs.base import Trajectory, VectorEnv, simulate
from models.latent import Latent
from models.speed.compiling import AUTO
from models.speed.fast_paths import FastPaths
from models.world_model import planning_mode
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.planners.base import Planner
from planning.planners.noise import EpisodeNoise
from planning.problem import Problem
from planning.request import PlanRequest
from planning.task import PlanningTask
from training.methods.base import TrainingContext
from training.methods.replay_buffer import Corrected
from utils import distributed
from utils.distributed import Share
from utils.ranges import MemoryBudget

TASKS = ("batch", "random_state")


@dataclass(frozen=True)
class Planned:
    """Plans for a batch, before anything has happened.

    Attributes:
        states: (B, S) raw, to start from.
        actions: (B, K, env_action_dim) z-scored.
        lengths: (B,) how many of the actions are meant; None means all.
    """

    states: Tensor
    actions: Tensor
    lengths: Tensor | None = None


class Corrector:
    """Plans for one task per sample, plays the plans in the simulator, and encodes what that shows.

    Args:
        planner, objective, tasks, frame_stride, speed, memory_budget_gb: See ``training.methods.online.Online``.

    Attributes:
        planner: Open loop.
        loop: That replans with it, or None.
        stride: Raw steps between simulated frames; known after ``setup``.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    stride: int

    def __init__(
        self,
        planner: Planner | MPCController,
        objective: GoalDistance,
        tasks: str = "batch",
        frame_stride: int | None = None,
        speed: FastPaths | None = None,
        memory_budget_gb: MemoryBudget = AUTO,
    ) -> None:
        if tasks not in TASKS:
            raise ValueError(f"method.tasks must be one of {', '.join(TASKS)}, got {tasks!r}")
        self.loop = planner if isinstance(planner, MPCController) else None
        self.planner = planner.planner if isinstance(planner, MPCController) else planner
        self._check_repeatable()
        self.objective, self.tasks, self.frame_stride = objective, tasks, frame_stride
        self.speed, self.memory_budget_gb = speed or FastPaths(), memory_budget_gb
        self._known: TrainingContext | None = None

    def _check_repeatable(self) -> None:
        limits = {"budget_ms": self.planner.budget.milliseconds}
        limits |= {"time_limit_minutes": self.loop.time_limit_minutes if self.loop else None}
        for key, limit in limits.items():
            if limit is not None:
                raise ValueError(
                    f"method.planner: {key}={limit} makes plans depend on the machine's speed, and a resumed training "
                    "must repeat them; use budget_evals, opt_steps or max_iter"
                )

    def setup(self, context: TrainingContext) -> None:
        """Called once before training.

        Raises:
            ValueError: If ``frame_stride`` does not divide the frameskip, or no window fits into a plan.
        """
        hist = context.model.num_hist
        if self.planner.horizon < hist:
            raise ValueError(
                f"method.planner.horizon must be at least num_hist={hist}, or a corrected trajectory holds no window "
                f"to train on; got {self.planner.horizon}"
            )
        loop = self.loop
        at_most = self.planner.horizon if loop is None else loop.executed(loop.max_iter or 0)[-1]
        if at_most < hist:
            raise ValueError(
                f"method.planner: max_iter * n_taken_actions must be at least num_hist={hist}, or a corrected "
                f"trajectory holds no window to train on; got {at_most}"
            )
        if self.planner.sample_type == "proposal":
            context.model.require_proposal()  # or it would say so only at the first step
        self.stride = context.frameskip if self.frame_stride is None else self.frame_stride
        if self.stride < 1 or context.frameskip % self.stride:
            raise ValueError(f"method.frame_stride must divide frameskip={context.frameskip}, got {self.frame_stride}")
        self._known = context

    def plan(self, batch: Batch, latent: Latent, share: Share, refresh: int, draws: torch.Generator) -> Planned:
        """What the model would do in each sample's task.

        Args:
            batch: Samples of the data set.
            latent: (B, F) of their frames.
            share: Where the samples lie in the batch of all processes; their randomness depends on that.
            refresh: Number of this call, on which it depends, too.
            draws: Of starts and goals.
        """
        with planning_mode(self._context.model), torch.no_grad():
            drawn = self.tasks == "random_state"
            ends, start, goal = self._drawn_tasks(batch, share, draws) if drawn else self._own_tasks(batch, latent)
            rows = range(share.first, share.first + share.count)
            if self.loop is None:
                return Planned(ends[0], self._plan_once(start, goal, rows, refresh))
            # each refresh, and each row of it, has a random stream of its own
            seeds = [refresh * share.total + row for row in rows]
            return Planned(ends[0], *self._replan(Problem(seeds, *ends, _layouts(batch)), goal))

    def _plan_once(self, start: Latent, goal: Latent, rows: Sequence[int], refresh: int) -> Tensor:
        """z-scored raw actions (B, K, env_action_dim) of one plan from ``start`` (B, 1) to ``goal`` (B, 1)."""
        context = self._context
        request = PlanRequest(
            planner=self.planner,
            observer=context.observer,
            frameskip=context.frameskip,
            objective=self.objective,
            context=start,
            goal=goal,
            noise=EpisodeNoise.derive(context.seed, rows, refresh, context.observer.device),
            speed=self.speed,
            memory_budget_gb=self.memory_budget_gb,
        )
        return unfold_actions(request.plan().actions.cpu(), self._simulator.env_action_dim)

    def _replan(self, problem: Problem, goal: Latent) -> tuple[Tensor, Tensor]:
        """Play a closed loop for each task.

        Returns:
            The actions, and how many (B,) of them were meant: solved episodes do nothing from then on.
        """
        context = self._context
        assert self.loop is not None
        task = PlanningTask(
            env=self._simulator,
            observer=context.observer,
            problem=problem,
            goal=goal,
            objective=self.objective,
            seed=context.seed,
            frameskip=context.frameskip,
            memory_budget_gb=self.memory_budget_gb,
            speed=self.speed,
        )
        episodes = task.start()
        self.loop.run(task, episodes)
        iterations = torch.where(episodes.solved, episodes.solved_at, episodes.iteration)
        lengths = torch.tensor(self.loop.executed(episodes.iteration))[iterations] * context.frameskip
        return context.observer.normalizer.actions_to_z(episodes.played), lengths

    def _own_tasks(self, batch: Batch, latent: Latent) -> tuple[tuple[Tensor, Tensor], Latent, Latent]:
        """Make a task of each sample, from its first frame to the one ``horizon`` blocks later.

        Returns:
            Raw states (B, S) of start and goal, and their (B, 1) latents.
        """
        ends = [0, self.planner.horizon]
        states, known = batch.states[:, ends].cpu(), latent[:, ends].detach()
        return (states[:, 0], states[:, 1]), known[:, :1], known[:, 1:]

    def _drawn_tasks(
        self, batch: Batch, share: Share, draws: torch.Generator
    ) -> tuple[tuple[Tensor, Tensor], Latent, Latent]:
        """Starts and goals as an evaluation draws them, never the same ones twice."""
        env, observer = self._simulator, self._context.observer
        drawn = torch.randint(2**31 - 1, (share.total,), generator=draws)  # by all processes alike
        seeds = [int(seed) for seed in drawn[share.rows]]
        layouts = _layouts(batch)
        states = env.sample_start_goal(seeds, layouts)
        start, goal = (observer.present(env, env.reset(seeds, part, layouts)) for part in states)
        return states, start, goal

    @torch.no_grad()
    def play(self, batch: Batch, planned: Planned) -> Trajectory:
        """Carry out plans under the batch's layouts; on the CPU, and without the model."""
        observer = self._context.observer
        raw = observer.normalizer.actions_to_raw(planned.actions)
        every = self.stride if observer.wants_frames else None
        return simulate(self._simulator, batch.trajectory.tolist(), planned.states, raw, _layouts(batch), every)

    @torch.no_grad()
    def encode(self, planned: Planned, happened: Trajectory) -> list[Corrected]:
        """What the model would see of it: trajectories of one length each, of as many lengths in every process."""
        observer = self._context.observer
        visited = happened.states[:, :: self.stride]
        with planning_mode(self._context.model):
            features = observer.features(visited, happened.frames).cpu()
        whole = Corrected(features, observer.proprio(self._simulator, visited).cpu(), planned.actions, self.stride)
        if planned.lengths is None:
            return [whole]
        everywhere = {length for part in distributed.gather(planned.lengths.tolist()) for length in part}
        # as many parts in every process, some of them empty
        return [whole.part(planned.lengths == length, length) for length in sorted(everywhere)]

    @property
    def _context(self) -> TrainingContext:
        assert self._known is not None, "setup() comes first"
        return self._known

    @property
    def _simulator(self) -> VectorEnv:
        env = self._context.env
        assert env is not None, "the online method needs an environment, so there is one"
        return env


def _layouts(batch: Batch) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in batch.layouts.items()}
