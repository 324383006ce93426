"""The random walk: its distribution, and that a walk depends on nothing but its own number."""

import math

import pytest
import torch

from datasets.collecting.recording import record, trajectory_generators
from datasets.formats.wall import WallWriter
from envs.base import simulate
from envs.wall.expert import WallRandomWalk
from envs.wall.vector_env import WallVectorEnv


def walks(expert, numbers=range(300), num_steps=50, seed=0):
    return expert.begin(None, trajectory_generators(seed, numbers)[0], num_steps)


def test_statistics_fit_the_released_data():
    """Released: action deviation 0.75, states 31.9 +- 17.5 in both axes.

    The environment's constant push along walls raises the mean of y by 2 px, which the released data do not show.
    """
    expert = WallRandomWalk()
    recording = record(WallVectorEnv(65), expert, 0, range(500), 50)
    actions = recording.actions.flatten(0, 1)
    states = WallWriter().tables(recording)["states"].flatten(0, 1)
    torch.testing.assert_close(actions.mean(0), torch.zeros(2), atol=0.03, rtol=0.0)
    torch.testing.assert_close(actions.std(0), torch.tensor([0.752, 0.747]), atol=0.015, rtol=0.0)
    torch.testing.assert_close(states.mean(0), torch.tensor([31.9, 31.8 + 2.0]), atol=1.5, rtol=0.0)
    torch.testing.assert_close(states.std(0), torch.tensor([17.66, 17.28]), atol=0.7, rtol=0.0)
    assert recording.frames is None


@pytest.mark.parametrize("distribution", ["von_mises", "normal"])
def test_steps_and_turns_have_the_asked_distribution(distribution):
    expert = WallRandomWalk(0.6, 0.24, 0.12, 1.08, heading_noise=0.47, heading_distribution=distribution)
    actions = walks(expert).actions
    length = actions.norm(dim=-1)
    assert 0.12 <= length.min() < 0.16 and 1.04 < length.max() <= 1.0801
    assert length.mean().item() == pytest.approx(0.6, abs=0.01)
    assert length.std().item() == pytest.approx(0.24 * 0.8796, abs=0.005)  # of a normal cut at two deviations
    heading = torch.atan2(actions[..., 1], actions[..., 0])
    turns = heading.diff(dim=1)
    # mean resultant length: exp(-s^2 / 2) of a normal, I1(k) / I0(k) of a von Mises with k = 1 / noise
    bessel = torch.special.i1e(torch.tensor(1 / 0.47)) / torch.special.i0e(torch.tensor(1 / 0.47))
    expected = math.exp(-(0.47**2) / 2) if distribution == "normal" else bessel.item()
    assert turns.cos().mean().item() == pytest.approx(expected, abs=0.01)
    assert turns.sin().mean().item() == pytest.approx(0.0, abs=0.02)
    assert heading[:, 0].cos().mean().abs() < 0.15  # the first heading is uniform


def test_starts_fill_the_free_space_of_random_layouts():
    walk = walks(WallRandomWalk(door_range=(10, 50), wall_range=(20, 40)), range(600), 1)
    x, y = walk.states.unbind(-1)
    door, wall = (walk.layouts[f"fix_{name}_location"][:, 0] for name in ("door", "wall"))
    assert (door.min(), door.max(), wall.min(), wall.max()) == (10, 50, 20, 40)
    assert ((x - wall).abs() > 3).all()
    assert 4 <= min(x.min(), y.min()) < 5 and 59 < max(x.max(), y.max()) <= 60
    assert torch.unique(torch.stack((door, wall), 1), dim=0).shape[0] > 300


def test_layout_is_fixed_by_default():
    layouts = walks(WallRandomWalk(), range(20), 1).layouts
    assert layouts["fix_door_location"].tolist() == [[30.0]] * 20
    assert layouts["fix_wall_location"].tolist() == [[32.0]] * 20


def test_a_trajectory_depends_only_on_seed_and_number():
    expert = WallRandomWalk(door_range=(20, 40))
    env = WallVectorEnv(65)
    together = record(env, expert, 5, range(8), 6, torch.uint8)
    alone = record(env, expert, 5, [6], 6, torch.uint8)
    for name, rows in WallWriter().tables(alone).items():
        assert torch.equal(rows[0], WallWriter().tables(together)[name][6]), name
    assert torch.equal(alone.frames[0], together.frames[6])
    other = record(env, expert, 6, [6], 6)
    assert not torch.equal(other.actions, alone.actions)


def test_tables_replay_in_the_environment():
    """Row t holds the state before action t, frame t shows it, and the frames include the one after the last action."""
    expert = WallRandomWalk(door_range=(20, 40))
    env = WallVectorEnv(65)
    recording = record(env, expert, 1, range(20), 30, torch.float32)
    rows = WallWriter().tables(recording)
    assert {name: tuple(table.shape) for name, table in rows.items()} == {
        "states": (20, 30, 2),
        "actions": (20, 30, 2),
        "door_locations": (20, 30, 1),
        "wall_locations": (20, 30, 1),
    }
    assert all(table.dtype == torch.float32 for table in rows.values())
    layouts = {f"fix_{name}_location": rows[f"{name}_locations"][:, 0] for name in ("door", "wall")}
    replayed = simulate(env, range(20), rows["states"][:, 0].double(), rows["actions"], layouts, frame_every=1)
    assert torch.equal(replayed.states[:, :30].float(), rows["states"])
    assert torch.equal(replayed.frames.float(), recording.frames)


def test_images_are_rounded_to_uint8():
    expert = WallRandomWalk()
    env = WallVectorEnv(32)
    exact, rounded = (record(env, expert, 0, range(3), 2, dtype).frames for dtype in (torch.float32, torch.uint8))
    assert rounded.dtype == torch.uint8 and not torch.equal(exact, exact.round())
    assert (exact - rounded).abs().max() <= 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_std": 0.0}, "step_std"),
        ({"step_min": 2.0}, "step_min"),
        ({"step_mean": 3.0}, r"step_mean must be in \[0.2, 1.8\], from step_min to step_max, got 3"),
        ({"heading_noise": 0.0}, "heading_noise"),
        ({"heading_distribution": "uniform"}, "von_mises"),
        ({"door_range": [30]}, r"door_range.*\[8, 56\]"),
        ({"door_range": [30, 61]}, "door_range"),
        ({"wall_range": [40, 20]}, r"wall_range.*\[40, 20\]"),
        ({"wall_range": [20.5, 30]}, "whole"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WallRandomWalk(**options)
