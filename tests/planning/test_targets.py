"""Goals of one's own: written, read, and refused where none can be."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from envs.base import VectorEnv, simulate
from envs.process_vector import ProcessVectorEnv
from envs.wall.vector_env import WallVectorEnv
from planning.episode_set import write_manifest
from planning.goals import GoalRequest, make_problem
from planning.targets import write_targets
from tests.builders import POINT_NORMALIZER, PointEnv


def from_file(path: Path, env: VectorEnv, count: int):
    return make_problem("file", GoalRequest(env, list(range(count)), 5, 5, lambda: None, POINT_NORMALIZER, path))


ENVS = {
    "wall": WallVectorEnv,
    "pusht": lambda: ProcessVectorEnv("envs.pusht.simulator:PushTSimulator", num_workers=0),
    "point_maze": lambda: ProcessVectorEnv("envs.point_maze.simulator:PointMazeSimulator", num_workers=0),
}
GOOD = {
    "wall": [[15.0, 20.0], [50.0, 40.0]],
    "pusht": [[100.0, 100, 256, 256, 0.5, 0, 0], [300.0, 100, 200, 256, 7.0, 0, 0]],
    "point_maze": [[0.8, 0.8, 0, 0], [2.8, 1.0, 1, -1]],
}
BAD = [
    ("wall", [2.0, 20.0], "x=2, y=20 lies outside the room"),
    ("wall", [30.0, 75.0], "x=30, y=75 lies outside the room"),
    ("wall", [32.0, 10.0], "x=32, y=10 lies inside the wall"),
    ("wall", [float("nan"), 10.0], "entry 0 of the {kind} is nan"),
    ("pusht", [100.0, 900, 256, 256, 0, 0, 0], "agent y=900 lies outside the table"),
    ("pusht", [100.0, 100, -3, 256, 0, 0, 0], "block x=-3 lies outside the table"),
    ("point_maze", [1.8, 0.8, 0, 0], "x=1.8, y=0.8 lies inside a wall"),
    ("point_maze", [0.8, 3.5, 0, 0], "x=0.8, y=3.5 lies inside a wall"),
    ("point_maze", [9.0, 0.8, 0, 0], "x=9, y=0.8 lies outside the maze"),
]


@pytest.mark.parametrize("name", ENVS)
def test_what_is_written_is_read(name, tmp_path):
    env, states = ENVS[name](), torch.tensor(GOOD[name])
    written = write_targets(tmp_path / "mine.npz", env, states, states.flip(0))
    read = from_file(tmp_path / "mine.npz", env, 2)
    assert torch.equal(read.states, states.double()) and torch.equal(read.goal_states, states.flip(0).double())
    assert read.layouts.keys() == env.default_layouts(1).keys()
    assert read.hashes() == written.hashes() and len(set(read.hashes())) == 2
    env.reset(read.seeds, read.states, read.layouts)


@pytest.mark.parametrize(("name", "state", "message"), BAD)
@pytest.mark.parametrize("kind", ["start", "goal"])
def test_a_place_where_none_can_be_is_named_with_its_episode(name, state, message, kind, tmp_path):
    env, good = ENVS[name](), torch.tensor(GOOD[name])
    states, goals = good.clone(), good.flip(0).clone()
    (states if kind == "start" else goals)[1] = torch.tensor(state)
    expected = f"episode 1: .*{message.format(kind=kind)}"
    with pytest.raises(ValueError, match=rf"(?=.*the {kind} ){expected}"):
        write_targets(tmp_path / "mine.npz", env, states, goals)
    assert not (tmp_path / "mine.npz").exists()
    path = tmp_path / "by_hand.npz"
    np.savez(path, seeds=np.arange(2), states=states.numpy(), goal_states=goals.numpy())
    with pytest.raises(ValueError, match=rf"goal_file_path: .*by_hand\.npz: {expected}"):
        from_file(path, env, 2)


def test_the_wall_is_where_the_layout_says(tmp_path):
    env, states = WallVectorEnv(), torch.tensor([[32.0, 30.0], [20.0, 30.0]])  # the first stands in the door
    write_targets(tmp_path / "mine.npz", env, states, states.flip(0))
    moved = {"fix_wall_location": torch.tensor([[32.0], [21.0]]), "fix_door_location": torch.tensor([[30.0], [50.0]])}
    with pytest.raises(ValueError, match=r"episode 1: the start at x=20, y=30 lies inside the wall \(x=21 "):
        write_targets(tmp_path / "mine.npz", env, states, states.flip(0), moved)


@pytest.mark.parametrize("name", ENVS)
def test_no_place_that_the_simulator_itself_reaches_is_refused(name):
    """Pressed against walls as hard as it goes."""
    env, seeds = ENVS[name](), range(30)
    states, goals = env.sample_start_goal(seeds)
    actions = torch.randn(30, 12, 2, generator=torch.Generator().manual_seed(0)).repeat_interleave(5, 1)
    actions = actions * (0.02 if name == "pusht" else 3)
    visited = simulate(env, seeds, states, actions).states
    places = [states, goals, *visited.unbind(1)]
    assert not [text for each in places for text in env.misplaced(each) if text]


def test_a_goal_that_known_actions_lead_to_is_accepted(tmp_path):
    env = ENVS["pusht"]()
    states = torch.tensor([[500.0, 256, 200, 200, 0, 0, 0]]).double()
    actions = torch.tensor([[[0.5, 0.0]]]).repeat(1, 10, 1)
    goals = simulate(env, [0], states, actions).states[:, -1]
    assert env.misplaced(goals)[0]
    arrays = {"seeds": np.arange(1), "states": states.numpy(), "goal_states": goals.numpy()}
    np.savez(tmp_path / "with.npz", actions=actions.numpy(), **arrays)
    np.savez(tmp_path / "without.npz", **arrays)
    assert len(from_file(tmp_path / "with.npz", env, 1)) == 1
    with pytest.raises(ValueError, match="the goal at agent x="):
        from_file(tmp_path / "without.npz", env, 1)


def test_whole_numbers_are_places_too(tmp_path):
    np.savez(tmp_path / "a.npz", seeds=np.arange(1), states=np.array([[15, 20]]), goal_states=np.array([[50, 20]]))
    env = WallVectorEnv()
    problem = from_file(tmp_path / "a.npz", env, 1)
    assert env.reset(problem.seeds, problem.states, problem.layouts).tolist() == [[15, 20]]


def manifest(folder, env, seed: int = 0):
    """(path, episodes) of three episodes as planning draws them, with numbers that no decimal fraction is."""
    request = GoalRequest(env, [7, 2**33 + 1, 9], 1, 5, lambda: None, POINT_NORMALIZER)
    problem = make_problem("random_action", request)
    write_manifest(folder / "episodes.json", problem, env.name, {"seed": seed, "goal_H": 1})
    return folder / "episodes.json", problem


@pytest.mark.parametrize("name", ["wall", "pusht"])
def test_a_manifest_holds_the_episodes_to_the_last_bit(name, tmp_path):
    env = ENVS[name]()
    path, written = manifest(tmp_path, env)
    written.save(tmp_path / "plan_targets.npz")
    read, arrays = from_file(path, env, 3), from_file(tmp_path / "plan_targets.npz", env, 3)
    assert read.seeds == arrays.seeds == written.seeds
    for found, wanted in zip(read.arrays().values(), arrays.arrays().values(), strict=True):
        assert found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes()
    fewer = from_file(path, env, 2)
    assert fewer.hashes() == written.hashes()[:2] and torch.equal(fewer.actions, written.actions[:2])


def moved(content):
    content["episodes"][1]["goal"][0] += 0.25


def exchanged(content):
    content["episodes"].reverse()


SPOILT = {
    "a goal that was moved": (moved, r"episode 1 is not the one that its hash [0-9a-f]{16} names"),
    "another order": (exchanged, "the episodes are not the ones that episode_set_hash names"),
    "another environment": (
        lambda content: content.update(env="pusht"),
        "holds episodes of env=pusht, not",
    ),
    "a later format": (lambda content: content.update(format=2), r"is no episodes\.json of format 1"),
    "no starts": (lambda content: content["episodes"][0].pop("start"), r"is no episodes\.json .*KeyError: 'start'"),
    "words": (lambda content: content["types"].update(states="U8"), r"is no episodes\.json .*states of type U8"),
    "a list": (lambda content: content.update(episodes=3), r"is no episodes\.json .*TypeError"),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILT.values(), ids=SPOILT)
def test_a_manifest_that_was_changed_is_refused(tmp_path, spoil, words):
    path, _ = manifest(tmp_path, WallVectorEnv())
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"goal_file_path: .*episodes\.json.*{words}") as error:
        from_file(path, WallVectorEnv(), 3)
    assert "\n" not in str(error.value)


WRONG = {
    "seeds below 0": ({"seeds": np.array([-1])}, "seeds must be one whole number >= 0"),
    "seeds that are no whole numbers": ({"seeds": np.array([0.5])}, "seeds must be one whole number >= 0"),
    "actions of another environment": ({"actions": np.zeros((1, 5, 3))}, r"actions must be \(1, K, 2\)"),
    "an enormous shape": (None, "is not a plan_targets.npz"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_named(change, message, tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"seeds": np.arange(1), "states": np.array([[15.0, 20]]), "goal_states": np.array([[50.0, 20]])}
    np.savez(path, **arrays | (change or {}))
    if change is None:
        path.write_bytes(path.read_bytes().replace(b"'shape': (1, 2), }      ", b"'shape': (999999, 2), } "))
    with pytest.raises(ValueError, match=rf"goal_file_path: .*a\.npz.*{message}"):
        from_file(path, WallVectorEnv(), 1)


def test_shapes_of_ones_own_must_fit(tmp_path):
    with pytest.raises(ValueError, match=r"states and goal_states must both be \(B, 2\)"):
        write_targets(tmp_path / "a.npz", PointEnv(), torch.zeros(2, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"states and goal_states must both be \(B, 2\)"):
        write_targets(tmp_path / "a.npz", PointEnv(), torch.zeros(2, 2), torch.zeros(2, 2), seeds=[1])


class Drawn(PointEnv):
    """Draws start and goal on one spot for a share of the draws, by the parity of the seed's words."""

    def sample_start_goal(self, seeds, layouts=None):
        states = torch.tensor([[float(seed % 100), 0.0] for seed in seeds]).double()
        # even seeds begin solved in their first two draws
        away = [float(seed % 2 == 1 or seed >> 64 >= 2) * 3 for seed in seeds]
        return states, states + torch.tensor(away)[:, None] * (
            1 + torch.tensor([seed >> 64 for seed in seeds])[:, None]
        )


