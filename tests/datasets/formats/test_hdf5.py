"""HDF5 files with flat columns and with groups, whole and spoilt."""

import pickle

import numpy as np
import pytest
import torch

from datasets.files import DatasetError
from datasets.formats.hdf5 import Hdf5Trajectories, RobomimicTrajectories
from datasets.windows import WindowDataset
from tests.datasets.columns import LENGTHS, columns

h5py = pytest.importorskip("h5py", reason="the package h5py is not installed: uv pip install h5py")


def flat(path, values, lengths):
    """As stable-worldmodel's writer does: chunks of one row."""
    offsets = np.cumsum(lengths) - lengths
    with h5py.File(path, "w", libver="latest") as file:
        file["ep_seed"] = np.arange(len(lengths))
        for name, rows in ({"ep_len": np.int32(lengths), "ep_offset": offsets} | values).items():
            file.create_dataset(name, data=rows, chunks=(1, *rows.shape[1:]))
    return path


def grouped(path, episodes, masks=None):
    """As robomimic's files are: a group for each episode, not in the order of their names."""
    with h5py.File(path, "w") as file:
        for number in reversed(range(len(episodes))):
            group = file.create_group(f"data/demo_{number + 8}")
            group.attrs["num_samples"] = len(episodes[number]["action"])
            group["actions"], group["states"] = episodes[number]["action"], episodes[number]["state"]
            group["obs/image"], group["obs/eef"] = episodes[number]["pixels"], episodes[number]["proprio"]
            group["next_obs/image"] = episodes[number]["pixels"]
            group["rewards"] = np.zeros(len(episodes[number]["action"]))
        for name, numbers in (masks or {}).items():
            file[f"mask/{name}"] = np.array([f"demo_{number + 8}" for number in numbers], "S")
    return path


@pytest.fixture
def made():
    return columns("pixels")


def test_flat_columns_are_read_in_place(made, tmp_path):
    data = Hdf5Trajectories("robot", data_path=str(flat(tmp_path / "a.h5", made.values, made.lengths)))
    assert data.frame_size == 8
    for number, episode in enumerate(made.episodes()):
        assert torch.equal(data.states[number], torch.from_numpy(episode["state"]))
        assert torch.equal(data.actions[number], torch.from_numpy(episode["action"])[:-1])
        images = torch.from_numpy(episode["pixels"]).movedim(-1, 1)
        assert torch.equal(data.frames(number, [6, 0, 6]), images[[6, 0, 6]])
    sample = WindowDataset(pickle.loads(pickle.dumps(data)), [3], data.normalizer, 2, 1, 2)[1]
    assert torch.equal(sample.visual[0], data.frames(3, [1, 3]))


def test_what_stable_worldmodel_writes_in_the_last_row_is_no_action(made, tmp_path):
    path, shorter = str(flat(tmp_path / "a.h5", made.values, made.lengths)), [length - 1 for length in LENGTHS]
    data = Hdf5Trajectories("robot", data_path=path)
    assert data.lengths.tolist() == shorter and data.frames(0, [8]).shape == (1, 3, 8, 8)
    assert Hdf5Trajectories("robot", data_path=path, last_action="keep").lengths.tolist() == list(LENGTHS)
    made.values["action"][made.lengths.cumsum() - 1] = np.nan
    path = str(flat(tmp_path / "nan.h5", made.values, made.lengths))
    assert Hdf5Trajectories("robot", data_path=path, last_action="keep").lengths.tolist() == shorter


@pytest.mark.parametrize(
    ("action", "remedy"),
    [(np.nan, r"Remove that episode: its only action is NaN\.$"), (0, "or set last_action=keep if its only action")],
)
def test_an_episode_of_one_row_is_refused_with_advice_that_helps(made, tmp_path, action, remedy):
    made.values["action"][-1] = action
    path = str(flat(tmp_path / "a.h5", made.values, [int(made.lengths.sum()) - 1, 1]))
    with pytest.raises(DatasetError, match=f"found one row in episode 1. .*{remedy}"):
        Hdf5Trajectories("robot", data_path=path)
    if action == 0:
        assert Hdf5Trajectories("robot", data_path=path, last_action="keep").lengths.tolist()[1] == 1


