"""The border between an agent's model and the world outside: images, proprio values and actions, checked."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datasets.units.folding import fold_actions
from models.latent import Latent
from planning.observer import Observer

UNBOUNDED = 1e6  # raw units; in the place of an infinite bound


class Senses:
    """Brings what comes from outside into the units of a model.

    Args:
        observer: Of the model.
        image_size: Side of the images that it sees, pixels.
        frameskip: Raw actions of a block.

    Attributes:
        action_dim: Length of a raw action.
        proprio_dim: Length of the proprio values; 0: there are none.
    """

    def __init__(self, observer: Observer, image_size: int, frameskip: int) -> None:
        self.observer, self.image_size, self.frameskip = observer, image_size, frameskip
        self.action_dim = observer.normalizer.env_action_dim
        self.proprio_dim = len(observer.normalizer.proprio_mean)

    def see(self, image: Any, proprio: Any) -> tuple[Latent, bool]:
        """Encode what is seen and sensed.

        Args:
            image: See ``frames_of``; (S,) or (B, S) for a model that looks at states.
            proprio: (E,) or (B, E) raw units.

        Returns:
            Latents (B, 1), and whether the image had a leading axis.

        Raises:
            ValueError: If they are not what the model takes; in one line.
        """
        frames = None
        if self.observer.wants_frames:
            frames, is_batch = frames_of(image, self.image_size)
            states = torch.zeros(len(frames), 1, 0)
        else:
            length = len(self.observer.normalizer.state_mean)
            states, is_batch = values_of(image, "the state, which this model looks at,", length, None, exact=True)
        senses_nothing = proprio is None and not self.proprio_dim
        values = [] if senses_nothing else proprio
        rows, _ = values_of(values, "proprio", self.proprio_dim, len(states))
        return self.observer.encode(states, frames, rows), is_batch

    def invented(self, rows: int, seed: int) -> Latent:
        """Latents (B, 1) of noise."""
        draw, normalizer = np.random.default_rng(seed), self.observer.normalizer
        image = draw.integers(0, 256, (rows, self.image_size, self.image_size, 3), np.uint8)
        return self.see(
            image if self.observer.wants_frames else normalizer.state_mean.expand(rows, -1), normalizer.proprio_mean
        )[0]

    def blocks(self, actions: ArrayLike, rows: int) -> Tensor:
        """z-scored blocks (B, A) of raw actions (frameskip, action_dim) or (B, frameskip, action_dim).

        Raises:
            ValueError: If they are something else; in one line.
        """
        shape, given = (self.frameskip, self.action_dim), _numbers(actions, np.float32)
        if given.shape not in (shape, (rows, *shape)) or not np.isfinite(given).all():
            raise ValueError(
                f"executed must be finite raw actions of shape {shape}, or with a leading {rows}; got {given.shape}"
            )
        raw = torch.from_numpy(np.broadcast_to(given, (rows, *shape)).copy())
        return self.observer.normalizer.actions_to_z(fold_actions(raw, self.frameskip)[:, 0]).to(self.observer.device)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> Tensor:
        """Bounds (2, action_dim) of raw actions, each (action_dim,) or one number.

        Raises:
            ValueError: If they are none; in one line.
        """
        try:
            ends = np.stack([np.broadcast_to(np.asarray(end, np.float32), (self.action_dim,)) for end in (low, high)])
        except (TypeError, ValueError):
            ends = np.full((2, 1), np.nan)
        if not (ends[0] < ends[1]).all():
            raise ValueError(f"bounds must be (low, high), each a number or {self.action_dim}, low < high")
        return torch.from_numpy(ends.clip(-UNBOUNDED, UNBOUNDED))


def frames_of(image: Any, side: int) -> tuple[Tensor, bool]:
    """Turn images from outside into frames for a model.

    An image of another size is brought to ``side`` x ``side`` pixels as Gymnasium's are when data are collected
    (``cv2.INTER_AREA``), without keeping its proportions.

    Args:
        image: (H, W, 3) or (B, H, W, 3), RGB, uint8 or floats in 0..255.
        side: Of the frames, pixels.

    Returns:
        (B, 1, 3, side, side), uint8 or float32, and whether there was a leading axis.

    Raises:
        ValueError: If it is something else; in one line.
    """
    given = _numbers(image)
    shape = f"{given.dtype} of shape {given.shape}"
    if given.ndim not in (3, 4) or given.shape[-1] != 3 or not given.size:
        more = "; here the channels come first, transpose it" if given.ndim in (3, 4) and given.shape[-3] == 3 else ""
        raise ValueError(f"an image must be (H, W, 3), a batch (B, H, W, 3), RGB, uint8; got {shape}{more}")
    if given.dtype != np.uint8:
        if not np.issubdtype(given.dtype, np.floating):
            raise ValueError(f"an image must be uint8, or floats in 0..255; got {shape}")
        low, high = float(given.min()), float(given.max())
        if not (low >= -1 and high < 256) or 0 < high <= 1:  # resizing overshoots by a rounding error
            raise ValueError(f"an image must be uint8, or floats in 0..255; got {shape} with values {low:g}..{high:g}")
        given = given.astype(np.float32, copy=False)
    batch = given if given.ndim == 4 else given[None]
    if batch.shape[1:3] != (side, side):
        batch = np.stack([cv2.resize(each, (side, side), interpolation=cv2.INTER_AREA) for each in batch])
    return torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))[:, None], given.ndim == 4


def values_of(values: Any, what: str, length: int, batch: int | None, exact: bool = False) -> tuple[Tensor, bool]:
    """Turn numbers from outside into rows for a model.

    Args:
        values: (length,) or (B, length).
        what: They are, for the error.
        length: Of a row.
        batch: B, if it is known; one row serves all.
        exact: Whether double precision is kept.

    Returns:
        (B, 1, length), and whether there was a leading axis.

    Raises:
        ValueError: If it is something else; in one line.
    """
    given = _numbers(values, np.float64 if exact else np.float32)
    expected = f"({length},)" if batch is None else f"({length},) or ({batch}, {length})"
    fits = given.ndim in (1, 2) and given.shape[-1] == length
    if not fits or (given.ndim == 2 and batch is not None and len(given) != batch):
        raise ValueError(f"{what} must be {expected} numbers in raw units; got {_described(values)}")
    if not np.isfinite(given).all():
        raise ValueError(f"{what} must be finite numbers; got {given.tolist()}")
    rows = torch.from_numpy(np.atleast_2d(given).copy())[:, None]
    return rows.expand(batch or len(rows), -1, -1), given.ndim == 2


def _numbers(values: Any, dtype: type[np.floating[Any]] | None = None) -> NDArray[Any]:
    """Any tensor or what NumPy takes as an array, which is empty where there are no numbers in rows."""
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype)
    except (TypeError, ValueError):
        return np.empty(0)


def _described(values: Any) -> str:
    if values is None or isinstance(values, str):
        return repr(values)
    return f"shape {_numbers(values).shape}"
