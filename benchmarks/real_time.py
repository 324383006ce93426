"""Decisions in real time: one episode on one core, while the other cores are idle or busy."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Case, Work
from benchmarks.setting import Setting
from models.latent import Latent
from planning.episodes import Episodes
from planning.evaluation import Evaluation
from planning.prepare_evaluation import prepare_evaluation
from utils.machine import available_cores

PLANNER = "mpc_gd_lbfgs"
IN_A_ROW = 300  # decisions, for a 99th percentile
BUSY = """
import os, numpy
parent, square = os.getppid(), numpy.random.rand(384, 384).astype("f4")
print("busy", flush=True)
while os.getppid() == parent:
    square @ square
"""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def real_time_cases(setting: Setting) -> Iterator[Case]:
    """A decision of the small model with a learned encoder, on one thread: alone, and beside busy cores."""
    learned = replace(setting, size="learned")
    for neighbours in ("idle", "busy"):
        name = f"real time: decision, other cores {neighbours}"
        yield Case(name, partial(_decisions, learned, neighbours == "busy"), learned.dtype)


@dataclass
class Decision:
    """What a robot's loop does between a frame and an action.

    Attributes:
        evaluation: One episode of a closed loop, at its start.
        episodes: Its state.
    """

    evaluation: Evaluation
    episodes: Episodes

    def __call__(self) -> Tensor:
        """Draw and encode the present frame, plan, and return the raw actions (1, n, A) that come next."""
        controller, task, rows = self.evaluation.controller, self.evaluation.task, self.episodes.active
        seen: Latent = task.observer.present(task.env, self.episodes.states, rows)
        self.episodes.visual, self.episodes.proprio = seen.visual, seen.proprio
        plan = controller.request(task, self.episodes, rows).plan()
        return task.observer.raw_actions(plan.actions[:, : controller.n_taken_actions])


@contextlib.contextmanager
def _decisions(setting: Setting, busy: bool) -> Iterator[Work]:
    setting.checkpoint()
    threads = torch.get_num_threads()
    with setting.autocast(), contextlib.ExitStack() as stack:
        evaluation = prepare_evaluation(setting.plan_config(PLANNER, 1), setting.device)
        stack.callback(evaluation.task.close)
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        _stir(evaluation.task.observer.model.require_predictor())
        decide = Decision(evaluation, evaluation.task.start())
        if busy:
            stack.enter_context(busy_cores(available_cores() - 1))
        yield Work(decide, 1, "decisions", in_a_row=IN_A_ROW)


@torch.no_grad()
def _stir(network: torch.nn.Module) -> None:
    """Move all weights a little: an untrained residual network predicts that no action has an effect."""
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.add_(torch.randn(weight.shape, generator=generator).to(weight.device), alpha=0.02)


@contextlib.contextmanager
def busy_cores(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Let so many processes multiply matrices meanwhile, each on one thread; they end with this one at the latest."""
    command, started = [sys.executable, "-c", BUSY], []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | ONE_THREAD)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()  # until it has begun
            started.append(process)
        yield started
