"""Replay buffers in zarr, whole and spoilt, and Diffusion Policy's PushT."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from datasets.files import DatasetError
from datasets.formats.pusht import NORMALIZATION
from datasets.formats.zarr_replay import ZarrTrajectories
from datasets.windows import WindowDataset
from envs.base import simulate
from envs.process_vector import ProcessVectorEnv
from envs.pusht.shapes import SHAPE_KEY, SHAPES
from tests.datasets.columns import LENGTHS, columns

zarr = pytest.importorskip("zarr", reason="the package zarr is not installed: uv pip install 'zarr>=3'")

TEE = SHAPES.index("T")


def write(folder, values, ends, zarr_format=2, chunk=5):
    """A replay buffer, as ``ReplayBuffer.add_episode`` lays it out."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=zarr_format)
    for name, rows in values.items():
        chunks = (min(chunk, len(rows)), *rows.shape[1:])
        array = group.create_array(f"data/{name}", shape=rows.shape, chunks=chunks, dtype=rows.dtype)
        array[...] = rows
    ends = np.asarray(ends)
    group.create_array("meta/episode_ends", shape=ends.shape, chunks=ends.shape, dtype=ends.dtype)[...] = ends
    return folder


@pytest.fixture
def folder(tmp_path):
    data = columns()
    return write(tmp_path / "some.zarr", data.values, data.lengths.cumsum())


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    """Three episodes of PushT as Diffusion Policy records them: agent and block, targets in pixels, images of 96."""
    rng = np.random.default_rng(3)
    env = ProcessVectorEnv("envs.pusht.simulator:PushTSimulator", image_size=96, num_workers=0)
    starts = torch.tensor([[200.0, 300, 250, 260, 1, 0, 0], [90, 90, 250, 300, 2, 0, 0], [400, 100, 200, 200, 4, 0, 0]])
    moves = torch.from_numpy(rng.uniform(-0.4, 0.4, (3, 20, 2))).double()
    played = simulate(
        env, range(3), starts.double(), moves, {SHAPE_KEY: torch.full((3, 1), SHAPES.index("T"))}, frame_every=1
    )
    env.close()
    states, frames = played.states[:, :-1].numpy(), played.frames[:, :-1].movedim(2, -1).numpy()
    values = {
        "img": frames.reshape(60, 96, 96, 3).astype(np.float32),
        "state": states[..., :5].reshape(60, 5).astype(np.float32),
        "action": (states[..., :2] + 100 * moves.numpy()).reshape(60, 2).astype(np.float32),
        "keypoint": np.zeros((60, 9, 2), np.float32),
        "n_contacts": np.zeros((60, 1), np.float32),
    }
    place = write(tmp_path_factory.mktemp("replay") / "pusht_cchi_v7_replay.zarr", values, [20, 40, 60], chunk=16)
    return place, played, moves


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_everything_is_read_in_place(tmp_path, zarr_format):
    made = columns()
    data = ZarrTrajectories("robot", str(write(tmp_path / "a.zarr", made.values, made.lengths.cumsum(), zarr_format)))
    assert data.lengths.tolist() == list(LENGTHS) and data.frame_size == 8
    assert (data.state_dim, data.proprio_dim, data.env_action_dim) == (3, 2, 2)
    for number, episode in enumerate(made.episodes()):
        assert torch.equal(data.states[number], torch.from_numpy(episode["state"]))
        assert torch.equal(data.actions[number], torch.from_numpy(episode["action"]))
        assert torch.equal(data.proprio(number), torch.from_numpy(episode["proprio"]))
        frames = data.frames(number, [6, 0, 6, 3])
        assert torch.equal(frames, torch.from_numpy(episode["img"]).movedim(-1, 1)[[6, 0, 6, 3]])
    assert data.layout(0) == {} and data.normalizer.state_mean.shape == (3,)


