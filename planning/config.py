"""The settings of ``plan.py``, and those that ``train.py`` shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from envs.config import EnvConfig
from models.checkpoints.loading import EncoderConfig
from models.foreign.facts import Facts
from models.speed.fast_paths import FastPaths
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.planners.base import Planner
from utils.loggers import JsonLinesLogger
from utils.machine import check_fits
from utils.ranges import MemoryBudget, NonNegative, Processes, Seed
from utils.schema import Component, OpenSettings


@dataclass(frozen=True, kw_only=True)
class RunConfig(OpenSettings):
    """What every run has.

    Attributes:
        ckpt_path: Model to start from: a directory of ours or DINO-WM's, or what another program wrote.
        foreign: What files of other programs leave open.
        run_dir: Folder of the run.
        device: See ``utils.runtime.pick_device``.
        precision: See ``utils.runtime.autocast``.
        num_threads: Of torch on a CPU; None leaves them to torch.
        memory_budget_gb: For activations of rollouts, GB.
        disk_patience_minutes: How long a disk that is full or away is tried again.
    """

    env: EnvConfig
    speed: Component[FastPaths]
    logger: Component[JsonLinesLogger]
    ckpt_path: str
    foreign: Facts
    run_dir: str
    device: str
    precision: str
    num_threads: Processes | None
    memory_budget_gb: MemoryBudget
    disk_patience_minutes: NonNegative

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.run_dir)


@dataclass(frozen=True, kw_only=True)
class PlanConfig(RunConfig):
    """The settings of an evaluation; ``conf/plan.yaml`` says what each means."""

    planner: Component[Planner | MPCController]
    objective: Component[GoalDistance]
    encoder: EncoderConfig
    model_epoch: Annotated[int, Interval(ge=0, le=10**9)] | Literal["latest"]
    seed: Seed
    n_evals: Annotated[int, Interval(ge=1, le=10**5)]
    goal_source: str
    goal_file_path: str | None
    goal_H: Annotated[int, Interval(ge=1, le=10**4)]  # noqa: N815  (DINO-WM's name)
    unsolved_starts_only: bool
    vary: str | Sequence[str]
    n_plot_samples: Annotated[int, Interval(ge=0, le=1000)]
    debug_dset_init: bool
    save_latents: bool
    dynamics: Literal["model", "simulator"]

    def __post_init__(self) -> None:
        """Refuse plans of which not even the numbers fit into memory."""
        loop = self.planner.settings
        for name, planner in {"planner": loop, "planner.sub_planner": loop.get("sub_planner", {})}.items():
            for count in ("num_samples", "num_starts"):
                sizes = {f"{name}.{key}": planner[key] for key in (count, "horizon") if key in planner}
                check_fits(8, n_evals=self.n_evals, **sizes)  # two numbers of four bytes
