"""The released PushT layout, whole and spoilt."""

import pickle
import shutil
import time

import av
import numpy as np
import pytest
import torch

from datasets.files import DatasetError
from datasets.formats.pusht import PushTTrajectories
from datasets.windows import WindowDataset
from envs.pusht.shapes import SHAPES
from tests.datasets.spoiling import change, load, put

TRAIN, VAL = [12, 9, 11, 5], [8, 10]
SIZE = 16


def write_video(path, frames):
    """Lossless RGB, with reordered frames."""
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264rgb", rate=10)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "rgb24"
        stream.options = {"qp": "0", "g": "5"}
        stream.codec_context.thread_count = 1
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        file.mux(stream.encode())


def write_part(folder, tables, lengths, frames, shapes=None):
    (folder / "obses").mkdir(parents=True)
    for name, table in tables.items():
        torch.save(torch.as_tensor(table), folder / f"{name}.pth")
    (folder / "seq_lengths.pkl").write_bytes(pickle.dumps(lengths))
    if shapes is not None:
        (folder / "shapes.pkl").write_bytes(pickle.dumps(shapes))
    for number, length in enumerate(lengths):
        write_video(folder / "obses" / f"episode_{number:03d}.mp4", frames[number][:length])


@pytest.fixture(scope="session")
def pusht_original(tmp_path_factory):
    """A small ``pusht_noise`` folder with padded time axes of unequal lengths; what lies beyond a length is NaN."""
    random = np.random.RandomState(0)
    folder = tmp_path_factory.mktemp("pusht") / "pusht_noise"
    for part, lengths in {"train": TRAIN, "val": VAL}.items():
        shape = (len(lengths), max(lengths))
        tables = {name: 100 * random.randn(*shape, width) for name, width in (("states", 5), ("velocities", 2))}
        tables["rel_actions"] = 20 * random.randn(*shape, 2)
        for table in tables.values():
            table[np.arange(shape[1]) >= np.array(lengths)[:, None]] = np.nan
        write_part(folder / part, tables, lengths, random.randint(0, 256, (*shape, SIZE, SIZE, 3)).astype(np.uint8))
    return folder


