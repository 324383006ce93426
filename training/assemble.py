"""From a composed config to a trainer: everything is built and checked here, before the first step."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set

import torch

from datasets.frames import FrameSource, ImageFrames, NoFrames
from datasets.trajectories import Trajectories
from datasets.units.normalizer import Normalizer
from datasets.windows import WindowDataset
from models.checkpoints.architecture import CHANGEABLE
from models.checkpoints.loading import stored_normalizer
from models.checkpoints.native import parentage, write_model_config
from models.interfaces import Decoder, Encoder
from planning.observer import Observer
from training.checks import (
    check_base,
    check_data,
    check_latent_cache,
    check_method,
    check_parent,
    check_processes,
    check_resumable,
    warn_of_moving_latents,
)
from training.config import TrainConfig, TrainingConfig
from training.latents.cache import FramesToEncode, LatentFrames
from training.latents.store import StoredLatents, latent_folder
from training.methods.base import Method, TrainingContext
from training.optimizers import LearningRates, Optimizers
from training.regularizer import Regularizer
from training.run_files import RunFiles
from training.settings import TrainSettings
from training.start import StartingModel, split_trajectories, starting_model
from training.step import TrainingStep
from training.trainer import Trainer
from training.validation import Validation
from utils import distributed
from utils.links import LinkError
from utils.loggers import run_logger
from utils.retry import Retry

log = logging.getLogger(__name__)

CALIBRATION_FRAMES = 2048
TRAINED = ("train_encoder", "train_predictor", "train_decoder", "train_proposal")
FINETUNING_LR, FROM_SCRATCH_LR = 1e-5, 5e-4  # of the predictor; Source: DINO-WM's and the paper's settings


def build_trainer(config: TrainConfig, explicit: Set[str], device: torch.device) -> Trainer:
    """Everything a training run consists of.

    Raises:
        ValueError: If a setting, the data or the checkpoint does not fit; nothing has been written by then.
    """
    method = config.method.build()
    check_base(config, method)
    start = starting_model(config, explicit, device)
    folder, written = config.folder, {**config.recorded, **start.architecture}
    check_resumable(folder, written)
    model, settings = start.model, _settings(config, start, method)
    speed = config.speed.build()
    speed.install(model, trains=True)
    rates, fused = _rates(config.training, start), speed.fused_optimizers
    optimizers = Optimizers(model, rates, **_trained_parts(settings), fused=fused)
    check_method(method, settings)
    check_processes(settings)
    regularizer = _regularizer(config, start, settings)
    warn_of_moving_latents(model, settings)
    trajectories: Trajectories = config.env.data.build()
    check_data(start, trajectories)
    split = split_trajectories(trajectories, start.checkpoint, config, explicit)
    normalizer = stored_normalizer(start.checkpoint, config.env.sizes) or trajectories.normalizer
    action_range = trajectories.action_range()
    observer = Observer(model, normalizer, action_range=action_range)
    size, skip = start.architecture["img_size"], start.architecture["frameskip"]
    simulator = config.env.simulator.build(image_size=size) if method.needs_env else None
    advice = f"What was saved before is whole; continue with: python train.py resume={folder}"
    retry = Retry(config.disk_patience_minutes, folder / "hydra.yaml", advice)
    context = TrainingContext(
        model,
        observer,
        simulator,
        skip,
        settings.seed,
        folder,
        retry,
        settings.batch_size,
        sample_frames=config.N + start.architecture["num_hist"],
    )
    method.setup(context)
    _calibrate(start, trajectories, split["train"], device)
    source = _frame_source(config, start, trajectories, sorted(split["train"] + split["val"]), device)
    windows = _windows(config, start, trajectories, split, normalizer, source)
    about = parentage(start.checkpoint) | {
        "normalizer": normalizer.to_dict(),
        "validation": split["val"],
        "action_range": action_range.tolist(),
        "encoder_sha256": model.encoder.weights_sha256,
    }
    check_parent(folder, about)
    logger = run_logger(config.logger, config.recorded, folder)
    # a frozen encoder comes back from its own weights file, unless the base was trained with one of its own
    save_encoder = settings.train_encoder or model.encoder.saved_with_model or "encoder" not in start.fresh
    train_step = TrainingStep(
        model=model,
        method=method,
        optimizers=optimizers,
        observer=observer,
        frames=ImageFrames(trajectories),
        settings=settings,
        regularizer=regularizer,
    )
    validation = Validation(train_step=train_step, data=windows["val"], folder=folder, settings=settings, retry=retry)
    files = RunFiles(
        folder=folder,
        train_step=train_step,
        logger=logger,
        about=about,
        save_every_x_epoch=settings.save_every_x_epoch,
        save_encoder=save_encoder,
        retry=retry,
    )
    trainer = Trainer(train_step=train_step, validation=validation, files=files, train_data=windows["train"])
    if distributed.is_main():
        write_model_config(folder, written)
    return trainer


def _windows(
    config: TrainConfig,
    start: StartingModel,
    trajectories: Trajectories,
    split: Mapping[str, list[int]],
    normalizer: Normalizer,
    source: FrameSource,
) -> dict[str, WindowDataset]:
    """The samples of each part of ``split``."""
    num_frames, skip = start.architecture["num_hist"] + 1, start.architecture["frameskip"]
    return {
        part: WindowDataset(trajectories, numbers, normalizer, num_frames, config.N, skip, source)
        for part, numbers in split.items()
    }


def _regularizer(config: TrainConfig, start: StartingModel, settings: TrainSettings) -> Regularizer:
    """What acts on the features; warns of an encoder that stays random, or that nothing keeps from collapsing."""
    regularizer = config.regularizer.build()
    if regularizer.acts and not settings.train_encoder:
        raise ValueError(
            f"regularizer={regularizer.name} has no effect on an encoder that is not trained; set "
            "model.train_encoder=true, or regularizer=none"
        )
    encoder = start.model.encoder
    if "encoder" not in start.fresh or encoder.weights_sha256 is not None or not list(encoder.parameters()):
        return regularizer
    if not settings.train_encoder:
        log.warning("the encoder has random weights and model.train_encoder=false: it will stay random")
    elif not regularizer.acts:  # not an error: a short run without it is how one sees what it does
        log.warning(
            "model.train_encoder=true with random weights and regularizer=none: features that are the same for every "
            "frame are the easiest to predict, so the encoder will COLLAPSE (val_feature_std in the log falls to 0); "
            "set regularizer=vicreg"
        )
    return regularizer


def _settings(config: TrainConfig, start: StartingModel, method: Method) -> TrainSettings:
    given, parts = config.training, config.model
    names = ("epochs", "batch_size", "max_batches", "val_batches", "save_every_x_batch", "save_every_x_epoch",
             "num_reconstruct_samples", "decoder_frames", "seed")  # fmt: skip
    values = {name: getattr(given, name) for name in names}
    if config.debug:
        values |= {"epochs": 1, "max_batches": min(4, given.max_batches or 4), "val_batches": 2}
    decoder = start.model.decoder is not None
    wanted = parts.train_decoder
    return TrainSettings(
        **values,
        num_workers=config.env.num_workers,
        precision=config.precision,
        train_encoder=parts.train_encoder,
        train_predictor=parts.train_predictor and start.model.predictor is not None,
        train_decoder=decoder and "decoder" in start.fresh if wanted is None else wanted,
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
    )


def _trained_parts(settings: TrainSettings) -> dict[str, bool]:
    return {name: getattr(settings, name) for name in TRAINED}


def _calibrate(start: StartingModel, trajectories: Trajectories, numbers: Sequence[int], device: torch.device) -> None:
    """Let the fresh parts that want to measure something on the data do so."""
    encoder, decoder = start.model.encoder, start.model.decoder
    wanting: list[Encoder | Decoder] = [encoder] if "encoder" in start.fresh and encoder.saved_with_model else []
    wanting += [decoder] if "decoder" in start.fresh and decoder is not None and decoder.calibrates else []
    if wanting and encoder.observes == "visual":
        frames = _spread_frames(trajectories, numbers).to(device)
        for part in wanting:
            part.calibrate(frames)


def _spread_frames(trajectories: Trajectories, numbers: Sequence[int]) -> torch.Tensor:
    """Frames from all over the training data, (n, 3, S, S)."""
    each = max(1, CALIBRATION_FRAMES // len(numbers))
    frames = []
    for number in numbers[:CALIBRATION_FRAMES]:
        length = int(trajectories.lengths[number])
        steps = torch.linspace(0, length - 1, min(each, length)).long()
        frames.append(trajectories.frames(number, steps.tolist()))
    return torch.cat(frames)


def _frame_source(
    config: TrainConfig,
    start: StartingModel,
    trajectories: Trajectories,
    numbers: Sequence[int],
    device: torch.device,
) -> FrameSource:
    """Images, or latents in their place; these are encoded here, if they have not been."""
    training, encoder, cache = config.training, start.model.encoder, config.training.latent_cache
    check_latent_cache(training, encoder, config.model.train_encoder)
    if encoder.observes == "state":
        return NoFrames()
    if cache == "none":
        return ImageFrames(trajectories)
    frames = FramesToEncode(trajectories, numbers, encoder, device, config.precision, training.latent_dtype)
    if cache == "memory":
        return LatentFrames(frames)
    folder = latent_folder(training.latent_dir, config.ckpt_path)
    if training.latent_dir is None and folder.is_symlink():
        raise LinkError(
            f"{folder} is a link to {str(folder.readlink())!r}, and nothing is written through links: remove it, or "
            "name the place of the latents (training.latent_dir=...)"
        )
    free = (*CHANGEABLE, "palettes")  # of which the name of one says enough
    shaping = {key: value for key, value in start.architecture["encoder"].items() if key not in free}
    settings = {**shaping, "img_size": start.architecture["img_size"]}
    return StoredLatents(frames, folder, settings, Retry(config.disk_patience_minutes))
