"""How long a training lasts, and how often it saves, validates and draws."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSettings:
    """How long, how often, how much.

    Attributes:
        epochs: Passes over the data, or over ``max_batches`` of it.
        batch_size: Samples per step.
        max_batches: Batches of an epoch; None means all.
        val_batches: Batches of the validation set, per epoch.
        save_every_x_batch: Steps from one save of the training state to the next.
        save_every_x_epoch: Epochs from one ``model_<epoch>`` to the next.
        num_reconstruct_samples: Rows of the open-loop picture.
        decoder_frames: Frames of each batch that train the decoder; None means all.
        num_workers: Processes that read, see ``training.batch_loader.BatchLoader``.
        seed: Of sample order, dropout and methods.
        train_encoder: Whether the encoder changes; the same for the other parts.
        precision: See ``utils.runtime.autocast``.
    """

    epochs: int
    batch_size: int
    max_batches: int | None = None
    val_batches: int = 50
    save_every_x_batch: int = 500
    save_every_x_epoch: int = 1
    num_reconstruct_samples: int = 6
    decoder_frames: int | None = None
    num_workers: int | None = 0
    seed: int = 0
    train_encoder: bool = False
    train_predictor: bool = True
    train_decoder: bool = True
    precision: str = "auto"
    train_proposal: bool = False
    train_projector: bool = False

    @property
    def trains_features(self) -> bool:
        """Whether what the predictor sees of a frame changes."""
        return self.train_encoder or self.train_projector
