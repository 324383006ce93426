"""A model to time: its size, history and precision, and everything that is built from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.configs import composed, taken_overrides
from datasets.collect import collections
from datasets.collecting.config import CollectConfig
from launch.command_line import overridden_keys
from models.checkpoints.own_file import write_checkpoint
from planning.config import PlanConfig
from training.assemble import build_trainer
from training.config import TrainConfig
from training.trainer import Trainer
from utils.runtime import autocast

SIZES = {
    "small": ["experiment=wall_small", "training.latent_cache=none"],
    "learned": ["experiment=wall_resnet", "training.latent_cache=none"],
    "full": ["env=wall", "encoder.weights=random"],  # random weights have the speed of trained ones
    "projected": ["env=wall", "encoder.weights=random", "projector=channel"],
}
"""Overrides of ``train.py``: the demo's model, one with a learned encoder, DINO-WM's, and that with 8 channels."""
SMALL = ("small", "learned")  # those of 65 pixels
TRAIN, PLAN = "train", "plan"


@dataclass(frozen=True)
class Setting:
    """What all cases of one model share.

    Attributes:
        size: Key of ``SIZES``.
        history: H.
        precision: "float32" or "bf16".
        device: To run on.
        folder: Takes data sets, checkpoints and run folders.
        own: The user's Hydra overrides, taken where they fit.
        whole: Whether planning calls run to their end instead of a slice of them.
    """

    size: str
    history: int
    precision: str
    device: torch.device
    folder: Path
    own: tuple[str, ...] = ()
    whole: bool = False

    @property
    def title(self) -> str:
        """How the names of all cases begin."""
        return f"{self.size} H={self.history}" + (" bf16" if self.dtype == torch.bfloat16 else "")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the networks' matrix products."""
        return torch.bfloat16 if "bf16" in self.chosen_precision else torch.float32

    @property
    def chosen_precision(self) -> str:
        """The user's override wins."""
        said = [override.split("=", 1)[1] for override in self.own if override.startswith("precision=")]
        return said[-1] if said else self.precision

    @property
    def slices(self) -> bool:
        """Whether the machine is too slow for whole planning calls of this model."""
        return self.size not in SMALL and self.device.type == "cpu" and not self.whole

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The arithmetic that ``plan.py`` and ``train.py`` would use."""
        return autocast(self.chosen_precision, self.device)

    def train_config(self, method: str) -> tuple[TrainConfig, list[str]]:
        """The settings of a training, and the overrides they came from."""
        given = self._train_overrides(method)
        taken = [override for override in self.own if override in taken_overrides(given, TRAIN, self.own)]
        return composed(TrainConfig, given, TRAIN, self.own), [*given, *taken]

    def _train_overrides(self, method: str) -> list[str]:
        batch = 16 if self.size in SMALL else 1 if self.device.type == "cpu" else 8
        return [
            *SIZES[self.size],
            f"num_hist={self.history}",
            f"method={method}",
            "from_scratch=true",
            "model.train_decoder=false",
            f"training.batch_size={batch}",
            f"precision={self.precision}",
            f"env.dataset.data_path={self.folder / f'wall_{self.size}'}",
            f"ckpt_path={self.folder / 'none'}",
            f"run_dir={self.folder / f'{self.size}_{self.history}_{method}'}",
        ]

    def plan_config(self, planner: str, episodes: int, *more: str) -> PlanConfig:
        """The settings of an open-loop evaluation whose starts and goals need no data."""
        given = ["env=wall", f"planner={planner}", "goal_source=random_state", "n_plot_samples=0"]
        given += [f"n_evals={episodes}", f"ckpt_path={self.folder / f'{self.size}_{self.history}_offline'}"]
        given += [f"precision={self.precision}", f"run_dir={self.folder / 'plan'}", *more]
        return composed(PlanConfig, given, PLAN, self.own)

    def known_overrides(self) -> set[str]:
        """Pick those of the user's overrides that some case of this setting takes."""
        taken: set[str] = set()
        for method in ("offline", "adversarial", "online"):
            taken |= taken_overrides(self._train_overrides(method), TRAIN, self.own)
        for planner in ("gd", "cem"):
            taken |= taken_overrides([f"planner={planner}"], PLAN, self.own)
        return taken

    @contextlib.contextmanager
    def trainer(self, method: str) -> Iterator[Trainer]:
        """A trainer of the model from scratch, on a few trajectories of the Wall."""
        self._collect()
        config, overrides = self.train_config(method)
        trainer = build_trainer(config, overridden_keys(overrides), self.device)
        trainer.model.train()
        trainer.model.encoder.eval()
        try:
            yield trainer
        finally:
            trainer.close()

    def checkpoint(self) -> None:
        """Leave the untrained model behind as a training would, once."""
        folder = self.folder / f"{self.size}_{self.history}_offline"
        path = folder / "checkpoints" / "model_latest.safetensors"
        if not path.exists():
            with self.trainer("offline") as trainer:
                write_checkpoint(path, trainer.model, 0, trainer.files.about | {"step": 0}, with_encoder=True)

    def _collect(self) -> None:
        path = self.folder / f"wall_{self.size}"
        if not path.exists():
            pixels, count = (65, 40) if self.size in SMALL else (224, 10)
            sizes = [f"n_rollout={count}", f"image_size={pixels}", "image_dtype=uint8", f"data_path={path}"]
            for collection in collections(composed(CollectConfig, ["env=wall", *sizes], "collect")):
                collection.run(1)
