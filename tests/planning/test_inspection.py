"""``make_inspection``: the frames that people look at."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from envs.wall.vector_env import WallVectorEnv
from models.latent import Latent
from plan import plan
from planning import inspection
from planning.episode_record import EpisodeRecord
from planning.inspection import make_inspection
from tests.builders import wall_model, wall_model_directory
from tests.planning.test_evaluation import config
from utils.pictures import to_uint8

SIDE = 65


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    model = wall_model_directory(folder / "model")
    plan(config(model, folder / "run", "n_evals=3", "n_plot_samples=0", "save_latents=true"))
    return folder / "run"


def frames(run, name):
    sheet = np.asarray(Image.open(run / "inspection" / name))
    assert sheet.shape[1:] == (SIDE, 3)
    return sheet.reshape(-1, SIDE, SIDE, 3).astype(int)


def test_what_is_drawn_is_what_was_seen_and_imagined(run, monkeypatch):
    sheets, write = {}, inspection.Inspection._write_sheet
    monkeypatch.setattr(
        inspection.Inspection,
        "_write_sheet",
        lambda self, name, frames, **options: sheets.update({name: frames}) or write(self, name, frames, **options),
    )
    index = make_inspection(run, [0, 2], ["num_threads=1"])
    assert index["episodes"] == [0, 2] and index["decoder"] and index["taken"] == [1, 1, 1]
    record = EpisodeRecord.read(run / "episodes.npz")
    targets, env = np.load(run / "plan_targets.npz"), WallVectorEnv(SIDE)
    last = record.iteration_ends[record.planned[2].sum()]
    states = torch.from_numpy(np.concatenate([record.states[2, : last + 1], targets["goal_states"][2:3]]))
    env.reset([0] * len(states), states)
    real = frames(run, "real_2.webp")
    assert np.abs(real - to_uint8(env.render())).max() <= 2, "every raw step, then the goal; in 256 colours"
    places = json.loads((run / "inspection" / "places_2.json").read_text())
    assert len(places["agent"]) == len(record.states[2])
    x, y = (SIDE * np.array(places["agent"][0])).astype(int)
    assert real[0, y, x, 0] == 255 and real[0, y, x, 1] < 60, "the dot is red"
    saved = (record.imagined_visual, record.imagined_proprio)
    latent = Latent(*(torch.from_numpy(part[2, :1, [1, 3]]).float().transpose(0, 1) for part in saved))
    expected = (wall_model().decode(latent)[0] + 1) * 127.5
    torch.testing.assert_close(sheets["imagined_2.webp"][:2], expected, atol=0.2, rtol=0)
    apart = (expected[0] - expected[1]).abs().max()
    assert apart > 0.5, "the executed block, then the plan's end"
    assert len(frames(run, "imagined_2.webp")) == 2 * record.planned[2].sum()
    assert np.abs(frames(run, "imagined_2.webp")[:2] - to_uint8(expected)).mean() < 4


def test_drawing_goes_on_where_it_was(run, monkeypatch):
    make_inspection(run, [0], ["num_threads=1"])
    drawn = []
    monkeypatch.setattr(inspection.Inspection, "draw", lambda self, n: drawn.append(n))
    assert make_inspection(run, None, ["num_threads=1"])["episodes"] == [0, 1, 2]
    assert 0 not in drawn and 1 in drawn
    drawn.clear()
    record = EpisodeRecord.read(run / "episodes.npz")
    record.distances[0, 0] += 1
    record.write(run / "episodes.npz")
    make_inspection(run, None, ["num_threads=1"])
    assert drawn == [0, 1, 2], "of another record all are drawn anew"


def test_what_cannot_be_drawn_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="there are 3 episodes, none of them has the number 3"):
        make_inspection(run, [3])
    with pytest.raises(ValueError, match="holds no finished evaluation"):
        make_inspection(tmp_path)


def test_without_a_decoder_only_the_simulator_is_drawn(tmp_path):
    model = wall_model_directory(tmp_path / "model", has_decoder=False)
    plan(config(model, tmp_path / "run", "planner.max_iter=1", "n_evals=1", "n_plot_samples=0"))
    assert not make_inspection(tmp_path / "run")["decoder"]
    names = sorted(path.name for path in (tmp_path / "run" / "inspection").iterdir())
    assert names == ["index.json", "places_0.json", "real_0.webp"]
