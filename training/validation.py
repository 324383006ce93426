"""What is measured on trajectories that the model is not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.batch import Batch
from datasets.readers import RetriedSamples
from datasets.windows import WindowDataset
from models.latent import Latent
from models.latent_geometry import curvature, feature_spread, step_correlation
from models.world_model import WorldModel, planning_mode
from training.gradients import weighted_means
from training.settings import TrainSettings
from training.step import TrainingStep
from utils import distributed
from utils.files import write_file
from utils.pictures import tile, to_uint8, write_png
from utils.retry import Retry
from utils.runtime import autocast

SMALLEST_TILE = 112  # pixels; smaller frames are enlarged to it

Latents = Callable[[Batch], Latent]
"""Latents (B, F) of a batch's frames."""


@dataclass(kw_only=True)
class Validation:
    """What is measured, and drawn, on the validation data at the end of an epoch.

    Attributes:
        train_step: Of the model that is measured; reads its batches.
        data: Samples that are not trained on.
        folder: Of the run; ``open_loop/`` in it gets a picture an epoch.
        settings: How many batches are measured, and how many samples drawn.
        retry: While a disk is full or away.
    """

    train_step: TrainingStep
    data: WindowDataset
    folder: Path
    settings: TrainSettings
    retry: Retry = field(default_factory=Retry)

    def measure(self, epoch: int) -> dict[str, float]:
        """Losses by their name in the log, none where nothing predicts; draws the picture of that epoch, too."""
        model, latents, settings = self.train_step.model, self.train_step.latent, self.settings
        if model.predictor is None:
            return {}
        with autocast(settings.precision, self.train_step.device):
            values = validation_losses(model, self.batches(), latents, geometry=settings.trains_features)
            values |= self.train_step.method.validate(self.batches(), latents)
            if settings.num_reconstruct_samples and distributed.is_main():
                self._draw(self.folder / "open_loop" / f"epoch_{epoch}.png")
        return values

    def batches(self) -> Iterator[Batch]:
        """Return the same batches every time, spread over the data; of several processes each has some of them."""
        wanted = min(len(self.data), self.settings.val_batches * self.settings.batch_size)
        picks = torch.linspace(0, len(self.data) - 1, wanted).long()
        for chunk in picks.split(self.settings.batch_size)[distributed.rank() :: distributed.size()]:
            yield self._read(chunk).to(self.train_step.device)

    def _read(self, numbers: Tensor) -> Batch:
        return RetriedSamples(self.data, self.retry).__getitems__(numbers.tolist())

    def _draw(self, path: Path) -> None:
        rows = min(self.settings.num_reconstruct_samples, len(self.data))
        batch = self._read(torch.linspace(0, len(self.data) - 1, rows).long())
        images = None
        model = self.train_step.model
        if model.decoder is not None:
            samples, frames = batch.actions.shape[:2]
            every = torch.arange(samples * frames)
            images = self.train_step.images(batch, every // frames, every % frames).unflatten(0, (samples, frames))
        batch = batch.to(self.train_step.device)
        draw_open_loop(model, batch, self.train_step.latent, images, path, self.retry)


@torch.no_grad()
def validation_losses(
    model: WorldModel, batches: Iterable[Batch], latents: Latents, geometry: bool = False
) -> dict[str, float]:
    """Measure teacher-forcing losses, and the open-loop error at the last step beside that of a frame that stays.

    With ``geometry`` also how the latents lie, see ``models.latent_geometry``.
    """
    sums: dict[str, float] = {}
    first_frames: list[Tensor] = []
    weight = 0
    with planning_mode(model):
        for batch in batches:
            latent = latents(batch)
            loss = model.teacher_forcing_loss(model.windows(latent, batch.actions))
            errors, still = open_loop_errors(model, latent, batch.actions)
            values = {"loss": loss.total, "visual_loss": loss.visual, "proprio_loss": loss.proprio}
            values |= {"open_loop_visual": errors[-1], "nothing_moves_visual": still[-1]}
            if geometry:
                values |= _path_geometry(latent.visual.float())
                first_frames.append(latent.visual[:, 0].cpu())
            for name, value in values.items():
                sums[f"val_{name}"] = sums.get(f"val_{name}", 0.0) + value.item() * len(batch)
            weight += len(batch)
    means = weighted_means(sums, weight)
    used: dict[str, float] = {}
    if geometry:
        every = [frames for part in distributed.gather(first_frames) for frames in part]
        used = feature_spread(torch.cat(every))
    return means | {f"val_{name}": value for name, value in used.items()}


def _path_geometry(features: Tensor) -> dict[str, Tensor]:
    """How straight the paths of patches (B, F, P, D) and of whole frames are, and what distances tell of steps."""
    frames = features.flatten(2)
    return {
        "curvature": curvature(features),
        "frame_curvature": curvature(frames[:, :, None]),
        "step_correlation": step_correlation(frames).mean(),
    }


def open_loop_errors(model: WorldModel, latent: Latent, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Visual mean squared error (F - 1,) of a rollout from the first frame of (B, F), and of keeping that frame."""
    imagined = model.rollout(latent[:, :1], actions[:, : latent.num_frames - 1])
    error = (imagined.visual - latent.visual)[:, 1:].square().mean((0, 2, 3))
    still = (latent.visual[:, :1] - latent.visual)[:, 1:].square().mean((0, 2, 3))
    return error, still


@torch.no_grad()
def draw_open_loop(
    model: WorldModel, batch: Batch, latents: Latents, images: Tensor | None, path: Path, retry: Retry | None = None
) -> None:
    """Draw a picture of rollouts from the first frame of each sample.

    With a decoder: per sample a row of true frames (``images`` (B, F, 3, S, S)) and a row of imagined ones. Without:
    the error over the steps, beside that of a frame that stays.
    """
    with planning_mode(model):
        latent = latents(batch)
        if model.decoder is None or images is None:
            _draw_errors(*open_loop_errors(model, latent, batch.actions), path, retry)
            return
        imagined = model.rollout(latent[:, :1], batch.actions[:, : latent.num_frames - 1])
        decoded = (model.decode(imagined) + 1) * 127.5
    rows: list[list[np.ndarray]] = []
    for true, dreamt in zip(images, decoded, strict=True):
        rows += [list(to_uint8(true)), list(to_uint8(dreamt))]
    write_png(path, tile(rows, side=max(SMALLEST_TILE, images.shape[-1])), retry)


def _draw_errors(error: Tensor, still: Tensor, path: Path, retry: Retry | None) -> None:
    from matplotlib.figure import Figure  # slow to import, and only models without a decoder need it

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    steps = range(1, len(error) + 1)
    axes.plot(steps, still.cpu(), color="0.6", label="nothing moves")
    axes.plot(steps, error.cpu(), marker="o", label="model, open loop")
    axes.set(xlabel="model steps ahead", ylabel="visual mean squared error", ylim=(0, None))
    axes.legend()
    write_file(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120), retry)
