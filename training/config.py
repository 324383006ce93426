"""The settings of ``train.py``; ``conf/train.yaml`` says what each means."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from annotated_types import Interval
from torch import nn

from models.architecture import Architecture
from models.interfaces import Decoder, Encoder, Predictor, Projector, Proposal
from planning.config import RunConfig
from training.methods.base import Method
from training.regularizer import Regularizer
from utils.machine import check_fits
from utils.ranges import Count, EmbeddingSize, NonNegative, Period, Positive, Side, Small
from utils.schema import Component, Settings

Repeats = Annotated[int, Interval(ge=1, le=100)]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """The group ``training``: how long, how fast, how often; latents that are kept."""

    seed: Annotated[int, Interval(ge=0, le=2**31 - 1)]
    epochs: Count
    batch_size: Annotated[int, Interval(ge=1, le=2**16)]
    max_batches: Period | None
    predictor_lr: Positive | None
    action_encoder_lr: Positive
    decoder_lr: Positive
    encoder_lr: Positive
    projector_lr: Positive
    proposal_lr: Positive | None  # only with method=proposal
    weight_decay: NonNegative
    schedule: str
    save_every_x_batch: Period
    save_every_x_epoch: Period
    val_batches: Period
    num_reconstruct_samples: Annotated[int, Interval(ge=0, le=1000)]
    decoder_frames: Period | None
    latent_cache: str
    latent_dtype: str
    latent_dir: str | None


@dataclass(frozen=True, kw_only=True)
class TrainedParts(Settings):
    """The group ``model``: which parts change."""

    train_encoder: bool
    train_projector: bool | None
    train_predictor: bool
    train_decoder: bool | None


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """The settings of a training."""

    from_scratch: bool
    debug: bool
    dry_run: bool
    training: TrainingConfig
    model: TrainedParts
    method: Component[Method]
    regularizer: Component[Regularizer]
    N: Small

    encoder: Component[Encoder]
    predictor: Component[Predictor]
    decoder: Component[Decoder]
    action_encoder: Component[nn.Module]
    proprio_encoder: Component[nn.Module]
    proposal: Component[Proposal] | None
    projector: Component[Projector] | None
    num_hist: Small
    num_pred: Small
    frameskip: Small
    img_size: Side
    concat_dim: Annotated[int, Interval(ge=0, le=1)]
    action_emb_dim: EmbeddingSize
    proprio_emb_dim: EmbeddingSize
    num_action_repeat: Repeats
    num_proprio_repeat: Repeats
    has_predictor: bool
    has_decoder: bool
    proprio_per_patch: bool

    def __post_init__(self) -> None:
        """Refuse batches of which not even the pixels fit into memory."""
        sizes = {"training.batch_size": self.training.batch_size, "N": self.N, "img_size": self.img_size}
        check_fits(3 * self.img_size, **sizes)

    @property
    def architecture(self) -> Architecture:
        """The world model to train from scratch."""
        return Architecture(**{field.name: getattr(self, field.name) for field in fields(Architecture)})
