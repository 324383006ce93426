"""Training steps, and the refresh of the online method's replay buffer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial

import torch

from benchmarks.measure import Case, Run, Work
from benchmarks.plain.model import PlainModel, plain_ways
from benchmarks.plain.online import plain_refresh
from benchmarks.plain.training import PlainAdversarial
from benchmarks.setting import Setting
from datasets.batch import Batch
from models.flops import ModelFlops
from planning.planners.gd import GDPlanner
from training.methods.online import Online
from training.trainer import Trainer

REFRESH_STEPS = 100  # of gradient descent, as method=online does by default
REFRESH_SLICE = 8  # the evaluation that closes a plan, and the encoding, must not weigh more than they do


def training_cases(setting: Setting) -> Iterator[Case]:
    """List the cases without the decoder: a step of teacher forcing, one of adversarial training, and a refresh."""
    for method in ("offline", "adversarial"):
        yield Case(f"{setting.title}: {method} step", partial(_step, setting, method), setting.dtype)
    yield Case(f"{setting.title}: online refresh", partial(_refresh, setting), setting.dtype)


def _batch(trainer: Trainer) -> Batch:
    return next(iter(trainer.batches()))


@contextlib.contextmanager
def _step(setting: Setting, method: str) -> Iterator[Work]:
    with setting.trainer(method) as trainer:
        batch = _batch(trainer)
        windows = trainer.train_data.num_windows
        flops = ModelFlops.of(trainer.model).training_step(windows, len(batch), method)
        plain = partial(_plain_step, trainer, batch) if method == "adversarial" else None
        yield Work(partial(trainer.train_step, batch), len(batch) * windows, "windows", flops, plain=plain)


def _plain_step(trainer: Trainer, batch: Batch) -> Mapping[str, Run]:
    plain = PlainAdversarial(PlainModel(trainer.model).in_training(), torch.Generator().manual_seed(0))
    return {"shipped": partial(plain.step, batch)}


@contextlib.contextmanager
def _refresh(setting: Setting) -> Iterator[Work]:
    with setting.trainer("online") as trainer:
        method, batch = trainer.method, _batch(trainer)
        assert isinstance(method, Online) and isinstance(method.planner, GDPlanner)
        steps = REFRESH_SLICE if setting.slices else method.planner.opt_steps
        method.planner.opt_steps = steps
        with setting.autocast(), torch.no_grad():
            latent = trainer.train_step.latent(batch)

        def run() -> object:
            with setting.autocast():
                return method.correct(batch, latent)

        done, whole = (_refresh_flops(trainer, method.planner, len(batch), each) for each in (steps, REFRESH_STEPS))
        sliced = f"{steps} gradient steps" if steps < REFRESH_STEPS else ""
        plain = partial(_plain_refreshes, trainer, method, batch)
        yield Work(run, len(batch), "tasks", done, plain=plain, whole=whole / done, sliced=sliced)


def _refresh_flops(trainer: Trainer, planner: GDPlanner, tasks: int, steps: int) -> float:
    flops = ModelFlops.of(trainer.model)
    context = planner.rollout.num_context or trainer.model.num_hist
    return tasks * (flops.gradient_plan(planner.horizon, context, steps) + (planner.horizon + 1) * flops.encoder)


def _plain_refreshes(trainer: Trainer, method: Online, batch: Batch) -> Mapping[str, Run]:
    context = method.context
    assert context.env is not None and isinstance(method.planner, GDPlanner)
    start = torch.randn(len(batch), method.planner.horizon, batch.actions.shape[2], device=batch.actions.device)
    seen = method.planner.rollout.num_context or trainer.model.num_hist
    more = (context.env, context.observer, batch, start, method.planner.opt_steps, seen)
    return plain_ways(trainer.model, lambda plain: plain_refresh(plain, *more))
