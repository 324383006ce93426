"""The one training loop; methods plug into it."""

from __future__ import annotations

import collections
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from datasets.batch import Batch
from datasets.frames import ImageFrames
from datasets.readers import RetriedSamples, one_line_if_a_reader_dies
from datasets.sampler import ResumableSampler
from datasets.windows import WindowDataset
from models.checkpoints.native import LATEST, write_checkpoint
from models.world_model import WorldModel
from planning.observer import Observer
from training.gradients import gather_rows, make_equal, sum_gradients, sum_numbers
from training.loading import BatchLoader
from training.methods.base import Method
from training.optimizers import Optimizers
from training.regularizer import Regularizer
from training.settings import TrainSettings
from training.state import broken_state, random_state, read_state, write_state
from training.step_metrics import OBJECTIVE, StepNumbers
from training.validation import draw_open_loop, validation_losses
from utils import distributed
from utils.files import remove_unfinished
from utils.interrupts import StopRequested, StopSignals
from utils.loggers import JsonLinesLogger
from utils.retry import Retry
from utils.runtime import autocast
from utils.tensor_files import tensor_bytes

log = logging.getLogger(__name__)


BEARABLE_WAIT = 0.05
"""Part of the time that a training may wait for data before it says so."""
SHORTEST_JUDGED = 20.0  # seconds of an epoch from which on such a statement means anything


class NonFiniteLossError(RuntimeError):
    """Training stopped before an update that would have destroyed the weights."""


@dataclass(frozen=True)
class FinishedStep:
    """A step whose numbers may still be on their way.

    Attributes:
        step: its number, from 1; position: the same within the epoch. trajectories: (B,) of its batch.
        numbers: losses and the like. speed: how fast it went.
    """

    step: int
    position: int
    trajectories: Tensor
    numbers: StepNumbers
    speed: dict[str, float]


