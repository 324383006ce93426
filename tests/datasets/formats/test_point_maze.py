"""The released PointMaze layout, whole and spoilt."""

import json
import pickle

import numpy as np
import pytest
import torch

from datasets.files import DatasetError
from datasets.formats.point_maze import PointMazeTrajectories
from datasets.trajectories import valid_rows
from datasets.windows import WindowDataset
from tests.datasets.spoiling import change, load, put, truncate

LENGTHS = [12, 9, 12, 5, 10, 7]


@pytest.fixture
def maze_folder(tmp_path):
    """Write a small ``point_maze`` folder of unequal lengths; what lies beyond a length is NaN."""

    def write(lengths=LENGTHS, size=8, tables=torch.float64, extra=0):
        generator = torch.Generator().manual_seed(0)
        folder = tmp_path / "point_maze"
        (folder / "obses").mkdir(parents=True)
        shape = (len(lengths), max(lengths))
        padding = torch.arange(shape[1]) >= torch.tensor(lengths)[:, None]
        for name, width in (("states", 4), ("actions", 2)):
            table = torch.randn(*shape, width, generator=generator, dtype=torch.float64).to(tables)
            table[padding] = float("nan")
            torch.save(table, folder / f"{name}.pth")
        torch.save(torch.tensor(lengths), folder / "seq_lengths.pth")
        for number, length in enumerate(lengths):
            frames = torch.randint(0, 256, (length + extra, size, size, 3), generator=generator, dtype=torch.uint8)
            torch.save(frames, folder / "obses" / f"episode_{number:03d}.pth")
        return folder

    return write


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("tables", [torch.float32, torch.float64])
def test_everything_is_read(maze_folder, extra, tables):
    folder = maze_folder(extra=extra, tables=tables)
    data = PointMazeTrajectories(folder)
    assert (len(data), data.lengths.tolist(), data.frame_size) == (6, LENGTHS, 8)
    assert (data.name, data.state_dim, data.proprio_dim, data.env_action_dim) == ("point_maze", 4, 4, 2)
    frames = data.frames(4, [9, 0, 5])
    assert frames.dtype == torch.uint8 and frames.is_contiguous()
    assert torch.equal(frames, load(folder / "obses" / "episode_004.pth")[[9, 0, 5]].permute(0, 3, 1, 2))
    assert torch.equal(data.states[4][:10], load(folder / "states.pth")[4, :10])
    assert torch.equal(data.proprio(4)[:10], data.states[4][:10])
    assert data.layout(4) == {}


