"""PushT: a disc pushes a T, or a block of another shape, over a table; one episode on pymunk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.episode_seeds import episode_generator
from envs.factors import CAMERA_KEY, DISTRACTORS_KEY, shifted
from envs.pusht import ACTION_SCALE, PROPRIO
from envs.pusht.factors import FACTORS
from envs.pusht.physics import AGENT_RADIUS, WALL_HIGH, WALL_LOW, WINDOW_SIZE, World
from envs.pusht.render import Look, renderer
from envs.pusht.shapes import SHAPE_KEY, SHAPES, Block
from envs.pusht.variation import discs, varied
from envs.simulator import Array, EpisodeLayout, Simulator

__all__ = ["SHAPES", "PushTSimulator", "Snapshot"]

SUCCESS_RADIUS = 20.0  # pixels, of the positions of agent and block together
SUCCESS_ANGLE = math.pi / 9  # of the block
MAX_COMMAND = np.float32(1e4)  # units of action
MAX_START = 1e6  # pixels, radians, pixels per second


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A moment of an episode: how it started and what has been done since.

    Attributes:
        layout: As given to ``reset``.
        start: (7,) the state given to ``reset``.
        actions: (n, 2) float32, all since then.
        state: (7,) the state that they led to.
    """

    layout: EpisodeLayout
    start: Array
    actions: Array
    state: Array