def drawn(seeds, unsolved: bool, env=None):
    request = GoalRequest(env or Drawn(), seeds, 5, 5, lambda: None, POINT_NORMALIZER, None, unsolved)
    return make_problem("random_state", request)


def test_only_episodes_that_begin_solved_are_drawn_again():
    before, after = drawn([3, 4, 5, 6], unsolved=False), drawn([3, 4, 5, 6], unsolved=True)
    assert after.seeds == before.seeds == [3, 4, 5, 6]
    assert (before.states == before.goal_states).all(1).tolist() == [False, True, False, True]
    assert torch.equal(after.goal_states[::2], before.goal_states[::2])
    assert ((after.states - after.goal_states).norm(dim=1) > 0.5).all()
    alone = drawn([6], unsolved=True)  # whatever the others are
    assert torch.equal(alone.goal_states, after.goal_states[3:]) and torch.equal(alone.states, after.states[3:])


def test_where_everything_begins_solved_it_is_said():
    with pytest.raises(
        ValueError, match=r"goal_source=random_state.* 200 draws episode 1 .*unsolved_starts_only=false"
    ):
        drawn([3, 4], unsolved=True, env=SolvedUnlessOdd())


class SolvedUnlessOdd(Drawn):
    def sample_start_goal(self, seeds, layouts=None):
        states = torch.zeros(len(seeds), 2).double()
        return states, states + torch.tensor([3.0 * (seed % 2) for seed in seeds])[:, None]


