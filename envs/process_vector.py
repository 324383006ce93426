"""A batch of episodes out of simulators that play one episode at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.base import EpisodeLayouts, Outcome, VectorEnv
from envs.episode_layouts import default_layouts, split_layouts
from envs.episode_player import Arrays, Failure, PlayTask, ResetTask, Task, load_simulator
from envs.factors import Factors
from envs.shared_arrays import Shapes
from envs.worker_pool import OwnProcess, WorkerPool
from utils import distributed
from utils.ranges import ProcessesOrZero

FRAME_BYTES_AT_ONCE = 256 << 20
NUM_NAMED = 10  # episodes listed in an error


class EnvWorkerError(RuntimeError):
    """A simulator failed or its process died; names the episodes. The next ``reset`` starts afresh."""


class ProcessVectorEnv(VectorEnv):
    """A batch of episodes, played by worker processes; states float64, images uint8, all on the CPU.

    Gymnasium's AsyncVectorEnv would do for one action at a time, but it makes and ships an observation with each.
    Here a call runs a whole block of actions, only the frames asked for are drawn, and the large arrays lie in shared
    memory. An episode's result depends neither on the number of workers nor on the other episodes.

    A worker starts when a ``reset`` first gives it an episode, and ends with ``close``, with this object or with this
    process, however that ends. Rows are dealt out so that the first n, every second one and the like are spread
    evenly: images are often wanted of some rows only. Not for use from several threads at a time.
    """

    def __init__(
        self, simulator: str, image_size: int = 224, num_workers: ProcessesOrZero | None = None, **options: Any
    ) -> None:
        """Set up an environment without episodes.

        Args:
            simulator: a subclass of ``Simulator``, as ``module:Class``; the module must not import torch.
            image_size: Side of the images, pixels.
            num_workers: Processes; None means one per core, 0 plays the episodes in this process.
            **options: Further arguments of the simulator: numbers, texts and lists of them.

        Raises:
            ValueError: If a number is out of its range or there is no such simulator.
        """
        if image_size < 1:
            raise ValueError(f"env.image_size must be at least 1 pixel, got {image_size}")
        if num_workers is None:
            num_workers = distributed.own_cores()
        if num_workers < 0:
            raise ValueError(
                f"env.simulator.num_workers must be at least 0, or null for one per core, got {num_workers}"
            )
        options = json.loads(json.dumps(options, default=list))  # a list from a config is of another class
        # without options the class itself knows all that is asked of it here
        found = load_simulator(simulator)
        self._simulator = found(image_size, **options) if options else found
        self.name, self.state_dim = self._simulator.name, self._simulator.state_dim
        self.env_action_dim, self.proprio_dim = self._simulator.env_action_dim, len(self._simulator.proprio_indices)
        self.image_size = image_size
        self.plays_in_background = num_workers > 0  # a graphics context belongs to the thread that made it
        self._pool = (
            WorkerPool(num_workers, simulator, image_size, options=options)
            if num_workers
            else OwnProcess(simulator, image_size, options)
        )
        self._seeds: list[int] | None = None  # of the current episodes

    @property
    def factors(self) -> Factors:
        """The simulator's factors of variation."""
        return self._simulator.factors

    def default_layouts(self, num_episodes: int) -> dict[str, Tensor]:
        """The simulator's default, ``num_episodes`` times."""
        return default_layouts(self._simulator, num_episodes)

    def sample_start_goal(self, seeds: Sequence[int], layouts: EpisodeLayouts | None = None) -> tuple[Tensor, Tensor]:
        """Draw an independent start and goal state per seed: two (B, S) float64 tensors, whatever the layouts."""
        drawn = [self._simulator.sample_start_goal(int(seed)) for seed in seeds]
        start_goal = torch.from_numpy(np.array(drawn, np.float64).reshape(-1, 2, self.state_dim))
        return start_goal[:, 0], start_goal[:, 1]

    def reset(self, seeds: Sequence[int], states: Tensor, layouts: EpisodeLayouts | None = None) -> Tensor:
        """Start one episode per row of ``states`` (B, S); returns the states (B, S) they really start from.

        The seeds are only named in errors.

        Raises:
            ValueError: If states or layouts do not fit, or the simulator refuses one.
            EnvWorkerError: If a simulator fails or a worker dies.
        """
        self._check_states(seeds, states)
        each = split_layouts(self._simulator, layouts, len(seeds))
        shapes: Shapes = {"states": (tuple(states.shape), "f8")}
        arrays = self._pool.arrays(shapes)
        arrays["states"][...] = states.detach().cpu().numpy()
        tasks = [ResetTask(rows, [each[row] for row in rows]) for rows in self._deal(range(len(seeds)))]
        self._run(shapes, tasks, [int(seed) for seed in seeds])
        return torch.from_numpy(arrays["states"].copy())

    def step(self, actions: Tensor) -> Tensor:
        """Execute blocks of raw actions (B, K, env_action_dim); returns the visited states (B, K, S).

        Raises:
            ValueError: If the actions do not fit the episodes, or the simulator refuses one.
            EnvWorkerError: If a simulator fails or a worker dies.
        """
        return self.rollout(actions)[0]

    def rollout(self, actions: Tensor, frame_every: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Step and draw in one go, so that no episode waits for the others before each frame; see ``VectorEnv``.

        Raises:
            ValueError: As ``step``, or if K is not a multiple of ``frame_every``.
            EnvWorkerError: If a simulator fails or a worker dies.
        """
        num_episodes = len(self._current())
        self._check_actions(actions, num_episodes)
        num_steps, block = actions.shape[1], self._block(actions, frame_every)
        raw = actions.detach().to("cpu", torch.float64).numpy()
        if frame_every is None:
            return torch.from_numpy(self._play(range(num_episodes), raw, block, 0)["visited"].copy()), None
        visited = np.empty((num_episodes, num_steps, self.state_dim))
        frames = np.empty((num_episodes, num_steps // block + 1, 3, self.image_size, self.image_size), np.uint8)
        at_once = max(FRAME_BYTES_AT_ONCE // max(frames[:, 0].nbytes, 1), 1)
        for first in range(0, frames.shape[1], at_once):
            last = min(first + at_once, frames.shape[1])
            # frame n shows the state after n blocks; the start takes none
            steps = slice(max(first - 1, 0) * block, (last - 1) * block)
            played = self._play(range(num_episodes), raw[:, steps], block, last - first)
            visited[:, steps], frames[:, first:last] = played["visited"], played["frames"]
        return torch.from_numpy(visited), torch.from_numpy(frames)

    def render(self, rows: Tensor | None = None) -> Tensor:
        """Images (b, 3, image_size, image_size) uint8 of the current states of ``rows`` (b,); None draws all.

        Raises:
            ValueError: If the rows are no integers, or not those of episodes.
            EnvWorkerError: If a simulator fails or a worker dies.
        """
        num_episodes = len(self._current())
        wanted = torch.arange(num_episodes) if rows is None else rows.cpu()
        if wanted.ndim != 1 or wanted.is_floating_point() or wanted.dtype == torch.bool:
            found = f"{wanted.dtype} of shape {tuple(wanted.shape)}"
            raise ValueError(f"env {self.name}: rows must be integers of shape (b,), got {found}")
        chosen: list[int] = wanted.tolist()
        if outside := [row for row in chosen if not 0 <= row < num_episodes]:
            raise ValueError(f"env {self.name}: there are {num_episodes} episodes, none of them {outside[:NUM_NAMED]}")
        nothing = np.empty((len(chosen), 0, self.env_action_dim))
        return torch.from_numpy(self._play(chosen, nothing, 1, 1)["frames"][:, 0].copy())

    def proprio(self, states: Tensor) -> Tensor:
        """The simulator's ``proprio_indices`` of the states: (..., S) -> (..., E) float32."""
        return states[..., list(self._simulator.proprio_indices)].float()

    def success(self, states: Tensor, goals: Tensor) -> Outcome:
        """Compare states (B, S) with goals (B, S), on the CPU.

        Raises:
            ValueError: If the shapes differ.
        """
        if states.shape != goals.shape or states.ndim != 2 or states.shape[1] != self.state_dim:
            shapes = f"{tuple(states.shape)} and {tuple(goals.shape)}"
            raise ValueError(f"env {self.name}: states and goals must both be (B, {self.state_dim}), got {shapes}")
        reached, distance = self._simulator.compare(*(part.detach().cpu().double().numpy() for part in (states, goals)))
        return Outcome(success=torch.from_numpy(reached), state_dist=torch.from_numpy(distance))

    def action_range(self) -> tuple[Tensor, Tensor]:
        """Ask the simulator; see ``VectorEnv.action_range``."""
        low, high = self._simulator.action_range()
        return torch.from_numpy(low.copy()), torch.from_numpy(high.copy())

    def places(self, states: Tensor) -> dict[str, Tensor]:
        """Ask the simulator; see ``VectorEnv.places``."""
        found = self._simulator.places(states.detach().cpu().double().numpy())
        return {name: torch.from_numpy(place) for name, place in found.items()}

    def misplaced(self, states: Tensor, layouts: EpisodeLayouts | None = None) -> list[str]:
        """Ask the simulator about each state (B, S); see ``VectorEnv.misplaced``."""
        each = split_layouts(self._simulator, layouts, len(states))
        rows = states.detach().cpu().double().numpy()
        return [self._simulator.misplaced(state, layout) for state, layout in zip(rows, each, strict=True)]

    def close(self) -> None:
        """End the workers and give their memory back; a later ``reset`` starts new ones."""
        self._seeds = None
        self._pool.close()

    def _current(self) -> list[int]:
        if self._seeds is None:
            raise RuntimeError(f"env {self.name}: call reset before step and render, and again after an error")
        return self._seeds

    def _play(self, rows: Sequence[int], actions: NDArray[np.float64], block: int, num_frames: int) -> Arrays:
        """Step and draw episodes ``rows`` (n,) as ``PlayTask`` says; the arrays are those of the pool."""
        leading = actions.shape[:2]
        shapes: Shapes = {
            "actions": (actions.shape, "f8"),
            "visited": ((*leading, self.state_dim), "f8"),
            "frames": ((len(rows), num_frames, 3, self.image_size, self.image_size), "u1"),
        }
        arrays = self._pool.arrays(shapes)
        arrays["actions"][...] = actions
        tasks = [PlayTask([rows[place] for place in places], places, block) for places in self._deal(rows)]
        self._run(shapes, tasks, self._current())
        return arrays

    def _deal(self, rows: Sequence[int]) -> list[list[int]]:
        """Deal the rows out: for each worker, the places in ``rows`` of those that it plays."""
        num_workers = self._pool.num_workers
        hands: list[list[int]] = [[] for _ in range(num_workers)]
        for place, row in enumerate(rows):
            # 0 1 2, 1 2 0, 2 0 1, ...: plain turns would give all even rows to one of two workers
            hands[(row + row // num_workers) % num_workers].append(place)
        return hands

    def _run(self, shapes: Shapes, tasks: Sequence[Task], seeds: list[int]) -> None:
        """Do tasks on the episodes with these seeds, which are the current ones afterwards, if nothing goes wrong."""
        self._seeds = None
        if failure := self._pool.run(shapes, tasks):
            raise self._error(failure, seeds)
        self._seeds = seeds

    def _error(self, failure: Failure, seeds: list[int]) -> Exception:
        rows = list(failure.rows[:NUM_NAMED])
        named = f"episodes {rows} with seeds {[seeds[row] for row in rows]}"
        if failure.is_refusal:
            reason = failure.message.removeprefix(f"env {self.name}: ")
            error: Exception = ValueError(f"env {self.name}: {reason} ({named})")
        else:
            more = f" and {len(failure.rows) - len(rows)} more" if len(failure.rows) > len(rows) else ""
            error = EnvWorkerError(f"env {self.name}: {failure.message}; it was playing {named}{more}")
        if failure.details:
            error.add_note(f"In the simulator:\n{failure.details}")
        return error
