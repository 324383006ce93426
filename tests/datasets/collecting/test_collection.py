"""Collections: the released layout, the same bits however they came about, and refusals."""

import filecmp
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from datasets.collecting import collection as collection_module
from datasets.files import DatasetError
from datasets.formats.wall import WallTrajectories
from datasets.windows import WindowDataset
from envs.wall.expert import WallRandomWalk
from envs.wall.vector_env import WallVectorEnv
from tests.builders import REPOSITORY, wall_collection
from utils.folder_lock import FolderInUseError

SMALL = {"n_rollout": 10, "num_steps": 6, "image_size": 16, "image_dtype": "uint8", "chunk_size": 3}


def small(folder, **changes):
    return wall_collection(folder, WallRandomWalk(door_range=(20, 40)), **(SMALL | changes))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_same_bits(one, other):
    assert files(one) == files(other)
    assert filecmp.cmpfiles(one, other, files(one), shallow=False)[1:] == ([], [])


def interrupt(monkeypatch, at):
    """Press Ctrl-C when the n-th file has been written under its temporary name."""
    replace, left = Path.replace, [at]

    def interrupted(self, target):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_layout_is_the_released_one(tmp_path, dtype):
    folder = small(tmp_path / "wall_single", image_dtype=dtype).run(num_workers=1)
    episodes = [f"obses/episode_{number:03d}.pth" for number in range(10)]
    tables = [f"{name}.pth" for name in ("actions", "door_locations", "states", "wall_locations")]
    assert files(folder) == sorted([*episodes, *tables, "collect.json"])
    images = torch.load(folder / "obses" / "episode_009.pth", weights_only=True)
    assert images.shape == (7, 3, 16, 16) and images.dtype == getattr(torch, dtype)
    data = WallTrajectories(folder)
    assert (len(data), data.lengths.tolist(), data.frame_size) == (10, [6] * 10, 16)
    env = WallVectorEnv(16)
    sample = WindowDataset(data, range(10), data.normalizer, 2, 1, 3).__getitems__(range(10))
    env.reset(range(10), sample.states[:, 1], sample.layouts)
    drawn = env.render()
    assert (sample.visual[:, 1] - drawn).abs().max() <= (0.5 if dtype == "uint8" else 1e-4)


def test_workers_and_interruptions_do_not_change_a_bit(tmp_path, monkeypatch):
    reference = small(tmp_path / "reference").run(num_workers=1)
    assert_same_bits(reference, small(tmp_path / "workers").run(num_workers=2))
    for at in (2, 4, 5, 9, 14, 15, 17, 19):  # settings, 10 episodes with 4 parts among them, 4 tables
        folder = tmp_path / f"interrupted_{at}"
        with monkeypatch.context() as patch:
            interrupt(patch, at)
            with pytest.raises(KeyboardInterrupt):
                small(folder).run(num_workers=1)
        assert not any("world-models" in name for name in files(folder))
        with pytest.raises(DatasetError, match=r"interrupted.*datasets\.collect"):
            WallTrajectories(folder)
        kept = {path: path.stat().st_mtime_ns for path in (folder / "obses").iterdir()}
        assert len(kept) == min(at - 2 - (at - 2) // 4, 10)
        assert_same_bits(reference, small(folder).run(num_workers=1))
        assert all(path.stat().st_mtime_ns == written for path, written in kept.items())  # kept, not made again


def test_lost_episodes_are_made_again(tmp_path):
    reference = small(tmp_path / "reference").run(num_workers=1)
    folder = tmp_path / "damaged"
    shutil.copytree(reference, folder)
    (folder / "obses" / "episode_004.pth").unlink()
    (folder / "obses" / "episode_008.pth").write_bytes(b"cut")
    (folder / "obses" / ".episode_004.pth.123.0123abcd.world-models-tmp").write_bytes(b"of a killed process")
    assert_same_bits(reference, small(folder).run(num_workers=1))


def test_a_seed_and_an_option_change_the_data(tmp_path):
    tables = []
    for name, changes in {"a": {}, "b": {"seed": 1}}.items():
        folder = small(tmp_path / name, **changes).run(num_workers=1)
        tables.append(torch.load(folder / "actions.pth", weights_only=True))
    assert not torch.equal(*tables)


def test_other_settings_are_refused_by_name_and_values(tmp_path):
    small(tmp_path).run(num_workers=1)
    with pytest.raises(DatasetError, match=r"collect\.json: expected num_steps=7 as requested, found 6"):
        small(tmp_path, num_steps=7).run(num_workers=1)
    other = wall_collection(tmp_path, WallRandomWalk(step_mean=0.7, door_range=(20, 40)), **SMALL)
    with pytest.raises(DatasetError, match=r"env\.collector\.step_mean=0\.7 as requested, found 1\.0"):
        other.run(num_workers=1)
    assert json.loads((tmp_path / "collect.json").read_text())["num_steps"] == 6


def test_settings_bind_only_when_something_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr(collection_module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1000))
    with pytest.raises(DatasetError, match=r"0\.3 MB of free disk space, found 0\.0 MB.*image_dtype=uint8"):
        small(tmp_path, image_dtype="float32").run(num_workers=1)
    monkeypatch.undo()
    small(tmp_path).run(num_workers=1)
    assert len(WallTrajectories(tmp_path)) == 10