def test_recorded_data_set_is_reproduced(tmp_path, slicer):
    """Statistics, split, windows and items of the earlier release, from files to samples."""
    folder = tmp_path / "point_maze"
    (folder / "obses").mkdir(parents=True)
    for name in ("states", "actions"):
        torch.save(torch.from_numpy(slicer[f"point_maze/raw_{name}"]), folder / f"{name}.pth")
    torch.save(torch.from_numpy(slicer["seq_lengths"]), folder / "seq_lengths.pth")
    for number, length in enumerate(slicer["seq_lengths"]):
        frames = torch.from_numpy(slicer["frames_u8"][number, :length].copy())
        torch.save(frames, folder / "obses" / f"episode_{number:03d}.pth")
    data = PointMazeTrajectories(folder, split_ratio=0.5, split_seed=99)
    for part, values in data.normalizer.to_dict().items():
        np.testing.assert_allclose(values, slicer[f"point_maze/{part}"], rtol=1e-6, atol=1e-7, err_msg=part)
    assert data.train_val()[0].tolist() == slicer["point_maze/split99_train"].tolist()
    assert data.train_val()[1].tolist() == slicer["point_maze/split99_valid"].tolist()
    windows = WindowDataset(data, range(6), data.normalizer, 4, 5, 5)
    found = torch.stack((windows.trajectory, windows.start), 1).tolist()
    assert found == slicer["point_maze/slices_sorted"][:, :2].tolist()
    for item in ("point_maze/item0", "point_maze/item1"):
        sample = windows[found.index(slicer[f"{item}/slice"][:2].tolist())]
        frames = np.arange(5)[:, None] + np.arange(4)
        np.testing.assert_allclose(sample.actions[0], slicer[f"{item}/act"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sample.proprio[0][frames], slicer[f"{item}/proprio"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(sample.states[0][frames].float(), slicer[f"{item}/state"])
        images = (sample.visual[0] / 255 - 0.5) / 0.5
        np.testing.assert_allclose(images[frames], slicer[f"{item}/visual"], atol=1e-6)


def test_statistics_are_those_of_the_recorded_rows_of_all_trajectories(maze_folder):
    folder = maze_folder()
    whole, some = PointMazeTrajectories(folder), PointMazeTrajectories(folder, n_rollout=2)
    rows = dict(zip(("action", "state", "proprio"), valid_rows(whole), strict=True))
    assert len(rows["state"]) == sum(LENGTHS)
    for part, values in rows.items():
        np.testing.assert_allclose(getattr(whole.normalizer, f"{part}_mean"), values.mean(0), rtol=1e-6)
        np.testing.assert_allclose(getattr(whole.normalizer, f"{part}_std"), values.std(0), rtol=1e-6)
    assert len(some) == 2 and some.normalizer.to_dict() == whole.normalizer.to_dict()


def test_split_does_not_depend_on_the_global_generator(maze_folder):
    folder = maze_folder()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(42))
    for seed in (0, 99):  # of training and of planning in the earlier release
        torch.manual_seed(seed)
        train, val = PointMazeTrajectories(folder).train_val()
        assert len(val) == 1 and torch.equal(torch.cat((train, val)), order)


def test_without_normalisation_samples_stay_raw_and_padding_stays_out(maze_folder):
    data = PointMazeTrajectories(maze_folder(), normalize_action=False)
    windows = WindowDataset(data, range(6), data.normalizer, 2, 1, 3)
    everything = windows.__getitems__(range(len(windows)))
    assert len(windows) == sum(max(length - 6 + 1, 0) for length in LENGTHS)
    assert everything.proprio.isfinite().all() and everything.actions.isfinite().all() and everything.layouts == {}
    row = len(windows) - 1  # the last start of trajectory 5, of 7 steps
    assert torch.equal(everything.actions[row], data.actions[5][1:7].reshape(2, 6).float())
    assert torch.equal(everything.visual[row], data.frames(5, [1, 4]))


def test_default_path_and_worker_processes(maze_folder, monkeypatch):
    folder = maze_folder()
    monkeypatch.setenv("DATASET_DIR", str(folder.parent))
    data = pickle.loads(pickle.dumps(PointMazeTrajectories()))
    assert data.data_path == folder and data.frames(1, [2]).shape == (1, 3, 8, 8)


SPOILT = {
    "nan state": (change("states.pth", put(float("nan"), 3, 4, 1)), r"states\.pth.*nan at trajectory 3, step 4"),
    "inf action": (change("actions.pth", put(float("inf"), 0, 0, 0)), r"actions\.pth.*inf at trajectory 0, step 0"),
    "short actions": (
        change("actions.pth", lambda t: t[:, :-1]),
        r"actions\.pth.*\(6, 12, 2\) as states.*\(6, 11, 2\)",
    ),
    "wide states": (change("states.pth", lambda t: t.repeat(1, 1, 2)), r"states\.pth.*\(n, T, 4\).*\(6, 12, 8\)"),
    "integer actions": (change("actions.pth", lambda t: t.nan_to_num().long()), r"actions\.pth.*int64"),
    "cut states": (truncate("states.pth", 700), r"states\.pth.*fetch it again"),
    "no lengths": (lambda folder: (folder / "seq_lengths.pth").unlink(), r"seq_lengths\.pth.*no file"),
    "too few lengths": (change("seq_lengths.pth", lambda t: t[:5]), r"seq_lengths\.pth.*6 lengths.*\(5,\)"),
    "length 0": (change("seq_lengths.pth", put(0, 2)), r"seq_lengths\.pth.*in 1\.\.12.*found 0 for trajectory 2"),
    "length beyond": (change("seq_lengths.pth", put(13, 4)), r"in 1\.\.12.*found 13 for trajectory 4"),
    "half a length": (change("seq_lengths.pth", lambda t: t - 0.5), r"whole lengths.*found 11\.5 for trajectory 0"),
    "missing episode": (
        lambda folder: (folder / "obses" / "episode_004.pth").unlink(),
        r"episode_004\.pth.*1 of 6 episodes.*n_rollout=4",
    ),
    "no episodes": (lambda folder: (folder / "obses").rename(folder / "images"), r"episode_000\.pth.*no file"),
    "cut episode": (truncate("obses/episode_005.pth", 900), r"episode_005\.pth.*1344 bytes \(7 fr.*found 900 bytes"),
    "channels first": (
        change("obses/episode_000.pth", lambda t: t.permute(0, 3, 1, 2)),
        r"\(12, S, S, 3\).*\(12, 3, 8",
    ),
    "not square": (change("obses/episode_000.pth", lambda t: t[:, :, :4]), r"\(12, S, S, 3\).*\(12, 8, 4, 3\)"),
    "short first episode": (change("obses/episode_000.pth", lambda t: t[:11]), r"episode_000\.pth.*\(11, 8, 8, 3\)"),
    "images in 0..1": (change("obses/episode_000.pth", lambda t: t / 255), r"values in 0\.\.255"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_data_are_found_before_training(maze_folder, case):
    folder = maze_folder()
    spoil, message = SPOILT[case]
    spoil(folder)
    with pytest.raises(DatasetError, match=message):
        PointMazeTrajectories(folder)


def test_an_episode_unlike_the_first_is_found_when_read(maze_folder):
    folder = maze_folder()
    change("obses/episode_002.pth", lambda t: t.reshape(12, 4, 16, 3))(folder)
    data = PointMazeTrajectories(folder)  # the size on disk is right
    with pytest.raises(DatasetError, match=r"episode_002\.pth.*\(12, 8, 8, 3\) of torch\.uint8, as episode 0"):
        data.frames(2, [0])
    with pytest.raises(IndexError, match="steps"):
        data.frames(1, [9])
    with pytest.raises(IndexError, match="episode 6"):
        data.frames(6, [0])


def test_wrong_folders_and_counts_are_explained(maze_folder, tmp_path):
    with pytest.raises(DatasetError, match=r"absent.*point_maze data.*datasets\.collect env=point_maze"):
        PointMazeTrajectories(tmp_path / "absent")
    folder = maze_folder()
    with pytest.raises(DatasetError, match=r"n_rollout.*1\.\.6.*found 7"):
        PointMazeTrajectories(folder, n_rollout=7)
    with pytest.raises(ValueError, match="split_ratio"):
        PointMazeTrajectories(folder, split_ratio=0.0)
    (folder / "collect.json").write_text(json.dumps({}))
    assert len(PointMazeTrajectories(folder)) == 6  # finished
    (folder / "states.pth").unlink()
    with pytest.raises(DatasetError, match="interrupted"):
        PointMazeTrajectories(folder)
