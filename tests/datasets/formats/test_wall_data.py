"""The released Wall layout, whole and spoilt."""

import pickle

import numpy as np
import pytest
import torch

from datasets.files import DatasetError
from datasets.formats.wall import WallTrajectories
from datasets.trajectories import random_split
from datasets.windows import WindowDataset
from tests.datasets.spoiling import change, put, truncate


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("tables", [torch.float32, torch.float64])
def test_everything_is_read(wall_folder, dtype, tables):
    folder = wall_folder(dtype=dtype, tables=tables)
    data = WallTrajectories(folder)
    assert (len(data), data.lengths.tolist(), data.frame_size) == (6, [12] * 6, 8)
    assert (data.state_dim, data.proprio_dim, data.env_action_dim) == (2, 2, 2)
    whole = torch.load(folder / "obses" / "episode_004.pth", weights_only=True)
    frames = data.frames(4, [11, 0, 5])
    assert frames.dtype == dtype and torch.equal(frames, whole[[11, 0, 5]])
    assert torch.equal(data.states[4], torch.load(folder / "states.pth", weights_only=True)[4])
    assert data.layout(4)["fix_door_location"].tolist() == [24.0]
    assert data.layout(4)["fix_wall_location"].tolist() == [32.0]


def test_split_equals_the_recorded_one(wall_folder, slicer):
    train, val = WallTrajectories(wall_folder(), split_ratio=0.5).train_val()
    assert train.tolist() == slicer["wall/split99_train"].tolist()
    assert val.tolist() == slicer["wall/split99_valid"].tolist()


def test_released_split_of_1920():
    order = torch.randperm(1920, generator=torch.Generator().manual_seed(42))
    train, val = random_split(1920, 0.9, 42)
    assert len(train) == 1728 and torch.equal(torch.cat((train, val)), order)
    with pytest.raises(ValueError, match="split_ratio"):
        random_split(1, 0.9, 42)


def test_default_path_is_below_dataset_dir(wall_folder, monkeypatch):
    folder = wall_folder()
    monkeypatch.setenv("DATASET_DIR", str(folder.parent))
    assert WallTrajectories().data_path == folder


def test_fewer_trajectories_keep_the_statistics_of_all(wall_folder):
    folder = wall_folder()
    (folder / "obses" / "episode_005.pth").unlink()  # not asked for, so not needed
    some, states = WallTrajectories(folder, n_rollout=4), torch.load(folder / "states.pth", weights_only=True)
    assert len(some) == 4 and len(torch.cat(some.train_val())) == 4
    np.testing.assert_allclose(some.normalizer.state_mean, states.flatten(0, 1).mean(0), rtol=1e-6)
    assert torch.equal(some.normalizer.proprio_std, some.normalizer.state_std)


def test_without_normalisation_samples_stay_raw(wall_folder):
    data = WallTrajectories(wall_folder(), normalize_action=False)
    sample = WindowDataset(data, [2], data.normalizer, 2, 1, 3)[1]
    assert torch.equal(sample.actions[0], data.actions[2][1:7].reshape(2, 6))
    assert torch.equal(sample.proprio[0], data.states[2][[1, 4]])


def test_the_frame_after_the_last_action_is_not_read(wall_folder):
    data = WallTrajectories(wall_folder())
    dataset = WindowDataset(data, range(6), data.normalizer, 2, 1, 6)
    assert len(dataset) == 6  # one start each: 12 raw steps, frames 0 and 6
    assert torch.equal(dataset[3].visual[0], data.frames(3, [0, 6]))


def test_trajectories_travel_to_worker_processes(wall_folder):
    data = pickle.loads(pickle.dumps(WallTrajectories(wall_folder())))
    assert data.frames(1, [2]).shape == (1, 3, 8, 8)


SPOILT = {
    "nan state": (change("states.pth", put(float("nan"), 3, 7, 1)), r"states\.pth.*nan at trajectory 3, step 7"),
    "inf action": (change("actions.pth", put(float("inf"), 0, 0, 0)), r"actions\.pth.*inf at trajectory 0"),
    "short actions": (change("actions.pth", lambda t: t[:, :-1]), r"actions\.pth.*\(6, 12, 2\).*\(6, 11, 2\)"),
    "wide doors": (change("door_locations.pth", lambda t: t.expand(-1, -1, 2)), r"door_locations\.pth"),
    "no trajectories": (change("states.pth", lambda t: t[:0]), r"states\.pth.*\(0, 12, 2\)"),
    "integer states": (change("states.pth", lambda t: t.long()), r"states\.pth.*int64"),
    "no walls": (lambda folder: (folder / "wall_locations.pth").unlink(), r"wall_locations\.pth.*no file"),
    "cut states": (truncate("states.pth", 500), r"states\.pth.*fetch it again"),
    "missing episode": (
        lambda folder: (folder / "obses" / "episode_004.pth").unlink(),
        r"episode_004\.pth.*1 of 6 episodes.*n_rollout=4",
    ),
    "cut episode": (truncate("obses/episode_005.pth", 3000), r"episode_005\.pth.*3000 bytes.*fetch or collect"),
    "empty first episode": (truncate("obses/episode_000.pth", 0), r"episode_000\.pth"),
    "flat first episode": (change("obses/episode_000.pth", lambda t: t[:, 0]), r"\(13, 3, S, S\)"),
    "channels last": (change("obses/episode_000.pth", lambda t: t.permute(0, 2, 3, 1).contiguous()), "shape"),
    "double images": (change("obses/episode_000.pth", lambda t: t.double()), "float64"),
    "images in 0..1": (change("obses/episode_000.pth", lambda t: t / 255), r"values in 0\.\.255"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_data_are_found_before_training(wall_folder, case):
    folder = wall_folder()
    spoil, message = SPOILT[case]
    spoil(folder)
    with pytest.raises(DatasetError, match=message):
        WallTrajectories(folder)


def test_an_episode_unlike_the_first_is_found_when_read(wall_folder):
    folder = wall_folder()
    change("obses/episode_002.pth", lambda t: t.permute(0, 1, 3, 2).reshape(13, 3, 4, 16))(folder)
    data = WallTrajectories(folder)  # the size on disk is right
    with pytest.raises(DatasetError, match=r"episode_002\.pth.*\(13, 3, 8, 8\).*\(13, 3, 4, 16\)"):
        data.frames(2, [0])
    with pytest.raises(IndexError, match="steps"):
        data.frames(1, [13])
    with pytest.raises(IndexError, match="episode 6"):
        data.frames(6, [0])


def test_wrong_folders_and_counts_are_explained(wall_folder, tmp_path):
    with pytest.raises(DatasetError, match=r"absent.*datasets\.collect env=wall"):
        WallTrajectories(tmp_path / "absent")
    folder = wall_folder()
    with pytest.raises(DatasetError, match=r"n_rollout.*1\.\.6.*found 7"):
        WallTrajectories(folder, n_rollout=7)
    (folder / "states.pth").unlink()
    (folder / "collect.json").write_text("{}")
    with pytest.raises(DatasetError, match="interrupted"):
        WallTrajectories(folder)
