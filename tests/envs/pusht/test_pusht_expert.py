"""Scripted pushes: purpose, distribution, layout, and that an episode depends on nothing but its own number."""

import cmath
import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from datasets.collecting.collection import Collection
from datasets.collecting.recording import record, trajectory_generators
from datasets.formats.pusht import PushTTrajectories, PushTWriter
from datasets.formats.tables import is_recorded
from envs.base import simulate
from envs.process_vector import ProcessVectorEnv
from envs.pusht.contacts import contacts
from envs.pusht.expert import PushTScriptedPusher
from envs.pusht.physics import World
from envs.pusht.script import Pose, PushScript
from envs.pusht.shapes import BLOCKS, SHAPES

RELEASED_ACTION_STD = [0.2019, 0.2002]
RELEASED_STATE_MEAN = [236.6, 264.6, 255.1, 266.4]
RELEASED_STATE_STD = [101.1, 87.0, 52.7, 57.5, 1.756, 74.8, 74.1]


def make_env(image_size=32):
    return ProcessVectorEnv("envs.pusht.simulator:PushTSimulator", image_size, num_workers=0)


def played(expert, numbers, num_steps=246, seed=0, dtype=None, size=32, stream=0):
    return record(make_env(size), expert, seed, numbers, num_steps, dtype, stream, frames_after_last=0)


def begun(expert, count, num_steps, stream=0):
    return expert.begin(None, trajectory_generators(0, range(count), stream)[0], num_steps)


def block_steps(states, apart):
    """How far the block moves, pixels, and turns, degrees, within so many steps of the recorded rows (T, 5)."""
    moved = (states[apart:, 2:4] - states[:-apart, 2:4]).norm(dim=1)
    turned = torch.remainder(states[apart:, 4] - states[:-apart, 4] + math.pi, 2 * math.pi) - math.pi
    return moved, turned.abs().rad2deg()


@pytest.fixture(scope="module")
def recording():
    return played(PushTScriptedPusher(), range(256))


def test_statistics_are_near_the_released_ones(recording):
    """Actions and velocities fit; people start and finish farther out, so that their agent spreads more."""
    rows = PushTWriter().tables(recording)
    valid = is_recorded(recording.lengths, 246)
    states = torch.cat((rows["states"], rows["velocities"]), -1)[valid]
    actions = rows["rel_actions"][valid] / 100
    assert recording.lengths.float().mean().item() == pytest.approx(125, abs=6)
    assert 50 <= recording.lengths.min() < 60 and 210 < recording.lengths.max() <= 246
    torch.testing.assert_close(actions.mean(0), torch.zeros(2), atol=0.012, rtol=0)
    torch.testing.assert_close(actions.std(0), torch.tensor(RELEASED_ACTION_STD), atol=0.01, rtol=0)
    torch.testing.assert_close(states.mean(0)[:4], torch.tensor(RELEASED_STATE_MEAN), atol=18, rtol=0)
    expected = torch.tensor(RELEASED_STATE_STD)
    torch.testing.assert_close(states.std(0)[2:], expected[2:], atol=0, rtol=0.15)
    torch.testing.assert_close(states.std(0)[:2], expected[:2], atol=25, rtol=0)


def test_most_windows_of_25_steps_move_and_turn_the_block(recording):
    windows = [
        block_steps(states[:length], 25) for states, length in zip(recording.states, recording.lengths, strict=True)
    ]
    moved, turned = (torch.cat(each) for each in zip(*windows, strict=True))
    assert (moved > 5).float().mean() > 0.65 and (moved > 20).float().mean() > 0.45
    assert (turned > 5).float().mean() > 0.65
    assert ((moved < 1) & (turned < 1)).float().mean() < 0.25


def test_agent_and_block_stay_in_the_window(recording):
    states = recording.states[:, :-1][is_recorded(recording.lengths, 246)]
    assert states[:, :2].min() > 0 and states[:, :2].max() < 512
    for state in states[::50].tolist():
        for corner in itertools.chain(*BLOCKS["T"].placed(*state[2:5])):
            assert min(corner) > 7 and max(corner) < 504  # the walls' faces


