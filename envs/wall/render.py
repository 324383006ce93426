"""Images of the Wall, drawn for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from envs.factors import distractor_places
from envs.wall.dynamics import BORDER_HIGH, BORDER_LOW, DOOR_HALF_HEIGHT, IMAGE_SIZE, WALL_HALF_WIDTH

DOT_SIGMA = 1.7  # pixels
# Pixels 7 or more from the brightest one along either axis get less than 255 exp(-(49 - 7) / 2 sigma^2) = 0.2 of 255,
# which uint8 cuts to zero: the rest of the image need not be computed.
PATCH_RADIUS = 6
# Dots drawn together on the CPU: 169 pixels each, just below the 32,768 numbers from which PyTorch splits operations
# among its threads and waits for the slowest.
DOTS_AT_ONCE = 192


def draw_walls(
    door_y: Tensor, wall_x: Tensor, door_half: Tensor | None = None, wall_half: Tensor | None = None
) -> Tensor:
    """Draw border and wall without the dot.

    Args:
        door_y: (B,) y of the doors' centres.
        wall_x: (B,) x of the walls' centres.
        door_half: (B,) how far doors reach up and down; None: as usual.
        wall_half: (B,) how far walls reach left and right; None: as usual.

    Returns:
        (B, 65, 65) uint8: 0 where black, 255 where white.
    """
    num_episodes = len(wall_x)
    is_usual = door_half is None and wall_half is None
    if is_usual and (door_y == door_y[:1]).all() and (wall_x == wall_x[:1]).all():  # then one drawing serves all
        door_y, wall_x = door_y[:1], wall_x[:1]
    width = WALL_HALF_WIDTH if wall_half is None else wall_half[:, None]
    height = DOOR_HALF_HEIGHT if door_half is None else door_half[:, None]
    pixel = torch.arange(IMAGE_SIZE, device=wall_x.device, dtype=wall_x.dtype)
    inside_border = _white_where((pixel != BORDER_LOW) & (pixel != BORDER_HIGH))
    beside_wall = _white_where((pixel - wall_x[:, None]).abs() > width)
    in_door = _white_where((pixel - door_y[:, None]).abs() <= height)
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


def draw_varied(positions: Tensor, walls: Tensor, look: Mapping[str, Tensor], step: int) -> Tensor:
    """Draw episodes that may differ in look, those that do not with the same bits as ``draw_dots``.

    Args:
        positions: (B, 2) of the dots.
        walls: (B, 65, 65) uint8, 0 where there are walls.
        look: ``background_colour``, ``wall_colour`` and ``dot_colour`` (B, 3), 0..255, ``dot_sigma`` (B, 1) and
            ``distractors`` (B, n, 8).
        step: Raw steps since the start.

    Returns:
        (B, 3, 65, 65) uint8.
    """
    colours = {name: look[f"{name}_colour"].int()[:, :, None, None] for name in ("background", "wall", "dot")}
    free = walls[:, None] > 0
    canvas = torch.where(free, colours["background"], colours["wall"])
    pixel = (torch.arange(IMAGE_SIZE, device=positions.device) + 0.5) / IMAGE_SIZE
    places = torch.from_numpy(distractor_places(look["distractors"].cpu().numpy(), step)).to(positions.device)
    for place, disc in zip(places.unbind(1), look["distractors"].unbind(1), strict=True):
        squared = (pixel - place[:, :1]).square()[:, None, :] + (pixel - place[:, 1:]).square()[:, :, None]
        inside = (squared < disc[:, 4].square()[:, None, None])[:, None]
        canvas = torch.where(inside, disc[:, 5:, None, None].int(), canvas)
    sigma = look["dot_sigma"].double()
    reach = 2 * math.log(255) * max(sigma.max().item(), DOT_SIGMA) ** 2  # of pixels that get at least 1 of 255
    pixels, strength = _dots(positions, sigma, math.ceil((1 + math.sqrt(1 + 4 * reach)) / 2) - 1)
    ink = (
        torch.zeros_like(walls, dtype=torch.int32).flatten(1).scatter(1, pixels, strength.int()).view_as(walls)[:, None]
    )
    dotted = canvas + torch.div((colours["dot"] - canvas) * ink, 255, rounding_mode="trunc")
    return torch.where(free, dotted, canvas).to(torch.uint8)


def _dots(positions: Tensor, sigma: Tensor | float = DOT_SIGMA, radius: int = PATCH_RADIUS) -> tuple[Tensor, Tensor]:
    """Find which pixels the dots colour, as row * 65 + column, and how strongly: (B, 169) int64 and uint8.

    Sigma may be one for each dot, (B, 1); 169 is (2 radius + 1)^2.

    The strength is uint8(255 exp(-d^2 / 2 sigma^2) / its maximum over the pixels), in float64; green and blue are
    255 minus it. PyTorch's exp and round are avoided: like sqrt (see wall_dynamics.py) they wake all threads.
    """
    positions = positions.double()
    offsets = torch.arange(-radius, radius + 1, device=positions.device)
    centres = (positions.clamp(radius, IMAGE_SIZE - 1 - radius) + 0.5).long()
    columns, rows = (centres[..., None] + offsets).unbind(1)  # (B, 13) each, inside the image
    x, y = positions[..., None].unbind(1)
    squared = (columns - x).square()[:, None, :] + (rows - y).square()[:, :, None]
    bell = torch.exp2(squared.flatten(1) * (-math.log2(math.e) / (2 * sigma**2)))
    peak = bell.amax(1, keepdim=True).clamp_min(torch.finfo(bell.dtype).tiny)  # zero only far outside the image
    pixels = (rows[:, :, None] * IMAGE_SIZE + columns[:, None, :]).flatten(1)
    return pixels, (255 * (bell / peak)).to(torch.uint8)


def resize_frames(frames: Tensor, image_size: int, channels: tuple[int, int, int] = (0, 1, 1)) -> Tensor:
    """Resize what was drawn; the native size stays as it is.

    Args:
        frames: (B, 3, 65, 65) uint8.
        image_size: Side to resize to, pixels.
        channels: Those of the result; of what ``draw_dots`` made green and blue are the same.

    Returns:
        (B, 3, image_size, image_size): uint8 at the native 65, else float32 in 0..255, bilinear with half-pixel
        centres and not rounded, which is what the released data hold.
    """
    if image_size == IMAGE_SIZE:
        return frames
    resized = F.interpolate(  # a channel less where two are the same: this is most of the time
        frames[:, : max(channels) + 1].float(),
        size=(image_size, image_size),
        mode="bilinear",
        align_corners=False,
        antialias=image_size < IMAGE_SIZE,
    )
    return resized[:, list(channels)]


def shift_frames(frames: Tensor, shift: Tensor) -> Tensor:
    """Shift frames (B, 3, S, S) by ``shift`` (B, 2), as ``envs.factors.shifted`` does one image."""
    side = frames.shape[-1]
    moved = torch.tensor([[round(float(part) * side) for part in row] for row in shift.tolist()], device=frames.device)
    columns, rows = ((torch.arange(side, device=frames.device) - moved[:, i, None]).clamp(0, side - 1) for i in (0, 1))
    episodes, channels = (torch.arange(n, device=frames.device) for n in frames.shape[:2])
    return frames[
        episodes[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None]
    ]
