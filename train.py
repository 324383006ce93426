"""Train or finetune a world model, e.g. ``python train.py env=wall method=online ckpt_path=outputs/wall_single``."""

from __future__ import annotations

from launch import startup

if __name__ == "__main__":
    startup.check_command_line("python train.py", __doc__, "train", entry="train")  # before torch is loaded

# isort: split
import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import contextlib
import logging
from collections.abc import Set
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from launch.command_line import one_line_errors, overridden_keys, parse
from launch.entry import recorded
from launch.processes import start, together
from launch.run_folder import run_folder
from training.assemble import build_trainer
from training.config import TrainConfig
from training.dry_run import dry_run
from training.state import FILENAME
from utils import distributed
from utils.files import sync_files
from utils.interrupts import StopRequested
from utils.loggers import last_value

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@one_line_errors
@recorded(__file__, state=f"checkpoints/{FILENAME}")
def main(cfg: DictConfig) -> float | None:
    """Compose, check, run; returns the last validation loss, by which a search compares runs."""
    config = parse(cfg, TrainConfig)
    explicit = overridden_keys(HydraConfig.get().overrides.task)
    if config.dry_run:
        distributed.require_alone("dry_run=true")
        dry_run(config, explicit, _prepared_device(config))
        return None
    folder = together(train, config, explicit)
    return last_value(folder / "logs.json", "val_loss")


def train(config: TrainConfig, explicit: Set[str]) -> Path:
    """Run the training that a config describes; returns its folder, which is a model directory.

    A folder that holds an unfinished run with the same settings is continued, bit for bit.

    Args:
        config: Settings of ``conf/train.yaml``.
        explicit: Keys that the user set; they must not contradict the checkpoint.

    Raises:
        ValueError: Before the first step, if a setting, the data or the checkpoint does not fit, or another process
            uses the folder.
        NonFiniteLossError: Before an update that would have destroyed the weights.
        StopRequested: After SIGINT or SIGTERM, once everything is saved.
    """
    with run_folder(config.folder) if distributed.is_main() else contextlib.nullcontext():
        return _train(config, explicit)


def _train(config: TrainConfig, explicit: Set[str]) -> Path:
    device = _prepared_device(config)
    trainer = build_trainer(config, explicit, device)
    sync_files(config.folder / ".hydra")  # resume= reads the command there, after a power loss too
    log.info("run folder: %s (continue it with: python train.py resume=%s)", config.run_dir, config.run_dir)
    try:
        trainer.fit()
    except StopRequested:
        log.warning("saved after step %d; continue with: python train.py resume=%s", trainer.step, config.run_dir)
        raise
    except KeyboardInterrupt:
        log.warning("the last complete save stands; continue with: python train.py resume=%s", config.run_dir)
        raise
    finally:
        trainer.close()
    return config.folder


def _prepared_device(config: TrainConfig) -> torch.device:
    device = runtime.pick_device(config.device)
    runtime.set_threads(config.num_threads)
    runtime.autocast(config.precision, device)  # refuses what it does not know
    return device


if __name__ == "__main__":
    start(main, train, state=f"checkpoints/{FILENAME}", sweeps="outputs/sweeps")
