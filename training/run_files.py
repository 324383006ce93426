"""The files of a training run: weights, training state and log."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from models.checkpoints.native import LATEST
from models.checkpoints.own_file import write_checkpoint
from training.state import broken_state, random_state, read_state, write_state
from training.step import TrainingStep
from training.step_metrics import NonFiniteLossError
from utils import distributed
from utils.files import remove_unfinished
from utils.loggers import JsonLinesLogger
from utils.retry import Retry

log = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How far a training has come.

    Attributes:
        step: Updates made in all.
        epoch: Whole epochs behind it.
        position: Batches of the present epoch behind it.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0


@dataclass(kw_only=True)
class RunFiles:
    """Saves a training and continues it; whenever the process ends, what lies in the folder is complete.

    Attributes:
        folder: Of the run; ``checkpoints/`` in it.
        train_step: Whose model, optimisers and method are saved.
        logger: Its file is cut back to the saved state when a run is continued.
        about: Facts that every checkpoint of the run carries, see ``models.checkpoints.native.Checkpoint``.
        save_every_x_epoch: Epochs from one ``model_<epoch>`` to the next.
        save_encoder: False for a frozen encoder that its own weights file brings back.
        retry: While a disk is full or away.
    """

    folder: Path
    train_step: TrainingStep
    logger: JsonLinesLogger
    about: dict[str, Any]
    save_every_x_epoch: int = 1
    save_encoder: bool = True
    retry: Retry = field(default_factory=Retry)

    def weights_path(self, epoch: int | str = LATEST) -> Path:
        """Where the weights of an epoch are, or the newest."""
        return self.folder / "checkpoints" / f"model_{epoch}.safetensors"

    def last_good(self) -> str:
        """Say where to go on after a training that failed."""
        folder = self.folder / "checkpoints" if self.weights_path().exists() else "none yet"
        return f"Last good checkpoint: {folder}. Lower the learning rates, or check the data"

    def save(self, progress: Progress) -> None:
        """Write the training state, and then the weights that may be made from it.

        Raises:
            NonFiniteLossError: If an update has destroyed the weights; nothing is written.
            DiskError: If a disk stays full or away.
        """
        self._stop_if_destroyed(progress)
        if progress.position == 0 and progress.epoch % self.save_every_x_epoch == 0:
            self._write_weights(progress.epoch, progress)
        state = {
            **progress._asdict(),
            "log": self.retry.write("the log", self.logger.position),
            "model": self.train_step.model.state_dict(),
            "optimizers": self.train_step.optimizers.state_dict(),
            "method": self.train_step.method.state_dict(),
            "regularizer": self.train_step.regularizer.state_dict(),
            **random_state(),
        }
        if distributed.is_main():
            write_state(self.folder, state, self.retry)
        self._write_weights(LATEST, progress)
        if self.train_step.method.replay is not None:
            self.train_step.method.replay.committed()  # files that only older states needed may go

    def resume(self) -> Progress:
        """Put everything back as it was saved; the beginning if nothing was.

        Raises:
            ValueError: If the state is broken, or that of another training.
        """
        if distributed.is_main():
            parts = [self.folder / name for name in ("checkpoints", "open_loop", "replay")]
            for folder in (self.folder, *parts, *parts[-1].glob("process_*")):
                remove_unfinished(folder)
        state = read_state(self.folder)
        if state is None:
            self.logger.rewind(0)
            return Progress()
        try:
            self.train_step.model.load_state_dict(state["model"])
            self.train_step.optimizers.load_state_dict(state["optimizers"])
            self.train_step.method.load_state_dict(state["method"])
            self.train_step.regularizer.load_state_dict(state.get("regularizer", {}))
            self.logger.rewind(state["log"])
            progress = Progress(state["step"], state["epoch"], state["position"])
        except (KeyError, TypeError, RuntimeError) as error:  # complete, but of another model or version
            raise broken_state(self.folder, error) from None
        self._write_weights(LATEST, progress)  # a kill may have come between the two files
        log.info("resuming %s at epoch %d, batch %d", self.folder, progress.epoch + 1, progress.position + 1)
        return progress

    def _stop_if_destroyed(self, progress: Progress) -> None:
        """A finite loss can have an infinite gradient; the checkpoint on disk must not be replaced by its outcome."""
        for name, parameter in self.train_step.model.named_parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                raise NonFiniteLossError(
                    f"{name} is not finite after step {progress.step} (epoch {progress.epoch + 1}, batch "
                    f"{progress.position}); it was not saved. {self.last_good()}"
                )

    def _write_weights(self, name: int | str, progress: Progress) -> None:
        if not distributed.is_main():
            return
        about = self.about | {"step": progress.step}
        write_checkpoint(
            self.weights_path(name), self.train_step.model, progress.epoch, about, self.save_encoder, self.retry
        )
