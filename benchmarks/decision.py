"""One decision: encode one frame, and plan five blocks by L-BFGS with twenty gradients; and what a step consists of."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Case, Run, Work
from benchmarks.plain.model import PlainModel
from benchmarks.plain.planning import PlainDescent
from benchmarks.planning import Asked
from benchmarks.setting import Setting
from models.speed.packed_transformer import spent_in_transformers
from planning.planners.gd_lbfgs import LBFGSPlanner
from planning.prepare_evaluation import prepare_evaluation

GRADIENTS = 20
PLAIN_STEPS = 2  # of the release's loop, where it takes seconds for each
SIZES = ("full", "projected")
PARTS: Mapping[str, tuple[str, ...]] = {
    "linear maps": ("mm", "addmm", "_linear_pointwise", "_mkl_linear", "mkldnn_linear", "mkldnn_convolution"),
    "attention": ("bmm", "baddbmm", "attend", "_scaled_dot_product", "_softmax"),
    "GELU": ("gelu",),
    "norm and residual": ("native_layer_norm", "add"),
}
"""Parts of a step, and how the names of their operations begin; all else is "other"."""


def decision_cases(setting: Setting) -> Iterator[Case]:
    """The decision, beside the loop of the earlier release in eval mode and with frozen weights."""
    yield Case(f"{setting.title}: decision", partial(_decision, setting), setting.dtype)


@contextlib.contextmanager
def _decision(setting: Setting) -> Iterator[Work]:
    setting.checkpoint()
    settings = setting.plan_config("gd_lbfgs", 1, f"planner.opt_steps={GRADIENTS}")
    with setting.autocast():
        evaluation = prepare_evaluation(settings, setting.device)
        controller, task = evaluation.controller, evaluation.task
        planner = controller.planner
        assert isinstance(planner, LBFGSPlanner)

        def decide() -> object:
            begun = task.start()
            return controller.request(task, begun, begun.active).plan()

        def step() -> None:
            planner.opt_steps = PLAIN_STEPS
            try:
                decide()
            finally:
                planner.opt_steps = GRADIENTS

        begun = task.start()
        question = Asked(task, controller.request(task, begun, begun.active))
        plan = question.flops.gradient_plan(planner.horizon, question.context, GRADIENTS)
        plain = partial(_plain, question, planner)
        try:
            yield Work(
                decide, 1, "decisions", question.flops.encoder + plan, plain=plain,
                plain_share=PLAIN_STEPS / GRADIENTS, parts=partial(parts_of, step),
            )  # fmt: skip
        finally:
            task.close()


def _plain(question: Asked, planner: LBFGSPlanner) -> Mapping[str, Run]:
    problem, model = question.plain_problem(), PlainModel(question.model).frozen()

    def run() -> None:
        start = question.request.start()
        with torch.autocast(start.device.type, enabled=False):  # the earlier release had none
            descent = PlainDescent(model, problem, start, lr=0.1)
            for _ in range(PLAIN_STEPS):
                descent.step()

    return {"frozen": run}


def parts_of(run: Callable[[], object]) -> dict[str, float]:
    """Run it once under torch's profiler; returns the share of its time that each of ``PARTS`` takes, and the rest."""
    spent_in_transformers()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        begin = time.perf_counter()
        run()
        whole = time.perf_counter() - begin
    found = dict.fromkeys([*PARTS, "other"], 0.0)
    for event in seen.key_averages():
        share = event.self_cpu_time_total / 1e6 / whole
        if event.key == "transformer":  # all of it is one call
            for part, seconds in spent_in_transformers().items():
                found[part] += seconds * share
        else:
            found[_part(event.key)] += share
    found["other"] += 1 - sum(found.values())  # Python's
    return found


def _part(operation: str) -> str:
    name = operation.rpartition("::")[2]
    return next((part for part, names in PARTS.items() if name.startswith(names)), "other")