@pytest.fixture
def pusht_folder(pusht_original, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(pusht_original, tmp_path / "pusht_noise")


def decoded(path):
    with av.open(str(path)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def test_everything_is_read(pusht_original):
    data = PushTTrajectories(pusht_original)
    assert (len(data), data.lengths.tolist(), data.frame_size) == (6, TRAIN + VAL, SIZE)
    assert (data.name, data.state_dim, data.proprio_dim, data.env_action_dim) == ("pusht", 7, 4, 2)
    assert [part.tolist() for part in data.train_val()] == [[0, 1, 2, 3], [4, 5]]
    for number, folder, row in ((2, "train", 2), (5, "val", 1)):
        length = int(data.lengths[number])
        tables = {path.stem: load(path)[row, :length] for path in (pusht_original / folder).glob("*.pth")}
        assert torch.equal(data.states[number][:length, :5], tables["states"])
        assert torch.equal(data.states[number][:length, 5:], tables["velocities"])
        assert torch.equal(data.actions[number][:length], tables["rel_actions"] / 100)
        proprio = torch.cat((tables["states"][:, :2], tables["velocities"]), -1)
        assert torch.equal(data.proprio(number)[:length], proprio)
        whole = decoded(pusht_original / folder / "obses" / f"episode_{row:03d}.mp4")
        frames = data.frames(number, [length - 1, 0, 4])
        assert frames.dtype == torch.uint8 and torch.equal(frames, whole[[length - 1, 0, 4]])
        assert SHAPES[data.layout(number)["shape"]] == "T"


def test_recorded_data_set_is_reproduced(tmp_path, slicer):
    """Statistics, windows and items of the earlier release, from files to samples."""
    tables = {name: slicer[f"pusht/raw_{name}"] for name in ("states", "velocities", "rel_actions")}
    for part in ("train", "val"):
        write_part(tmp_path / part, tables, slicer["seq_lengths"], slicer["frames_u8"])
    data = PushTTrajectories(tmp_path)
    for part, values in data.normalizer.to_dict().items():
        assert np.float32(values).tolist() == slicer[f"pusht/{part}"].tolist(), part
    train, val = data.train_val()
    assert train.tolist() == sorted(slicer["pusht/split99_train"].tolist())
    assert (val - 6).tolist() == slicer["pusht/split99_valid"].tolist()
    for numbers in (train, val):
        windows = WindowDataset(data, numbers, data.normalizer, 4, 5, 5)
        found = torch.stack((windows.trajectory - numbers[0], windows.start), 1).tolist()
        assert found == slicer["pusht/slices_sorted"][:, :2].tolist()
        for item in ("pusht/item0", "pusht/item1"):
            sample = windows[found.index(slicer[f"{item}/slice"][:2].tolist())]
            frames = np.arange(5)[:, None] + np.arange(4)
            np.testing.assert_allclose(sample.actions[0], slicer[f"{item}/act"], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(sample.proprio[0][frames], slicer[f"{item}/proprio"], rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(sample.states[0][frames].float(), slicer[f"{item}/state"])
            images = (sample.visual[0] / 255 - 0.5) / 0.5
            np.testing.assert_allclose(images[frames], slicer[f"{item}/visual"], atol=1e-6)


def test_fewer_trajectories_of_each_folder(pusht_folder):
    (pusht_folder / "train" / "obses" / "episode_003.mp4").unlink()  # not asked for, so not needed
    data = PushTTrajectories(pusht_folder, n_rollout=3)
    assert [part.tolist() for part in data.train_val()] == [[0, 1, 2], [3, 4]]  # of val there are only two
    assert data.lengths.tolist() == TRAIN[:3] + VAL
    assert len(PushTTrajectories(pusht_folder, n_rollout=1)) == 2
    for count in (0, 5):
        with pytest.raises(DatasetError, match=rf"n_rollout.*1\.\.4 \(the traj.*train\), found {count}"):
            PushTTrajectories(pusht_folder, n_rollout=count)


def test_without_normalisation_samples_stay_raw_and_padding_stays_out(pusht_original):
    data = PushTTrajectories(pusht_original, normalize_action=False)
    windows = WindowDataset(data, range(6), data.normalizer, 2, 1, 3)
    everything = windows.__getitems__(range(len(windows)))
    assert len(windows) == sum(max(length - 6 + 1, 0) for length in TRAIN + VAL)
    assert everything.proprio.isfinite().all() and everything.actions.isfinite().all()
    row = len(windows) - 1  # the last start of trajectory 5, of 10 steps
    assert torch.equal(everything.actions[row], data.actions[5][4:10].reshape(2, 6).float())
    assert torch.equal(everything.visual[row], data.frames(5, [4, 7]))
    assert everything.layouts["shape"].shape == (len(windows), 1)


@pytest.mark.parametrize("form", [list, tuple, np.array])
def test_shapes_are_numbers_of_the_environments_list(pusht_folder, form):
    names = [SHAPES[number % len(SHAPES)] for number in range(3, 7)]
    (pusht_folder / "train" / "shapes.pkl").write_bytes(pickle.dumps(form(names)))
    data = PushTTrajectories(pusht_folder)
    assert [SHAPES[int(data.layout(number)["shape"])] for number in range(6)] == [*names, "T", "T"]
    assert data.layout(0)["shape"].shape == (1,) and data.layout(0)["shape"].dtype == torch.int64


def test_default_path_and_worker_processes(pusht_folder, monkeypatch):
    monkeypatch.setenv("DATASET_DIR", str(pusht_folder.parent))
    data = pickle.loads(pickle.dumps(PushTTrajectories()))
    assert data.data_path == pusht_folder and data.frames(1, [2]).shape == (1, 3, SIZE, SIZE)


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def remove(name):
    return lambda folder: (folder / name).unlink()


def first_video(count, height, width):
    frames = np.zeros((count, height, width, 3), np.uint8)
    return lambda folder: write_video(folder / "obses" / "episode_000.mp4", frames)


SPOILT = {
    "nan state": (change("states.pth", put(float("nan"), 2, 4, 1)), r"states\.pth.*nan at trajectory 2, step 4"),
    "inf velocity": (change("velocities.pth", put(float("inf"), 0, 0, 0)), r"velocities\.pth.*inf at trajectory 0"),
    "short actions": (change("rel_actions.pth", lambda t: t[:, :-1]), r"rel_actions\.pth.*\(4, 12, 2\) as states"),
    "seven states": (change("states.pth", lambda t: t[..., :4]), r"states\.pth.*\(n, T, 5\).*\(4, 12, 4\)"),
    "no velocities": (remove("velocities.pth"), r"velocities\.pth.*no file"),
    "no lengths": (remove("seq_lengths.pkl"), r"seq_lengths\.pkl.*no file"),
    "length beyond": (write("seq_lengths.pkl", pickle.dumps([12, 9, 13, 5])), r"in 1\.\.12.*13 for trajectory 2"),
    "negative length": (write("seq_lengths.pkl", pickle.dumps(np.array([12, -1, 11, 5]))), r"found -1 for traj"),
    "too few lengths": (write("seq_lengths.pkl", pickle.dumps([12, 9])), r"seq_lengths\.pkl.*4 lengths"),
    "ragged lengths": (write("seq_lengths.pkl", pickle.dumps([12, [9], 11, 5])), r"seq_lengths\.pkl.*4 lengths"),
    "lengths in words": (write("seq_lengths.pkl", pickle.dumps(["a"] * 4)), r"seq_lengths\.pkl.*4 lengths"),
    "hostile lengths": (write("seq_lengths.pkl", b"cbuiltins\neval\n(S'1'\ntR."), r"seq_lengths\.pkl.*eval"),
    "unknown shape": (write("shapes.pkl", pickle.dumps(["T", "Q", "T", "T"])), r"shapes\.pkl.*among.*found \['Q'\]"),
    "too few shapes": (write("shapes.pkl", pickle.dumps(["T"])), r"shapes\.pkl.*4 shapes.*found 1"),
    "no list of shapes": (write("shapes.pkl", pickle.dumps({"T": 4})), r"shapes\.pkl.*4 shapes"),
    "missing episode": (remove("obses/episode_002.mp4"), r"episode_002\.mp4.*1 of 4 episodes.*n_rollout=2"),
    "no episodes": (lambda folder: shutil.rmtree(folder / "obses"), r"obses: expected the folder.*no such folder"),
    "empty episode": (write("obses/episode_003.mp4", b""), r"episode_003\.mp4.*empty"),
    "damaged first episode": (write("obses/episode_000.mp4", b"<html>"), r"episode_000\.mp4.*undamaged"),
    "short first episode": (first_video(11, SIZE, SIZE), r"episode_000\.mp4.*at least 12 square frames, found 11 of"),
    "wide first episode": (first_video(12, 16, 32), r"episode_000\.mp4.*square frames, found 12 of 32 x 16"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_data_are_found_before_training(pusht_folder, case):
    spoil, message = SPOILT[case]
    spoil(pusht_folder / "train")
    with pytest.raises(DatasetError, match=message):
        PushTTrajectories(pusht_folder)


def test_spoilt_validation_data_are_found_too(pusht_folder):
    change("states.pth", put(float("nan"), 1, 9, 0))(pusht_folder / "val")
    with pytest.raises(DatasetError, match=r"val/states\.pth.*nan at trajectory 1, step 9"):
        PushTTrajectories(pusht_folder)


def test_parts_of_different_image_sizes_are_refused(pusht_folder):
    first_video(8, 32, 32)(pusht_folder / "val")
    with pytest.raises(
        DatasetError, match=r"val/obses/episode_000\.mp4: expected frames of 16.*train/obses/episode_000"
    ):
        PushTTrajectories(pusht_folder)


def test_a_spoilt_episode_is_found_when_read(pusht_folder):
    obses = pusht_folder / "train" / "obses"
    data = PushTTrajectories(pusht_folder)
    write_video(obses / "episode_002.mp4", np.zeros((11, 32, 32, 3), np.uint8))
    with pytest.raises(
        DatasetError, match=r"episode_002\.mp4: expected 16 x 16 pixels, as episode_000\.mp4, found 32 x"
    ):
        data.frames(2, [0])
    write_video(obses / "episode_002.mp4", np.zeros((10, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"episode_002\.mp4: expected at least 11 frames, found 10"):
        data.frames(2, [0])
    (obses / "episode_002.mp4").write_bytes((obses / "episode_001.mp4").read_bytes()[:-300])
    with pytest.raises(DatasetError, match=r"episode_002\.mp4: expected an undamaged mp4 file"):
        data.frames(2, [0])
    for number, step in ((1, 9), (1, -1), (6, 0), (-1, 0)):
        with pytest.raises(IndexError):
            data.frames(number, [step])


def test_wrong_folders_and_unfinished_collections_are_explained(pusht_folder, tmp_path):
    with pytest.raises(DatasetError, match=r"absent/train.*pusht data.*datasets\.collect env=pusht"):
        PushTTrajectories(tmp_path / "absent")
    for part in ("val", "train"):
        (pusht_folder / part / "collect.json").write_text("{}")
        assert len(PushTTrajectories(pusht_folder)) == 6  # finished
        (pusht_folder / part / "states.pth").rename(tmp_path / "states.pth")
        with pytest.raises(DatasetError, match=rf"{part}: expected a finished collection.*interrupted.*env=pusht"):
            PushTTrajectories(pusht_folder)
        (tmp_path / "states.pth").rename(pusht_folder / part / "states.pth")


def test_thousands_of_episodes_are_opened_quickly(pusht_original, tmp_path):
    """The size of the released data set, every video the same file."""
    count, steps = 18_685, 20
    video = (pusht_original / "train" / "obses" / "episode_000.mp4").resolve()
    tables = {name: torch.zeros(count, steps, width) for name, width in (("states", 5), ("velocities", 2))}
    write_part(tmp_path / "train", tables | {"rel_actions": torch.zeros(count, steps, 2)}, [], [])
    (tmp_path / "train" / "seq_lengths.pkl").write_bytes(pickle.dumps([12] * count))
    for number in range(count):
        (tmp_path / "train" / "obses" / f"episode_{number:03d}.mp4").hardlink_to(video)
    shutil.copytree(pusht_original / "val", tmp_path / "val")
    begun = time.perf_counter()
    data = PushTTrajectories(tmp_path)
    assert time.perf_counter() - begun < 3
    assert data.frames(count - 1, [11]).shape == (1, 3, SIZE, SIZE)
