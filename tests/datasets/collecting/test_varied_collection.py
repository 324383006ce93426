"""Training data whose trajectories play in worlds that differ."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from datasets.formats.wall import WallTrajectories
from envs.base import simulate
from envs.wall.expert import WallRandomWalk
from envs.wall.vector_env import WallVectorEnv
from tests.builders import wall_collection, wall_data

SIZES = {"n_rollout": 5, "num_steps": 8, "chunk_size": 2}


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "wall_single"
    return wall_collection(folder, WallRandomWalk(), vary="colour,door,start", **SIZES).run(num_workers=1)


def test_its_layouts_are_kept_and_its_pictures_are_those_of_a_replay(varied, tmp_path):
    data = WallTrajectories(varied)
    assert json.loads((varied / "collect.json").read_text())["vary"] == ["colour", "door", "start"]
    layouts = {key: torch.stack([data.layout(i)[key] for i in range(5)]) for key in data.layout(0)}
    assert {"background_colour", "wall_colour", "dot_colour"} < layouts.keys()
    assert len({float(y) for y in layouts["fix_door_location"]}) > 2
    assert torch.equal(torch.load(varied / "door_locations.pth")[:, 0], layouts["fix_door_location"])
    env = WallVectorEnv(image_size=65)
    played = simulate(env, range(5), data.states[:, 0].double(), data.actions, layouts, frame_every=1)
    assert torch.equal(played.states[:, :-1].float(), data.states)
    for row in range(5):
        assert torch.equal(played.frames[row, :8], data.frames(row, range(8)))
    plain = WallTrajectories(wall_data(tmp_path / "plain", 5, 8))
    assert torch.equal(plain.actions, data.actions) and not torch.equal(plain.states, data.states)
    assert not list((tmp_path / "plain").glob("layout_*"))
    assert "vary" not in json.loads((tmp_path / "plain" / "collect.json").read_text())


def test_it_resumes_to_the_same_files_and_refuses_another_variation(varied, tmp_path):
    again = tmp_path / "wall_single"
    shutil.copytree(varied, again)
    for name in ("states.pth", "obses/episode_003.pth"):
        (again / name).unlink()
    wall_collection(again, WallRandomWalk(), vary=["colour", "door", "start"], **SIZES).run(num_workers=1)
    for path in varied.rglob("*.pth"):
        assert (again / path.relative_to(varied)).read_bytes() == path.read_bytes(), path.name
    with pytest.raises(ValueError, match="vary"):
        wall_collection(again, WallRandomWalk(), vary=["colour"], **SIZES).run(num_workers=1)
