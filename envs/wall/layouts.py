"""Layouts of Wall episodes, and the rooms that they leave."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from envs.base import EpisodeLayouts
from envs.episode_seeds import episode_generator
from envs.factors import usual_values
from envs.wall.dynamics import BORDER_HIGH, BORDER_LOW, DOOR_HALF_HEIGHT, WALL_HALF_WIDTH
from envs.wall.factors import DOOR_KEY, DOOR_SIZE_KEY, DOT_SIZE_KEY, FACTORS, START_MARGIN, WALL_KEY, WALL_SIZE_KEY

GEOMETRY = (DOOR_KEY, WALL_KEY, DOOR_SIZE_KEY, WALL_SIZE_KEY)
SIZES = (DOOR_SIZE_KEY, WALL_SIZE_KEY, DOT_SIZE_KEY)
USUAL = usual_values(FACTORS)


def layout_columns(
    given: EpisodeLayouts | None,
    defaults: Mapping[str, float],
    num_episodes: int,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Tensor]:
    """Fill a layout up with the defaults and check it.

    Args:
        given: Name -> (B, ...).
        defaults: Of door and wall, where nothing is given.
        num_episodes: B.
        dtype: Of places and sizes, which are (B,); all else is float32 (B, ...).
        device: Of all.

    Returns:
        Door and wall, and of the others what was given.

    Raises:
        ValueError: If a name is unknown, or a value is of another shape or out of its range.
    """
    given = given or {}
    if unknown := sorted(set(given) - set(USUAL)):
        raise ValueError(f"env wall: unknown layout keys {unknown}, known are {sorted(USUAL)}")
    filled = {key: torch.full((num_episodes, 1), value, dtype=torch.float64) for key, value in defaults.items()}
    columns = {}
    for key, values in (filled | dict(given)).items():
        shape = (num_episodes, *USUAL[key].shape)
        if values.shape != shape and (*values.shape, 1) != shape:
            raise ValueError(f"env wall: layout {key} must be {shape}, got {tuple(values.shape)}")
        is_place = key in GEOMETRY
        columns[key] = values.reshape(-1).to(device, dtype) if is_place else values.reshape(shape).to(device).float()
    _check(columns)
    return columns


def _check(columns: Mapping[str, Tensor]) -> None:
    """Refuse a door that leaves the border, a wall that leaves no room, and sizes and colours that are none."""
    door_half, wall_half = columns.get(DOOR_SIZE_KEY), columns.get(WALL_SIZE_KEY)
    door_y, wall_x = columns[DOOR_KEY], columns[WALL_KEY]
    height: Tensor | float = DOOR_HALF_HEIGHT if door_half is None else door_half
    width: Tensor | float = WALL_HALF_WIDTH if wall_half is None else wall_half
    door_ok = (door_y - height >= BORDER_LOW) & (door_y + height <= BORDER_HIGH)
    wall_ok = (wall_x - width > BORDER_LOW) & (wall_x + width < BORDER_HIGH)
    doors = "[8, 56]" if door_half is None else "reach of the border with its size"
    walls = "(7, 57)" if wall_half is None else "reach of the border with its size"
    checks = [(DOOR_KEY, doors, door_ok), (WALL_KEY, walls, wall_ok)]
    checks += [(key, "(0, 30]", (v > 0) & (v <= 30)) for key, v in columns.items() if key in SIZES]
    checks += [(key, "[0, 255]", (v >= 0) & (v <= 255)) for key, v in columns.items() if key.endswith("_colour")]
    for key, allowed, is_met in checks:
        if not is_met.all():
            raise ValueError(f"env wall: {key} must be in {allowed}, got {columns[key][~is_met][:10].tolist()}")


def look_of(columns: Mapping[str, Tensor], num_episodes: int, device: torch.device) -> dict[str, Tensor]:
    """What pictures need beside walls, (B, ...) float32 each, if any of it was given; else {}."""
    keys = [key for key in USUAL if key not in GEOMETRY]
    if not any(key in columns for key in keys):
        return {}
    usual = {key: torch.from_numpy(USUAL[key]).to(device).expand(num_episodes, *USUAL[key].shape) for key in keys}
    return {key: columns.get(key, usual[key]) for key in keys}


def sample_rooms(seed: int, wall_x: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Draw start and goal in the rooms left and right of ``wall_x``; the order of the draws is part of the contract."""
    low, high = BORDER_LOW + START_MARGIN, BORDER_HIGH - START_MARGIN
    left_high, right_low = wall_x - WALL_HALF_WIDTH - START_MARGIN, wall_x + WALL_HALF_WIDTH + START_MARGIN
    if left_high < low or right_low > high:
        raise ValueError(
            f"env wall: {WALL_KEY}={wall_x} leaves no room for a start or a goal; choose it in "
            f"[{low + WALL_HALF_WIDTH + START_MARGIN:g}, {high - WALL_HALF_WIDTH - START_MARGIN:g}]"
        )
    random = episode_generator(seed)  # the generator that the evaluation seeds of the original belong to
    left, right = random.uniform(low, left_high), random.uniform(right_low, high)
    y_start, y_goal = random.uniform(low, high), random.uniform(low, high)
    if random.uniform() < 0.5:
        left, right = right, left
    return (left, y_start), (right, y_goal)
