"""DINO-WM's recipe for PushT: demonstrations as they are, and replayed with noise on their commands."""

import numpy as np
import pytest
import torch

from datasets.collect import collections
from datasets.collecting.config import CollectConfig
from datasets.collecting.recording import record, trajectory_generators
from datasets.files import DatasetError
from datasets.formats.pusht import PushTTrajectories, PushTWriter
from envs.process_vector import ProcessVectorEnv
from envs.pusht.expert import PushTScriptedPusher
from tests.datasets.collecting.test_collection import assert_same_bits, interrupt
from tests.training.tiny import composed
from utils.schema import parsed

zarr = pytest.importorskip("zarr", reason="demonstrations are read with zarr")

from datasets.collecting.demonstrations import PushTDemonstrations  # noqa: E402

COUNT, STEPS = 5, 40


def make_env(image_size=32):
    return ProcessVectorEnv("envs.pusht.simulator:PushTSimulator", image_size, num_workers=0)


@pytest.fixture(scope="module")
def recorded():
    """Scripted pushes, as the released demonstrations were recorded."""
    expert = PushTScriptedPusher(min_steps=20, noise_levels=[0.0])
    return record(make_env(), expert, 0, range(COUNT), STEPS, frames_after_last=0)


@pytest.fixture(scope="module")
def replay_buffer(recorded, tmp_path_factory):
    """In the layout of ``pusht_cchi_v7_replay.zarr``: places in pixels at 10 Hz, all episodes end to end."""
    rows, lengths = PushTWriter().tables(recorded), recorded.lengths.tolist()
    path = tmp_path_factory.mktemp("demonstrations") / "pusht_cchi_v7_replay.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    ends = group.create_array("meta/episode_ends", shape=(COUNT,), dtype="i8")
    ends[:] = np.cumsum(lengths)
    for name, table in {"state": rows["states"], "action": rows["abs_actions"]}.items():
        flat = torch.cat([table[number, :length] for number, length in enumerate(lengths)]).numpy()
        array = group.create_array(f"data/{name}", shape=flat.shape, dtype="f4", chunks=(161, flat.shape[1]))
        array[:] = flat
    return path


def replayed(expert, numbers, num_steps=STEPS):
    return record(make_env(), expert, 0, numbers, num_steps, frames_after_last=0)


def test_without_noise_the_recorded_states_come_again(recorded, replay_buffer):
    """To the rounding of the file, which contacts make larger."""
    expert = PushTDemonstrations(str(replay_buffer), num_val=0)
    again = replayed(expert, range(COUNT))
    assert torch.equal(again.lengths, recorded.lengths)
    for number, length in enumerate(recorded.lengths.tolist()):
        apart = (again.states[number, : length + 1] - recorded.states[number, : length + 1]).abs()
        assert apart.max() < 1e-3
    rows, there = PushTWriter().tables(again), PushTWriter().tables(recorded)
    torch.testing.assert_close(rows["abs_actions"], there["abs_actions"], atol=1e-3, rtol=0)
    torch.testing.assert_close(rows["abs_actions"], rows["states"][..., :2] + rows["rel_actions"])


def test_each_comes_once_as_it_is_and_then_with_noise_of_a_level(replay_buffer):
    expert = PushTDemonstrations(str(replay_buffer), num_val=2, replays=4, noise_levels=[3.0, 12.0])
    train, val = expert.of_subset("train"), expert.of_subset("val")
    assert (train.most_episodes, val.most_episodes) == (3 * 5, 2)
    rngs = trajectory_generators(0, range(15))[0]
    episodes = train.numbered(None, range(15), rngs, STEPS)
    targets, starts = episodes._targets, episodes.states
    for number in range(3):
        assert all(torch.equal(starts[number], starts[n]) for n in range(number, 15, 3))
        length = int(episodes.lengths[number])
        spread = [(targets[n, :length] - targets[number, :length]).std().item() for n in range(number + 3, 15, 3)]
        assert all(min(abs(each / level - 1) for level in (3, 12)) < 0.35 for each in spread), spread
        assert {int(episodes.lengths[n]) for n in range(number, 15, 3)} == {length}
    held_out = val.numbered(None, range(2), rngs[:2], STEPS).states
    every = torch.cat([held_out, starts[:3]])
    assert len(every.unique(dim=0)) == COUNT, "no demonstration is in both parts"


def test_uniform_noise_has_the_deviation_that_was_asked_for(replay_buffer):
    expert = PushTDemonstrations(str(replay_buffer), noise="uniform", noise_levels=[6.0], num_val=1)
    noise = expert._drawn(np.random.default_rng(0), 20_000)
    assert noise.std() == pytest.approx(6, rel=0.02) and np.abs(noise).max() < 6 * 3**0.5 + 1e-3


def config(replay_buffer, folder, *more, **values):
    chosen = ("env=pusht", "collector@env.collector=pusht_demonstrations", *more)
    node = composed(*chosen, name="collect", data_path=str(folder), image_size=32, **values)
    node["env"]["collector"] |= {"demonstrations": str(replay_buffer), "replays": 2, "num_val": 1}
    return parsed(CollectConfig, node)


def test_the_command_makes_the_released_layout_the_same_however_it_was_interrupted(
    replay_buffer, tmp_path, monkeypatch
):
    def run(folder):
        for collection in collections(config(replay_buffer, folder, chunk_size=5)):
            collection.run(num_workers=1)

    run(tmp_path / "whole")
    data = PushTTrajectories(tmp_path / "whole")
    assert [len(part) for part in data.train_val()] == [12, 1] and data.states.shape[1] == data.lengths.max()
    for at in (4, 9, 16):
        with monkeypatch.context() as patch:
            interrupt(patch, at)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "interrupted")
    run(tmp_path / "interrupted")
    assert_same_bits(tmp_path / "whole", tmp_path / "interrupted")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_val": 5}, r"num_val=5 must be less than the 5 demonstrations"),
        ({"demonstrations": None}, r"env\.collector\.demonstrations=null: name the folder"),
        ({"demonstrations": "nowhere.zarr"}, "nowhere.zarr"),
    ],
)
def test_what_cannot_be_is_refused(replay_buffer, change, said):
    with pytest.raises(ValueError, match=said):
        PushTDemonstrations(**{"demonstrations": str(replay_buffer)} | change)


def test_more_than_there_are_and_other_recordings_are_refused(replay_buffer, tmp_path):
    with pytest.raises(ValueError, match="n_rollout=13: there are 12 different trajectories; leave it null"):
        collections(config(replay_buffer, tmp_path, n_rollout=13))
    group = zarr.open_group(str(tmp_path / "other.zarr"), mode="w", zarr_format=2)
    state, action = np.ones((30, 5), "f4"), np.eye(30, 2, dtype="f4")
    for name, values in {"meta/episode_ends": np.array([30]), "data/state": state, "data/action": action}.items():
        group.create_array(name, shape=values.shape, dtype=values.dtype)[:] = values
    with pytest.raises(DatasetError, match="expected places in a window of 512 pixels, found 0 to 1"):
        PushTDemonstrations(str(tmp_path / "other.zarr"), num_val=0)