def test_other_names_entries_and_sizes_are_settings(tmp_path):
    made = columns("camera", size=12)
    values = made.values | {"camera": made.values["camera"][:, :, :8], "wrist": made.values["camera"]}
    place = str(write(tmp_path / "a.zarr", values, made.lengths.cumsum()))
    with pytest.raises(DatasetError, match="camera, wrist"):
        ZarrTrajectories("robot", place)
    with pytest.raises(DatasetError, match=r"did you mean camera.*env\.dataset\.image"):
        ZarrTrajectories("robot", place, image="camra")
    with pytest.raises(DatasetError, match=r"square frames.*8 x 12.*image_size"):
        ZarrTrajectories("robot", place, image="camera")
    data = ZarrTrajectories("robot", place, "camera", ["state", "proprio"], proprio=[4, 0], image_size=6, n_rollout=2)
    assert (data.state_dim, data.frames(1, [2, 3]).shape) == (5, (2, 3, 6, 6))
    expected = torch.from_numpy(np.stack((made.values["proprio"][9:16, 1], made.values["state"][9:16, 0]), 1))
    assert torch.equal(data.proprio(1), expected)
    with pytest.raises(DatasetError, match=r"proprio=\[5\]"):
        ZarrTrajectories("robot", place, "camera", ["state", "proprio"], proprio=[5], image_size=6)


def test_frames_are_fitted_to_the_model_unless_a_size_is_set(folder):
    data = ZarrTrajectories("robot", str(folder))
    data.fit_frames(16)
    assert data.frames(0, [1]).shape == (1, 3, 16, 16) and data.frames(0, [1]).dtype == torch.uint8
    with pytest.raises(ValueError, match="frames are 8 x 8"):
        ZarrTrajectories("robot", str(folder), image_size=8).fit_frames(16)


def test_windows_and_other_processes_see_the_same(folder):
    data = ZarrTrajectories("robot", str(folder))
    data.frames(0, [0])
    other = pickle.loads(pickle.dumps(data))
    ours, theirs = (WindowDataset(each, [1, 2], each.normalizer, 2, 1, 3)[4] for each in (data, other))
    assert torch.equal(ours.visual, theirs.visual) and torch.equal(ours.visual[0], data.frames(2, [2, 5]))


def test_a_zip_of_the_folder_is_read(folder, tmp_path):
    zipped = shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    data, same = ZarrTrajectories("robot", zipped), ZarrTrajectories("robot", str(folder))
    assert torch.equal(data.frames(2, [11]), same.frames(2, [11])) and torch.equal(data.states[3], same.states[3])


def test_the_last_row_may_have_no_action(tmp_path):
    made = columns()
    made.values["action"][made.lengths.cumsum() - 1] = np.nan
    data = ZarrTrajectories("robot", str(write(tmp_path / "nan.zarr", made.values, made.lengths.cumsum())))
    assert data.lengths.tolist() == [length - 1 for length in LENGTHS]
    assert data.frames(0, [8]).shape == (1, 3, 8, 8)  # the frame after the last action is there
    made.values["action"][3] = np.nan
    with pytest.raises(DatasetError, match="finite actions, found nan at episode 0, step 3"):
        ZarrTrajectories("robot", str(write(tmp_path / "nan.zarr", made.values, made.lengths.cumsum())))


def test_an_entry_that_never_changes_is_only_shifted(tmp_path):
    made = columns()
    made.values["state"][:, 1] = 7.0
    data = ZarrTrajectories("robot", str(write(tmp_path / "a.zarr", made.values, made.lengths.cumsum())))
    assert data.normalizer.states_to_z(data.states[0])[:, 1].eq(0).all() and data.normalizer.state_std[1] == 1


