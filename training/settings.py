"""How long a training lasts, and how often it saves, validates and draws."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSettings:
    """How long, how often, how much.

    Attributes:
        epochs: passes over the data, or over ``max_batches`` of it. batch_size: samples per step.
        max_batches: batches of an epoch; None means all. val_batches: of the validation set, per epoch.
        save_every_x_batch, save_every_x_epoch: of the training state, and of ``model_<epoch>``.
        num_reconstruct_samples: rows of the open-loop picture. decoder_frames: of each batch that train the decoder;
            None means all.
        num_workers: processes that read, see ``training.loading.BatchLoader``.
        seed: of sample order, dropout and methods.
        train_encoder, train_predictor, train_decoder, train_proposal: what changes.
        precision: see ``utils.runtime.autocast``.
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

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing."""
        for key in (
            "epochs",
            "batch_size",
            "val_batches",
            "save_every_x_batch",
            "save_every_x_epoch",
        ):
            if getattr(self, key) < 1:
                raise ValueError(f"training.{key} must be at least 1, got {getattr(self, key)}")
        for key in ("max_batches", "decoder_frames"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"training.{key} must be at least 1 or null, got {value}")
        if self.num_reconstruct_samples < 0 or (self.num_workers or 0) < 0:
            raise ValueError("training.num_reconstruct_samples and env.num_workers must not be negative")