def test_a_ragged_column_is_refused_for_what_it_is(made, tmp_path):
    path = flat(tmp_path / "a.h5", made.values, made.lengths)
    with h5py.File(path, "r+") as file:
        rows = len(file["action"])
        del file["action"]
        file.create_dataset("action", rows, h5py.vlen_dtype(np.float32))
        file.create_dataset("task", rows, h5py.string_dtype())
    with pytest.raises(DatasetError, match="column action: expected numbers, found rows of different lengths"):
        Hdf5Trajectories("robot", data_path=str(path))
    with pytest.raises(DatasetError, match="has no column task"):
        Hdf5Trajectories("robot", data_path=str(path), action="task")


def test_groups_are_read_in_their_order_and_masks_split(made, tmp_path):
    path = str(grouped(tmp_path / "a.hdf5", made.episodes(), {"train": [0, 2, 3], "valid": [1]}))
    data = RobomimicTrajectories("robot", data_path=path, proprio=["obs/eef"])
    assert data.lengths.tolist() == list(LENGTHS) and [part.tolist() for part in data.train_val()] == [[0, 2, 3], [1]]
    for number, episode in enumerate(made.episodes()):
        assert torch.equal(data.states[number], torch.from_numpy(episode["state"]))
        assert torch.equal(data.proprio(number), torch.from_numpy(episode["proprio"]))
        assert torch.equal(data.frames(number, [5]), torch.from_numpy(episode["pixels"]).movedim(-1, 1)[[5]])
    unmasked = RobomimicTrajectories("robot", data_path=path, train_mask=None, split_ratio=0.5)
    assert [len(part) for part in unmasked.train_val()] == [2, 2]


SPOILT = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:700]), "cannot be read"),
    "no file": (lambda p: p.unlink(), "an HDF5 file"),
    "text": (lambda p: p.write_text("hello"), "cannot be read"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_damaged_file_is_one_line(made, tmp_path, case):
    path = flat(tmp_path / "a.h5", made.values, made.lengths)
    spoil, message = SPOILT[case]
    spoil(path)
    with pytest.raises(DatasetError, match=message) as raised:
        Hdf5Trajectories("robot", data_path=str(path))
    assert "\n" not in str(raised.value) and "a.h5" in str(raised.value)


COLUMNS = {
    "short action": (
        lambda v: v.update(action=v["action"][:-1]),
        "action: expected 36 rows.*ep_len, found 35",
    ),
    "no state": (lambda v: v.pop("state"), r"no column state.*it has action, proprio"),
    "nan state": (lambda v: v["state"].__setitem__((12, 0), np.nan), "nan at episode 1, step 3"),
    "grey images": (lambda v: v.update(pixels=v["pixels"][..., :1]), "it has none"),
    "offsets": (lambda v: v.update(ep_offset=np.arange(4)), "ep_offset: expected the first row of each of 4 episodes"),
    "no offsets": (lambda v: v.update(elsewhere=np.arange(4)), "expected a dataset ep_offset"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_that_do_not_fit_are_named(made, tmp_path, case):
    spoil, message = COLUMNS[case]
    spoil(made.values)
    path = flat(tmp_path / "a.h5", made.values, made.lengths)
    with h5py.File(path, "a") as file:
        if case == "no offsets":
            del file["ep_offset"], file["elsewhere"]
    with pytest.raises(DatasetError, match=message):
        Hdf5Trajectories("robot", data_path=str(path))


def test_groups_whose_rows_do_not_fit_are_named(made, tmp_path):
    episodes = made.episodes()
    episodes[1]["state"] = episodes[1]["state"][:-1]
    with pytest.raises(DatasetError, match=r"data/demo_9.*one row for each step.*\[6, 7\]"):
        RobomimicTrajectories("robot", data_path=str(grouped(tmp_path / "a.hdf5", episodes)))
    with pytest.raises(DatasetError, match="dataset=robomimic"):
        Hdf5Trajectories("robot", data_path=str(tmp_path / "a.hdf5"))
    with pytest.raises(DatasetError, match="Try dataset=hdf5"):
        RobomimicTrajectories("robot", data_path=str(flat(tmp_path / "b.h5", made.values, made.lengths)))


def test_a_table_far_larger_than_its_file_is_not_read(made, tmp_path):
    path = flat(tmp_path / "a.h5", made.values, made.lengths)
    with h5py.File(path, "a") as file:
        del file["state"]
        file.create_dataset("state", shape=(36, 10**7), dtype="f8", chunks=(1, 1000))  # nothing of it is stored
    with pytest.raises(DatasetError, match="state: expected a table about as large as its file"):
        Hdf5Trajectories("robot", data_path=str(path))