def test_diffusion_policys_pusht_is_read_in_our_units(replay, monkeypatch):
    place, played, moves = replay
    monkeypatch.setenv("DATASET_DIR", str(place.parent))
    data = ZarrTrajectories("pusht")
    assert (len(data), data.frame_size, data.state_dim, data.proprio_dim) == (3, 96, 7, 4)
    for number in range(3):
        # float32 places of hundreds of pixels, differences of which make velocities
        torch.testing.assert_close(data.states[number].double(), played.states[number, :-1], atol=2e-3, rtol=0)
        torch.testing.assert_close(data.actions[number].double(), moves[number], atol=1e-6, rtol=0)
    assert torch.equal(data.proprio(1), data.states[1][:, [0, 1, 5, 6]]) and data.layout(0)[SHAPE_KEY].tolist() == [
        SHAPES.index("T")
    ]
    assert data.normalizer.to_dict()["action_std"] == pytest.approx(list(NORMALIZATION["action_std"]))
    assert torch.equal(data.frames(1, [4]).byte(), played.frames[1, [4]])


def test_stored_units_leave_the_replay_as_it_is(replay):
    data = ZarrTrajectories("pusht", str(replay[0]), units="stored", proprio=[0, 1])
    assert data.state_dim == 5 and data.actions[0].max() > 90
    assert data.normalizer.action_mean.min() > 50


SPOILT = {
    "ends fall": (lambda v, e: e.__setitem__(1, 5), r"episode_ends.*increase.*found 5 for episode 1 after 9"),
    "ends too many": (lambda v, e: e.__setitem__(3, 40), r"data/action.*40 rows.*found 36"),
    "nan state": (
        lambda v, e: v["state"].__setitem__((10, 1), np.nan),
        "finite states, found nan at episode 1, step 1",
    ),
    "no state": (lambda v, e: v.pop("state"), r"no column state.*action, proprio.*env\.dataset\.state"),
    "no images": (lambda v, e: v.pop("img"), "it has none"),
    "short state": (lambda v, e: v.update(state=v["state"][:-2]), r"data/state.*36 rows.*found 34"),
    "images in 0..1": (lambda v, e: v.update(img=(v["img"] / 255).astype("f4")), r"values in 0\.\.255"),
    "text": (lambda v, e: v.update(words=np.full((36, 2), "ab")), r"words.*numbers"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_data_are_found_before_training(tmp_path, case):
    made = columns()
    ends = made.lengths.cumsum()
    spoil, message = SPOILT[case]
    spoil(made.values, ends)
    with pytest.raises(DatasetError, match=message):
        ZarrTrajectories("robot", str(write(tmp_path / "a.zarr", made.values, ends)))


def test_a_missing_chunk_is_no_black_image(folder):
    (folder / "data" / "img" / "3.0.0.0").unlink()
    with pytest.raises(DatasetError, match=r"data/img: expected 8 chunks, found 1 of them missing"):
        ZarrTrajectories("robot", str(folder))


def test_a_damaged_chunk_is_named_when_it_is_read(folder):
    chunk = folder / "data" / "img" / "7.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    data = ZarrTrajectories("robot", str(folder))
    with pytest.raises(DatasetError, match=r"data/img cannot be read \(.*decompress.*Fetch or convert"):
        data.frames(3, [7])


@pytest.mark.parametrize("codec", ["pickle", "base64"])
def test_a_codec_that_may_run_code_or_is_not_known_is_refused(folder, codec):
    meta = folder / "data" / "state" / ".zarray"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"filters": [{"id": codec}]}))
    with pytest.raises(DatasetError, match=codec):
        ZarrTrajectories("robot", str(folder))


def test_wrong_places_are_explained(folder, tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match=r"did you mean .*some\.zarr"):
        ZarrTrajectories("robot", str(tmp_path / "sme.zarr"))
    with pytest.raises(DatasetError, match="found a, b"):
        group = zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
        group.create_group("a"), group.create_group("b")
        ZarrTrajectories("robot", str(tmp_path / "other.zarr"))
    monkeypatch.setenv("DATASET_DIR", str(tmp_path))
    with pytest.raises(DatasetError, match=r"robot\.zarr"):
        ZarrTrajectories("robot")