class PushTSimulator(Simulator):
    """Push the block to a pose: one episode of PushT.

    The state is agent x, y, block x, y, block angle in [0, 2 pi), agent velocity x, y: pixels of a window of 512 x 512
    with y downwards, radians clockwise on the screen, pixels per second. An action is a target for the agent, relative
    to where it is, in units of 100 px; it is steered there for 0.1 s and gets a part of the way: 5.9 of 20 px from
    rest. Neither walls nor the window's edge stop the agent.

    The layout key ``shape`` is an index into ``SHAPES``, one integer in an array (1,); there are also those of
    ``factors``.

    A state does not say all about a moment: a pushed block goes on differently if the solver has forgotten the
    contact, usually by hundredths of a pixel in the next step, sometimes by tens. ``reset`` starts without contacts,
    like the original; ``restore`` continues exactly, and so do copies, which are made by it.

    Source: DINO-WM's PushT environment, whose states are reproduced to the last bit. Deviations are marked below.
    """

    name = "pusht"
    state_dim = 7
    env_action_dim = 2
    proprio_indices = PROPRIO
    factors = FACTORS

    def __init__(self, image_size: int = 224) -> None:
        """Set up a simulator without an episode; sizes of up to 7 times a power of two, such as 224, draw fastest."""
        super().__init__(image_size)
        self._world: World | None = None
        self._layout: EpisodeLayout
        self._block: Block
        self._look: Look
        self._start: Array
        self._actions: list[Array] = []  # blocks (K, 2), all since the start
        self._steps = 0  # their number

    @classmethod
    def default_layout(cls) -> dict[str, Array]:
        """The layout of an episode with the T."""
        return {SHAPE_KEY: np.array([0])}

    @classmethod
    def sample_start_goal(cls, seed: int) -> tuple[Array, Array]:
        """Draw an independent start and goal at rest: two (7,) float64 arrays.

        The block's angle may be any number, not only one in [0, 2 pi), and the agent may start inside the block.
        """
        random = episode_generator(seed)

        def draw() -> Array:
            agent, block = random.randint(50, 450, 2), random.randint(100, 400, 2)
            return np.array([*agent, *block, random.randn() * 2 * math.pi - math.pi, 0.0, 0.0])

        return draw(), draw()

    @classmethod
    def compare(cls, states: Array, goals: Array) -> tuple[Array, Array]:
        """Success (B,) bool and distance (B,) float64 of states (B, 7) to goals (B, 7).

        Success: the positions of agent and block, as four numbers, are less than 20 px apart and the block's angles
        less than 20 degrees. The distance is that of all seven numbers, px, radians and px/s mixed, angles as they are.

        Deviation: angles are compared modulo 2 pi. The original subtracts a larger difference from 2 pi just once, and
        so takes a goal for reached, whatever the block's angle, if its own angle is far outside [0, 2 pi).
        """
        difference = np.asarray(states, np.float64) - np.asarray(goals, np.float64)
        apart = np.linalg.norm(difference[:, :4], axis=1)
        turned = np.abs(difference[:, 4]) % (2 * math.pi)
        turned = np.minimum(turned, 2 * math.pi - turned)
        return (apart < SUCCESS_RADIUS) & (turned < SUCCESS_ANGLE), np.linalg.norm(difference, axis=1)

    @classmethod
    def places(cls, states: Array) -> dict[str, Array]:
        """The agent's centre and the block's origin."""
        return {"agent": states[..., :2] / WINDOW_SIZE, "block": states[..., 2:4] / WINDOW_SIZE}

    @classmethod
    def misplaced(cls, state: Array, layout: EpisodeLayout) -> str:
        """Name a block outside the walls, or an agent that no image shows; nothing stops it from going there."""
        for name, value, low, high in (
            ("agent x", state[0], -AGENT_RADIUS, WINDOW_SIZE + AGENT_RADIUS),
            ("agent y", state[1], -AGENT_RADIUS, WINDOW_SIZE + AGENT_RADIUS),
            ("block x", state[2], WALL_LOW, WALL_HIGH),
            ("block y", state[3], WALL_LOW, WALL_HIGH),
        ):
            if not low <= value <= high:
                return f"{name}={value:g} lies outside the table ({low:g} to {high:g} px)"
        return ""

    def reset(self, state: Array, layout: EpisodeLayout) -> Array:
        """Start an episode; the first 0.01 s pass at once, so that velocity or an overlap changes the state.

        Args:
            state: (7,).
            layout: ``shape``, the T if absent; and what varies.

        Returns:
            (7,) float64: the state afterwards.

        Raises:
            ValueError: If the state is not seven finite numbers up to a million, or the layout is unknown.
        """
        start = np.array(state, np.float64)
        if start.shape != (self.state_dim,):
            raise ValueError(f"env pusht: a state must be of shape (7,), got {start.shape}")
        if not (np.abs(start) <= MAX_START).all():
            raise ValueError(f"env pusht: a state must be finite and within +-1e6, got {start.tolist()}")
        block, look, physics = varied(layout)
        self._world = World(block, start.tolist(), **physics)
        self._layout, self._block, self._look = layout, block, look
        self._start, self._actions, self._steps = start, [], 0
        return np.array(self._world.state())

    def step(self, actions: Array) -> Array:
        """Execute raw actions (K, 2) in units of 100 px; returns the visited states (K, 7) float64.

        Deviation: the target is computed in float64, from the action times 100 in float32: what the original does
        with NumPy 1. With NumPy 2 it rounds the target to float32, which adds up to 2e-4 px. And commands are cut off
        at a million pixels, so that no state becomes infinite.

        Raises:
            ValueError: If the actions are not (K, 2) or not finite; the episode then stays where it is.
        """
        world = self._current()
        with np.errstate(over="ignore"):  # to infinity, which is refused
            commands = np.array(actions, np.float32)
        if commands.ndim != 2 or commands.shape[1] != self.env_action_dim:
            raise ValueError(f"env pusht: actions must be of shape (K, 2), got {commands.shape}")
        finite = np.isfinite(commands).all(1)
        if not finite.all():
            first = int(finite.argmin())
            raise ValueError(
                f"env pusht: actions must be finite, got {commands[first].tolist()} in step {first} of the block "
                "(did the planner diverge?)"
            )
        moves = (commands.clip(-MAX_COMMAND, MAX_COMMAND) * np.float32(ACTION_SCALE)).astype(np.float64)
        visited = np.empty((len(moves), self.state_dim))
        for index, (move_x, move_y) in enumerate(moves.tolist()):
            world.step(move_x, move_y)
            visited[index] = world.state()
        self._actions.append(commands)
        self._steps += len(commands)
        return visited

    def render(self) -> Array:
        """The image (image_size, image_size, 3) uint8 of the current state."""
        world = self._current()
        draw = renderer(self._block, self.image_size, self._look).render
        scene = (world.agent_position(), world.polygons(), world.contact_lines())
        if not self._layout.keys() & {DISTRACTORS_KEY, CAMERA_KEY}:
            return draw(*scene)
        image = draw(*scene, discs(self._layout, self._steps))
        return shifted(image, self._layout[CAMERA_KEY]) if CAMERA_KEY in self._layout else image

    def snapshot(self) -> Snapshot:
        """This moment, for ``restore``."""
        state = np.array(self._current().state())
        actions = np.concatenate([np.empty((0, self.env_action_dim), np.float32), *self._actions])
        return Snapshot(self._layout, self._start.copy(), actions, state)

    def restore(self, snapshot: Snapshot) -> Array:
        """Go back to a moment of this or another simulator's episode; what follows and the image are the same bits.

        The episode is played again up to there, in tens of microseconds a step: pymunk neither shows nor takes all
        that its solver remembers. A copied ``pymunk.Space`` is not exact either.

        Returns:
            (7,) float64: the state.

        Raises:
            ValueError: If the snapshot does not lead to its state here, as from another version of pymunk.
        """
        state = self.reset(snapshot.start, snapshot.layout)
        if len(snapshot.actions):
            state = self.step(snapshot.actions)[-1].copy()
        if not np.array_equal(state, snapshot.state):
            raise ValueError(
                f"env pusht: the snapshot's actions lead to {state.tolist()} here, not to {snapshot.state.tolist()}; "
                "take it with the same version of pymunk on the same kind of machine"
            )
        return state

    def __getstate__(self) -> dict[str, Any]:
        moment = None if self._world is None else self.snapshot()
        return {**self.__dict__, "_world": None, "_actions": [], "moment": moment}

    def __setstate__(self, state: dict[str, Any]) -> None:
        moment = state.pop("moment")
        self.__dict__ |= state
        if moment is not None:
            self.restore(moment)

    def close(self) -> None:
        """Forget the episode."""
        self._world = None

    def _current(self) -> World:
        if self._world is None:
            raise RuntimeError("env pusht: call reset before step, render and snapshot")
        return self._world
