"""LeRobot's data sets, version 3: several episodes in one file, as lerobot itself records them."""

import json

import numpy as np
import pytest
import torch

from datasets.episode_store import VideoStore
from datasets.files import DatasetError
from datasets.formats.image_bytes import encoded
from datasets.formats.lerobot import LeRobotTrajectories
from datasets.formats.video import read_frames
from tests.datasets.columns import LENGTHS, columns

arrow = pytest.importorskip("pyarrow", reason="the package pyarrow is not installed: uv pip install pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
CAMERA = "observation.images.top"


def features(size, kind):
    return {
        "observation.state": {"dtype": "float32", "shape": [3]},
        "action": {"dtype": "float32", "shape": [2]},
        "next.reward": {"dtype": "float32", "shape": [1]},
        "timestamp": {"dtype": "float32", "shape": [1]},
        "episode_index": {"dtype": "int64", "shape": [1]},
        CAMERA: {"dtype": kind, "shape": [size, size, 3], "names": ["height", "width", "channels"]},
    }


@pytest.fixture
def write(tmp_path):
    """Writes four episodes, two to a file, with a video for each two or with images in the tables."""

    def make(kind, fps=10):
        made, root = columns(size=16), tmp_path / kind
        episodes, entries = made.episodes(), []
        for file, numbers in enumerate(((0, 1), (2, 3))):
            start, images, tables = 0.0, [], []
            for number in numbers:
                length = LENGTHS[number]
                rows = {
                    "observation.state": list(episodes[number]["state"].astype(np.float32)),
                    "action": list(episodes[number]["action"]),
                    "next.reward": np.arange(length, dtype=np.float32),
                    "timestamp": (np.arange(length) / fps).astype(np.float32),
                    "episode_index": np.full(length, number),
                }
                if kind == "image":
                    rows[CAMERA] = [{"bytes": encoded(image), "path": "x.png"} for image in episodes[number]["img"]]
                tables.append(arrow.table(rows))
                images.append(torch.from_numpy(episodes[number]["img"]).movedim(-1, 1))
                entry = {"episode_index": number, "length": length, "stats/action/mean": [0.0]}
                places = {"chunk_index": 0, "file_index": file, "from_timestamp": start}
                entries.append(entry | {f"videos/{CAMERA}/{name}": value for name, value in places.items()})
                start += length / fps
            place = f"chunk-000/file-{file:03d}"
            (root / "data" / "chunk-000").mkdir(parents=True, exist_ok=True)
            parquet.write_table(arrow.concat_tables(tables), root / "data" / f"{place}.parquet", row_group_size=8)
            if kind == "video":
                VideoStore(keyframe_every=2, fps=fps).write(
                    root / "videos" / CAMERA / f"{place}.mp4", torch.cat(images)
                )
        (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
        parquet.write_table(
            arrow.Table.from_pylist(entries), root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
        )
        info = {"codebase_version": "v3.0", "fps": fps, "features": features(16, kind), "splits": {"train": "0:4"}}
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        (root / "meta" / "info.json").write_text(json.dumps(info))
        return root, episodes

    return make


def test_images_in_the_tables_are_read(write):
    root, episodes = write("image")
    data = LeRobotTrajectories("robot", data_path=str(root))
    assert data.lengths.tolist() == list(LENGTHS) and (data.state_dim, data.env_action_dim) == (3, 2)
    for number, episode in enumerate(episodes):
        assert torch.equal(data.states[number], torch.from_numpy(episode["state"]).float())
        assert torch.equal(data.actions[number], torch.from_numpy(episode["action"]))
        images = torch.from_numpy(episode["img"]).movedim(-1, 1)
        assert torch.equal(data.frames(number, [6, 0, 3, 6]), images[[6, 0, 3, 6]])
    assert data.column("next.reward")[2].flatten().tolist() == list(range(12))
    torch.testing.assert_close(data.times(1), torch.arange(7.0).double() / 10)


@pytest.mark.parametrize("fps", [10, 24])
def test_frames_of_a_video_of_several_episodes_are_found_by_their_time(write, fps):
    root, _ = write("video", fps)
    data = LeRobotTrajectories("robot", data_path=str(root))
    for number in range(4):
        file, first = number // 2, LENGTHS[number - 1] if number % 2 else 0
        video = root / "videos" / CAMERA / "chunk-000" / f"file-{file:03d}.mp4"
        steps = [LENGTHS[number] - 1, 0, 4, 0]
        assert torch.equal(data.frames(number, steps), read_frames(video, [first + step for step in steps]))


def test_a_split_of_two_parts_is_kept(write):
    root, _ = write("image")
    info = json.loads((root / "meta" / "info.json").read_text()) | {"splits": {"train": "0:3", "val": "3:4"}}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    data = LeRobotTrajectories("robot", data_path=str(root))
    assert [part.tolist() for part in data.train_val()] == [[0, 1, 2], [3]]


def edit(**changes):
    def spoil(root):
        info = json.loads((root / "meta" / "info.json").read_text()) | changes
        (root / "meta" / "info.json").write_text(json.dumps(info))

    return spoil


def rewrite(file, column, row, value):
    def spoil(root):
        table = parquet.read_table(root / file, partitioning=None)
        values = table.column(column).to_pylist()
        values[row] = value
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, arrow.array(values, table.schema.field(column).type))
        parquet.write_table(table, root / file)

    return spoil


EPISODES, SINCE = "meta/episodes/chunk-000/file-000.parquet", f"videos/{CAMERA}/from_timestamp"
SPOILT = {
    "time of a neighbour": (
        rewrite("data/chunk-000/file-000.parquet", "timestamp", 8, 0.9),
        r"timestamps of episode 0 in 0\.\.0\.8 s.*found 0\.\.0\.9 s",
    ),
    "time before the first": (
        rewrite("data/chunk-000/file-000.parquet", "timestamp", 9, -0.1),
        r"timestamps of episode 1 in 0\.\.0\.6 s.*found -0\.1",
    ),
    "no time": (rewrite("data/chunk-000/file-001.parquet", "timestamp", 3, float("nan")), "timestamps of episode 2"),
    "start too early": (
        rewrite(EPISODES, SINCE, 1, 0.8),
        r"episode 1 in .* after the last frame of episode 0, at 0\.8",
    ),
    "start too late": (rewrite(EPISODES, SINCE, 2, 0.1), r"episode 3 in .* after .* of episode 2, at 1\.2"),
    "older version": (edit(codebase_version="v2.1"), "codebase_version v3, found v2.1.*convert_dataset_v21_to_v30"),
    "no features": (edit(features=None), "cannot be read"),
    "no info": (lambda r: (r / "meta" / "info.json").unlink(), r"a LeRobot data set with meta/info\.json"),
    "cut info": (lambda r: (r / "meta" / "info.json").write_text('{"a"'), "info.json"),
    "no table": (
        lambda r: (r / "data" / "chunk-000" / "file-001.parquet").unlink(),
        "36 rows of 4 episodes.*16 rows of 2",
    ),
    "cut table": (
        lambda r: (r / "data" / "chunk-000" / "file-001.parquet").write_bytes(b"PAR1" * 9),
        r"file-001\.parquet.*cannot be read",
    ),
    "no episodes": (lambda r: (r / "meta/episodes/chunk-000/file-000.parquet").unlink(), "Parquet files, found none"),
    "no video": (lambda r: (r / f"videos/{CAMERA}/chunk-000/file-000.mp4").unlink(), r"file-000\.mp4 cannot be read"),
    "cut video": (
        lambda r: (r / f"videos/{CAMERA}/chunk-000/file-000.mp4").write_bytes(b"\0" * 99),
        r"file-000\.mp4 cannot be read",
    ),
    "path outside": (edit(video_path="../../{video_key}.mp4"), "a video_path inside the data set"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_data_are_found_before_training(write, case):
    root, _ = write("video")
    spoil, message = SPOILT[case]
    spoil(root)
    with pytest.raises(DatasetError, match=message) as raised:
        LeRobotTrajectories("robot", data_path=str(root))
    assert "\n" not in str(raised.value)


def test_a_video_that_is_too_short_is_named(write):
    root, _ = write("video")
    video = root / "videos" / CAMERA / "chunk-000" / "file-001.mp4"
    VideoStore().write(video, torch.zeros(10, 3, 16, 16, dtype=torch.uint8))
    data = LeRobotTrajectories("robot", data_path=str(root))
    with pytest.raises(DatasetError, match=r"file-001\.mp4 cannot be read \(it has no undamaged frame at 1\.\d00 s"):
        data.frames(3, [0])