@pytest.mark.parametrize("shape", SHAPES)
def test_the_script_reaches_its_target(shape):
    """From twelve starts, without noise; success is what the environment calls so."""
    target, reached = Pose(270 + 240j, 2.0), 0
    known = contacts(shape)
    for number in range(12):
        rng = np.random.default_rng(number)
        angle = rng.uniform(0, 2 * math.pi)
        origin = complex(*rng.uniform(170, 340, 2)) - known.center * cmath.exp(1j * angle)
        world = World(BLOCKS[shape], [40.0, 40.0, origin.real, origin.imag, angle, 0.0, 0.0])
        script = PushScript(shape, itertools.repeat(target), rng, speed=30.0)
        for _ in range(250):
            command = script.command(world.state())
            world.step(command.real, command.imag)
            state = world.state()
            center = complex(*state[2:4]) + known.center * cmath.exp(1j * state[4])
            turned = abs(math.remainder(state[4] - target.angle, 2 * math.pi))
            if abs(center - target.center) < 20 and turned < math.pi / 9:
                reached += 1
                break
    assert reached >= 10


def test_the_script_goes_on_to_the_next_target():
    poses = [Pose(270 + 240j, 2.0), Pose(200 + 300j, 4.0), Pose(300 + 200j, 0.0)]
    asked = []

    def targets():
        for pose in itertools.cycle(poses):
            asked.append(pose)
            yield pose

    world = World(BLOCKS["T"], [40.0, 40.0, 200.0, 200.0, 1.0, 0.0, 0.0])
    script = PushScript("T", targets(), np.random.default_rng(0), speed=30.0)
    for _ in range(500):
        command = script.command(world.state())
        world.step(command.real, command.imag)
    assert len(asked) >= 4


@pytest.mark.parametrize("shape", ["T", ["L", "+"]])
def test_an_episode_depends_only_on_seed_and_number(shape):
    expert = PushTScriptedPusher(shape=shape)
    together = played(expert, range(6), 60, 5, torch.uint8)
    alone = played(expert, [4], 60, 5, torch.uint8)
    for name, rows in PushTWriter().tables(alone).items():
        assert torch.equal(rows[0], PushTWriter().tables(together)[name][4]), name
    assert torch.equal(alone.frames[0], together.frames[4])
    assert not torch.equal(played(expert, [4], 60, 6).actions, alone.actions)


def test_tables_have_the_released_layout_and_replay_exactly():
    expert = PushTScriptedPusher(min_steps=20)
    recording = played(expert, range(16), 70, 1)
    rows = PushTWriter().tables(recording)
    assert {name: tuple(table.shape) for name, table in rows.items()} == {
        "abs_actions": (16, 70, 2),
        "rel_actions": (16, 70, 2),
        "seq_lengths": (16,),
        "shapes": (16,),
        "states": (16, 70, 5),
        "velocities": (16, 70, 2),
    }
    padding = ~is_recorded(rows["seq_lengths"], 70)
    assert padding.any()
    for name in ("abs_actions", "rel_actions", "states", "velocities"):
        assert rows[name].dtype == torch.float32 and (rows[name][padding] == 0).all()
    torch.testing.assert_close(rows["abs_actions"], rows["states"][..., :2] + rows["rel_actions"])
    starts = torch.cat((rows["states"], rows["velocities"]), -1)[:, 0]
    replayed = simulate(make_env(), range(16), starts, rows["rel_actions"] / 100).states[:, :-1].float()
    expected = torch.cat((rows["states"], rows["velocities"]), -1)
    assert torch.equal(replayed[~padding], expected[~padding])


def test_parts_of_an_episode_replay_nearly(recording):
    """As planning does it. A reset forgets contacts, and puts the agent ahead by what it moves in 0.01 s."""
    rows = PushTWriter().tables(recording)
    states = torch.cat((rows["states"], rows["velocities"]), -1)
    each = torch.arange(len(states))
    begin = torch.from_numpy(np.random.RandomState(0).randint(recording.lengths.numpy() - 25))
    actions = torch.stack([rows["rel_actions"][i, begin[i] : begin[i] + 25] / 100 for i in each])
    env = make_env()
    ends = simulate(env, range(len(states)), states[each, begin], actions).states[:, -1]
    wanted = states[each, begin + 25].double()
    assert env.success(ends, wanted).success.float().mean() > 0.97
    apart = (ends - wanted).abs()
    assert apart[:, :2].norm(dim=1).median() < 1.5 and apart[:, 2:4].norm(dim=1).median() < 1.0
    assert apart[:, :2].norm(dim=1).max() < 6


def test_noise_and_speed_are_those_asked_for():
    quiet = played(PushTScriptedPusher(noise_levels=[0], speed=[12, 14]), range(8), 60)
    lengths = 100 * quiet.actions.norm(dim=-1)
    assert 12 <= lengths.max() <= 14.001 and (lengths.amax(1) >= 11.999).all()
    noisy = PushTScriptedPusher(noise_levels=[0, 5, 20], speed=[12, 14], min_steps=240)
    rough = 100 * played(noisy, range(40)).actions.diff(dim=1).diff(dim=1)[:, :230].std((1, 2)) / math.sqrt(6)
    levels = torch.tensor([0.0, 5.0, 20.0])
    nearest = (rough[:, None] - levels).abs().argmin(1)
    assert torch.bincount(nearest).min() >= 5  # all three occur,
    assert rough[nearest == 2].mean().item() == pytest.approx(20, abs=1.5)  # and nothing between them
    assert rough[nearest == 1].mean().item() == pytest.approx(5, abs=1.5)


