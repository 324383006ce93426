"""The Wall: a dot in two rooms joined by a door; every episode is a row of one tensor program."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from envs.base import EpisodeLayouts, Outcome, VectorEnv
from envs.factors import CAMERA_KEY
from envs.wall.dynamics import (
    BORDER_HIGH,
    BORDER_LOW,
    DOOR_HALF_HEIGHT,
    IMAGE_SIZE,
    WALL_HALF_WIDTH,
    WallGeometry,
    displacements,
    wall_step,
)
from envs.wall.factors import DOOR_KEY, DOOR_SIZE_KEY, FACTORS, USUAL_DOOR, USUAL_WALL, WALL_KEY, WALL_SIZE_KEY
from envs.wall.layouts import layout_columns, look_of, sample_rooms
from envs.wall.render import draw_dots, draw_varied, draw_walls, resize_frames, shift_frames

SUCCESS_RADIUS = 4.5  # pixels
PLACE_TOLERANCE = 0.5  # how far into a line a place may be that was recorded with other dynamics, pixels
# Episodes stepped together on the CPU. PyTorch splits operations on more than 32,768 numbers, here four per episode,
# among its threads: no gain for operations this short, and a hundredfold loss while other programs are running.
EPISODES_AT_ONCE = 8000


class WallVectorEnv(VectorEnv):
    """A batch of Wall episodes: reach a place in the other room, through the door.

    States are (x, y) in pixels of a 65 x 65 grid, y downwards, float64 or float32: everything is computed in the
    dtype of the states given to ``reset``. An action is a displacement in units of 2 pixels. EpisodeLayout keys are
    ``fix_door_location`` (y of the door's centre) and ``fix_wall_location`` (x of the wall's centre), (B, 1) each, and
    those of ``factors``.
    Without randomness: the seeds only draw start and goal.

    Source: DINO-WM's Wall environment. Deviations are listed in docs/environments.md.
    """

    name = "wall"
    state_dim = 2
    proprio_dim = 2
    env_action_dim = 2
    factors = FACTORS

    def __init__(
        self,
        image_size: int = 224,
        device: str | torch.device = "cpu",
        door: float = USUAL_DOOR,
        wall: float = USUAL_WALL,
    ) -> None:
        """Set up an environment without episodes.

        Args:
            image_size: Side of the images, pixels; 65 is the native size, drawn without resizing, in uint8.
            device: Where states, dynamics and images live.
            door: y of the door's centre where a layout does not say, in [8, 56].
            wall: x of the wall's centre where a layout does not say, in (7, 57).

        Raises:
            ValueError: If a number is out of its range.
        """
        if image_size < 1:
            raise ValueError(f"env.image_size must be at least 1 pixel, got {image_size}")
        self.image_size = image_size
        self.device = torch.device(device)
        self._defaults = {DOOR_KEY: float(door), WALL_KEY: float(wall)}
        self._columns(None, 1, torch.float64)  # raises if out of range
        self._positions: Tensor | None = None  # (2, B), axis first
        self._geometry: WallGeometry
        self._layout: dict[str, Tensor]
        self._look: dict[str, Tensor]  # of pictures that differ from the usual ones; else empty
        self._steps = 0  # since the reset
        self._walls: Tensor | None = None  # (B, 65, 65), drawn when first needed after a reset

    def default_layouts(self, num_episodes: int) -> dict[str, Tensor]:
        """The door and wall given to the constructor, as (num_episodes, 1) float32 each."""
        return {key: torch.full((num_episodes, 1), value, device=self.device) for key, value in self._defaults.items()}

    def sample_start_goal(self, seeds: Sequence[int], layouts: EpisodeLayouts | None = None) -> tuple[Tensor, Tensor]:
        """Draw a start and a goal in different rooms per seed: two (B, 2) float64 tensors.

        Deviation: the rooms are those of ``layouts``. The original kept the limits of the layout it was built with,
        so that after a change of the wall's place states could lie in the wall or both in one room.

        Raises:
            ValueError: If a room is too narrow to hold a dot with its margin.
        """
        wall_x = self._columns(layouts, len(seeds), torch.float64)[WALL_KEY].tolist()
        drawn = [sample_rooms(seed, x) for seed, x in zip(seeds, wall_x, strict=True)]
        start_goal = torch.tensor(drawn, dtype=torch.float64, device=self.device).reshape(-1, 2, 2)
        return start_goal[:, 0], start_goal[:, 1]

    def reset(self, seeds: Sequence[int], states: Tensor, layouts: EpisodeLayouts | None = None) -> Tensor:
        """Start one episode per row of ``states`` (B, 2), which are returned as they are; the seeds are unused.

        Raises:
            ValueError: If the states are not (B, 2), finite and float32 or float64, their number is not that of the
                seeds, or the layout is unknown or out of range.
        """
        self._check_states(seeds, states)
        _check_episodes("states must be finite", states.isfinite())
        states = states.detach().to(self.device, copy=True)
        columns = self._columns(layouts, len(states), states.dtype)
        self._positions = states.T.clone(memory_format=torch.contiguous_format)
        sizes = (columns.get(DOOR_SIZE_KEY, DOOR_HALF_HEIGHT), columns.get(WALL_SIZE_KEY, WALL_HALF_WIDTH))
        self._geometry = WallGeometry.from_layout(columns[DOOR_KEY], columns[WALL_KEY], *sizes)
        self._layout, self._look = columns, look_of(columns, len(states), self.device)
        self._walls, self._steps = None, 0
        return states

    @torch.no_grad()
    def step(self, actions: Tensor) -> Tensor:
        """Execute blocks of raw actions (B, K, 2) in units of 2 px; returns the visited states (B, K, 2).

        Raises:
            ValueError: If the actions do not fit the episodes or contain NaN.
        """
        positions = self._current()
        num_episodes = positions.shape[1]
        self._check_actions(actions, num_episodes)
        actions = actions.to(self.device)
        visited = positions.new_empty(actions.shape)
        final = torch.empty_like(positions)
        at_once = EPISODES_AT_ONCE if self.device.type == "cpu" else max(num_episodes, 1)
        for first in range(0, num_episodes, at_once):
            part = slice(first, first + at_once)
            place, geometry = positions[:, part], self._geometry.part(part)
            for step in range(actions.shape[1]):
                move = displacements(actions[part, step].T.contiguous(), positions.dtype)
                place = wall_step(place, move, geometry)
                visited[part, step] = place.T
            final[:, part] = place
        # NaN survives every later step, so that this finds it wherever in the block it was.
        _check_episodes("actions must be numbers, got NaN (did the planner diverge?)", ~final.T.isnan())
        self._positions = final
        self._steps += actions.shape[1]
        return visited

    def render(self, rows: Tensor | None = None) -> Tensor:
        """Images (b, 3, image_size, image_size) in 0..255 of the current states; uint8 at size 65, else float32."""
        positions = self._current()
        if self._walls is None:
            sizes = (self._layout.get(DOOR_SIZE_KEY), self._layout.get(WALL_SIZE_KEY))
            self._walls = draw_walls(self._layout[DOOR_KEY], self._layout[WALL_KEY], *sizes)
        places, walls = (positions.T, self._walls) if rows is None else (positions.T[rows], self._walls[rows])
        if not self._look:
            return resize_frames(draw_dots(places, walls), self.image_size)
        look = {key: values if rows is None else values[rows] for key, values in self._look.items()}
        frames = resize_frames(draw_varied(places, walls, look, self._steps), self.image_size, (0, 1, 2))
        return shift_frames(frames, look[CAMERA_KEY])

    def proprio(self, states: Tensor) -> Tensor:
        """The dot's place (..., 2) in pixels, float32."""
        return states.float()

    def success(self, states: Tensor, goals: Tensor) -> Outcome:
        """Compare states (B, 2) with goals (B, 2): success is a distance below 4.5 px, ``state_dist`` the distance."""
        distance = torch.linalg.vector_norm(states - goals.to(states.device), dim=-1)
        return Outcome(success=distance < SUCCESS_RADIUS, state_dist=distance)

    def places(self, states: Tensor) -> dict[str, Tensor]:
        """The dot's centre."""
        return {"agent": (states + 0.5) / IMAGE_SIZE}

    def misplaced(self, states: Tensor, layouts: EpisodeLayouts | None = None) -> list[str]:
        """Name places outside the border or inside the wall, by more than half a pixel: (B, 2) states."""
        columns = self._columns(layouts, len(states), torch.float64)
        usual = {DOOR_SIZE_KEY: DOOR_HALF_HEIGHT, WALL_SIZE_KEY: WALL_HALF_WIDTH}
        columns |= {key: columns.get(key, columns[DOOR_KEY].new_full((len(states),), usual[key])) for key in usual}
        keys = (DOOR_KEY, WALL_KEY, DOOR_SIZE_KEY, WALL_SIZE_KEY)
        found = []
        for (x, y), *lines in zip(states.tolist(), *(columns[key].tolist() for key in keys), strict=True):
            door, wall, height, width = lines
            place, limits = f"x={x:g}, y={y:g}", f"{BORDER_LOW:g} to {BORDER_HIGH:g} px"
            if min(x, y) < BORDER_LOW - PLACE_TOLERANCE or max(x, y) > BORDER_HIGH + PLACE_TOLERANCE:
                found.append(f"{place} lies outside the room ({limits})")
            elif abs(x - wall) < width - PLACE_TOLERANCE and abs(y - door) > height + PLACE_TOLERANCE:
                found.append(f"{place} lies inside the wall (x={wall:g} +- {width:g} px, door at y={door:g})")
            else:
                found.append("")
        return found

    def _current(self) -> Tensor:
        if self._positions is None:
            raise RuntimeError("env wall: call reset before step and render")
        return self._positions

    def _columns(self, layouts: EpisodeLayouts | None, num_episodes: int, dtype: torch.dtype) -> dict[str, Tensor]:
        return layout_columns(layouts, self._defaults, num_episodes, dtype, self.device)


def _check_episodes(requirement: str, is_met: Tensor) -> None:
    """Raise if ``is_met`` (B, ...) is false anywhere, naming the first episodes of which it is."""
    if not is_met.all():
        failing = (~is_met).flatten(1).any(1).nonzero().flatten()[:10].tolist()
        raise ValueError(f"env wall: {requirement}; episodes {failing}")
