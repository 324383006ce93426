"""Small data sets in memory and on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.trajectories import Trajectories, random_split, valid_rows
from datasets.units.normalizer import Normalizer


class InMemory(Trajectories):
    """Trajectories of arrays, of unequal lengths, with a padded time axis."""

    name = "in_memory"

    def __init__(self, states, actions, images, lengths, proprio_columns=None):
        self.states = list(states)
        self.actions = list(actions)
        self.images = images
        self.lengths = torch.as_tensor(lengths)
        self.frame_size = images.shape[-1]
        self.proprio_columns = proprio_columns or list(range(self.states[0].shape[-1]))
        self.normalizer = Normalizer.fit(*valid_rows(self))
        self.frames_read = []

    def proprio(self, trajectory: int) -> Tensor:
        return self.states[trajectory][:, self.proprio_columns]

    def frames(self, trajectory: int, steps: Sequence[int]) -> Tensor:
        self.frames_read.append((trajectory, list(steps)))
        return self.images[trajectory][list(steps)]

    def layout(self, trajectory: int) -> dict[str, Tensor]:
        return {"number": torch.tensor([float(trajectory)])}

    def train_val(self) -> tuple[Tensor, Tensor]:
        return random_split(len(self), 0.5, 42)


@pytest.fixture
def in_memory():
    """The class above."""
    return InMemory


@pytest.fixture(scope="session")
def slicer() -> dict[str, np.ndarray]:
    """Slices, statistics and items of the earlier release's slicer, recorded on six small trajectories."""
    with np.load(Path(__file__).parent.parent / "golden" / "slicer.npz") as recorded:
        return {name: recorded[name] for name in recorded.files}


@pytest.fixture(params=["pusht", "point_maze", "wall"])
def recorded(request, slicer):
    """(name, trajectories) of each recorded data set, built from its raw arrays."""
    name = request.param
    raw = {key.split("/")[1]: torch.from_numpy(value) for key, value in slicer.items() if key.startswith(f"{name}/raw")}
    states, columns = raw["raw_states"], None
    actions = raw.get("raw_actions")
    if name == "pusht":
        states = torch.cat([states, raw["raw_velocities"]], -1)
        actions, columns = raw["raw_rel_actions"] / 100, [0, 1, 5, 6]
    lengths = [states.shape[1]] * len(states) if name == "wall" else slicer["seq_lengths"]
    images = torch.from_numpy(slicer["frames_u8"]).permute(0, 1, 4, 2, 3)
    return name, InMemory(states, actions, images, lengths, columns)


@pytest.fixture
def wall_folder(tmp_path):
    """Write a small ``wall_single`` folder; returns the function and leaves each file open to be spoilt by a test."""

    def write(count=6, num_steps=12, size=8, dtype=torch.float32, tables=torch.float32) -> Path:
        generator = torch.Generator().manual_seed(0)
        folder = tmp_path / "wall_single"
        (folder / "obses").mkdir(parents=True)
        shape = (count, num_steps)
        states = 4 + 56 * torch.rand(*shape, 2, generator=generator, dtype=torch.float64)
        torch.save(states.to(tables), folder / "states.pth")
        torch.save(torch.randn(*shape, 2, generator=generator, dtype=torch.float64).to(tables), folder / "actions.pth")
        torch.save(torch.arange(20.0, 20 + count)[:, None, None].expand(*shape, 1), folder / "door_locations.pth")
        torch.save(torch.full((*shape, 1), 32.0), folder / "wall_locations.pth")
        for number in range(count):
            frames = torch.randint(0, 256, (num_steps + 1, 3, size, size), generator=generator)
            torch.save(frames.to(dtype), folder / "obses" / f"episode_{number:03d}.pth")
        return folder

    return write