def test_validation_is_undisturbed_and_of_its_own_numbers(tmp_path):
    expert = PushTScriptedPusher()
    parts = {
        subset: Collection(expert, make_env, PushTWriter(), tmp_path, 1, subset=subset) for subset in ("train", "val")
    }
    assert parts["train"].expert is expert and parts["val"].expert.noise_levels == (0.0,)
    starts = [begun(part.expert, 1, 60, part.stream).states for part in parts.values()]
    assert (starts[0] - starts[1]).abs().max() > 1
    assert [part.settings()["env.collector.stream"] for part in parts.values()] == [0, 1]


def test_lengths_fit_into_few_steps():
    assert begun(PushTScriptedPusher(), 20, 30).lengths.tolist() == [30] * 20
    lengths = begun(PushTScriptedPusher(), 200, 100).lengths
    assert 50 <= lengths.min() < 54 and 90 < lengths.max() <= 100


def test_shapes_are_drawn_from_the_list():
    episodes = begun(PushTScriptedPusher(shape=["Z", "I"]), 40, 60)
    found = [SHAPES[int(index)] for index in episodes.layouts["shape"][:, 0]]
    assert set(found) == {"Z", "I"} and 8 < found.count("I") < 32
    env = make_env()
    started = env.reset(range(40), episodes.states, episodes.layouts)
    torch.testing.assert_close(started, episodes.states, atol=1e-9, rtol=0)  # nothing overlaps


def test_collected_data_are_read_back(tmp_path):
    expert = PushTScriptedPusher(shape=("T", "square"), min_steps=20)
    counts = {"train": 12, "val": 2}
    for subset, count in counts.items():
        sizes = {"n_rollout": count, "num_steps": 40, "image_size": 64, "seed": 3, "subset": subset}
        Collection(expert, make_env, PushTWriter(), tmp_path / subset, **sizes).run(num_workers=1)
    names = pickle.loads((tmp_path / "train" / "shapes.pkl").read_bytes())
    lengths = pickle.loads((tmp_path / "train" / "seq_lengths.pkl").read_bytes())
    assert type(names) is type(lengths) is list and {type(length) for length in lengths} == {int}
    assert set(names) == {"T", "square"}
    assert 20 <= min(lengths) < max(lengths) <= 40
    data = PushTTrajectories(tmp_path)
    assert [len(part) for part in data.train_val()] == [12, 2] and data.frame_size == 64
    again = played(expert.of_subset("val"), range(2), 40, 3, torch.uint8, 64, stream=1)
    for number, length in enumerate(again.lengths.tolist()):
        assert data.lengths[12 + number] == length
        assert torch.equal(data.states[12 + number][:length], again.states[number, :length].float())
        assert torch.equal(data.actions[12 + number][:length], again.actions[number, :length])
        assert torch.equal(data.layout(12 + number)["shape"], again.layouts["shape"][number])
        steps = [0, 5, length - 1]
        shown = data.frames(12 + number, steps).float()
        assert (shown - again.frames[number, steps].float()).abs().mean() < 3


def test_settings_are_plain():
    settings = PushTScriptedPusher(shape=["Z", "I"], speed=(10, 20)).settings()
    assert settings["shape"] == ["Z", "I"] and settings["speed"] == [10.0, 20.0]
    assert PushTScriptedPusher(**settings).settings() == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "Q"}, r"shape must be one or more of T, .*got \['Q'\]"),
        ({"shape": []}, "shape must be one or more"),
        ({"speed": [0, 20]}, r"speed must be \[lowest, highest\] within \[1, 100\]"),
        ({"speed": [20]}, "speed"),
        ({"start_range": [50, 300]}, r"start_range.*within \[90, 422\]"),
        ({"target_range": [300, 200]}, "target_range"),
        ({"noise_levels": []}, "noise_levels must be one or more numbers"),
        ({"noise_levels": [-1.0]}, "noise_levels"),
        ({"landmark_share": 1.5}, r"landmark_share must be in \[0, 1\]"),
        ({"min_steps": 0}, "min_steps must be a whole number, at least 1"),
        ({"min_steps": 20.5}, "min_steps"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PushTScriptedPusher(**options)
