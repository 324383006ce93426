"""Trainings on data in the formats of other projects: to the last bit what they are on the data before."""

import pytest
import torch

from datasets.converting.conversion import TARGETS, Conversion
from datasets.formats import table_trajectories
from datasets.formats.wall import WallTrajectories
from datasets.trajectories import random_split
from tests.datasets.columns import columns
from tests.training.tiny import make_wall, run, weights

PACKAGES = {"zarr": "zarr", "hdf5": "h5py", "lerobot": "pyarrow", "lance": "lance"}
BRIEF = ("training.epochs=1", "training.max_batches=2")


@pytest.fixture(scope="module")
def wall(tmp_path_factory):
    return WallTrajectories(make_wall(tmp_path_factory.mktemp("data")) / "wall_single", split_ratio=0.7)


@pytest.fixture(scope="module")
def expected(wall, tmp_path_factory):
    """Weights after two steps on the released layout, by the kind of latent cache."""
    folder, place = tmp_path_factory.mktemp("runs"), f"env.dataset.data_path={wall.data_path}"
    caches = {name: f"training.latent_cache={name}" for name in ("none", "memory")}
    with pytest.MonkeyPatch.context() as patch:  # the order of the split is not kept, which rounds sums differently
        patch.setattr(table_trajectories, "random_split", lambda *how: [p.sort().values for p in random_split(*how)])
        return {name: weights(run(folder / name, *BRIEF, place, cache).model) for name, cache in caches.items()}


@pytest.mark.parametrize(("to", "cache"), [*(dict.fromkeys(PACKAGES, "none") | {"zarr": "memory"}).items()])
def test_two_steps_are_the_same_on_converted_data(wall, expected, to, cache, tmp_path):
    pytest.importorskip(PACKAGES[to], reason=f"the package {PACKAGES[to]} is not installed (docs/data.md)")
    images = "png" if to == "lerobot" else None
    place = Conversion(wall, to, tmp_path / f"wall{TARGETS[to].suffix}", images).run()
    chosen = (f"dataset={to}", f"env.dataset.data_path={place}", f"training.latent_cache={cache}")
    trained = weights(run(tmp_path / "run", *BRIEF, *chosen).model)
    assert trained.keys() == expected[cache].keys()
    assert all(torch.equal(tensor, expected[cache][name]) for name, tensor in trained.items())


def test_data_of_other_sizes_are_refused_before_a_model_is_trained(tmp_path):
    zarr = pytest.importorskip("zarr", reason="the package zarr is not installed (docs/data.md)")
    made = columns()
    group = zarr.open_group(str(tmp_path / "robot.zarr"), mode="w")
    for name, rows in made.values.items():
        group.create_array(f"data/{name}", data=rows)
    group.create_array("meta/episode_ends", data=made.lengths.cumsum())
    chosen = ("dataset=zarr", f"env.dataset.data_path={tmp_path / 'robot.zarr'}")
    with pytest.raises(ValueError, match=r"states of 2, 2, 3 entries, the environment wall has 2, 2, 2.*\.state"):
        run(tmp_path / "run", *BRIEF, *chosen)
