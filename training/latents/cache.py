"""Encoding every frame of some trajectories once, to train on the latents instead of the images."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.readers import leave_signals_to_the_parent
from datasets.trajectories import Trajectories
from models.interfaces import Encoder
from training.batch_loader import sensible_workers
from utils.runtime import autocast

log = logging.getLogger(__name__)

LATENT_CACHES = ("none", "memory", "disk")
LATENT_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bf16": torch.bfloat16}
FRAMES_PER_CALL = 64


@dataclass(frozen=True)
class FramesToEncode:
    """Frames of trajectories in the order in which their latents are kept.

    Attributes:
        trajectories: Where the images come from.
        numbers: Which of the trajectories, in order.
        encoder: Frozen, on ``device``.
        device: Where the encoder computes.
        precision: Of its arithmetic, see ``utils.runtime.autocast``.
        dtype: Key of ``LATENT_DTYPES``: the type that is kept.
    """

    trajectories: Trajectories
    numbers: Sequence[int]
    encoder: Encoder
    device: torch.device
    precision: str = "float32"
    dtype: str = "float32"

    @property
    def arithmetic(self) -> str:
        """The arithmetic that ``precision`` means on the device: "float32" or "bf16"."""
        with autocast(self.precision, self.device):
            return "bf16" if torch.is_autocast_enabled(self.device.type) else "float32"

    @property
    def lengths(self) -> Tensor:
        """(n,) frames of each trajectory that a sample can hold."""
        return self.trajectories.lengths[torch.as_tensor(self.numbers)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, P, D) of all latents together."""
        return int(self.lengths.sum()), self.encoder.num_patches, self.encoder.emb_dim

    @property
    def num_bytes(self) -> int:
        """What the latents take in memory or on disk."""
        frames, patches, width = self.shape
        return frames * patches * width * LATENT_DTYPES[self.dtype].itemsize

    def first_rows(self) -> Tensor:
        """Give, for each trajectory of the dataset, the row of its first frame; meaningless for those left out."""
        first = torch.zeros(len(self.trajectories.lengths), dtype=torch.long)
        first[torch.as_tensor(self.numbers)] = self.lengths.cumsum(0) - self.lengths
        return first

    def describe(self) -> str:
        """The size, for the user."""
        frames, patches, width = self.shape
        return f"{frames} frames of {patches} x {width} numbers in {self.dtype}: {self.num_bytes / 1e9:.3g} GB"

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents (n, P, D) of images (n, 3, S, S), on the CPU and in the type that is kept.

        Raises:
            ValueError: If float16 cannot hold one.
        """
        with autocast(self.precision, self.device):
            latents = self.encoder(images.to(self.device)).to("cpu", LATENT_DTYPES[self.dtype])
        if self.dtype == "float16" and not latents.isfinite().all():
            raise ValueError(
                "training.latent_dtype=float16 holds no number above 65504, and this encoder gives such; use bf16"
            )
        return latents

    def encoded(self, after: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Pieces of the latents (n, P, D) from frame ``after`` on, each with the number of its first frame."""
        pieces = [piece for piece in self._pieces() if piece.row + piece.stop - piece.start > after]
        workers = sensible_workers(self.device)
        reader: DataLoader[Tensor] = DataLoader(
            pieces,  # type: ignore[arg-type]  # a list will do
            batch_size=None,
            collate_fn=functools.partial(_images, self.trajectories),
            num_workers=workers,
            multiprocessing_context=self.trajectories.start_method if workers else None,
            worker_init_fn=leave_signals_to_the_parent,
            generator=torch.Generator(),  # or it would draw from the global one, whether encoding was needed or not
        )
        self.encoder.eval()
        with tqdm(total=self.shape[0], initial=after, desc="encode", unit="frame", leave=False) as bar:
            for piece, images in zip(pieces, reader, strict=True):
                yield piece.row, self.encode(images)
                bar.update(len(images))

    def _pieces(self) -> Iterator[_Piece]:
        """All frames in order, a few at a time."""
        row = 0
        for number, length in zip(self.numbers, self.lengths.tolist(), strict=True):
            for start in range(0, length, FRAMES_PER_CALL):
                stop = min(start + FRAMES_PER_CALL, length)
                yield _Piece(row, number, start, stop)
                row += stop - start


@dataclass(frozen=True)
class _Piece:
    """Frames ``start`` to ``stop`` of a trajectory, of which the first is number ``row`` of all."""

    row: int
    trajectory: int
    start: int
    stop: int


def _images(trajectories: Trajectories, piece: _Piece) -> Tensor:
    """Images (n, 3, S, S) of a piece; processes may read them."""
    return trajectories.frames(piece.trajectory, range(piece.start, piece.stop))


class LatentFrames:
    """A ``FrameSource`` that answers from memory; for frozen encoders only.

    Args:
        frames: What to encode.
    """

    field: Literal["visual", "latents"] = "latents"

    def __init__(self, frames: FramesToEncode) -> None:
        log.info("latent cache in memory, %s", frames.describe())
        self._first = frames.first_rows()
        self.features = torch.empty(frames.shape, dtype=LATENT_DTYPES[frames.dtype])
        for row, latents in frames.encoded():
            self.features[row : row + len(latents)] = latents

    def read(self, trajectory: Tensor, step: Tensor) -> Tensor:
        """Features (B, F, P, D) at (trajectory, raw step), two (B, F) tensors."""
        return self.features[self._first[trajectory] + step]
