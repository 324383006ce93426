"""Networks and planners: a forward, a gradient, a step of each planner, a whole planning call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch

from benchmarks.asked import Asked, asked
from benchmarks.measure import Case, Run, Work
from benchmarks.plain.model import PlainModel, plain_ways
from benchmarks.plain.planning import PlainDescent, PlainProblem, plain_cem_step
from benchmarks.setting import Setting
from planning.planners.cem import CEMPlanner
from planning.planners.descent import Stage

EPISODES, GD_STEPS, CEM_STEPS, CEM_SAMPLES = 50, 100, 30, 300  # of a planning call in the paper's timing
LBFGS_STEPS = 20  # of one plan in a closed loop, as conf/planner/mpc_gd_lbfgs.yaml says
STEPS_AT_A_TIME = 2  # where whole planning calls are too slow; elsewhere enough for a CUDA graph to be worth it
STEPS_IN_A_ROW = 20


def network_cases(setting: Setting) -> Iterator[Case]:
    """The encoder; the predictor on each number of frames, forward alone and with the backward to its inputs."""
    yield Case(f"{setting.title}: encoder", partial(_encoder, setting), setting.dtype)
    for frames in range(1, setting.history + 1):
        named = f"{frames} frame" + "s" * (frames > 1)
        for gradient in (False, True):
            name = f"{setting.title}: predictor{' and gradient' * gradient}, {named}"
            yield Case(name, partial(_predictor, setting, frames, gradient), setting.dtype)


def planning_cases(setting: Setting) -> Iterator[Case]:
    """One step of each planner at horizon 5, and planning calls of the size of the paper's."""
    for name, build in (("gd step", _gd_step), ("cem step", _cem_step)):
        yield Case(f"{setting.title}: {name}", partial(build, setting), setting.dtype)
    for name, build in (
        (f"GD-Adam {GD_STEPS} steps, {EPISODES} episodes", _gd_call),
        (f"CEM {CEM_SAMPLES} x {CEM_STEPS}, {EPISODES} episodes", _cem_call),
        (f"L-BFGS {LBFGS_STEPS} steps, 1 episode", _lbfgs_call),
    ):
        yield Case(f"{setting.title}: {name}", partial(build, setting), setting.dtype)


@contextlib.contextmanager
def _encoder(setting: Setting) -> Iterator[Work]:
    with asked(setting, "gd", 1) as question:
        encoder = question.model.encoder
        count = 8 if setting.slices else 256
        side = question.task.env.image_size
        frames = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, device=setting.device)
        yield Work(torch.no_grad()(lambda: encoder(frames)), count, "frames", count * question.flops.encoder)


@contextlib.contextmanager
def _predictor(setting: Setting, frames: int, gradient: bool) -> Iterator[Work]:
    with asked(setting, "gd", 1) as question:
        model = question.model
        count = 4 if setting.slices else 64
        shape = (count, frames, model.layout.tokens_per_frame, model.layout.token_dim)
        tokens = torch.randn(shape, device=setting.device, requires_grad=gradient)

        def run() -> object:
            with torch.set_grad_enabled(gradient):
                predicted = model.predict_tokens(tokens)
                return torch.autograd.grad(predicted.sum(), tokens) if gradient else predicted

        yield Work(run, count, "calls", count * question.flops.predict(frames, "inputs" if gradient else "none"))


@contextlib.contextmanager
def _gd_step(setting: Setting) -> Iterator[Work]:
    episodes, steps = (1, STEPS_AT_A_TIME) if setting.slices else (EPISODES, STEPS_IN_A_ROW)
    with asked(setting, "gd", episodes) as question, contextlib.ExitStack() as others:
        flops = question.flops.gradient_plan(question.planner.horizon, question.context, steps, closing=False)

        def plain() -> Mapping[str, Run]:
            return {**_plain_descents(question, steps), **_other_descents(setting, question, steps, others)}

        yield Work(partial(_descend, question, steps), episodes * steps, "steps", episodes * flops, plain=plain)


def _descend(question: Asked, steps: int) -> object:
    start = question.request.start()[:, None]
    stages = [Stage(1, steps, range(steps))]
    return question.planner.descent.run(question.search(), start, question.request.noise, stages, steps)