@pytest.mark.parametrize("source", ["dset", "random_action"])
def test_segments_are_drawn_again_with_their_actions_and_layouts(source):
    """Actions of 0.02 stay inside the region, those of 1 leave it."""
    trajectories = SimpleNamespace(
        lengths=torch.tensor([10, 10]),
        states=[torch.zeros(10, 2).double(), torch.ones(10, 2).double()],
        actions=[torch.full((10, 2), 0.02), torch.ones(10, 2)],
        layout=lambda number: {"gain": torch.tensor([1.0 + number])},
    )
    request = GoalRequest(
        PointEnv(radius=1.0), list(range(8)), 2, 5, lambda: (trajectories, [0, 1]), POINT_NORMALIZER, None, True
    )
    problem = make_problem(source, request)
    played = simulate(PointEnv(), problem.seeds, problem.states, problem.actions, problem.layouts)
    assert torch.equal(played.states[:, -1], problem.goal_states)
    assert ((problem.states - problem.goal_states).norm(dim=1) >= 1).all()
    if source == "dset":
        assert (problem.states == 1).all() and (problem.layouts["gain"] == 2).all()


@pytest.mark.parametrize("name", ["point_maze", "pusht"])
def test_real_environments_draw_unsolved_starts(name):
    env, seeds = ENVS[name](), [99 * n + 1 for n in range(20)]
    before, after = drawn(seeds, False, env), drawn(seeds, True, env)
    solved = env.success(env.reset(seeds, before.states, before.layouts), before.goal_states).success
    assert not env.success(env.reset(seeds, after.states, after.layouts), after.goal_states).success.any()
    assert torch.equal(after.states[~solved], before.states[~solved])
    assert (after.states[solved] != before.states[solved]).any(1).all()
