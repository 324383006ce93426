"""The settings of ``python -m datasets.preview``; ``conf/preview.yaml`` says what each means."""

from __future__ import annotations

from dataclasses import dataclass

from envs.config import EnvConfig
from utils.ranges import CountOrZero, Seed, Small, TrajectoryCount
from utils.schema import OpenSettings


@dataclass(frozen=True, kw_only=True)
class PreviewConfig(OpenSettings):
    """How much is looked at, which windows will be cut, and where the page goes."""

    env: EnvConfig
    episodes: TrajectoryCount | None
    frame_episodes: CountOrZero | None
    replay_episodes: CountOrZero
    seed: Seed
    num_hist: Small
    num_pred: Small
    N: Small
    frameskip: Small
    out_dir: str

    @property
    def window(self) -> int:
        """Raw steps that one sample of a training spans."""
        return (self.N + self.num_hist + self.num_pred - 1) * self.frameskip
