"""The contracts are held against options in a folder outside the repository, and say what is wrong with broken ones."""

import functools
import os
import re
import sys
import textwrap

import numpy as np
import pytest
from hydra import compose

from envs.process_vector import ProcessVectorEnv
from launch.command_line import plain
from tests.builders import REPOSITORY
from tests.contracts.environment_contract import (
    check_determinism,
    check_images,
    check_restoring,
    check_seeds,
    check_success,
)
from tests.pages.markdown import named_files
from tests.training.tiny import config_folder
from training.config import TrainConfig
from utils.schema import parsed

MODULE = """
from pathlib import Path

import numpy as np
import torch

from datasets.trajectories import Trajectories, random_split, valid_rows
from datasets.units.normalizer import Normalizer
from envs.simulator import Simulator


class Rooms(Simulator):
    name, state_dim, env_action_dim, proprio_indices = "rooms", 2, 2, (0, 1)

    @classmethod
    def sample_start_goal(cls, seed):
        return tuple(np.random.default_rng(seed).uniform(-1, 1, (2, 2)))

    @classmethod
    def compare(cls, states, goals):
        distance = np.linalg.norm(states - goals, axis=1)
        return distance < 0.2, distance

    def reset(self, state, layout):
        self.state = np.array(state, np.float64)
        return self.state

    def step(self, actions):
        visited = np.empty((len(actions), 2))
        for action, row in zip(actions, visited):
            self.state = row[:] = np.clip(self.state + 0.1 * action, -1, 1)
        return visited

    def render(self):
        image = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        x, y = ((self.state + 1) / 2 * (self.image_size - 8)).astype(int)
        image[y : y + 8, x : x + 8] = 255
        return image


class Archives(Trajectories):
    def __init__(self, name, data_path):
        self.name, self.data_path = name, Path(data_path)
        self.paths = sorted(self.data_path.glob("*.npz"))
        episodes = [np.load(path) for path in self.paths]
        self.states = [torch.from_numpy(episode["states"]) for episode in episodes]
        self.actions = [torch.from_numpy(episode["actions"]) for episode in episodes]
        self.lengths = torch.tensor([len(rows) for rows in self.actions])
        self.frame_size = episodes[0]["frames"].shape[1]
        self.normalizer = Normalizer.fit(*valid_rows(self))

    def proprio(self, trajectory):
        return self.states[trajectory]

    def frames(self, trajectory, steps):
        return torch.from_numpy(np.load(self.paths[trajectory])["frames"][list(steps)]).movedim(-1, 1)

    def layout(self, trajectory):
        return {}

    def train_val(self):
        return random_split(len(self), 0.75, 42)
"""
ENV = """
    # A square in a room.
    name: rooms
    num_hist: 1
    cem_opt_steps: 10
    env_action_dim: 2
    proprio_dim: 2
    state_dim: 2
    colours: rgb
    num_workers: null
    simulator:
      _target_: envs.process_vector.ProcessVectorEnv
      simulator: rooms:Rooms
      num_workers: 0
    collector:
      _target_: envs.expert.RandomActions
      hold: 5
    trusted_targets: [rooms:Rooms]
"""
FORMAT = """
    # @package env.dataset
    # One archive of NumPy's per episode.
    _target_: rooms.Archives
    name: ${env.name}
    data_path: DATA
    trusted_targets: [rooms.Archives]
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with the two, and data of four episodes."""
    for name, text in {"rooms.py": MODULE, "env/rooms.yaml": ENV, "dataset/archives.yaml": FORMAT}.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).replace("DATA", str(tmp_path / "data")))
    monkeypatch.syspath_prepend(tmp_path / "mine")
    monkeypatch.delitem(sys.modules, "rooms", raising=False)
    from rooms import Rooms

    (tmp_path / "data").mkdir()
    for number in range(4):
        rng, simulator = np.random.default_rng(number), Rooms(32)
        actions, start = rng.uniform(-1, 1, (12, 2)).astype(np.float32), rng.uniform(-1, 1, 2)
        states, frames = [simulator.reset(start, {})], [simulator.render()]
        for action in actions[:-1]:
            states.append(simulator.step(action[None])[0])
            frames.append(simulator.render())
        arrays = {"states": np.stack(states), "actions": actions, "frames": np.stack(frames)}
        np.savez(tmp_path / "data" / f"{number}.npz", **arrays)
    return tmp_path / "mine"


