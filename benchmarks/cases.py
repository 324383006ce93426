"""The networks that are timed: encoder, a training step of each method, a planning step of each planner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from benchmarks.configs import CONFIG, composed
from benchmarks.measure import Case
from datasets.collection import Collection
from models.latent import Latent
from planning.cost import LatentGoalCost
from planning.noise import EpisodeNoise
from planning.objectives import GoalDistance
from training.assemble import build_trainer
from training.trainer import Trainer
from utils.cli import overridden_keys

METHODS = ("offline", "adversarial", "online")
SIZES: Mapping[str, list[str]] = {
    "small": ["experiment=wall_small"],
    # random weights have the speed of trained ones
    "full": ["env=wall", "encoder.weights=random", "training.batch_size=1", "model.train_decoder=false"],
}
"""Overrides of ``train.py`` for the demo's model, and for DINO-WM's at full size."""


def model_cases(size: str, folder: Path, device: torch.device) -> Iterator[Case]:
    """Encoder, training and planning of one model size; ``folder`` takes a small data set and run folders."""
    overrides = [*SIZES[size], f"env.dataset.data_path={_data(folder, size)}", "training.latent_cache=none"]
    trainers = {name: _trainer(overrides, name, folder, device) for name in METHODS}
    model = trainers["offline"].model
    batch = next(iter(trainers["offline"]._batches())).to(device)
    assert batch.visual is not None
    frames = batch.visual.flatten(0, 1)
    yield Case(f"{size}: encoder", "frames", len(frames), partial(_without_grad, model.encoder, frames))
    refreshed = trainers["online"]
    # at position 0 the memory is refreshed: plan, simulate, encode; at the next one it is only read
    yield Case(f"{size}: online step with refresh", "tasks", len(batch), partial(refreshed._train_step, batch))
    for name, trainer in trainers.items():
        trainer.position = 1
        yield Case(f"{size}: {name} step", "windows", len(batch) * 5, partial(trainer._train_step, batch))
    yield from _planning_cases(size, trainers["offline"], device)


def _planning_cases(size: str, trainer: Trainer, device: torch.device) -> Iterator[Case]:
    """One optimisation step of each planner at horizon 5; an item is one imagined rollout."""
    model = trainer.model.eval().requires_grad_(False)
    shape = (model.layout.num_patches, model.layout.visual_dim)
    for name, episodes, samples in (
        ("gd", 50 if size == "small" else 2, 1),
        ("cem", 10 if size == "small" else 1, 300),
    ):
        if size == "full" and name == "cem" and device.type == "cpu":
            samples = 16  # a full iteration would take a minute
        latent = [
            Latent(torch.randn(episodes, 1, *shape), torch.randn(episodes, 1, model.layout.proprio_dim)) for _ in "sg"
        ]
        start, goal = (z.map(lambda part: part.to(device)) for z in latent)
        action_dim = trainer.train_data[0].actions.shape[-1]
        cost = LatentGoalCost(model, GoalDistance(), start, torch.zeros(episodes, 0, action_dim, device=device), goal)
        options = {"opt_steps": 1} | ({"num_samples": samples, "topk": samples // 4} if name == "cem" else {})
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            planner = instantiate(compose(f"planner/{name}").planner, **options)
        actions = torch.zeros(episodes, 5, action_dim, device=device)

        def run(planner: Any = planner, cost: LatentGoalCost = cost, actions: Tensor = actions) -> object:
            return planner.optimize(cost, actions, EpisodeNoise(range(len(actions)), device))

        yield Case(f"{size}: {name} step, {episodes} episodes", "rollouts", episodes * samples, run)


@torch.no_grad()
def _without_grad(module: torch.nn.Module, values: Tensor) -> Tensor:
    return module(values)


def _data(folder: Path, size: str) -> Path:
    """A few trajectories, collected once."""
    pixels, count = (65, 40) if size == "small" else (224, 4)
    path = folder / f"wall_{pixels}"
    behaviour = instantiate(composed(["env=wall", "run_dir=unused"])["env"]["collector"])
    Collection(behaviour, path, n_rollout=count, image_size=pixels, image_dtype="uint8").run(1)
    return path


def _trainer(overrides: list[str], method: str, folder: Path, device: torch.device) -> Trainer:
    run = folder / f"run_{method}"
    chosen = [*overrides, f"method={method}", f"ckpt_path={folder / 'none'}", f"run_dir={run}"]
    if method == "online":
        chosen += ["method.planner.opt_steps=10"]
    return build_trainer(composed(chosen), overridden_keys(chosen), device)
