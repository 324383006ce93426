"""The settings of ``python -m datasets.collect``; ``conf/collect.yaml`` says what each means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from envs.config import EnvConfig
from utils.machine import check_fits
from utils.ranges import Count, NonNegative, Processes, Seed, Side, TrajectoryCount
from utils.schema import OpenSettings


@dataclass(frozen=True, kw_only=True)
class CollectConfig(OpenSettings):
    """How many trajectories of which size, and where to."""

    env: EnvConfig
    vary: str | Sequence[str]
    n_rollout: TrajectoryCount | None
    n_val: TrajectoryCount | None
    num_steps: Count | None
    image_size: Side
    image_dtype: str | None
    seed: Seed
    data_path: str | None
    num_workers: Processes | None
    chunk_size: Count | None
    disk_patience_minutes: NonNegative

    def __post_init__(self) -> None:
        """Refuse trajectories of which not even the pixels fit into memory."""
        check_fits(3 * self.image_size, num_steps=self.num_steps or 1, image_size=self.image_size)