def _other_descents(setting: Setting, question: Asked, steps: int, stack: contextlib.ExitStack) -> Mapping[str, Run]:
    """Our own with a fast path off, and of bf16 in float32."""
    ways: dict[str, Run] = {}
    episodes = len(question.task.problem)
    off = ["speed=plain"]
    if setting.device.type == "cpu":
        off += ["speed.cpu_kernels=false"] + ["speed.cpu_products=torch"] * (setting.dtype == torch.float32)
    for override in off:
        slow = stack.enter_context(asked(setting, "gd", episodes, override))
        ways[override] = partial(_descend, slow, steps)
    if setting.dtype == torch.bfloat16:
        with torch.autocast(setting.device.type, enabled=False):
            exact = stack.enter_context(asked(replace(setting, precision="float32"), "gd", episodes))
        ways["float32"] = torch.autocast(setting.device.type, enabled=False)(partial(_descend, exact, steps))
    return ways


def _plain_descents(question: Asked, steps: int) -> Mapping[str, Run]:
    problem, lr = question.plain_problem(), question.planner.descent.lr
    return plain_ways(question.model, lambda plain: descend_plainly(question, plain, problem, steps, lr))


def descend_plainly(question: Asked, plain: PlainModel, problem: PlainProblem, steps: int, lr: float) -> None:
    """Take so many steps in the loop of an earlier release."""
    start = question.request.start()
    with torch.autocast(start.device.type, enabled=False):  # the earlier release had none
        descent = PlainDescent(plain, problem, start, lr)
        for _ in range(steps):
            descent.step()


def _cem_sizes(setting: Setting) -> tuple[str, ...]:
    """Candidates of a timed iteration: all, or where that takes a minute, some."""
    return ("planner.num_samples=16", "planner.topk=4") if setting.slices else (f"planner.num_samples={CEM_SAMPLES}",)


@contextlib.contextmanager
def _cem_step(setting: Setting) -> Iterator[Work]:
    episodes = 1 if setting.slices else 10
    with asked(setting, "cem", episodes, "planner.opt_steps=1", *_cem_sizes(setting)) as question:
        planner: CEMPlanner = question.planner

        def run() -> object:
            return planner.refit(question.search(), question.request.start(), question.request.noise, reserve=0)

        count = episodes * planner.num_samples
        flops = count * question.flops.rollout(planner.horizon, question.context)
        yield Work(run, count, "candidates", flops, plain=partial(_plain_cem, question))


def _plain_cem(question: Asked) -> Mapping[str, Run]:
    problem, planner = question.plain_problem(), question.planner

    def run(plain: PlainModel) -> None:
        mean = question.request.start()
        draws = question.request.noise.randn(planner.num_samples, *mean.shape[1:])
        with torch.autocast(mean.device.type, enabled=False):
            plain_cem_step(plain, problem, mean, torch.ones_like(mean), draws, planner.topk)

    return plain_ways(question.model, run)


@contextlib.contextmanager
def _gd_call(setting: Setting) -> Iterator[Work]:
    episodes, steps = (1, STEPS_AT_A_TIME) if setting.slices else (EPISODES, GD_STEPS)
    with asked(setting, "gd", episodes, f"planner.opt_steps={steps}") as question:
        flops, horizon, context = question.flops, question.planner.horizon, question.context
        done = episodes * flops.gradient_plan(horizon, context, question.planner.opt_steps)
        whole = EPISODES * flops.gradient_plan(horizon, context, GD_STEPS)
        yield _call(question, episodes, done, whole, f"{episodes} episodes x {steps} steps")


@contextlib.contextmanager
def _cem_call(setting: Setting) -> Iterator[Work]:
    sliced = setting.slices or not setting.whole
    episodes, steps = 1 if setting.slices else EPISODES, 1 if sliced else CEM_STEPS
    with asked(setting, "cem", episodes, f"planner.opt_steps={steps}", *_cem_sizes(setting)) as question:
        planner = question.planner
        rollout = question.flops.rollout(planner.horizon, question.context)
        done = episodes * (planner.opt_steps * planner.num_samples + 1) * rollout
        whole = EPISODES * (CEM_STEPS * CEM_SAMPLES + 1) * rollout
        named = f"{episodes} episodes x {steps} iterations of {planner.num_samples}"
        yield _call(question, episodes, done, whole, named)


@contextlib.contextmanager
def _lbfgs_call(setting: Setting) -> Iterator[Work]:
    steps = STEPS_AT_A_TIME if setting.slices else LBFGS_STEPS
    with asked(setting, "gd_lbfgs", 1, f"planner.opt_steps={steps}") as question:
        flops, horizon, context = question.flops, question.planner.horizon, question.context
        done, whole = (flops.gradient_plan(horizon, context, each) for each in (steps, LBFGS_STEPS))
        yield _call(question, 1, done, whole, f"{steps} steps")


def _call(question: Asked, episodes: int, done: float, whole: float, named: str) -> Work:
    sliced = named if whole > 1.001 * done else ""
    return Work(question.request.plan, episodes, "episodes", done, whole=whole / done, sliced=sliced)
