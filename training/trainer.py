"""The one training loop; methods plug into it."""

from __future__ import annotations

import collections
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tqdm import tqdm

from datasets.batch import Batch
from datasets.readers import RetriedSamples, one_line_if_a_reader_dies
from datasets.sampler import ResumableSampler
from datasets.windows import WindowDataset
from training.batch_loader import BatchLoader
from training.gradients import make_equal
from training.run_files import Progress, RunFiles
from training.step import TrainingStep
from training.step_metrics import FinishedStep, NonFiniteLossError
from training.validation import Validation
from utils import distributed
from utils.interrupts import StopRequested, StopSignals

log = logging.getLogger(__name__)


class Trainer:
    """Runs steps over a data set, epoch by epoch; validates, logs and saves on the way.

    Args:
        train_step: Makes one update.
        validation: What is measured at the end of an epoch.
        files: Saves the run, and continues it.
        train_data: Samples to train on.
        on_step: Called before every step, with this trainer and the batch; what they raise ends the training.

    Attributes:
        settings: How long, how often, how much.
        step: Updates made in all.
        epoch: Whole epochs behind it.
        position: Batches of the present epoch behind it.
        epoch_batches: Batches of an epoch.
        unread_steps: Steps whose numbers may stay unread: to read those of the newest, a GPU would have to finish it
            while nothing new is given to it.
    """

    def __init__(
        self,
        *,
        train_step: TrainingStep,
        validation: Validation,
        files: RunFiles,
        train_data: WindowDataset,
        on_step: Iterable[Callable[[Trainer, Batch], object]] = (),
    ) -> None:
        self.train_step, self.validation, self.files, self.train_data = train_step, validation, files, train_data
        self.model, self.method, self.on_step = train_step.model, train_step.method, list(on_step)
        self.folder, self.logger, self.settings = files.folder, files.logger, (settings := train_step.settings)
        rows = distributed.share(settings.batch_size).rows
        sampler = ResumableSampler(len(train_data), settings.batch_size, settings.seed, rows=rows)
        available = sampler.batches_per_epoch
        self.epoch_batches = min(available, settings.max_batches or available)
        samples = RetriedSamples(train_data, files.retry)
        self.loader = BatchLoader(samples, sampler, train_step.device, settings.num_workers, settings.seed)
        self.step, self.epoch, self.position = Progress()
        self.unread_steps = 1 if train_step.device.type == "cuda" else 0
        self._unread: collections.deque[FinishedStep] = collections.deque()

    def close(self) -> None:
        """Release what was started for this training, however it ended."""
        self.loader.close()
        self.method.close()
        if self.method.context.env is not None:
            self.method.context.env.close()
        self.logger.close()

    def fit(self) -> None:
        """Train to the end, from the saved state if the folder holds one.

        Raises:
            NonFiniteLossError: If a loss is not finite; no update is made with it, or after it.
            StopRequested: After a signal, once everything is saved.
            DiskError: If a disk stays full or away.
            ReaderError: If a process that reads samples died.
        """
        self.step, self.epoch, self.position = self.files.resume()
        make_equal(self.model)
        make_equal(self.train_step.regularizer)
        with StopSignals() as stop, one_line_if_a_reader_dies(self.folder):
            while self.epoch < self.settings.epochs:
                self._train_epoch(stop)
                self._finish_epoch()
                self._stop_together(stop)
        log.info("finished %d steps; weights: %s", self.step, self.files.weights_path())

    def batches(self) -> Iterator[Batch]:
        """This process's part of the rest of the epoch, on the device; its order depends on seed and epoch only."""
        return self.loader.epoch(self.epoch, self.position, self.epoch_batches)

    def _train_epoch(self, stop: StopSignals) -> None:
        self.model.train()
        if not self.settings.train_encoder:
            self.model.encoder.eval()
        if self.model.projector is not None:
            self.model.projector.train(self.settings.train_projector)
        begin, first = time.perf_counter(), self.position
        steps = self.settings.epochs * self.epoch_batches
        title = f"{self.method.name} epoch {self.epoch + 1}/{self.settings.epochs}"
        with tqdm(total=self.epoch_batches, initial=first, desc=title, unit="step", smoothing=0.05) as bar:
            for batch in self.batches():
                for callback in self.on_step:
                    callback(self, batch)
                numbers = self.train_step(batch, self.position, self.step / steps)
                self.position += 1
                self.step += 1
                rate = (self.position - first) / (time.perf_counter() - begin)
                speed = {"steps_per_second": rate, "data_wait": self.loader.wait_share()}
                self._unread.append(FinishedStep(self.step, self.position, batch.trajectory, numbers, speed))
                self._settle(self.unread_steps, bar)
                bar.update()
                self._stop_together(stop, bar)
                if self.position % self.settings.save_every_x_batch == 0:
                    self._settle(0, bar)
                    self._save()
            self._settle(0, bar)

    def _settle(self, keep: int, bar: tqdm[Any]) -> None:
        """Check and log the steps that came before the newest ``keep``."""
        while len(self._unread) > keep:
            done = self._unread.popleft()
            self._stop_if_not_finite(done)
            bar.set_postfix(loss=f"{done.numbers['loss']:.4f}", refresh=False)
            self.logger.log({"step": done.step, "epoch": self.epoch, **done.numbers, **done.speed})

    def _stop_if_not_finite(self, done: FinishedStep) -> None:
        value = done.numbers.objective
        if not math.isfinite(value):
            self._unread.clear()
            named = distributed.gather(None if done.numbers.own.isfinite() else done.trajectories[:8].tolist())
            culprits = next((numbers for numbers in named if numbers is not None), None)
            raise NonFiniteLossError(
                f"the loss is {value} at step {done.step} (epoch {self.epoch + 1}, batch {done.position}, trajectories "
                f"{culprits} ...); the weights were not updated. {self.files.last_good()}"
            )

    def _stop_together(self, stop: StopSignals, bar: tqdm[Any] | None = None) -> None:
        """Save and end after a signal to any of the processes: all after the same step.

        Args:
            stop: Signals to this process.
            bar: Of the epoch that is cut short; None after its end, when everything is saved.
        """
        number = distributed.largest(stop.received or 0)
        if number:
            if bar is not None:
                self._settle(0, bar)
                self._save()
            raise StopRequested(number)

    def _finish_epoch(self) -> None:
        self.epoch, self.position = self.epoch + 1, 0
        waited = self.loader.epoch_wait()  # before the validation, which is no waiting
        values = {**self.validation.measure(self.epoch), "data_wait": waited}
        self.logger.log({"step": self.step, "epoch": self.epoch, **values})
        log.info("epoch %d: %s", self.epoch, ", ".join(f"{k} {v:.4f}" for k, v in values.items()))
        self._save()

    def _save(self) -> None:
        self.files.save(Progress(self.step, self.epoch, self.position))
