"""Data sets written in other formats and read back."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_class

from datasets.convert import ConvertConfig, convert
from datasets.converting import conversion
from datasets.converting.conversion import TARGETS, Conversion
from datasets.files import DatasetError
from datasets.formats.episodes import EpisodeTrajectories
from datasets.formats.wall import WallTrajectories
from datasets.formats.zarr_replay import ZarrTrajectories
from launch.conf import CONF
from tests.datasets.columns import columns
from tests.training.tiny import composed
from utils.reading.yaml_file import read_yaml
from utils.schema import parsed

PACKAGES = {"zarr": "zarr", "hdf5": "h5py", "robomimic": "h5py", "lerobot": "pyarrow", "lance": "lance"}
EXACT = {"episodes": "uint8", "zarr": "zarr3", "hdf5": None, "robomimic": None, "lerobot": "png", "lance": None}
"""Formats that hold anything without loss, and how images are stored then."""


def needed(to):
    if to in PACKAGES:
        pytest.importorskip(PACKAGES[to], reason=f"the package {PACKAGES[to]} is not installed (docs/data.md)")


def read(to, place, name):
    needed(to)
    reader = get_class(read_yaml(CONF / "dataset" / f"{to}.yaml", dict)["_target_"])
    return reader(data_path=str(place), **({"name": name} if to in EXACT else {}))


def assert_same(data, again, videos=False):
    assert len(data) == len(again) and torch.equal(data.lengths, again.lengths)
    for number, length in enumerate(data.lengths.tolist()):
        pairs = [(each.states[number], each.actions[number], each.proprio(number)) for each in (data, again)]
        for before, after in zip(*pairs, strict=True):
            assert before.dtype == after.dtype and torch.equal(before[:length], after[:length])
        assert {name: value.tolist() for name, value in data.layout(number).items()} == {
            name: value.tolist() for name, value in again.layout(number).items()
        }
        steps = [length - 1, 0]
        lossless = data.frames(number, steps).float(), again.frames(number, steps).float()
        torch.testing.assert_close(*lossless, atol=24.0 if videos else 0.0, rtol=0)


@pytest.fixture
def wall(wall_folder):
    return WallTrajectories(wall_folder(count=5, num_steps=9, size=16, dtype=torch.uint8), split_ratio=0.7)


@pytest.fixture
def robot(tmp_path):
    """Episodes of unequal lengths, states of float64."""
    zarr = pytest.importorskip("zarr")
    made = columns()
    group = zarr.open_group(str(tmp_path / "robot.zarr"), mode="w")
    for name, rows in made.values.items():
        group.create_array(f"data/{name}", data=rows, chunks=(5, *rows.shape[1:]))
    group.create_array("meta/episode_ends", data=made.lengths.cumsum())
    return ZarrTrajectories("robot", str(tmp_path / "robot.zarr"))


@pytest.mark.parametrize("to", EXACT)
def test_what_comes_back_is_the_same_to_the_last_bit(wall, robot, to, tmp_path):
    needed(to)
    for data in (wall, robot):
        place = Conversion(data, to, tmp_path / f"{data.name}_made{TARGETS[to].suffix}", EXACT[to]).run()
        again = read(to, place, data.name)
        assert_same(data, again)
        assert not list(tmp_path.glob("*.unfinished"))
        if to != "episodes":
            assert sorted(again.train_val()[1].tolist()) == sorted(data.train_val()[1].tolist())


def test_released_layouts_hold_what_they_can(wall, tmp_path):
    assert_same(wall, read("wall", Conversion(wall, "wall", tmp_path / "wall_again", "uint8").run(), "wall"))
    with pytest.raises(DatasetError, match="to=pusht: expected states of 7 entries, found 2"):
        Conversion(wall, "pusht", tmp_path / "pusht_noise")
    with pytest.raises(DatasetError, match="to=point_maze: expected states of 4 entries"):
        Conversion(wall, "point_maze", tmp_path / "point_maze")


def test_pusht_is_written_as_released(tmp_path, robot):
    """States and actions to the last bit; its images are videos."""
    rng = np.random.default_rng(0)
    for number, length in enumerate(robot.lengths.tolist()):
        robot.states[number] = torch.from_numpy(rng.uniform(0, 500, (length, 7)).astype(np.float32))
        robot._proprio[number] = robot.states[number][:, [0, 1, 5, 6]]
    robot.name = "pusht"
    robot.fit_frames(32)
    again = read("pusht", Conversion(robot, "pusht", tmp_path / "pusht_noise").run(), "pusht")
    order = torch.cat([part.sort().values for part in robot.train_val()]).tolist()
    assert again.lengths.tolist() == [int(robot.lengths[number]) for number in order]
    assert [len(part) for part in again.train_val()] == [len(part) for part in robot.train_val()]
    for position, number in enumerate(order):
        length = int(robot.lengths[number])
        assert torch.equal(again.states[position][:length], robot.states[number])
        assert torch.equal(again.actions[position][:length], robot.actions[number].double())  # float32 lacks some
        assert again.frames(position, [length - 1]).shape == (1, 3, 32, 32)


def test_lerobots_videos_lose_a_little(wall, tmp_path):
    needed("lerobot")
    wall._episodes.frames = smooth  # noise is no picture
    again = read("lerobot", Conversion(wall, "lerobot", tmp_path / "wall_lerobot").run(), "wall")
    assert_same(wall, again, videos=True)


def smooth(number, steps):
    ramp = torch.linspace(0, 200, 16).byte()
    return torch.stack([(ramp + 5 * step + number).expand(3, 16, 16) for step in steps])


KILLED = """
import os
import sys
sys.path.insert(0, {here!r})
from datasets.converting import conversion
from datasets.formats.wall import WallTrajectories

