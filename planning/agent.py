"""An agent for deployment: images in, raw actions out, within a time budget; docs/agent.md shows how."""

from __future__ import annotations

import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import contextlib
import functools
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datasets.trajectories import Trajectories
from envs.base import VectorEnv
from models.latent import Latent
from planning.answer import Answer, Experience
from planning.goal import Goal
from planning.live_episodes import LiveEpisodes
from planning.load_agent import AgentParts, load_parts
from planning.senses import Senses

__all__ = ["Agent", "Answer", "Goal"]

LEAST_MS = 1e-3  # that a planner is given: its first step always runs


class Agent:
    """Looks at one image for every block of actions, and answers with the next block.

    ``act`` takes the image from after the last block was carried out. The history that the model sees, the rest of the
    last plan and what an adapting model has learnt are kept from call to call, until ``reset``. A controller that
    carries out several blocks of a plan (``planner.n_taken_actions``) plans only in the first of so many calls.

    Calls from several threads wait for each other, so a goal may be set from another one; each takes effect in the
    next ``act``. Several agents do not know of each other. What ``answer`` computes when it is asked for is not
    guarded: ask in the thread that acts.

    Attributes:
        frameskip: Raw actions of a block.
        action_dim: Length of a raw action.
        proprio_dim: Length of the proprio values; 0: the model takes none.
        image_size: Side that images are brought to, pixels.
        budget_ms: Milliseconds that a call of ``act`` may take; None sets no limit.
        answer: What it thought in the last call; None before the first.
        answers: Calls since the last reset.
        late_answers: Those of them that took longer than the budget.
    """

    def __init__(
        self, parts: AgentParts, budget_ms: float | None = None, bounds: tuple[ArrayLike, ArrayLike] | None = None
    ) -> None:
        """Put an agent together; ``load`` does it from a checkpoint, and says what the arguments are.

        Raises:
            ValueError: If the budget or the bounds are none.
        """
        if budget_ms is not None and not budget_ms > 0:
            raise ValueError(f"budget_ms must be above 0, or None for no limit; got {budget_ms}")
        loaded, config, self._planner = parts.loaded, parts.config, parts.controller.planner
        self.budget_ms, self._parts, self._observer = budget_ms, parts, loaded.observer
        self._begin = functools.partial(
            LiveEpisodes, parts.controller, loaded, parts.objective, config.seed, config.memory_budget_gb
        )
        self._senses = Senses(loaded.observer, loaded.image_size, loaded.frameskip)
        self.frameskip, self.image_size = loaded.frameskip, loaded.image_size
        self.action_dim, self.proprio_dim = self._senses.action_dim, self._senses.proprio_dim
        self._bounds = None if bounds is None else self._senses.bounds(*bounds)
        if self._bounds is not None and not self._planner.clip_actions:
            loaded.observer.action_quantiles = self._bounds
            self._planner.clip_actions, self._planner.clip_quantiles = True, (0.0, 1.0)
        self._most_ms = self._planner.budget.milliseconds  # of one plan, by its own settings
        self._lock = threading.RLock()
        self._goal: Latent | None = None
        self._course: LiveEpisodes | None = None
        self._seeds, self._counts_on = [0], True  # whether the one seed is the first of consecutive ones
        self._warm_for: int | None = None
        self._beside = 0.0  # seconds of a decision beside the search
        self.answer: Answer | None = None
        self.answers = self.late_answers = 0

    def __reduce__(self) -> NoReturn:
        raise TypeError("an agent cannot be pickled or copied: call Agent.load where it is to act")

    @classmethod
    def load(
        cls,
        ckpt_path: str | Path,
        *settings: str,
        budget_ms: float | None = None,
        bounds: tuple[ArrayLike, ArrayLike] | None = None,
        config_dir: str | Path | None = None,
    ) -> Agent:
        """Load a model and what plans with it.

        Args:
            ckpt_path: All that ``plan.py`` takes: a run folder, DINO-WM's, what another program wrote, hf://owner/name.
            *settings: As on the command line of ``plan.py``: "planner=mpc_cem", "device=cuda". The environment need not
                be named where the checkpoint brings its units.
            budget_ms: Milliseconds that a call of ``act`` may take, > 0; None sets no limit.
            bounds: Lowest and highest raw action, each (action_dim,) or one number; plans stay within.
            config_dir: A folder of options of one's own, see docs/extending.md.

        Raises:
            ValueError: If a setting is wrong, or the model does not fit; in one line.
            OSError: If a file cannot be read, or a hub not be reached.
        """
        return cls(load_parts(ckpt_path, settings, config_dir), budget_ms, bounds)

    def reset(self, goal: Goal | None = None, seeds: int | Sequence[int] = 0) -> None:
        """Begin an episode, of all rows of a batch: nothing has been seen yet.

        Args:
            goal: Where to; None keeps the one that there is.
            seeds: Of the planner's randomness in this episode, one per row, or the first of consecutive ones.

        Raises:
            ValueError: If the goal is not what the model takes, in one line; then nothing has changed.
        """
        with self._lock:
            numbers = [int(seed) for seed in np.atleast_1d(seeds)]
            if goal is not None:
                self._goal = self._encoded(goal)
            self._course, self._seeds, self._counts_on = None, numbers, np.ndim(seeds) == 0
            self.answer, self.answers, self.late_answers = None, 0, 0

    def set_goal(
        self, goal: Goal | None = None, *, image: Any = None, proprio: ArrayLike | None = None, state: Any = None
    ) -> None:
        """Choose where to go, also in the middle of an episode: the next ``act`` plans anew, with the same history.

        Args:
            goal: The goal, or else the parts of one, see ``Goal``.
            image: (H, W, 3), or (B, H, W, 3) for one goal per row.
            proprio: (E,) or (B, E) raw units.
            state: (S,) or (B, S), for a model that looks at states instead of images.

        Raises:
            ValueError: If they are not what the model takes; in one line.
        """
        goal = Goal(image, proprio, state) if goal is None else goal
        with self._lock:
            latent = self._encoded(goal)
            if self._course is not None:
                self._course.change_goal(_of_rows(latent, len(self._course.seeds)))
            self._goal = latent

    def act(self, image: Any, proprio: Any = None, executed: ArrayLike | None = None) -> NDArray[np.float32]:
        """Look, and say what to do next.

        The first call for a batch of a size warms up, if there is a budget; ``warm_up`` does that beforehand. A call
        that raises, also because it is interrupted, changes nothing.

        Args:
            image: What is seen now, (H, W, 3) or (B, H, W, 3), see ``planning.senses.frames_of``; the state (S,) or
                (B, S) for a model that looks at states.
            proprio: What is sensed now, (E,) or (B, E) raw units.
            executed: (frameskip, action_dim) or (B, frameskip, action_dim) raw actions that were really carried out
                since the last image, if they are not those that were returned.

        Returns:
            (frameskip, action_dim) raw actions, of a batch (B, frameskip, action_dim).

        Raises:
            ValueError: If there is no goal yet, or an input is not what the model takes; in one line.
        """
        begin = time.perf_counter()
        with self._lock, self._arithmetic():
            seen, is_batch = self._senses.see(image, proprio)
            rows, experience = seen.batch_size, None
            if self.budget_ms is not None and self._warm_for != rows:
                self.warm_up(rows)
                begin = time.perf_counter()
                seen, _ = self._senses.see(image, proprio)
            encoding = self._since(begin)
            if self._course is None:
                course = self._first_seen(seen)
            elif rows != len(self._course.seeds):
                raise ValueError(f"the images are of {rows} episodes, so far of {len(self._course.seeds)}: call reset")
            else:
                blocks = None if executed is None else self._senses.blocks(executed, rows)
                course = self._course.fork()
                experience = course.take_in(seen, blocks)
            replanned = not course.queue
            if replanned:
                self._decide(course, begin)
            raw = self._give_out(course)
            answer = self._answered(course, raw, experience, replanned, is_batch, (begin, encoding))
            self._course, self.answer = course, answer  # only here: a call that fails changes nothing
            self.answers += 1
            self.late_answers += self.answer.late
            return self.answer.actions

    def warm_up(self, batch: int = 1) -> None:
        """Do once what the first answers would else pay for: load kernels, fill caches, measure.

        Plans ``num_hist`` + 1 times for an invented episode; the agent's own stays as it is.

        Args:
            batch: Rows of the images that ``act`` will get.
        """
        with self._lock, self._arithmetic():
            first, second = (self._senses.invented(batch, seed) for seed in range(2))
            course = self._begin(first, second, self._seeds_for(batch))
            if self.budget_ms is not None:
                self._planner.limit_time(self.budget_ms, anew=True)
            beside = []
            for _ in range(self._observer.model.num_hist + 1):
                self._decide(course, time.perf_counter())
                beside.append(course.seconds_beside_search())
                course.next_block()
                course.take_in(first)
            self._beside, self._warm_for = statistics.median(beside), batch

    def trajectories(self) -> Trajectories:
        """Open the data set of the environment, e.g. for ``Goal.from_episode``.

        Raises:
            ValueError: If it is not known, or not here.
        """
        return self._parts.loaded.data.trajectories()

    def simulator(self) -> VectorEnv:
        """Build a simulator of the environment that draws images of the model's size, e.g. for ``Goal.from_state``.

        Raises:
            ValueError: If it is not known.
        """
        if not self._parts.knows_env:
            name = self._parts.loaded.data.env.name
            raise ValueError(f"the simulator of {name} is not known: load the agent with its environment, env=...")
        return self._parts.loaded.data.env.simulator.build(image_size=self.image_size)

    def _encoded(self, goal: Goal) -> Latent:
        """Latents (B, 1) of a goal."""
        if not isinstance(goal, Goal):
            raise ValueError(f"a goal must be a Goal(image, proprio), got {type(goal).__name__}")
        with self._arithmetic():
            return self._senses.see(goal.image if self._observer.wants_frames else goal.state, goal.proprio)[0]

    def _first_seen(self, seen: Latent) -> LiveEpisodes:
        """Begin with what is seen (B, 1)."""
        if self._goal is None:
            raise ValueError("the agent has no goal yet: call reset(Goal(image, proprio)) or set_goal(image=...)")
        rows = seen.batch_size
        return self._begin(seen, _of_rows(self._goal, rows), self._seeds_for(rows))

    def _seeds_for(self, rows: int) -> list[int]:
        if self._counts_on:
            return [self._seeds[0] + row for row in range(rows)]
        if len(self._seeds) != rows:
            raise ValueError(f"reset was given {len(self._seeds)} seeds, and the images are of {rows} episodes")
        return self._seeds

    def _decide(self, course: LiveEpisodes, begin: float) -> None:
        """Learn, and plan in what is left of the budget that began at ``begin``."""
        course.learn()
        if self.budget_ms is not None:
            left = self.budget_ms - 1000 * (self._since(begin) + self._beside)
            self._planner.limit_time(max(LEAST_MS, min(left, self._most_ms or left)))
        course.decide()

    def _give_out(self, course: LiveEpisodes) -> Tensor:
        """The next raw actions (B, frameskip, action_dim), within the bounds."""
        raw = self._observer.raw_actions(course.next_block()[:, None])
        if self._bounds is not None:
            within = raw.clamp(self._bounds[0], self._bounds[1])
            if not torch.equal(within, raw):
                raw, course.given = within, self._senses.blocks(within.numpy(), len(within))
        return raw

    def _answered(
        self,
        course: LiveEpisodes,
        raw: Tensor,
        experience: Experience | None,
        replanned: bool,
        is_batch: bool,
        times: tuple[float, float],
    ) -> Answer:
        def one(values: Any) -> NDArray[Any]:
            array = values.float().cpu().numpy() if isinstance(values, Tensor) else values
            return array if is_batch else array[0]

        assert course.decision is not None, "there is a plan by now"
        plan = course.decision.plan
        unknown = torch.full_like(plan.cost, torch.nan)
        actions, whole = one(raw), one(self._observer.raw_actions(plan.actions))
        seconds = self._since(times[0])
        return Answer(
            actions=actions,
            plan=whole,
            replanned=replanned,
            cost_before=one(unknown if plan.initial_cost is None else plan.initial_cost),
            cost_after=one(plan.cost),
            evaluations=one(plan.evaluations),
            encoding_seconds=times[1],
            seconds=seconds,
            late=self.budget_ms is not None and 1000 * seconds > self.budget_ms,
            _decision=course.decision,
            _experience=experience,
            _usual=self._parts.usual_error,
            _one=one,
            _arithmetic=self._arithmetic,
        )

    def _since(self, begin: float) -> float:
        """Seconds since ``begin``, with all done that was asked of the device."""
        self._observer.wait()
        return time.perf_counter() - begin

    def _arithmetic(self) -> contextlib.AbstractContextManager[object]:
        return runtime.autocast(self._parts.config.precision, self._observer.device, keeps_casts=False)


def _of_rows(goal: Latent, rows: int) -> Latent:
    """Goals (B, 1) for so many rows, of one or of as many."""
    if goal.batch_size not in (1, rows):
        raise ValueError(f"there are goals for {goal.batch_size} episodes, and images of {rows}")
    return goal.map(lambda part: part.expand(rows, *part.shape[1:]))