@pytest.fixture
def page(tmp_path):
    """The folder of docs/extending.md, with what is no environment and no data."""
    for name, text in named_files(REPOSITORY / "docs" / "extending.md").items():
        if re.search("random_shooting|noisy|pooled|per_patch", name):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    return tmp_path / "mine"


@pytest.fixture
def held(forked, monkeypatch):
    """A function that gives exit code and words of the contracts about the options in a folder."""
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        monkeypatch.delenv(name)

    def run(folder):
        process = forked("-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/contracts", "--config-dir", folder)
        return process.wait(300), process.communicate()[0]

    return run


def test_options_of_a_strangers_folder_are_held_against_the_contracts(mine, held):
    code, said = held(mine)
    assert code == 0 and "21 passed" in said, said


def test_what_the_page_adds_to_a_model_and_around_it_keeps_its_contracts(page, held):
    code, said = held(page)
    assert code == 0 and int(re.findall(r"(\d+) passed", said)[0]) >= 37, said


def test_a_broken_planner_method_and_encoder_are_told_what_is_wrong(page, held):
    for name, right, wrong in (
        ("random_shooting", "noise.randn(self.num_samples, *start.shape[1:])", "torch.randn(64, *start.shape[1:])"),
        ("noisy", '"generator": self.generator.get_state()', '"generator": torch.Generator().get_state()'),
        ("pooled", "images = visual", "images = visual / visual.max() * 255; images = images"),
    ):
        text = (page / f"{name}.py").read_text()
        assert right in text
        (page / f"{name}.py").write_text(text.replace(right, wrong))
    _, said = held(page)
    for message in (
        "no global random number is drawn: draw from `noise`",
        "interrupted and resumed, a run ends with other weights of .*state_dict must hold all",
        "a frame's features must not depend on those beside it",
    ):
        assert re.search(message, said), said


def test_a_stranger_trains_on_them(mine, forked, tmp_path):
    options = ["--config-dir", mine, "env=rooms", "dataset=archives", "experiment=wall_state", "dry_run=true"]
    settings = ["frameskip=2", "N=1", "training.batch_size=2", f"ckpt_path={tmp_path / 'none'}", "device=cpu"]
    process = forked("train.py", *options, *settings)
    output, errors = process.communicate(120)
    assert process.returncode == 0 and "4 trajectories, " in output + errors, errors


def test_an_environment_without_data_says_so_where_they_are_needed(mine):
    with config_folder():
        cfg = compose("train", [f"hydra.searchpath=[file://{mine}]", "env=rooms", "run_dir=r", "experiment=wall_state"])
    env = parsed(TrainConfig, plain(cfg)).env
    assert env.dataset is None
    with pytest.raises(ValueError, match=r"env=rooms says nothing of its data: .*dataset=episodes"):
        env.data.build()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("step", check_determinism),
        ("compare", check_success),
        ("sample_start_goal", check_seeds),
        ("reset", check_restoring),
        ("render", check_images),
    ],
)
def test_an_environment_that_breaks_the_contract_is_caught(mine, change, check, monkeypatch):
    import rooms

    broken = {
        "step": lambda self, actions: np.random.default_rng().uniform(-1, 1, (len(actions), 2)),
        "compare": classmethod(lambda cls, states, goals: (np.ones(len(states), bool), np.zeros(len(states)))),
        "sample_start_goal": classmethod(lambda cls, seed: (np.zeros(2), np.ones(2))),
        "reset": lambda self, state, layout: (setattr(self, "state", np.zeros(2)), self.state)[1],
        "render": lambda self: np.full((self.image_size, self.image_size, 3), 255, np.uint8),
    }
    make = functools.partial(ProcessVectorEnv, "rooms:Rooms", 32, num_workers=0)
    argument = make if check is check_determinism else make()
    check(argument)
    monkeypatch.setattr(rooms.Rooms, change, broken[change])
    with pytest.raises(AssertionError):
        check(argument)
