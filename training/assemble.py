"""Building a trainer from its settings: everything is built and checked here, before the first step."""

from __future__ import annotations

import logging
from collections.abc import Set

import torch

from datasets.frames import ImageFrames
from models.checkpoints.native import parentage, write_model_config
from models.speed.calibration import FASTEST
from models.speed.fast_paths import FastPaths
from planning.observer import Observer
from training.checks import (
    check_base,
    check_method,
    check_parent,
    check_processes,
    check_resumable,
    warn_of_moving_latents,
)
from training.config import TrainConfig, TrainingConfig
from training.data import TrainingData, calibrate
from training.methods.base import Method, TrainingContext
from training.optimizers import LearningRates, Optimizers
from training.regularizer import Regularizer
from training.run_files import RunFiles
from training.settings import TrainSettings
from training.start import StartingModel, starting_model
from training.step import TrainingStep
from training.trainer import Trainer
from training.validation import Validation
from utils import distributed
from utils.loggers import run_logger
from utils.retry import Retry

log = logging.getLogger(__name__)

TRAINED = ("train_encoder", "train_projector", "train_predictor", "train_decoder", "train_proposal")
FINETUNING_LR, FROM_SCRATCH_LR = 1e-5, 5e-4  # of the predictor; Source: DINO-WM's and the paper's settings


def build_trainer(config: TrainConfig, explicit: Set[str], device: torch.device) -> Trainer:
    """Build everything a training run consists of.

    Raises:
        ValueError: If a setting, the data or the checkpoint does not fit; nothing has been written by then.
    """
    method = config.method.build()
    check_base(config, method)
    start = starting_model(config, explicit, device)
    written = {**config.recorded, **start.architecture.as_dict()}
    check_resumable(config.folder, written)
    model, settings = start.model, _settings(config, start, method)
    regularizer = _regularizer(config, start, settings, device)
    speed = config.speed.build()
    optimizers = _fast_and_optimized(config, start, settings, regularizer, speed)
    check_method(method, settings)
    check_processes(settings)
    warn_of_moving_latents(model, settings)
    data = TrainingData.open(config, start, explicit)
    observer = Observer(model, data.normalizer, action_quantiles=data.action_quantiles)
    advice = f"What was saved before is whole; continue with: python train.py resume={config.folder}"
    retry = Retry(config.disk_patience_minutes, config.folder / "hydra.yaml", advice)
    method.setup(_context(config, start, settings, observer, retry, needs_env=method.needs_env))
    calibrate(start, data, device)
    windows = data.windows(config, start, device)
    train_step = TrainingStep(
        model=model,
        method=method,
        optimizers=optimizers,
        observer=observer,
        frames=ImageFrames(data.trajectories),
        settings=settings,
        regularizer=regularizer,
    )
    validation = Validation(
        train_step=train_step, data=windows["val"], folder=config.folder, settings=settings, retry=retry
    )
    files = _files(config, start, data, train_step, retry)
    trainer = Trainer(train_step=train_step, validation=validation, files=files, train_data=windows["train"])
    if distributed.is_main():
        write_model_config(config.folder, written)
        speed.keep(config.folder / FASTEST)
    return trainer


def _fast_and_optimized(
    config: TrainConfig, start: StartingModel, settings: TrainSettings, regularizer: Regularizer, speed: FastPaths
) -> Optimizers:
    """Make the model fast, and give its parts optimisers."""
    speed.install(start.model, trains=True, kept=config.folder / FASTEST)
    trained = {name: getattr(settings, name) for name in TRAINED}
    rates, fused = _rates(config.training, start), speed.fused_optimizers
    return Optimizers(start.model, rates, **trained, loss_weights=regularizer, fused=fused)


def _context(
    config: TrainConfig,
    start: StartingModel,
    settings: TrainSettings,
    observer: Observer,
    retry: Retry,
    needs_env: bool,
) -> TrainingContext:
    size = start.architecture.img_size
    return TrainingContext(
        model=start.model,
        observer=observer,
        env=config.env.simulator.build(image_size=size) if needs_env else None,
        frameskip=start.architecture.frameskip,
        seed=settings.seed,
        folder=config.folder,
        retry=retry,
        batch_size=settings.batch_size,
        sample_frames=config.N + start.architecture.num_hist,
    )


