"""What a training will need, from a few of its steps in a folder that is thrown away."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch

from models.checkpoints.config_file import read_model_config
from models.checkpoints.native import LATEST, holds_checkpoint
from training.assemble import build_trainer
from training.checks import check_latent_cache, check_resumable
from training.config import TrainConfig
from training.latents.cache import FramesToEncode
from training.latents.store import LATENTS, latent_folder
from training.settings import TrainSettings
from training.state import FILENAME
from training.trainer import Trainer
from utils.loggers import read_json_lines
from utils.machine import (
    as_duration,
    as_size,
    available_memory,
    check_writable,
    existing_parent,
    folder_bytes,
    free_bytes,
    peak_memory,
)
from utils.retry import DiskError
from utils.schema import parsed

log = logging.getLogger(__name__)

MEASURED_STEPS = 4  # after a first one, which starts readers and simulators and compiles
BESIDES = {"disk_patience_minutes": 0.0, "logger": {"_target_": "utils.loggers.JsonLinesLogger"}}
LATEST_FILE = f"model_{LATEST}.safetensors"
UNCACHED = {"latent_cache": "none", "latent_dtype": "float32", "latent_dir": None}


@dataclasses.dataclass(frozen=True)
class _Rehearsal:
    """What was measured.

    Attributes:
        trainer: After its steps.
        settings, epoch_batches: Of the real run.
        seconds: Of a step, refreshes included.
        encoding: Of that, seconds that a latent cache saves.
        sizes: Bytes of the files in ``checkpoints``.
    """

    trainer: Trainer
    settings: TrainSettings
    epoch_batches: int
    seconds: float
    encoding: float
    sizes: dict[str, int]


def dry_run(config: TrainConfig, explicit: Set[str], device: torch.device) -> None:
    """Check every setting and path of a run, measure some steps, and say what the whole needs; writes nothing lasting.

    Args:
        config: Of the run.
        explicit: Keys that the user set.
        device: Of the training.

    Raises:
        ValueError: If a setting, the data or the checkpoint does not fit, or there is not enough room.
    """
    folder, training = config.folder, config.training
    check_writable("hydra.run.dir", folder)
    if training.latent_dir is not None:
        check_writable("training.latent_dir", Path(training.latent_dir))
    with tempfile.TemporaryDirectory(prefix="dry_run_") as scratch:
        asked = config.recorded
        brief = {"run_dir": scratch, "training": {**asked["training"], **UNCACHED}}
        trainer = build_trainer(parsed(TrainConfig, {**asked, **BESIDES, **_begun(config), **brief}), explicit, device)
        try:
            check_latent_cache(training, trainer.model.encoder, config.model.train_encoder)
            settled = read_model_config(Path(scratch) / "hydra.yaml")
            check_resumable(folder, {**settled, **{key: asked[key] for key in (*BESIDES, "training", "run_dir")}})
            done = _rehearse(trainer, cached=training.latent_cache != "none")
            lacking = _report(done, config, device)
        except DiskError as error:
            reason = str(error).split(";")[0]
            raise ValueError(f"dry_run=true needs room for one save: {reason}; set TMPDIR to another disk") from error
        finally:
            trainer.close()
    if lacking:
        raise ValueError(f"there is not enough room: {'; '.join(lacking)}")


def _begun(config: TrainConfig) -> dict[str, Any]:
    """What lets a run be rehearsed anew that has begun without a base."""
    begun = (config.folder / "checkpoints" / FILENAME).exists()
    return {"from_scratch": True} if begun and not holds_checkpoint(Path(config.ckpt_path)) else {}


def _rehearse(trainer: Trainer, cached: bool) -> _Rehearsal:
    settings, whole = trainer.settings, trainer.epoch_batches
    period = trainer.method.period
    steps = 1 + period * math.ceil(MEASURED_STEPS / period)
    trainer.epoch_batches = min(whole, steps)
    trainer.settings = trainer.validation.settings = dataclasses.replace(
        settings, epochs=1, val_batches=1, num_reconstruct_samples=0, save_every_x_batch=sys.maxsize
    )
    logging.disable(logging.INFO)  # of a loss that nobody asked for, and of weights that will be gone
    try:
        trainer.fit()
    finally:
        logging.disable(logging.NOTSET)
    lines = [line for line in read_json_lines(trainer.logger.path) if "loss" in line]
    times = [(number + 1) / line["steps_per_second"] for number, line in enumerate(lines)]
    seconds = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else times[0]
    sizes = {path.name: path.stat().st_size for path in (trainer.folder / "checkpoints").iterdir()}
    return _Rehearsal(trainer, settings, whole, seconds, _encoding_seconds(trainer) if cached else 0.0, sizes)


def _encoding_seconds(trainer: Trainer) -> float:
    """What encoding a batch's frames takes."""
    batch = next(iter(trainer.loader.epoch(0, 0, 1)))
    trainer.train_step.features(batch)
    begin = time.perf_counter()
    features = trainer.train_step.features(batch)
    features.flatten()[0].item()  # a GPU has finished by then
    return time.perf_counter() - begin


