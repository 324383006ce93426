"""Images of the Wall, drawn for a whole batch at once."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from envs.wall.dynamics import BORDER_HIGH, BORDER_LOW, DOOR_HALF_HEIGHT, IMAGE_SIZE, WALL_HALF_WIDTH

DOT_SIGMA = 1.7  # pixels
# Pixels 7 or more from the brightest one along either axis get less than 255 exp(-(49 - 7) / 2 sigma^2) = 0.2 of 255,
# which uint8 cuts to zero: the rest of the image need not be computed.
PATCH_RADIUS = 6
# Dots drawn together on the CPU: 169 pixels each, just below the 32,768 numbers from which PyTorch splits operations
# among its threads and waits for the slowest.
DOTS_AT_ONCE = 192


def draw_walls(door_y: Tensor, wall_x: Tensor) -> Tensor:
    """Draw border and wall without the dot, (B,) and (B,) -> (B, 65, 65) uint8: 0 where black, 255 where white."""
    num_episodes = len(wall_x)
    if (door_y == door_y[:1]).all() and (wall_x == wall_x[:1]).all():  # usual, and then one drawing serves all
        door_y, wall_x = door_y[:1], wall_x[:1]
    pixel = torch.arange(IMAGE_SIZE, device=wall_x.device, dtype=wall_x.dtype)
    inside_border = _white_where((pixel != BORDER_LOW) & (pixel != BORDER_HIGH))
    beside_wall = _white_where((pixel - wall_x[:, None]).abs() > WALL_HALF_WIDTH)
    in_door = _white_where((pixel - door_y[:, None]).abs() <= DOOR_HALF_HEIGHT)
    white = beside_wall[:, None, :] | in_door[:, :, None]
    return white.bitwise_and_(inside_border[:, None] & inside_border).expand(num_episodes, -1, -1)


def _white_where(condition: Tensor) -> Tensor:
    return condition.to(torch.uint8) * 255


def draw_dots(positions: Tensor, walls: Tensor) -> Tensor:
    """Add red dots, which the walls hide: positions (B, 2) and walls (B, 65, 65) -> uint8 (B, 3, 65, 65)."""
    frames = _three_channels(walls)
    flat = frames.flatten(2)  # a view
    at_once = DOTS_AT_ONCE if positions.device.type == "cpu" else max(len(positions), 1)
    for first in range(0, len(positions), at_once):
        part = flat[first : first + at_once]
        pixels, ink = _dots(positions[first : first + at_once])
        dotted = part[:, 0].gather(1, pixels) & (255 - ink)  # "and" with 0 or 255: walls stay black
        part[:, 1].scatter_(1, pixels, dotted)
        part[:, 2].scatter_(1, pixels, dotted)
    return frames


def _three_channels(walls: Tensor) -> Tensor:
    if walls.device.type == "cpu":
        return torch.from_numpy(np.repeat(walls.numpy()[:, None], 3, axis=1))  # NumPy copies without waking threads
    return walls[:, None].repeat(1, 3, 1, 1)


def _dots(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Find which pixels the dots colour, as row * 65 + column, and how strongly: (B, 169) int64 and uint8.

    The strength is uint8(255 exp(-d^2 / 2 sigma^2) / its maximum over the pixels), in float64; green and blue are
    255 minus it. PyTorch's exp and round are avoided: like sqrt (see wall_dynamics.py) they wake all threads.
    """
    positions = positions.double()
    offsets = torch.arange(-PATCH_RADIUS, PATCH_RADIUS + 1, device=positions.device)
    centres = (positions.clamp(PATCH_RADIUS, IMAGE_SIZE - 1 - PATCH_RADIUS) + 0.5).long()
    columns, rows = (centres[..., None] + offsets).unbind(1)  # (B, 13) each, inside the image
    x, y = positions[..., None].unbind(1)
    squared = (columns - x).square()[:, None, :] + (rows - y).square()[:, :, None]
    bell = torch.exp2(squared.flatten(1) * (-math.log2(math.e) / (2 * DOT_SIGMA**2)))
    peak = bell.amax(1, keepdim=True).clamp_min(torch.finfo(bell.dtype).tiny)  # zero only far outside the image
    pixels = (rows[:, :, None] * IMAGE_SIZE + columns[:, None, :]).flatten(1)
    return pixels, (255 * (bell / peak)).to(torch.uint8)


def resize_frames(frames: Tensor, image_size: int) -> Tensor:
    """Resize what ``draw_dots`` made; the native size stays as it is.

    Returns:
        (B, 3, image_size, image_size): uint8 at the native 65, else float32 in 0..255, bilinear with half-pixel
        centres and not rounded, which is what the released data hold.
    """
    if image_size == IMAGE_SIZE:
        return frames
    two_channels = F.interpolate(  # green and blue are the same, and this is most of the time
        frames[:, :2].float(),
        size=(image_size, image_size),
        mode="bilinear",
        align_corners=False,
        antialias=image_size < IMAGE_SIZE,
    )
    return two_channels[:, [0, 1, 1]]
