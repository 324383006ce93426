"""Online World Modeling: plan with the model, see in the simulator what the plan really does, learn from that."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch

from datasets.batch import Batch
from envs.base import Trajectory
from models.latent import Latent
from models.speed.compiling import AUTO
from models.speed.fast_paths import FastPaths
from models.world_model import Windows
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.planners.base import Planner
from training.methods.base import Method, TrainingContext
from training.methods.correction import Corrector, Planned
from training.methods.replay_buffer import Corrected, ReplayBuffer
from training.numbered_windows import NumberedWindows
from utils.ranges import MemoryBudget, Period, Small, TrajectoryCount

SAMPLINGS = ("slot", "all")
SECONDS_TO_CLOSE = 5.0  # for a simulation that nobody waits for any more


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
        planner: Finds the actions; any planner, open loop or in MPC.
        objective: What it minimises.
        tasks: "batch" (the paper's: from and to frames of the batch) or "random_state" (the environment's own start and
            goal sampling, as PointMaze and Wall are evaluated; its goals are farther than any data set sample shows).
        replay_buffer_frequency: Batches from one refresh to the next, >= 1; these share a slot of the buffer.
        replay_capacity: Corrected trajectories kept at most.
        replay_sampling: "slot": a batch is joined by the corrected trajectories of its slot; "all": by windows drawn
            from the whole buffer.
        frame_stride: Raw steps between simulated frames; the frameskip (null) renders least, 1 gives a window at every
            offset. Must divide the frameskip.
        speed: How the planner's rollouts are made fast, see ``FastPaths``; None means its defaults.
        memory_budget_gb: Of the planner, see ``LatentGoalCost``.
        overlap: Whether the simulator plays while the batch of the refresh trains. What it shows is then learnt from
            the next batch on, instead of from that one; it depends on nothing else, least of all on how long it takes.
    """

    name = "online"
    needs_env = True
    finetunes = True
    replay: ReplayBuffer

    def __init__(
        self,
        planner: Planner | MPCController,
        objective: GoalDistance,
        tasks: str = "batch",
        replay_buffer_frequency: Period = 10,
        replay_capacity: TrajectoryCount = 6000,
        replay_sampling: str = "slot",
        frame_stride: Small | None = None,
        memory_budget_gb: MemoryBudget = AUTO,
        speed: FastPaths | None = None,
        overlap: bool = False,
        **hooks: Any,
    ) -> None:
        super().__init__(**hooks)
        if replay_sampling not in SAMPLINGS:
            raise ValueError(f"method.replay_sampling must be one of {', '.join(SAMPLINGS)}, got {replay_sampling!r}")
        self.corrector = Corrector(planner, objective, tasks, frame_stride, speed, memory_budget_gb)
        if overlap and replay_buffer_frequency == 1 and replay_sampling == "slot":
            raise ValueError(
                "method.overlap=true: with replay_buffer_frequency=1 the slot of a refresh is over before anything is "
                "learnt from it; use replay_sampling=all or a replay_buffer_frequency of 2 or more"
            )
        self.period, self.capacity, self.sampling = replay_buffer_frequency, replay_capacity, replay_sampling
        self._draws = torch.Generator()  # of random tasks, and of the windows that join a batch
        self._refreshes = 0
        self._thread = ThreadPoolExecutor(1, "simulate") if overlap else None
        self._playing: tuple[int, Planned, Future[Trajectory]] | None = None  # with the slot; within a step only

    @property
    def planner(self) -> Planner:
        """The planner, also of a closed loop."""
        return self.corrector.planner

    def setup(self, context: TrainingContext) -> None:
        """See ``Method.setup``.

        Raises:
            ValueError: If ``frame_stride`` does not divide the frameskip, no window fits into a plan, or the simulator
                cannot play beside the training.
        """
        super().setup(context)
        if self.corrector.tasks == "batch":
            self._refuse_short_samples(context, self.planner.horizon, "method.planner.horizon")
        assert context.env is not None, "needs_env is set, so there is one"
        if self._thread is not None and not context.env.plays_in_background:
            raise ValueError(
                "method.overlap=true needs simulators in processes of their own, but env.simulator.num_workers=0"
            )
        self.corrector.setup(context)
        self._draws.manual_seed(context.seed)
        self.replay = ReplayBuffer(context.folder / "replay", self.capacity, context.retry)

    def windows(self, expert: Windows, batch: Batch, latent: Latent, position: int) -> Windows:
        """The expert windows and as many corrected ones, where the buffer has them."""
        slot = position // self.period
        if position % self.period == 0:
            if self._thread is None:
                self._keep(slot, self.correct(batch, latent))
            else:
                planned = self._plan(batch, latent)
                self._playing = slot, planned, self._thread.submit(self.corrector.play, batch, planned)
        own = NumberedWindows.of(expert)
        corrected = self._draw(slot if self.sampling == "slot" else None, own.total)
        return own if corrected is None else own.followed_by(corrected)

    def updated(self) -> dict[str, float]:
        """See ``Method.updated``: what was simulated meanwhile is encoded and kept."""
        if self._playing is not None:
            slot, planned, happened = self._playing
            self._keep(slot, self.corrector.encode(planned, happened.result()))
            self._playing = None
        size = {"replay_trajectories": float(len(self.replay)), "replay_megabytes": self.replay.num_bytes / 2**20}
        return super().updated() | size

    def correct(self, batch: Batch, latent: Latent) -> list[Corrected]:
        """Plan for one task per sample of the batch, execute in the simulator, encode what it shows.

        Returns:
            Trajectories of one length each: a closed loop's end where the episode was solved.
        """
        planned = self._plan(batch, latent)
        return self.corrector.encode(planned, self.corrector.play(batch, planned))

    def _plan(self, batch: Batch, latent: Latent) -> Planned:
        return self.corrector.plan(batch, latent, self._share(batch), self._refreshes, self._draws)

    def _keep(self, slot: int, corrected: list[Corrected]) -> None:
        for number, part in enumerate(corrected):
            self.replay.add(slot, f"{self._refreshes:08d}" + (f"_{number}" if number else ""), part)
        self._refreshes += 1

    def _draw(self, slot: int | None, at_most: int) -> NumberedWindows | None:
        """Draw up to ``at_most`` corrected windows, from a slot or from everything; None if there are none."""
        context = self.context
        drawn = self.replay.draw(slot, at_most, context.model.num_hist + 1, context.frameskip, self._draws)
        if drawn is None:
            return None
        features, proprio, actions = (part.to(context.observer.device) for part in drawn.windows)
        windows = context.model.windows(context.model.embed(features, proprio), actions)
        return NumberedWindows(windows.source, windows.actions, windows.target, drawn.numbers, drawn.total)

    def state_dict(self) -> dict[str, Any]:
        """See ``Method.state_dict``."""
        return super().state_dict() | {
            "refreshes": self._refreshes,
            "draws": self._draws.get_state(),
            "memory": self.replay.state_dict(),  # the word for it when the first of these files was written
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Method.load_state_dict``."""
        super().load_state_dict(state)
        self._refreshes = state["refreshes"]
        self._draws.set_state(state["draws"])
        self.replay.load_state_dict(state["memory"])

    def close(self) -> None:
        """See ``Method.close``."""
        if self._thread is not None:
            if self._playing is not None:
                wait([self._playing[2]], SECONDS_TO_CLOSE)
            self._thread.shutdown(wait=False, cancel_futures=True)
        super().close()