def _files(
    config: TrainConfig, start: StartingModel, data: TrainingData, train_step: TrainingStep, retry: Retry
) -> RunFiles:
    encoder, settings = start.model.encoder, train_step.settings
    about = parentage(start.checkpoint) | {
        "normalizer": data.normalizer.to_dict(),
        "validation": data.split["val"],
        "action_range": data.action_quantiles[[0, -1]].tolist(),
        "action_quantiles": data.action_quantiles.tolist(),
        "encoder_sha256": encoder.weights_sha256,
    }
    check_parent(config.folder, about)
    return RunFiles(
        folder=config.folder,
        train_step=train_step,
        logger=run_logger(config.logger, config.recorded, config.folder),
        about=about,
        save_every_x_epoch=settings.save_every_x_epoch,
        # a frozen encoder comes back from its own weights file, unless the base was trained with one of its own
        save_encoder=settings.train_encoder or encoder.saved_with_model or "encoder" not in start.fresh,
        retry=retry,
    )


def _regularizer(
    config: TrainConfig, start: StartingModel, settings: TrainSettings, device: torch.device
) -> Regularizer:
    """Build what acts on the features."""
    regularizer = config.regularizer.build()
    if regularizer.acts and not settings.trains_features:
        raise ValueError(
            f"regularizer={regularizer.name} has no effect on features that are not trained; set "
            "model.train_encoder=true, projector=channel (or model.train_projector=true for the one that the "
            "checkpoint brings), or regularizer=none"
        )
    with torch.random.fork_rng(devices=[]):  # by all processes alike, and the dropout that follows draws the same
        torch.default_generator.manual_seed(settings.seed)
        layout = start.model.layout
        regularizer.setup(config.N + start.architecture.num_hist, layout.num_patches, layout.visual_dim)
    _warn_of_collapse(start, settings, regularizer)
    return regularizer.to(device)


def _warn_of_collapse(start: StartingModel, settings: TrainSettings, regularizer: Regularizer) -> None:
    """Warn of parts that stay random, and of features that nothing keeps from collapsing."""
    drawn = [part for part in ("encoder", "projector", "predictor") if _is_drawn(start, part)]
    for part in drawn:
        if not getattr(settings, f"train_{part}"):
            log.warning("the %s has random weights and model.train_%s=false: it will stay random", part, part)
    if (
        "encoder" in drawn and settings.train_encoder and not regularizer.prevents_collapse
    ):  # no error: a short run without it shows what it does
        log.warning(
            "model.train_encoder=true with random weights and regularizer=%s: features that are the same for every "
            "frame are the easiest to predict, so the encoder will COLLAPSE (val_feature_std in the log falls to 0); "
            "set regularizer=vicreg, or regularizer.variance_weight above 0",
            regularizer.name,
        )
    elif settings.train_projector and not regularizer.acts:
        log.warning(
            "a projector trains with regularizer=none: at a high training.projector_lr it collapses (val_feature_std "
            "in the log falls towards 0)"
        )


def _is_drawn(start: StartingModel, part: str) -> bool:
    """Whether a part has weights that come from no file."""
    module = getattr(start.model, part)
    from_file = part == "encoder" and start.model.encoder.weights_sha256 is not None
    return part in start.fresh and module is not None and not from_file and any(True for _ in module.parameters())


def _settings(config: TrainConfig, start: StartingModel, method: Method) -> TrainSettings:
    given, parts = config.training, config.model
    names = ("epochs", "batch_size", "max_batches", "val_batches", "save_every_x_batch", "save_every_x_epoch",
             "num_reconstruct_samples", "decoder_frames", "seed")  # fmt: skip
    values = {name: getattr(given, name) for name in names}
    if config.debug:
        values |= {"epochs": 1, "max_batches": min(4, given.max_batches or 4), "val_batches": 2}
    if not method.trains_dynamics and start.model.proposal and not list(start.model.proposal.parameters()):
        log.info("the proposal has no weights to train: one epoch shows it all it needs (training.epochs is not used)")
        values["epochs"] = 1
    decoder, predictor = start.model.decoder is not None, start.model.predictor is not None
    new_projector = start.model.projector is not None and "projector" in start.fresh and predictor
    return TrainSettings(
        **values,
        num_workers=config.env.num_workers,
        precision=config.precision,
        train_encoder=parts.train_encoder,
        train_projector=new_projector if parts.train_projector is None else parts.train_projector,
        train_predictor=parts.train_predictor and predictor,
        train_decoder=decoder and "decoder" in start.fresh if parts.train_decoder is None else parts.train_decoder,
        train_proposal=not method.trains_dynamics,
    )


def _rates(training: TrainingConfig, start: StartingModel) -> LearningRates:
    default = FROM_SCRATCH_LR if "predictor" in start.fresh else FINETUNING_LR
    return LearningRates(
        encoder=training.encoder_lr,
        predictor=default if training.predictor_lr is None else training.predictor_lr,
        action_encoder=training.action_encoder_lr,
        decoder=training.decoder_lr,
        weight_decay=training.weight_decay,
        schedule=training.schedule,
        proposal=training.proposal_lr or LearningRates.proposal,
        projector=training.projector_lr,
    )
