"""A Wall small enough to train on in a second, and the shortest way from overrides to a trainer."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open

from envs.wall.expert import WallRandomWalk
from launch.command_line import overridden_keys, plain
from models.world_model import WorldModel
from tests.builders import wall_collection
from training.assemble import build_trainer
from training.config import TrainConfig
from training.trainer import Trainer
from utils.schema import parsed

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TRAJECTORIES, STEPS = 12, 40
SMALL = (
    "experiment=wall_small",
    "training.batch_size=4",
    "training.epochs=2",
    "training.max_batches=5",
    "training.val_batches=1",
    "training.num_reconstruct_samples=0",
    "training.decoder_frames=3",
    "training.latent_cache=none",
    "env.dataset.split_ratio=0.7",
    "device=cpu",
    "num_threads=1",
)
"""Overrides of a run that takes a second."""

STATE = ("experiment=wall_state", *SMALL[1:6], *SMALL[8:])
"""The same without images."""

BRIEF_PLANS = {
    "offline": [],
    "online": ["method=online", "replay_buffer_frequency=2", "method.planner.opt_steps=2"],
    "adversarial": ["method=adversarial"],
    "online_adversarial": [
        "method=online_adversarial",
        "replay_buffer_frequency=2",
        "planner@method.planner=mpc_gd",
        "method.planner.max_iter=2",
        "method.planner.sub_planner.opt_steps=2",
        "method.planner.sub_planner.num_starts=2",
        "method.tasks=random_state",
        "method.replay_sampling=all",
        "method.overlap=true",
        "radii_method=adaptive",
        "adversarial.pgd_steps=2",
        "adversarial.clean_weight=0.5",
        "adversarial.perturbation=action",
    ],
}
"""Overrides that choose a method and keep it short."""


def make_wall(folder: Path) -> Path:
    """``wall_single`` below ``folder``: 12 walks with doors and walls of their own, 65 pixels; returns ``folder``."""
    expert = WallRandomWalk(door_range=(20, 40), wall_range=(28, 36))
    wall_collection(folder / "wall_single", expert, n_rollout=TRAJECTORIES, num_steps=STEPS).run(num_workers=1)
    return folder


@contextlib.contextmanager
def config_folder() -> Iterator[None]:
    """Compose from the repository's ``conf``, whatever was initialised before."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        yield


@functools.cache
def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    with config_folder():
        return compose(name, overrides=list(overrides))


def composed(*overrides: str, name: str = "train", **values: object) -> dict[str, Any]:
    """A config as plain data; ``values`` are set afterwards, so that composing can be remembered between tests."""
    cfg = copy.deepcopy(_composed(name, overrides))
    for key, value in values.items():
        OmegaConf.update(cfg, key, value)
    return plain(cfg)


def train_config(*overrides: str, **values: object) -> TrainConfig:
    """The same for ``train.py``, typed."""
    return parsed(TrainConfig, composed(*overrides, **values))


def build(folder: Path, *overrides: str) -> Trainer:
    """The trainer of ``SMALL`` plus ``overrides``, of a run in ``folder``; ``ckpt_path`` is empty if not given.

    ``STATE`` among the overrides takes the place of ``SMALL``.
    """
    given = list(overrides) if "experiment=wall_state" in overrides else [*SMALL, *overrides]
    bases = [text for text in given if text.startswith("ckpt_path=")]
    base = bases[-1].split("=", 1)[1] if bases else str(folder.parent / "no_base")
    rest = tuple(text for text in given if text not in bases)
    finetunes = any(text.startswith("method=") and text != "method=offline" for text in rest)
    scratch = finetunes and not Path(base).exists()
    config = train_config(*rest, run_dir=str(folder), ckpt_path=base, from_scratch=scratch)
    return build_trainer(config, overridden_keys(given), torch.device("cpu"))


def run(folder: Path, *overrides: str) -> Trainer:
    """Train to the end."""
    trainer = build(folder, *overrides)
    trainer.fit()
    return trainer


def weights(model: WorldModel) -> dict[str, torch.Tensor]:
    """A copy of all tensors."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Parts of the model of which some tensor differs."""
    assert before.keys() == after.keys()
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def header(path: Path) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["world_model"])


def without_times(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, without the fields that depend on the machine."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("steps_per_second", "data_wait")} for line in lines]