def _report(done: _Rehearsal, config: TrainConfig, device: torch.device) -> list[str]:
    """Say everything; returns what there is too little room for."""
    trainer, settings, folder, cache = done.trainer, done.settings, config.folder, config.training.latent_cache
    trajectories = trainer.train_step.frames.trajectories
    steps = settings.epochs * done.epoch_batches
    parameters = list(trainer.model.parameters())
    millions, trained = (sum(p.numel() for p in some) / 1e6 for some in (parameters, _trained(parameters)))
    _say("run", f"{folder}; nothing of this dry run is kept")
    if (folder / "checkpoints" / FILENAME).exists():
        _say("resume", "it holds a run with these settings, which would be continued")
    _say("model", f"{millions:.2f} M parameters, of which {trained:.2f} M are trained")
    place = getattr(trajectories, "data_path", None)  # a reader of the user's need not have one folder
    size = f"{as_size(folder_bytes(place))} in {place}" if place else "no data_path, so their size is not measured"
    _say("data", f"{len(trajectories)} trajectories, {size}")
    _say("samples", f"{len(trainer.train_data)} to train on, {len(trainer.validation.data)} to validate on")
    _say("steps", f"{done.epoch_batches} of {settings.batch_size} samples an epoch, {steps} in all")
    saved = f", {as_duration(done.encoding)} of encoding left out (latent_cache)" if done.encoding else ""
    step = done.seconds - done.encoding
    _say("time", f"{as_duration(step)} a step{saved}: {as_duration(step * done.epoch_batches)} an epoch, "
                 f"{as_duration(step * steps)} in all, without validation and start")  # fmt: skip
    replay = memory = _replay_bytes(trainer, steps)
    rooms = {folder: _checkpoint_bytes(done) + replay}
    kept = f"{as_size(_checkpoint_bytes(done))} of checkpoints" + (f", {as_size(replay)} of replay" if replay else "")
    _say("disk", f"{kept} in {folder}, where {as_size(free_bytes(folder))} are free")
    if cache != "none":
        latents = _latents(trainer, config, device)
        making = latents.shape[0] / (settings.batch_size * trainer.train_data.sample_frames) * done.encoding
        _say("latents", f"{latents.describe()}, {as_duration(making)} to make (latent_cache={cache})")
        if cache == "disk":
            where = latent_folder(config.training.latent_dir, config.ckpt_path)
            rooms[where] = 0 if (where / LATENTS).exists() else latents.num_bytes
            _say("", f"in {where}, where {as_size(free_bytes(where))} are free")
        else:
            memory += latents.num_bytes
    _say_memory(memory, trainer, device)
    return _lacking(rooms, memory)


def _replay_bytes(trainer: Trainer, steps: int) -> int:
    """What the replay buffer will take in memory, and on the disk, after so many steps."""
    method = trainer.method
    refreshes, so_far = (math.ceil(number / method.period) for number in (steps, trainer.step))
    return method.replay.expected_bytes(refreshes / so_far) if method.replay is not None else 0


def _say(what: str, text: str) -> None:
    log.info("%-9s %s", what, text)


def _trained(parameters: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    return [parameter for parameter in parameters if parameter.grad is not None]


def _checkpoint_bytes(done: _Rehearsal) -> int:
    """Size of the checkpoints at the end, plus what exists twice while the state is written."""
    every = [size for name, size in done.sizes.items() if name not in (FILENAME, LATEST_FILE)]
    kept = done.settings.epochs // done.settings.save_every_x_epoch
    return 2 * done.sizes[FILENAME] + done.sizes[LATEST_FILE] + kept * max(every, default=0)


def _latents(trainer: Trainer, config: TrainConfig, device: torch.device) -> FramesToEncode:
    numbers = torch.cat([trainer.train_data.trajectory, trainer.validation.data.trajectory]).unique().tolist()
    encoder, dtype = trainer.model.encoder, config.training.latent_dtype
    return FramesToEncode(trainer.train_step.frames.trajectories, numbers, encoder, device, config.precision, dtype)


def _say_memory(more: int, trainer: Trainer, device: torch.device) -> None:
    grows = f", growing by {as_size(more)}" if more else ""
    readers = f", and {trainer.loader.num_workers} processes that read" if trainer.loader.num_workers else ""
    _say("RAM", f"{as_size(peak_memory())}{grows}{readers}; {as_size(available_memory())} are available")
    if device.type == "cuda":
        used, there = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        _say("GPU", f"{as_size(used)} of {as_size(there)} ({torch.cuda.get_device_name(device)})")


def _lacking(rooms: Mapping[Path, int], memory: int) -> list[str]:
    """What there is too little of; folders of one disk share its room."""
    disks: dict[int, list[Path]] = defaultdict(list)
    for folder in rooms:
        disks[existing_parent(folder).stat().st_dev].append(folder)
    problems = []
    for folders in disks.values():
        needed, free = sum(rooms[folder] for folder in folders), free_bytes(folders[0])
        if needed > free:
            problems.append(
                f"{as_size(needed)} needed in {' and '.join(map(str, folders))}, {as_size(free)} free (fewer "
                "checkpoints: training.save_every_x_epoch; another disk: ckpt_path, hydra.run.dir, training.latent_dir)"
            )
    if memory > available_memory():
        problems.append(
            f"memory grows by {as_size(memory)}, {as_size(available_memory())} are available (lower "
            "method.replay_capacity, or set training.latent_cache=disk)"
        )
    return problems
