"""How seconds and memory grow with what is asked for: ``python -m benchmarks --growth``.

Each axis is swept alone, everything else held. The local exponent says by which power of the axis the measure grew
from the point before: 1 is proportional, 2 quadratic. What was there before the work began is subtracted from memory.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.asked import asked
from benchmarks.memory import peak_gb
from benchmarks.setting import Setting
from envs.process_vector import ProcessVectorEnv
from envs.pusht.simulator import PushTSimulator
from planning.prepare_evaluation import prepare_evaluation
from utils.files import write_json
from utils.pages import save_figure

STEEP = 1.25  # local exponent from which on more than noise is behind it, if it is so at both of the last two points
NOTABLE = 0.05, 0.02  # seconds and GB below which nothing is said about growth
REPEATS = 3
PUSHT = f"{PushTSimulator.__module__}:{PushTSimulator.__name__}"


@dataclass(frozen=True)
class Axis:
    """A quantity that grows, and the work that it makes grow.

    Attributes:
        name: What, with its unit.
        values: Ascending.
        build: Makes the work of a value ready, and clears up afterwards.
        work: What one unit of work is, which is proportional to the value; "": work does not grow with it.
    """

    name: str
    values: Sequence[int]
    build: Callable[[int], contextlib.AbstractContextManager[Callable[[], object]]]
    work: str


@dataclass(frozen=True)
class Point:
    """A measured value of an axis: seconds of the fastest repeat, GB beyond what was there before."""

    value: int
    seconds: float
    gb: float


@dataclass(frozen=True)
class Curve:
    """All points of an axis, ascending."""

    axis: str
    work: str
    points: Sequence[Point]

    def exponents(self, of: str) -> list[float | None]:
        """Local exponents of "seconds" or "gb" at each point against the one before; None where too little is there."""
        least = NOTABLE[of == "gb"]
        found: list[float | None] = [None]
        for one, two in zip(self.points, self.points[1:], strict=False):
            before, after = getattr(one, of), getattr(two, of)
            known = before >= least and after >= least
            found.append(math.log(after / before) / math.log(two.value / one.value) if known else None)
        return found

    def steep(self, of: str) -> bool:
        """Whether it grows faster than its work towards the end."""
        limit = STEEP if self.work else STEEP - 1
        last = [each for each in self.exponents(of) if each is not None][-2:]
        return len(last) == 2 and min(last) > limit


def axes(setting: Setting) -> list[Axis]:
    """Episodes, horizon, samples and processes, each with all the work that depends on it."""
    small = replace(setting, size="small", history=1)
    few = ["planner.max_iter=2", "planner.sub_planner.opt_steps=4"]
    evaluations = partial(_evaluation, small, "mpc_gd_lbfgs", few)
    horizons = partial(_plan, small, "gd_lbfgs", 8, ["planner.opt_steps=5"], "planner.horizon")
    samples = partial(_plan, small, "cem", 4, ["planner.opt_steps=2", "planner.topk=3"], "planner.num_samples")
    return [
        Axis("episodes of an evaluation (L-BFGS)", (1, 3, 10, 30, 100, 300, 1000), evaluations, "episode"),
        Axis("horizon of a plan by gradient, blocks", (5, 10, 20, 35, 50), horizons, "block"),
        Axis("samples of CEM", (10, 30, 100, 300, 1000, 3000), samples, "sample"),
        Axis("processes of PushT, 32 episodes", (1, 2, 4, 8), _processes, ""),
    ]


@contextlib.contextmanager
def _evaluation(setting: Setting, planner: str, more: Sequence[str], episodes: int) -> Iterator[Callable[[], object]]:
    """A whole evaluation, files and all, in a folder of its own each time."""
    setting.checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(100))

        def run() -> object:
            own = f"run_dir={Path(folder, str(next(numbers)))}"
            evaluation = prepare_evaluation(setting.plan_config(planner, episodes, *more, own), setting.device)
            with contextlib.closing(evaluation.task), contextlib.redirect_stderr(io.StringIO()):  # its progress
                return evaluation.run()

        yield run


@contextlib.contextmanager
def _plan(
    setting: Setting, planner: str, episodes: int, more: Sequence[str], key: str, value: int
) -> Iterator[Callable[[], object]]:
    """One plan for a few episodes."""
    with asked(setting, planner, episodes, *more, f"{key}={value}") as question:
        yield question.request.plan


@contextlib.contextmanager
def _processes(count: int) -> Iterator[Callable[[], object]]:
    """Deal the same rollouts out to ``count`` processes."""
    env = ProcessVectorEnv(PUSHT, 96, num_workers=count)
    seeds = range(32)
    states, layouts = env.sample_start_goal(seeds)[0], env.default_layouts(len(seeds))
    actions = torch.rand(len(seeds), 50, 2, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2

    def run() -> object:
        env.reset(seeds, states, layouts)
        return env.rollout(actions, 5)

    try:
        yield run
    finally:
        env.close()


def measured(axis: Axis, device: torch.device, tell: Callable[[str], None]) -> Curve:
    """Measure an axis, saying a line a point."""
    points: list[Point] = []
    tell(f"\n{axis.name:52}{'s':>10}{'exponent':>10}{'GB more':>10}{'exponent':>10}")
    for value in axis.values:
        with axis.build(value) as run:
            run()  # what a process does once is no growth
            before = peak_gb(lambda: None, device)
            more = max(0.0, peak_gb(run, device) - before)
            points.append(Point(value, min(_seconds(run) for _ in range(REPEATS)), more))
        curve = Curve(axis.name, axis.work, points)
        last = [_exponent(curve.exponents(of)[-1]) for of in ("seconds", "gb")]
        tell(f"{value:52}{points[-1].seconds:10.3f}{last[0]:>10}{more:10.3f}{last[1]:>10}")
    for of in ("seconds", "gb"):
        if curve.steep(of):
            tell(f"{axis.name}: {of} grow faster than the work")
    return curve


def _seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _exponent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def write(curves: Sequence[Curve], about: dict[str, Any], path: Path) -> None:
    """Write all curves as JSON, and one figure beside it."""
    plain = [{"axis": c.axis, "work": c.work, "points": [vars(point) for point in c.points]} for c in curves]
    write_json(path, {**about, "growth": plain})
    save_figure(drawn(curves), path.with_suffix(".png"), "")


def drawn(curves: Sequence[Curve]) -> Figure:
    """Seconds above and memory below, an axis a column; the grey line is proportional to the work."""
    figure = Figure(figsize=(3.2 * len(curves), 5), layout="constrained")
    panels = figure.subplots(2, len(curves), squeeze=False)
    for column, curve in enumerate(curves):
        for row, (of, unit) in enumerate((("seconds", "s"), ("gb", "GB more"))):
            panel = panels[row][column]
            x = [point.value for point in curve.points]
            y = [max(getattr(point, of), 1e-4) for point in curve.points]
            panel.loglog(x, y, "o-", color="tab:blue")
            panel.loglog(x, [y[-1] * (each / x[-1] if curve.work else 1) for each in x], ":", color="0.6")
            panel.set_ylabel(unit)
            panel.set_title(curve.axis if not row else "", fontsize=8)
    return figure