conversion._CHUNK_BYTES = 1  # an episode at a time
data, kind = WallTrajectories({folder!r}, split_ratio=0.7), conversion.TARGETS["hdf5"]
write = kind.write


def fatal(self, numbers):
    write(self, numbers)
    if numbers.start == 2:
        os.kill(os.getpid(), 9)


kind.write = fatal
conversion.Conversion(data, "hdf5", conversion.Path({place!r})).run()
"""


def stop_at_the_third(wall, to, place):
    """Convert until the third episode is written; a whole process is killed where a library's file would be broken."""
    if to == "hdf5":
        code = KILLED.format(here=str(Path.cwd()), folder=str(wall.data_path), place=str(place))
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
        return
    write = TARGETS[to].write

    def fatal(self, numbers):
        write(self, numbers)
        if numbers.start == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TARGETS[to], "write", fatal)
        Conversion(wall, to, place, EXACT[to]).run()


@pytest.mark.parametrize("to", EXACT)
def test_a_stopped_conversion_goes_on_and_nothing_is_there_before_it_is_whole(wall, to, tmp_path, monkeypatch):
    needed(to)
    place = tmp_path / f"made{TARGETS[to].suffix}"
    monkeypatch.setattr(conversion, "_CHUNK_BYTES", 1)  # an episode at a time
    stop_at_the_third(wall, to, place)
    assert not place.exists()
    written = []
    monkeypatch.setattr(TARGETS[to], "write", remembering(TARGETS[to].write, written))
    with pytest.raises(DatasetError, match=r"the data that are converted"):
        Conversion(WallTrajectories(wall.data_path, n_rollout=4), to, place, EXACT[to]).run()
    Conversion(wall, to, place, EXACT[to]).run()
    assert written == ([3, 4] if to == "lance" else [2, 3, 4])  # a Lance table knows itself how far it is
    assert_same(wall, read(to, place, "wall"))


def remembering(write, written):
    def wrapped(self, numbers):
        written.append(numbers.start)
        write(self, numbers)

    return wrapped


def test_what_is_there_already_is_left_alone(wall, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(DatasetError, match=r"taken: expected nothing yet.*Choose another data_path"):
        Conversion(wall, "episodes", tmp_path / "taken").run()
    (tmp_path / "other.unfinished").mkdir()
    (tmp_path / "other.unfinished" / "letter.txt").write_text("mine")
    with pytest.raises(DatasetError, match="files of another origin"):
        Conversion(wall, "episodes", tmp_path / "other").run()
    assert (tmp_path / "other.unfinished" / "letter.txt").read_text() == "mine"


def test_a_disk_that_is_too_small_is_noticed_before(wall, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    with pytest.raises(DatasetError, match="of free disk space"):
        Conversion(wall, "episodes", tmp_path / "made").run()


def test_unknown_words_are_named(wall, tmp_path):
    with pytest.raises(DatasetError, match="did you mean lerobot"):
        Conversion(wall, "lerobt", tmp_path / "made")
    with pytest.raises(DatasetError, match="images=jpg: with to=lerobot it is mp4 or png"):
        Conversion(wall, "lerobot", tmp_path / "made", "jpg")


def test_the_command_puts_data_where_their_reader_looks(wall, monkeypatch):
    monkeypatch.setenv("DATASET_DIR", str(wall.data_path.parent))
    place = convert(parsed(ConvertConfig, composed("env=wall", "to=episodes", name="convert")))
    assert place == wall.data_path.parent / "wall" and len(EpisodeTrajectories("wall")) == 5
    with pytest.raises(DatasetError, match="did you mean hdf5"):
        convert(parsed(ConvertConfig, composed("env=wall", "to=hdf", name="convert")))