def test_files_of_others_are_left_alone(tmp_path, wall_folder):
    folder = wall_folder()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(DatasetError, match="files of another origin"):
        small(folder).run(num_workers=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="expected a folder, found a file"):
        small(tmp_path / "file").run(num_workers=1)


def test_a_second_collector_is_kept_out(tmp_path):
    first = small(tmp_path)

    class Second(WallRandomWalk):
        def begin(self, env, rngs, num_steps):
            with pytest.raises(FolderInUseError, match="is being collected"):
                small(tmp_path).run(num_workers=1)
            met.append(len(rngs))
            return super().begin(env, rngs, num_steps)

    met = []
    first.expert = Second(door_range=(20, 40))
    first.run(num_workers=1)
    assert met == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_rollout": 0}, "n_rollout must be a whole number, at least 1, got 0"),
        ({"num_steps": 2.5}, "num_steps"),
        ({"image_dtype": "float16"}, r"image_dtype must be one of float32, uint8"),
        ({"seed": -1}, "seed"),
        ({"chunk_size": 0}, "chunk_size"),
    ],
)
def test_impossible_requests_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        small(tmp_path, **changes)
    with pytest.raises(ValueError, match="num_workers"):
        small(tmp_path).run(num_workers=0)


def test_config_builds_collector_and_data_set(tmp_path):
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        cfg = compose("collect", ["env=wall", "env.collector.step_mean=0.6", f"env.dataset.data_path={tmp_path}"])
    expert = instantiate(cfg.env.collector)
    assert expert == WallRandomWalk(step_mean=0.6)
    wall_collection(tmp_path, expert, **SMALL).run(num_workers=1)
    data = instantiate(cfg.env.dataset)
    assert len(data) == 10 and torch.equal(data.states, WallTrajectories(tmp_path).states)


@pytest.fixture
def command(forked):
    """Start a collection below a folder."""

    def begin(folder, cwd, num_workers, *extra):
        options = ["n_rollout=60", "image_size=224", "image_dtype=uint8", "num_steps=20", "chunk_size=4", *extra]
        variables = {"PYTHONPATH": str(REPOSITORY), "DATASET_DIR": str(folder)}
        words = ("-m", "datasets.collect", "env=wall", f"num_workers={num_workers}", *options)
        return forked(*words, cwd=cwd, env=variables)

    return begin


def wait_for(condition, seconds=120.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the awaited state did not come"
        time.sleep(0.01)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "num_workers"), [(signal.SIGKILL, 2), (signal.SIGTERM, 2), (signal.SIGINT, 1)], ids=lambda v: str(v)
)
def test_a_killed_command_goes_on_where_it_stopped(command, tmp_path, number, num_workers):
    (cwd := tmp_path / "cwd").mkdir()
    (root := tmp_path / "data").mkdir()
    folder = root / "wall_single"
    process = command(root, cwd, num_workers)
    wait_for(lambda: len(list(folder.glob("obses/episode_*.pth"))) >= 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(number)
    output, errors = process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    wait_for(lambda: not any(running(child) for child in children))
    assert "Traceback" not in errors and (number != signal.SIGINT or "interrupted" in output)
    made = sorted(folder.glob("obses/episode_*.pth"))
    assert 2 <= len(made) < 60 and not (folder / "states.pth").exists()
    for path in made:
        assert torch.load(path, weights_only=True).shape == (21, 3, 224, 224)

    process = command(root, cwd, 1)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"60 trajectories of 20 steps, images uint8 224x224, 0.2 GB ({len(made)} traj" in output
    sizes = {"n_rollout": 60, "num_steps": 20, "image_size": 224, "chunk_size": 4}
    uninterrupted = wall_collection(tmp_path / "whole", WallRandomWalk(), **sizes).run(1)
    assert_same_bits(uninterrupted, folder)
    assert list(cwd.iterdir()) == []  # no output folder, no log file


@pytest.mark.slow
def test_user_errors_are_one_line(command, tmp_path):
    for extra, message in {
        ("env.collector.step_mean=9",): "collect: collector.step_mean must be in",
        ("image_dtype=int8", "data_path=x"): "collect: image_dtype must be one of",
        (): "collect: environment variable DATASET_DIR=",
    }.items():
        process = command(tmp_path / "absent", tmp_path, 1, *extra)
        errors = process.communicate()[1]
        assert process.returncode == 1 and errors.startswith(message) and "Traceback" not in errors
