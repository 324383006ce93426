"""The data of a training: which trajectories, in which units, and images or latents of their frames."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.frames import FrameSource, ImageFrames, NoFrames
from datasets.trajectories import Trajectories
from datasets.units.normalizer import Normalizer
from datasets.windows import WindowDataset
from models.checkpoints.loading import stored_normalizer
from models.checkpoints.stored_architecture import CHANGEABLE
from models.interfaces import Decoder, Encoder
from training.checks import check_data, check_latent_cache
from training.config import TrainConfig
from training.latents.cache import FramesToEncode, LatentFrames
from training.latents.store import StoredLatents, latent_folder
from training.start import StartingModel, split_trajectories
from utils.links import LinkError
from utils.retry import Retry

CALIBRATION_FRAMES = 2048


@dataclass(frozen=True)
class TrainingData:
    """Trajectories, and how a training sees them.

    Attributes:
        trajectories: All there are.
        split: Numbers of those to train on and to validate on: "train" and "val".
        normalizer: Units of the model.
        action_quantiles: See ``Trajectories.action_quantiles``.
    """

    trajectories: Trajectories
    split: dict[str, list[int]]
    normalizer: Normalizer
    action_quantiles: Tensor

    @classmethod
    def open(cls, config: TrainConfig, start: StartingModel, explicit: Set[str]) -> TrainingData:
        """Open the data set.

        Raises:
            ValueError: If it does not fit the model, or an explicit setting the split.
        """
        trajectories: Trajectories = config.env.data.build()
        check_data(start, trajectories, config.env.sizes)
        split = split_trajectories(trajectories, start.checkpoint, config, explicit)
        normalizer = stored_normalizer(start.checkpoint, config.env.sizes) or trajectories.normalizer
        return cls(trajectories, split, normalizer, trajectories.action_quantiles())

    def windows(self, config: TrainConfig, start: StartingModel, device: torch.device) -> dict[str, WindowDataset]:
        """Return the samples of each part of the split; latents in the place of images are made here."""
        source = _frame_source(config, start, self, device)
        num_frames, skip = start.architecture.num_hist + 1, start.architecture.frameskip
        return {
            part: WindowDataset(self.trajectories, numbers, self.normalizer, num_frames, config.N, skip, source)
            for part, numbers in self.split.items()
        }


def calibrate(start: StartingModel, data: TrainingData, device: torch.device) -> None:
    """Let the fresh parts that want to measure something on the data do so."""
    encoder, decoder = start.model.encoder, start.model.decoder
    wanting: list[Encoder | Decoder] = [encoder] if "encoder" in start.fresh and encoder.saved_with_model else []
    wanting += [decoder] if "decoder" in start.fresh and decoder is not None and decoder.calibrates else []
    if wanting and encoder.observes == "visual":
        frames = _spread_frames(data.trajectories, data.split["train"]).to(device)
        for part in wanting:
            part.calibrate(frames)


def _spread_frames(trajectories: Trajectories, numbers: Sequence[int]) -> torch.Tensor:
    """Return frames from all over the training data, (n, 3, S, S)."""
    each = max(1, CALIBRATION_FRAMES // len(numbers))
    frames = []
    for number in numbers[:CALIBRATION_FRAMES]:
        length = int(trajectories.lengths[number])
        steps = torch.linspace(0, length - 1, min(each, length)).long()
        frames.append(trajectories.frames(number, steps.tolist()))
    return torch.cat(frames)


def _frame_source(config: TrainConfig, start: StartingModel, data: TrainingData, device: torch.device) -> FrameSource:
    """Return images, or latents in their place; these are encoded here, if they have not been."""
    training, encoder, cache = config.training, start.model.encoder, config.training.latent_cache
    check_latent_cache(training, encoder, config.model.train_encoder)
    if encoder.observes == "state":
        return NoFrames()
    if cache == "none":
        return ImageFrames(data.trajectories)
    numbers = sorted(data.split["train"] + data.split["val"])
    frames = FramesToEncode(data.trajectories, numbers, encoder, device, config.precision, training.latent_dtype)
    if cache == "memory":
        return LatentFrames(frames)
    folder = latent_folder(training.latent_dir, config.ckpt_path)
    if training.latent_dir is None and folder.is_symlink():
        raise LinkError(
            f"{folder} is a link to {str(folder.readlink())!r}, and nothing is written through links: remove it, or "
            "name the place of the latents (training.latent_dir=...)"
        )
    free = (*CHANGEABLE, "palettes")  # of which the name of one says enough
    shaping = {key: value for key, value in start.architecture.encoder.settings.items() if key not in free}
    settings = {**shaping, "img_size": start.architecture.img_size}
    return StoredLatents(frames, folder, settings, Retry(config.disk_patience_minutes))
