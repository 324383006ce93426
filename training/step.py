"""One update of the weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.batch import Batch
from datasets.frames import ImageFrames
from models.latent import Latent
from models.world_model import WorldModel
from planning.observer import Observer
from training.gradients import gather_rows, sum_gradients, sum_numbers
from training.methods.base import Method
from training.optimizers import Optimizers
from training.regularizer import Regularizer
from training.settings import TrainSettings
from training.step_metrics import OBJECTIVE, StepNumbers
from utils import distributed
from utils.runtime import autocast


@dataclass(kw_only=True)
class TrainingStep:
    """The losses of a batch, and the update that lowers them.

    Attributes:
        model: The networks, on their device.
        method: What to train on, and which loss.
        optimizers: Of the parts that change.
        observer: Encodes the frames of a frozen encoder.
        frames: Reads images where latents stand in for them.
        settings: Which parts change, and in which precision.
        regularizer: Of the features, where the encoder or the projector trains.
    """

    model: WorldModel
    method: Method
    optimizers: Optimizers
    observer: Observer
    frames: ImageFrames
    settings: TrainSettings
    regularizer: Regularizer = field(default_factory=Regularizer)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self.observer.device

    def __call__(self, batch: Batch, position: int = 0, progress: float = 0.0) -> StepNumbers:
        """Make one update; on a GPU it may not have happened yet when this returns.

        Args:
            batch: This process's part of the samples, on the device.
            position: Number of the batch in its epoch, from 0.
            progress: Part of the whole training that is done, in [0, 1).
        """
        with autocast(self.settings.precision, self.device):
            losses, objective = self._losses(batch, position)
        # this process has what its samples contribute: what is judged, logged and followed is the sum over all
        losses = sum_numbers({**losses, OBJECTIVE: objective})
        total = losses.pop(OBJECTIVE)
        self.optimizers.refuse_if_not_finite(total)
        self.optimizers.zero_grad()
        if objective.requires_grad:  # a process may have none of the decoder's frames
            objective.backward()
        sum_gradients([*self.model.parameters(), *self.regularizer.parameters()])
        self.optimizers.step(progress)
        with autocast(self.settings.precision, self.device):
            numbers = self.method.updated()
        return StepNumbers({**losses, **numbers}, total, objective)

    def _losses(self, batch: Batch, position: int) -> tuple[dict[str, Tensor], Tensor]:
        """Every loss by its name in the log, and the sum that is minimised."""
        settings, latent = self.settings, self.latent(batch)
        losses = {"loss": torch.zeros((), device=self.device)}
        if settings.train_predictor or settings.trains_features or settings.train_proposal:
            losses = self.method.losses(batch, latent, position)
        objective = losses["loss"]
        if settings.trains_features and self.regularizer.acts:
            everything = gather_rows(latent.visual, distributed.share(settings.batch_size))
            terms = {k: v / distributed.size() for k, v in self.regularizer.losses(everything).items()}
            losses = {**losses, **terms}
            objective = objective + losses["regularizer_loss"]
        if settings.train_decoder:
            losses["decoder_loss"] = self._decoder_loss(batch, latent.visual.detach())
            objective = objective + losses["decoder_loss"]
        return losses, objective

    def latent(self, batch: Batch) -> Latent:
        """Latents (B, F): what everything but the encoder sees of the frames."""
        return self.model.embed(self.features(batch), batch.proprio)

    def features(self, batch: Batch) -> Tensor:
        """The encoder's features (B, F, P, D): each distinct frame encoded once, with gradients only if that trains."""
        if batch.latents is not None:
            return batch.latents.to(self.device).float()  # half as much to copy, where they are kept so
        if self.settings.train_encoder:
            return self.model.encoder(batch.visual)
        return self.observer.features(batch.states, batch.visual)

    def images(self, batch: Batch, sample: Tensor, frame: Tensor) -> Tensor:
        """Images (n, 3, S, S) of some frames of a batch, two (n,) index tensors; read if latents took their place."""
        if batch.visual is not None:
            return batch.visual[sample, frame]
        raw_step = batch.start.cpu()[sample] + self.method.context.frameskip * frame
        return self.frames.read(batch.trajectory.cpu()[sample, None], raw_step[:, None])[:, 0]

    def _decoder_loss(self, batch: Batch, features: Tensor) -> Tensor:
        """Reconstruction error of some samples' frames; cut from the dynamics by the detached features.

        Of several processes each draws those of the picked frames that are its own.
        """
        assert self.model.decoder is not None, "Optimizers refuse to train what is not there"
        frames, share = features.shape[1], distributed.share_of_batch(len(batch), self.settings.batch_size)
        count = min(share.total * frames, self.settings.decoder_frames or share.total * frames)
        everywhere = torch.linspace(0, share.total * frames - 1, count).long()  # spread over samples and time
        picked = everywhere - share.first * frames
        picked = picked[(picked >= 0) & (picked < share.count * frames)]
        if not len(picked):
            return features.new_zeros(())
        if batch.visual is not None:
            picked = picked.to(features.device, non_blocking=True)  # or every indexing below would wait for the GPU
        images = self.images(batch, picked // frames, picked % frames).to(features.device)
        drawn = self.model.decoder(features[picked // frames, picked % frames])
        return F.mse_loss(drawn.float(), images.float() / 127.5 - 1) * (len(picked) / count)
