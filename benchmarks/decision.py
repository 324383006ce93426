"""One decision: encode one frame, and plan five blocks by L-BFGS with twenty gradients; and what a step consists of."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from torch.profiler import ProfilerActivity, profile

from benchmarks.asked import Asked, asked
from benchmarks.measure import Case, Run, Work
from benchmarks.plain.model import PlainModel
from benchmarks.planning import descend_plainly
from benchmarks.setting import Setting
from models.speed.packed_transformer import spent_in_transformers

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
    with asked(setting, "gd_lbfgs", 1, f"planner.opt_steps={GRADIENTS}") as question:
        plan = question.flops.gradient_plan(question.planner.horizon, question.context, GRADIENTS)
        yield Work(
            question.decide, 1, "decisions", question.flops.encoder + plan, plain=partial(_plain, question),
            plain_share=PLAIN_STEPS / GRADIENTS, parts=partial(parts_of, question.decide),
        )  # fmt: skip


def _plain(question: Asked) -> Mapping[str, Run]:
    model, problem = PlainModel(question.model).frozen(), question.plain_problem()
    return {"frozen": partial(descend_plainly, question, model, problem, PLAIN_STEPS, lr=0.1)}


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
