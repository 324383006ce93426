"""Online World Modeling: plan with the model, see in the simulator what the plan really does, learn from that."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from datasets.batch import Batch
from envs.base import Trajectory, VectorEnv, simulate
from models.latent import Latent
from models.world_model import Windows, planning_mode
from planning.cost import AUTO, LatentGoalCost, MemoryBudget, check_budget
from planning.fast_paths import FastPaths
from planning.goals import Problem
from planning.mpc import MPCController, PlanningTask
from planning.noise import EpisodeNoise
from planning.objectives import GoalDistance
from planning.planner import Planner
from training.method import Method, TrainingContext, cat_windows, numbering
from training.replay import Corrected, ReplayMemory
from utils import distributed

SAMPLINGS = ("slot", "all")
TASKS = ("batch", "random_state")
SECONDS_TO_CLOSE = 5.0  # for a simulation that nobody waits for any more


@dataclass(frozen=True)
class Planned:
    """Plans for a batch, before anything has happened.

    Attributes:
        states: (B, S) raw, to start from. actions: (B, K, env_action_dim) z-scored.
        lengths: (B,) how many of the actions are meant; None means all.
    """

    states: Tensor
    actions: Tensor
    lengths: Tensor | None = None


class Online(Method):
    """Every ``replay_buffer_frequency``-th batch, replace what was imagined by what is true.

    The plan starts at the batch's first frame and aims at the frame ``horizon`` blocks later. The simulator executes
    it from the batch's own first state, and its frames, the last one included, become training windows of their own.
    With ``tasks: random_state`` starts and goals are drawn as in an evaluation instead, in the batch's layouts.
    A closed-loop planner replans as in an evaluation, and what it did in all becomes one corrected trajectory.
    A window never mixes data set frames with simulated ones; the block-causal mask trains the short histories at
    the start of a plan, just as a rollout meets them.

    Source: Parthasarathy et al., arXiv 2512.09929, section 4.1 (a DAgger-like procedure).

    Args:
        planner: proposes the actions; any planner, open loop or in MPC.
        objective: what it minimises.
        tasks: "batch" (the paper's: from and to frames of the batch) or "random_state" (the environment's own start and
            goal sampling, as PointMaze and Wall are evaluated; its goals are farther than any data set sample shows).
        replay_buffer_frequency: batches from one refresh to the next, >= 1; these share a slot of the memory.
        replay_capacity: corrected trajectories kept at most.
        replay_sampling: "slot": a batch is joined by the corrected trajectories of its slot; "all": by windows drawn
            from the whole memory.
        frame_stride: raw steps between simulated frames; the frameskip (null) renders least, 1 gives a window at every
            offset. Must divide the frameskip.
        speed: how the planner's rollouts are made fast, see ``FastPaths``; None means its defaults.
        memory_budget_gb: of the planner, see ``LatentGoalCost``.
        overlap: whether the simulator plays while the batch of the refresh trains. What it shows is then learnt from
            the next batch on, instead of from that one; it depends on nothing else, least of all on how long it takes.
    """

    name = "online"
    needs_env = True

    def __init__(
        self,
        planner: Planner | MPCController,
        objective: GoalDistance,
        tasks: str = "batch",
        replay_buffer_frequency: int = 10,
        replay_capacity: int = 6000,
        replay_sampling: str = "slot",
        frame_stride: int | None = None,
        memory_budget_gb: MemoryBudget = AUTO,
        speed: FastPaths | None = None,
        overlap: bool = False,
        **hooks: Any,
    ) -> None:
        super().__init__(**hooks)
        if replay_buffer_frequency < 1:
            raise ValueError(f"replay_buffer_frequency must be at least 1, got {replay_buffer_frequency}")
        if tasks not in TASKS:
            raise ValueError(f"method.tasks must be one of {', '.join(TASKS)}, got {tasks!r}")
        if replay_sampling not in SAMPLINGS:
            raise ValueError(f"method.replay_sampling must be one of {', '.join(SAMPLINGS)}, got {replay_sampling!r}")
        self.loop = planner if isinstance(planner, MPCController) else None
        self.planner = planner.planner if isinstance(planner, MPCController) else planner
        self._check_repeatable()
        if overlap and replay_buffer_frequency == 1 and replay_sampling == "slot":
            raise ValueError(
                "method.overlap=true: with replay_buffer_frequency=1 the slot of a refresh is over before anything is "
                "learnt from it; use replay_sampling=all or a replay_buffer_frequency of 2 or more"
            )
        check_budget(memory_budget_gb)
        self.objective, self.tasks = objective, tasks
        self.frequency, self.capacity, self.sampling = replay_buffer_frequency, replay_capacity, replay_sampling
        self.frame_stride, self.memory_budget_gb = frame_stride, memory_budget_gb
        self.speed = speed or FastPaths()
        self._draws = torch.Generator()  # of random tasks, and of the windows that join a batch
        self._refreshes = 0
        self._thread = ThreadPoolExecutor(1, "simulate") if overlap else None
        self._playing: tuple[int, Planned, Future[Trajectory]] | None = None  # with the slot; within a step only

    def _check_repeatable(self) -> None:
        limits = {"budget_ms": self.planner.budget.milliseconds}
        limits |= {"time_limit_minutes": self.loop.time_limit_minutes if self.loop else None}
        for key, limit in limits.items():
            if limit is not None:
                raise ValueError(
                    f"method.planner: {key}={limit} makes plans depend on the machine's speed, and a resumed training "
                    "must repeat them; use budget_evals, opt_steps or max_iter"
                )

    @property
    def min_sample_frames(self) -> int:
        """The goal of a sample's own task lies ``horizon`` blocks after the first frame."""
        return self.planner.horizon + 1 if self.tasks == "batch" else super().min_sample_frames

    @property
    def period(self) -> int:
        """See ``Method``: from refresh to refresh."""
        return self.frequency

    def kept_bytes(self, steps: int) -> int:
        """See ``Method``: until the memory is full."""
        if not len(self.memory):
            return 0
        trajectories = len(self.memory) / self._refreshes * -(-steps // self.frequency)
        return int(self.memory.num_bytes / len(self.memory) * min(self.capacity, trajectories))

    def setup(self, context: TrainingContext) -> None:
        """See ``Method.setup``.

        Raises:
            ValueError: If ``frame_stride`` does not divide the frameskip, no window fits into a plan, or the simulator
                cannot play beside the training.
        """
        super().setup(context)
        if self._thread is not None and not self._simulator.plays_in_background:
            raise ValueError(
                "method.overlap=true needs simulators in processes of their own, but env.simulator.num_workers=0"
            )
        if self.planner.horizon < context.model.num_hist:
            raise ValueError(
                f"method.planner.horizon must be at least num_hist={context.model.num_hist}, or a corrected trajectory "
                f"holds no window to train on; got {self.planner.horizon}"
            )
        at_most = self.planner.horizon if self.loop is None else (self.loop.max_iter or 0) * self.loop.n_taken_actions
        if at_most < context.model.num_hist:
            raise ValueError(
                f"method.planner: max_iter * n_taken_actions must be at least num_hist={context.model.num_hist}, or a "
                f"corrected trajectory holds no window to train on; got {at_most}"
            )
        if self.planner.sample_type == "initnet":
            context.model.require_initnet()  # or it would say so only at the first step
        self.stride = context.frameskip if self.frame_stride is None else self.frame_stride
        if self.stride < 1 or context.frameskip % self.stride:
            raise ValueError(f"method.frame_stride must divide frameskip={context.frameskip}, got {self.frame_stride}")
        self._draws.manual_seed(context.seed)
        self.memory = ReplayMemory(context.folder / "replay", self.capacity, context.patience)

    def windows(self, expert: Windows, batch: Batch, features: Tensor, position: int) -> Windows:
        """The expert windows and as many corrected ones, where the memory has them."""
        slot = position // self.frequency
        if position % self.frequency == 0:
            planned = self._plan(batch, features)
            if self._thread is None:
                self._keep(slot, self._encode(planned, self._simulate(batch, planned)))
            else:
                self._playing = slot, planned, self._thread.submit(self._simulate, batch, planned)
        corrected = self._draw(slot if self.sampling == "slot" else None, numbering(expert)[1])
        return expert if corrected is None else cat_windows(expert, corrected)

    def updated(self) -> None:
        """See ``Method.updated``: what was simulated meanwhile is encoded and kept."""
        super().updated()
        if self._playing is not None:
            slot, planned, happened = self._playing
            self._keep(slot, self._encode(planned, happened.result()))
            self._playing = None

    def correct(self, batch: Batch, features: Tensor) -> list[Corrected]:
        """Plan for one task per sample of the batch, execute in the simulator, encode what it shows.

        Returns:
            Trajectories of one length each: a closed loop's end where the episode was solved.
        """
        planned = self._plan(batch, features)
        return self._encode(planned, self._simulate(batch, planned))

    def _keep(self, slot: int, corrected: list[Corrected]) -> None:
        for number, part in enumerate(corrected):
            self.memory.add(slot, f"{self._refreshes:08d}" + (f"_{number}" if number else ""), part)
        self._refreshes += 1

    def _plan(self, batch: Batch, features: Tensor) -> Planned:
        with planning_mode(self._context.model), torch.no_grad():
            ends, start, goal = (
                self._drawn_tasks(batch) if self.tasks == "random_state" else self._own_tasks(batch, features)
            )
            if self.loop is None:
                return Planned(ends[0], self._plan_once(start, goal, self._rows(batch)))
            return Planned(ends[0], *self._replan(batch, ends, goal))

    def _rows(self, batch: Batch) -> Sequence[int]:
        """Numbers of the samples in the batch of all processes, on which their randomness depends."""
        share = self._share(batch)
        return range(share.first, share.first + share.count)

    def _plan_once(self, start: Latent, goal: Latent, rows: Sequence[int]) -> Tensor:
        """z-scored raw actions (B, K, env_action_dim) of one plan from ``start`` (B, 1) to ``goal`` (B, 1)."""
        context, planner = self._context, self.planner
        space = context.observer.action_space(context.frameskip, planner.sample_type, start, goal)
        nothing_before = space.zero.new_empty(start.batch_size, 0, len(space.zero))
        cost = LatentGoalCost(
            self.speed.prepare(context.model),
            self.objective,
            start,
            nothing_before,
            goal,
            planner.rollout,
            self.memory_budget_gb,
            capturable=self.speed.captures(context.observer.device),
        )
        noise = EpisodeNoise.derive(context.seed, rows, self._refreshes, context.observer.device)
        plan = planner.plan(cost, noise, space)
        return plan.actions.cpu().reshape(start.batch_size, -1, self._simulator.env_action_dim)

    def _replan(self, batch: Batch, ends: tuple[Tensor, Tensor], goal: Latent) -> tuple[Tensor, Tensor]:
        """The same of a closed loop from raw states ``ends[0]`` to ``ends[1]`` (B, S).

        Returns:
            The actions, and how many (B,) of them were meant: solved episodes do nothing from then on.
        """
        context, env = self._context, self._simulator
        assert self.loop is not None
        # each refresh, and each row of it, has a random stream of its own
        seeds = [self._refreshes * self._share(batch).total + row for row in self._rows(batch)]
        problem = Problem(seeds, *ends, _layouts(batch))
        task = PlanningTask(
            env=env,
            observer=context.observer,
            problem=problem,
            goal=goal,
            objective=self.objective,
            seed=context.seed,
            frameskip=context.frameskip,
            memory_budget_gb=self.memory_budget_gb,
            speed=self.speed,
        )
        episodes = self.loop.start(task)
        self.loop.run(task, episodes, lambda _: None)
        iterations = torch.where(episodes.solved, episodes.solved_at, episodes.iteration)
        lengths = iterations * self.loop.n_taken_actions * context.frameskip
        return context.observer.normalizer.actions_to_z(episodes.played), lengths

    def _own_tasks(self, batch: Batch, features: Tensor) -> tuple[tuple[Tensor, Tensor], Latent, Latent]:
        """From each sample's first frame to the one ``horizon`` blocks later: raw states (B, S), two (B, 1) latents."""
        ends = [0, self.planner.horizon]
        latent = self._context.model.embed(features[:, ends].detach(), batch.proprio[:, ends])
        states = batch.states[:, ends].cpu()
        return (states[:, 0], states[:, 1]), latent[:, :1], latent[:, 1:]

    def _drawn_tasks(self, batch: Batch) -> tuple[tuple[Tensor, Tensor], Latent, Latent]:
        """Starts and goals as an evaluation draws them, never the same ones twice."""
        env, observer, share = self._simulator, self._context.observer, self._share(batch)
        drawn = torch.randint(2**31 - 1, (share.total,), generator=self._draws)  # by all processes alike
        seeds = [int(seed) for seed in drawn[share.rows]]
        layouts = _layouts(batch)
        everyone = torch.arange(len(batch))
        states = env.sample_start_goal(seeds, layouts)
        start, goal = (observer.present(env, env.reset(seeds, part, layouts), everyone) for part in states)
        return states, start, goal

    @property
    def _simulator(self) -> VectorEnv:
        env = self._context.env
        assert env is not None, "needs_env is set, so there is one"
        return env

    @torch.no_grad()
    def _simulate(self, batch: Batch, planned: Planned) -> Trajectory:
        """Carry out plans under the batch's layouts; on the CPU, and without the model."""
        observer = self._context.observer
        raw = observer.normalizer.actions_to_raw(planned.actions)
        every = self.stride if observer.wants_frames else None
        return simulate(self._simulator, batch.trajectory.tolist(), planned.states, raw, _layouts(batch), every)

    @torch.no_grad()
    def _encode(self, planned: Planned, happened: Trajectory) -> list[Corrected]:
        """What the model would see of it."""
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

    def _draw(self, slot: int | None, at_most: int) -> Windows | None:
        """Up to ``at_most`` corrected windows, without repetition, drawn from a slot or from everything.

        All processes draw the same, and each takes those that it holds: what all train on is what one would train on.
        """
        model, frames, skip = self._context.model, self._context.model.num_hist + 1, self._context.frameskip
        entries, shares = self.memory.entries(slot), self.memory.shares(slot)
        starts = [entry.num_starts(frames, skip) for entry in entries]
        sizes = torch.tensor([share.total * count for share, count in zip(shares, starts, strict=True)])
        if not len(entries) or not sizes.sum():
            return None
        drawn = torch.randperm(int(sizes.sum()), generator=self._draws)[:at_most].sort().values
        ends = sizes.cumsum(0)
        owner = torch.searchsorted(ends, drawn, right=True)
        gathered, numbers = [], []
        for number in owner.unique().tolist():
            share, local = shares[number], drawn[owner == number] - (ends[number] - sizes[number])
            row = local // starts[number] - share.first
            here = (row >= 0) & (row < share.count)
            gathered.append(entries[number].gather(row[here], (local % starts[number])[here], frames, skip))
            numbers.append((owner == number).nonzero().squeeze(1)[here])
        device = self._context.observer.device
        features, proprio, actions = (torch.cat(parts).to(device) for parts in zip(*gathered, strict=True))
        latent: Latent = model.embed(features, proprio)
        return replace(model.windows(latent, actions), numbers=torch.cat(numbers), total=len(drawn))

    def report(self) -> dict[str, float]:
        """See ``Method.report``."""
        size = {"replay_trajectories": float(len(self.memory)), "replay_megabytes": self.memory.num_bytes / 2**20}
        return super().report() | size

    def state_dict(self) -> dict[str, Any]:
        """See ``Method.state_dict``."""
        return super().state_dict() | {
            "refreshes": self._refreshes,
            "draws": self._draws.get_state(),
            "memory": self.memory.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Method.load_state_dict``."""
        super().load_state_dict(state)
        self._refreshes = state["refreshes"]
        self._draws.set_state(state["draws"])
        self.memory.load_state_dict(state["memory"])

    def committed(self) -> None:
        """See ``Method.committed``."""
        super().committed()
        self.memory.committed()

    def close(self) -> None:
        """See ``Method.close``."""
        if self._thread is not None:
            if self._playing is not None:
                wait([self._playing[2]], SECONDS_TO_CLOSE)
            self._thread.shutdown(wait=False, cancel_futures=True)
        super().close()


def _layouts(batch: Batch) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in batch.layouts.items()}