class Trainer:
    """Runs a method over a data set, saves, resumes, validates.

    Args:
        model: on its device. method: what to train on, and which loss. optimizers: of the parts that change.
        train_data, val_data: windows. images: reads frames where latents stand in for them. observer: encodes frames.
        folder: of the run; ``checkpoints/`` in it. logger: gets numbers. settings: see there.
        about: facts that every checkpoint of the run carries, see ``models.checkpoints.native.Checkpoint``.
        save_encoder: False for a frozen encoder that its own weights file brings back.
        regularizer: of the features, where the encoder trains; None adds nothing to the loss.
        retry: while a disk is full or away; None gives up at once.
    """

    def __init__(
        self,
        model: WorldModel,
        method: Method,
        optimizers: Optimizers,
        train_data: WindowDataset,
        val_data: WindowDataset,
        images: ImageFrames,
        observer: Observer,
        folder: Path,
        logger: JsonLinesLogger,
        settings: TrainSettings,
        about: dict[str, Any],
        save_encoder: bool = True,
        regularizer: Regularizer | None = None,
        retry: Retry | None = None,
    ) -> None:
        self.model, self.method, self.optimizers, self.observer = model, method, optimizers, observer
        self.train_data, self.val_data, self.settings = train_data, val_data, settings
        self.folder, self.logger, self.about, self.save_encoder = folder, logger, about, save_encoder
        self.share = distributed.share(settings.batch_size)
        self.sampler = ResumableSampler(len(train_data), settings.batch_size, settings.seed, rows=self.share.rows)
        available = self.sampler.batches_per_epoch
        self.epoch_batches = min(available, settings.max_batches or available)
        self.step = self.epoch = self.position = 0
        self._unread: collections.deque[FinishedStep] = collections.deque()
        self.images = images
        self.regularizer = regularizer or Regularizer()
        self.retry = retry or Retry()
        samples = RetriedSamples(train_data, self.retry)
        self.loader = BatchLoader(samples, self.sampler, observer.device, settings.num_workers, settings.seed)

    def close(self) -> None:
        """Release what was started for this training, however it ended."""
        self.loader.close()
        self.method.close()
        self.logger.close()

    def fit(self) -> None:
        """Train to the end, from the saved state if the folder holds one.

        Raises:
            NonFiniteLossError: If a loss is not finite; no update is made with it, or after it.
            StopRequested: After a signal, once everything is saved.
            DiskError: If a disk stays full or away. ReaderError: If a process that reads samples died.
        """
        self._resume()
        make_equal(self.model)
        with StopSignals() as stop, one_line_if_a_reader_dies(self.folder):
            while self.epoch < self.settings.epochs:
                self._train_epoch(stop)
                self._finish_epoch()
                self._stop_together(stop)
        log.info("finished %d steps; weights: %s", self.step, self._weights_path(LATEST))

    def _train_epoch(self, stop: StopSignals) -> None:
        self.model.train()
        if not self.settings.train_encoder:
            self.model.encoder.eval()
        begin, first = time.perf_counter(), self.position
        title = f"{self.method.name} epoch {self.epoch + 1}/{self.settings.epochs}"
        with tqdm(total=self.epoch_batches, initial=first, desc=title, unit="step", smoothing=0.05) as bar:
            for batch in self._batches():
                numbers = self._train_step(batch)
                self.position += 1
                self.step += 1
                rate = (self.position - first) / (time.perf_counter() - begin)
                speed = {"steps_per_second": rate, "data_wait": self.loader.wait_share()}
                self._unread.append(FinishedStep(self.step, self.position, batch.trajectory, numbers, speed))
                self._settle(self._late, bar)
                bar.update()
                self._stop_together(stop, bar)
                if self.position % self.settings.save_every_x_batch == 0:
                    self._settle(0, bar)
                    self._save()
            self._settle(0, bar)

    @property
    def _late(self) -> int:
        """Steps whose numbers may stay unread: reading those of the newest would make a GPU wait for the processor."""
        return 1 if self.observer.device.type == "cuda" else 0

    def _settle(self, keep: int, bar: tqdm[Any]) -> None:
        """Check and log the steps that came before the newest ``keep``."""
        while len(self._unread) > keep:
            done = self._unread.popleft()
            self._stop_if_not_finite(done)
            bar.set_postfix(loss=f"{done.numbers['loss']:.4f}", refresh=False)
            self.logger.log({"step": done.step, "epoch": self.epoch, **done.numbers, **done.speed})

    def _stop_together(self, stop: StopSignals, bar: tqdm[Any] | None = None) -> None:
        """Save and end after a signal to any of the processes: all after the same step.

        Args:
            bar: of the epoch that is cut short; None after its end, when everything is saved.
        """
        number = distributed.largest(stop.received or 0)
        if number:
            if bar is not None:
                self._settle(0, bar)
                self._save()
            raise StopRequested(number)

    def _batches(self) -> Iterator[Batch]:
        """This process's part of the rest of the epoch, on the device; its order depends on seed and epoch only."""
        return self.loader.epoch(self.epoch, self.position, self.epoch_batches)

    def _train_step(self, batch: Batch) -> StepNumbers:
        """One update; on a GPU it may not have happened yet when this returns."""
        device = self.observer.device
        with autocast(self.settings.precision, device):
            features = self.features(batch)
            losses = {"loss": torch.zeros((), device=device)}
            if self.settings.train_predictor or self.settings.train_encoder or self.settings.train_initnet:
                losses = self.method.losses(batch, features, self.position)
            objective = losses["loss"]
            if self.settings.train_encoder and self.regularizer.acts:
                everything = gather_rows(features, self.share)
                terms = {k: v / distributed.size() for k, v in self.regularizer.losses(everything).items()}
                losses = {**losses, **terms}
                objective = objective + losses["regularizer_loss"]
            if self.settings.train_decoder:
                losses["decoder_loss"] = self._decoder_loss(batch, features.detach())
                objective = objective + losses["decoder_loss"]
        # this process has what its samples contribute: what is judged, logged and followed is the sum over all
        losses = sum_numbers({**losses, OBJECTIVE: objective})
        total = losses.pop(OBJECTIVE)
        self.optimizers.refuse_if_not_finite(total)
        self.optimizers.zero_grad()
        if objective.requires_grad:  # a process may have none of the decoder's frames
            objective.backward()
        sum_gradients(self.model.parameters())
        self.optimizers.step((self.step) / (self.settings.epochs * self.epoch_batches))
        with autocast(self.settings.precision, device):
            self.method.updated()
        return StepNumbers({**losses, **self.method.report()}, total, objective)

    def features(self, batch: Batch) -> Tensor:
        """Visual features (B, F, P, D): each distinct frame encoded once, with gradients only if the encoder trains."""
        if batch.latents is not None:
            return batch.latents.to(self.observer.device).float()  # half as much to copy, where they are kept so
        if self.settings.train_encoder:
            return self.model.encoder(batch.visual)
        return self.observer.features(batch.states, batch.visual)

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
        images = self._images(batch, picked // frames, picked % frames).to(features.device)
        drawn = self.model.decoder(features[picked // frames, picked % frames])
        return F.mse_loss(drawn.float(), images.float() / 127.5 - 1) * (len(picked) / count)

    def _images(self, batch: Batch, sample: Tensor, frame: Tensor) -> Tensor:
        """Images (n, 3, S, S) of some frames of a batch, two (n,) index tensors; read if latents took their place."""
        if batch.visual is not None:
            return batch.visual[sample, frame]
        step = batch.start.cpu()[sample] + self.train_data.frameskip * frame
        return self.images.read(batch.trajectory.cpu()[sample, None], step[:, None])[:, 0]

    def _stop_if_not_finite(self, done: FinishedStep) -> None:
        value = done.numbers.objective
        if not math.isfinite(value):
            self._unread.clear()
            named = distributed.gather(None if done.numbers.own.isfinite() else done.trajectories[:8].tolist())
            culprits = next((numbers for numbers in named if numbers is not None), None)
            raise NonFiniteLossError(
                f"the loss is {value} at step {done.step} (epoch {self.epoch + 1}, batch {done.position}, trajectories "
                f"{culprits} ...); the weights were not updated. {self._last_good()}"
            )

    def _stop_if_destroyed(self) -> None:
        """A finite loss can have an infinite gradient; the checkpoint on disk must not be replaced by its outcome."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                raise NonFiniteLossError(
                    f"{name} is not finite after step {self.step} (epoch {self.epoch + 1}, batch {self.position}); it "
                    f"was not saved. {self._last_good()}"
                )

    def _last_good(self) -> str:
        folder = self.folder / "checkpoints" if self._saved_before() else "none yet"
        return f"Last good checkpoint: {folder}. Lower the learning rates, or check the data"

    def _saved_before(self) -> bool:
        return self._weights_path(LATEST).exists()

    def _finish_epoch(self) -> None:
        self.epoch, self.position = self.epoch + 1, 0
        waited, seconds = self.loader.epoch_wait()
        values: dict[str, float] = {}
        if self.model.predictor is not None:
            with autocast(self.settings.precision, self.observer.device):
                values = validation_losses(
                    self.model, self._val_batches(), self.features, spread=self.settings.train_encoder
                )
                values |= self.method.validate(self._val_batches(), self.features)
                if self.settings.num_reconstruct_samples and distributed.is_main():
                    self._draw()
        self.logger.log({"step": self.step, "epoch": self.epoch, **values, "data_wait": waited})
        shown = {**values, "data_wait": waited}
        log.info("epoch %d: %s", self.epoch, ", ".join(f"{k} {v:.4f}" for k, v in shown.items()))
        if waited > BEARABLE_WAIT and seconds > SHORTEST_JUDGED:
            log.warning(
                "%.0f %% of this epoch's time went into waiting for data; set env.num_workers (now %d) to more, or "
                "keep the encoded frames: training.latent_cache=memory or disk",
                100 * waited,
                self.loader.num_workers,
            )
        self._save()

    def _val_batches(self) -> Iterator[Batch]:
        """The same batches every time, spread over the validation set; of several processes each has some of them."""
        wanted = min(len(self.val_data), self.settings.val_batches * self.settings.batch_size)
        picks = torch.linspace(0, len(self.val_data) - 1, wanted).long()
        for chunk in picks.split(self.settings.batch_size)[distributed.rank() :: distributed.size()]:
            yield self._val_samples(chunk).to(self.observer.device)

    def _val_samples(self, picks: Tensor) -> Batch:
        return self.retry.read("samples", lambda: self.val_data.__getitems__(picks))

    def _draw(self) -> None:
        rows = min(self.settings.num_reconstruct_samples, len(self.val_data))
        batch = self._val_samples(torch.linspace(0, len(self.val_data) - 1, rows).long())
        images = self._all_images(batch) if self.model.decoder is not None else None
        path = self.folder / "open_loop" / f"epoch_{self.epoch}.png"
        batch = batch.to(self.observer.device)
        self.retry.write(
            "the open-loop picture", lambda: draw_open_loop(self.model, batch, self.features, images, path)
        )

    def _all_images(self, batch: Batch) -> Tensor:
        """Images (B, F, 3, S, S) of a batch."""
        samples, frames = batch.actions.shape[:2]
        every = torch.arange(samples * frames)
        return self._images(batch, every // frames, every % frames).unflatten(0, (samples, frames))

    def _weights_path(self, epoch: int | str) -> Path:
        return self.folder / "checkpoints" / f"model_{epoch}.safetensors"

    def _save(self) -> None:
        """Each file is complete or not there at all; the state comes before the weights that may be made from it."""
        self._stop_if_destroyed()
        if self.position == 0 and self.epoch % self.settings.save_every_x_epoch == 0:
            self._write_weights(self.epoch)
        state: dict[str, Any] = {
            "step": self.step,
            "epoch": self.epoch,
            "position": self.position,
            "log": self.retry.write("the log", self.logger.position),
        }
        state |= {"model": self.model.state_dict(), "optimizers": self.optimizers.state_dict()}
        state |= {"method": self.method.state_dict()} | random_state()
        if distributed.is_main():
            self.retry.write("the training state", lambda: write_state(self.folder, state), tensor_bytes(state))
        self._write_weights(LATEST)
        self.method.committed()

    def _write_weights(self, epoch: int | str) -> None:
        if not distributed.is_main():
            return
        path, about = self._weights_path(epoch), self.about | {"step": self.step}
        self.retry.write(
            "the weights",
            lambda: write_checkpoint(path, self.model, self.epoch, about, self.save_encoder),
            tensor_bytes(self.model.state_dict()),
        )

    def _resume(self) -> None:
        if distributed.is_main():
            parts = [self.folder / name for name in ("checkpoints", "open_loop", "replay")]
            for folder in (self.folder, *parts, *parts[-1].glob("process_*")):
                remove_unfinished(folder)
        state = read_state(self.folder)
        if state is None:
            self.logger.rewind(0)
            return
        try:
            self.model.load_state_dict(state["model"])
            self.optimizers.load_state_dict(state["optimizers"])
            self.method.load_state_dict(state["method"])
            self.logger.rewind(state["log"])
            self.step, self.epoch, self.position = state["step"], state["epoch"], state["position"]
        except (KeyError, TypeError, RuntimeError) as error:  # complete, but of another model or version
            raise broken_state(self.folder, error) from None
        self._write_weights(LATEST)  # a kill may have come between the two files
        log.info("resuming %s at epoch %d, batch %d", self.folder, self.epoch + 1, self.position + 1)
