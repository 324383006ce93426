"""The Wall's dynamics as pure tensor functions: one collision test per step, for thousands of dots at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

IMAGE_SIZE = 65  # side of the grid, pixels
BORDER_LOW = 4.0  # the border's lines: columns and rows 4 and 60
BORDER_HIGH = 60.0
WALL_HALF_WIDTH = 3.0
DOOR_HALF_HEIGHT = 4.0
ACTION_GAIN = 2.0  # pixels per unit of action
REBOUND = 0.5  # how far a collision puts the dot off the line it met, and further along that line
LIMIT_MARGIN = 0.3  # how far inside a limit a dot is put that the rebound left on or beyond it
MAX_DISPLACEMENT = 1e6  # pixels; keeps every quantity of a step finite, see ``displacements``


@dataclass(frozen=True)
class WallGeometry:
    """The lines a dot can meet, for B episodes, in the dtype of the states; y grows downwards.

    Attributes:
        wall_x: (B,) centre of the wall.
        left_face: (B,) its left side.
        right_face: (B,) its right side.
        door_top: (B,) the door's edge with the smaller y.
        door_bottom: (B,) the door's edge with the larger y.
        left_room: (2, 2, B) lower and upper limit, for x and y, of a dot left of ``wall_x``.
        right_room: (2, 2, B) the same for every other dot.
    """

    wall_x: Tensor
    left_face: Tensor
    right_face: Tensor
    door_top: Tensor
    door_bottom: Tensor
    left_room: Tensor
    right_room: Tensor

    @classmethod
    def from_layout(
        cls,
        door_y: Tensor,
        wall_x: Tensor,
        door_half: Tensor | float = DOOR_HALF_HEIGHT,
        wall_half: Tensor | float = WALL_HALF_WIDTH,
    ) -> WallGeometry:
        """Lay out doors centred on ``door_y`` (B,) in walls centred on ``wall_x`` (B,), with half of their sizes."""
        low, high = torch.full_like(wall_x, BORDER_LOW), torch.full_like(wall_x, BORDER_HIGH)
        left_face, right_face = wall_x - wall_half, wall_x + wall_half
        return cls(
            wall_x=wall_x,
            left_face=left_face,
            right_face=right_face,
            door_top=door_y - door_half,
            door_bottom=door_y + door_half,
            left_room=torch.stack([low, low, left_face, high]).unflatten(0, (2, 2)),
            right_room=torch.stack([right_face, low, high, high]).unflatten(0, (2, 2)),
        )

    def part(self, episodes: slice) -> WallGeometry:
        """The lines of some of the episodes, without copying."""
        return WallGeometry(*(getattr(self, field.name)[..., episodes] for field in fields(self)))


def displacements(actions: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn raw actions (units of 2 px) into pixels: doubled in float32, then widened to ``dtype``.

    Deviation: cut off at a million pixels, because larger ones overflow to inf or NaN in the line's slope. It
    changes nothing below 500,000 units, ten thousand times across the image.
    """
    return (actions.float() * ACTION_GAIN).clamp(-MAX_DISPLACEMENT, MAX_DISPLACEMENT).to(dtype)


def wall_step(start: Tensor, displacement: Tensor, geometry: WallGeometry) -> Tensor:
    """Move every dot once, testing the straight way for the first line it meets.

    Several collisions in one step are not chained. The arithmetic's order is part of the contract: it gives the
    original's float64 results to the last bit.

    Args:
        start: (2, B) x and y of the dots, pixels. Axis first, so that each coordinate is contiguous.
        displacement: (2, B) pixels, of the same dtype.
        geometry: The lines, of the same dtype.

    Returns:
        (2, B) where the dots are afterwards, finite for every displacement that ``displacements`` returns.

    Source: DINO-WM's ``DotWall.step``. Deviation: a move along x or y meets lines at the coordinate it keeps. The
    original divides 0 by 0 there: a vertical move into the border made the position NaN for ever, and one from
    inside the door passed the door's edge into the wall.
    """
    end = start + displacement
    move = end - start  # not the displacement: ``end`` has been rounded
    lower, upper = torch.minimum(start, end), torch.maximum(start, end)

    is_left = geometry.wall_x > start[0]
    low, high = torch.where(is_left, geometry.left_room, geometry.right_room)
    meets_low = (lower <= low) & (upper >= low)  # touching counts
    meets_high = (lower <= high) & (upper >= high)
    limit = torch.where(meets_low, low, high)  # per axis the only line considered

    downwards = move[1] > 0
    door_edge = torch.where(downwards, geometry.door_bottom, geometry.door_top)
    crossing, x_at_edge = _crossings(start, move, limit, door_edge)

    # In the left room the upper x limit is the wall's face, in the right room the lower one.
    in_door = (is_left ^ meets_low[0]) & (crossing[1] >= geometry.door_top) & (crossing[1] <= geometry.door_bottom)
    meets_x = (meets_low[0] | meets_high[0]) & ~in_door
    meets_y = meets_low[1] | meets_high[1]
    rebounded = _rebound(start, limit, crossing, meets_x, meets_y)
    rebounded = torch.where(
        rebounded <= low, low + LIMIT_MARGIN, torch.where(rebounded >= high, high - LIMIT_MARGIN, rebounded)
    )
    result = torch.where(meets_x | meets_y, rebounded, end)

    # A dot inside the door that leaves it sideways: this comes before the faces and is not clipped.
    meets_edge = (lower[1] < door_edge) & (upper[1] > door_edge)
    meets_edge &= (x_at_edge >= geometry.left_face) & (x_at_edge <= geometry.right_face)
    y_off_edge = torch.where(downwards, door_edge - REBOUND, door_edge + REBOUND)
    return torch.where(meets_edge, torch.stack((x_at_edge + REBOUND, y_off_edge)), result)


def _crossings(start: Tensor, move: Tensor, limit: Tensor, door_edge: Tensor) -> tuple[Tensor, Tensor]:
    """Find where the way meets lines: (2, B) x at the y limit and y at the x limit; (B,) x at the door's edge."""
    slope = move[1] / move[0]
    offset = start[1] - slope * start[0]
    along_axis = move[0] * move[1] == 0
    x_at = (torch.stack((limit[1], door_edge)) - offset) / slope
    x_at_limit, x_at_edge = torch.where(along_axis, start[0], x_at)
    y_at_limit = torch.where(along_axis, start[1], slope * limit[0] + offset)
    return torch.stack((x_at_limit, y_at_limit)), x_at_edge


def _rebound(start: Tensor, limit: Tensor, crossing: Tensor, meets_x: Tensor, meets_y: Tensor) -> Tensor:
    """Put the dots off the nearer of the lines they meet: (2, B), meaningful where there is one.

    Along the line the dot always moves by +0.5: the original's random noise is switched off there, not replaced by
    zero. A dot pressed against a wall therefore creeps towards larger x or y. Kept, because it is the environment
    in which the released models are evaluated.
    """
    gap = limit - start
    # Squared distances decide alike; PyTorch's sqrt wakes and awaits all threads even for a hundred numbers, which
    # takes milliseconds where other programs are running.
    squared = gap.square() + (crossing - start).square().flip(0)  # (2, B): to the x limit, to the y limit
    hits_x = meets_x & ((squared[0] < squared[1]) | ~meets_y)
    is_normal = torch.stack((hits_x, ~hits_x))
    return torch.where(is_normal, limit - gap.sign() * REBOUND, crossing + REBOUND)
