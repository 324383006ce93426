from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.formats.wall import WallTrajectories
from datasets.units.normalizer import Normalizer
from envs.base import simulate
from envs.episode_seeds import episode_seeds
from envs.wall.vector_env import WallVectorEnv
from planning.goals import GOAL_SOURCES, GoalRequest, Problem, make_problem
from tests.builders import POINT_NORMALIZER, WALL_NORMALIZER, PointEnv, wall_data

FRAMESKIP = 5


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory) -> WallTrajectories:
    folder = wall_data(
        tmp_path_factory.mktemp("data") / "wall_single", count=8, door_range=(12, 52), wall_range=(20, 44)
    )
    return WallTrajectories(folder)


@pytest.fixture
def request_for(trajectories):
    """A request for goals in the Wall, some of it changed."""

    def make(count: int = 6, validation=lambda: (trajectories, [1, 4, 6]), goal_H: int = 3, **changes) -> GoalRequest:
        settings = {
            "env": WallVectorEnv(image_size=65),
            "seeds": episode_seeds(99, count),
            "goal_H": goal_H,
            "frameskip": FRAMESKIP,
            "validation": validation,
            "normalizer": Normalizer.from_dict(WALL_NORMALIZER),
        }
        return GoalRequest(**settings | changes)

    return make


def never():
    raise AssertionError("the data set is not needed here")


def same(first: Problem, second: Problem) -> None:
    assert first.seeds == second.seeds
    assert torch.equal(first.states, second.states)
    assert torch.equal(first.goal_states, second.goal_states)
    assert first.layouts.keys() == second.layouts.keys()
    assert all(torch.equal(value, second.layouts[name]) for name, value in first.layouts.items())
    assert (first.actions is None) == (second.actions is None)
    assert first.actions is None or torch.equal(first.actions, second.actions)


@pytest.mark.parametrize("seed", [2, 3, 99])
@pytest.mark.parametrize("source", ["random_state", "random_action", "dset"])
def test_episodes_differ_and_come_back(request_for, source, seed):
    problem = make_problem(source, request_for(seeds=episode_seeds(seed, 6)))
    assert len(problem) == 6
    together = torch.cat([problem.states, problem.goal_states], 1)
    assert len(together.unique(dim=0)) == 6
    same(problem, make_problem(source, request_for(seeds=episode_seeds(seed, 6))))


@pytest.mark.parametrize("source", ["random_state", "random_action", "dset"])
def test_an_episode_does_not_depend_on_how_many_there_are(request_for, source):
    few, many = (make_problem(source, request_for(count)) for count in (2, 6))
    assert torch.equal(few.states, many.states[:2])
    assert torch.equal(few.goal_states, many.goal_states[:2])


def test_random_states_are_the_environments_own_and_need_no_data(request_for):
    request = request_for(validation=never)
    problem = make_problem("random_state", request)
    states, goals = request.env.sample_start_goal(request.seeds)
    assert torch.equal(problem.states, states)
    assert torch.equal(problem.goal_states, goals)
    assert problem.actions is None
    assert problem.layouts.keys() == request.env.default_layouts(1).keys()


@pytest.mark.parametrize("source", ["random_action", "dset"])
def test_the_goal_is_where_the_simulator_itself_ends(request_for, source):
    request = request_for()
    problem = make_problem(source, request)
    assert problem.actions.shape == (6, 3 * FRAMESKIP, 2)
    played = simulate(WallVectorEnv(), problem.seeds, problem.states, problem.actions, problem.layouts)
    assert torch.equal(played.states[:, -1], problem.goal_states)
    assert (problem.states - problem.goal_states).norm(dim=1).min() > 0


def test_random_actions_are_normal_in_z_units(request_for):
    problem = make_problem("random_action", request_for(60))
    normalizer = Normalizer.from_dict(WALL_NORMALIZER)
    z = normalizer.actions_to_z(problem.actions)
    assert abs(z.mean()) < 0.08
    assert abs(z.std() - 1) < 0.08


def test_segments_come_from_the_validation_trajectories_with_their_layouts(request_for, trajectories):
    problem = make_problem("dset", request_for(20))
    steps, numbers = 3 * FRAMESKIP, []
    for episode in range(20):
        matches = [
            (number, offset)
            for number in range(len(trajectories))
            for offset in range(int(trajectories.lengths[number]) - steps + 1)
            if torch.equal(trajectories.actions[number][offset : offset + steps], problem.actions[episode])
        ]
        ((number, offset),) = matches
        numbers.append(number)
        assert torch.equal(problem.states[episode], trajectories.states[number][offset])
        for name, value in trajectories.layout(number).items():
            assert torch.equal(problem.layouts[name][episode], value)
        # the recorded state agrees, because the same simulator made it
        if offset + steps < len(trajectories.states[number]):
            recorded = trajectories.states[number][offset + steps]
            torch.testing.assert_close(problem.goal_states[episode], recorded, atol=1e-3, rtol=0, check_dtype=False)
    assert set(numbers) == {1, 4, 6}


def recorded_points(lengths: list[int], gain: float = 1.0) -> GoalRequest:
    """A request over trajectories of a point: number i starts at (i, i), all actions are (1, 1)."""
    trajectories = SimpleNamespace(
        lengths=torch.tensor(lengths),
        states=[torch.full((10, 2), float(i)).double() for i in range(len(lengths))],
        actions=[torch.ones(10, 2) for _ in lengths],
        layout=lambda number: {"gain": torch.tensor([gain])},
    )
    numbers = list(range(len(lengths)))
    return GoalRequest(PointEnv(), list(range(20)), 2, 5, lambda: (trajectories, numbers), POINT_NORMALIZER)


def test_layouts_reach_the_simulator():
    """The same actions lead elsewhere at another gain."""
    problem = make_problem("dset", recorded_points([10], gain=3.0))
    assert (problem.goal_states == 30).all()
    assert (problem.layouts["gain"] == 3).all()


def test_the_whole_of_a_trajectory_may_be_the_segment(request_for, trajectories):
    problem = make_problem("dset", request_for(3, goal_H=6))  # 30 of 30 steps
    assert all(any(torch.equal(state, trajectories.states[i][0]) for i in (1, 4, 6)) for state in problem.states)


def test_trajectories_that_are_too_short_are_an_error_with_a_remedy(request_for):
    with pytest.raises(
        ValueError, match=r"goal_H \* frameskip = 35 steps, and none of the 3 is that long; lower goal_H"
    ):
        make_problem("dset", request_for(goal_H=7))


def test_some_short_trajectories_are_passed_over():
    assert (make_problem("dset", recorded_points([3, 10, 4])).states == 1).all()


@pytest.mark.parametrize("source", ["random_state", "random_action", "dset"])
def test_saved_goals_come_back_identical(request_for, source, tmp_path):
    problem, path = make_problem(source, request_for()), tmp_path / "plan_targets.npz"
    problem.save(path)
    same(make_problem("file", request_for(path=path, validation=never)), problem)
    with np.load(path, allow_pickle=False) as data:  # readable without pickles
        assert data["states"].shape == (6, 2)


def test_fewer_episodes_than_saved_are_the_first_ones(request_for, tmp_path):
    problem = make_problem("dset", request_for())
    problem.save(tmp_path / "targets.npz")
    fewer = make_problem("file", request_for(2, path=tmp_path / "targets.npz"))
    assert fewer.seeds == problem.seeds[:2]
    assert torch.equal(fewer.actions, problem.actions[:2])
    assert all(len(value) == 2 for value in fewer.layouts.values())


def test_more_episodes_than_saved_are_an_error_with_both_numbers(request_for, tmp_path):
    make_problem("random_state", request_for(3)).save(tmp_path / "targets.npz")
    with pytest.raises(ValueError, match=r"targets\.npz holds 3 episodes .* 4 episodes \(n_evals\)"):
        make_problem("file", request_for(4, path=tmp_path / "targets.npz"))


def test_saved_seeds_win_over_the_configured_ones(request_for, tmp_path):
    make_problem("random_state", request_for(3)).save(tmp_path / "targets.npz")
    again = make_problem("file", request_for(path=tmp_path / "targets.npz", seeds=[5, 6, 7]))
    assert again.seeds == [1, 100, 199]


def pickled(path: Path) -> None:
    np.savez(path, seeds=np.array([{"a": 1}], dtype=object), states=np.zeros((1, 2)), goal_states=np.zeros((1, 2)))


def truncated(path: Path) -> None:
    np.savez(path, seeds=np.arange(9), states=np.zeros((9, 2)), goal_states=np.zeros((9, 2)))
    path.write_bytes(path.read_bytes()[:-200])


def wrong_env(path: Path) -> None:
    np.savez(path, seeds=np.arange(9), states=np.zeros((9, 7)), goal_states=np.zeros((9, 7)))


def uneven(path: Path) -> None:
    np.savez(path, seeds=np.arange(9), states=np.zeros((9, 2)), goal_states=np.zeros((8, 2)))


def single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((9, 2)))


BROKEN = {
    "pickled": (pickled, "is not a plan_targets.npz"),
    "truncated": (truncated, "is not a plan_targets.npz"),
    "empty": (lambda path: path.write_bytes(b""), "is not a plan_targets.npz"),
    "text": (lambda path: path.write_text("states: 3"), "is not a plan_targets.npz"),
    "a single array": (single_array, "is not a plan_targets.npz"),
    "other arrays": (lambda path: np.savez(path, seeds=np.arange(9)), r"found seeds \(9,\)"),
    "rows missing": (uneven, r"goal_states \(8, 2\)"),
    "another environment": (wrong_env, r"shape \(7,\); 6 episodes \(n_evals\) with 2 entries"),
    "a folder": (lambda path: path.mkdir(), "is not a plan_targets.npz"),
    "missing": (lambda path: None, "there is no file"),
}


@pytest.mark.parametrize(("write", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_goal_files_are_named(request_for, tmp_path, write, message):
    path = tmp_path / "targets.npz"
    write(path)
    with pytest.raises(ValueError, match=rf"goal_file_path: .*{message}") as error:
        make_problem("file", request_for(path=path))
    assert str(path) in str(error.value)


def test_wrong_requests_name_the_key(request_for, tmp_path):
    with pytest.raises(ValueError, match=r"goal_source must be one of .*file, got 'dataset'"):
        make_problem("dataset", request_for())
    with pytest.raises(ValueError, match=r"goal_H must be at least 1, got 0"):
        make_problem("dset", request_for(goal_H=0))
    with pytest.raises(ValueError, match=r"goal_file_path=.* has no effect with goal_source=dset"):
        make_problem("dset", request_for(path=tmp_path / "x.npz"))
    with pytest.raises(ValueError, match=r"goal_source=file needs goal_file_path"):
        make_problem("file", request_for())


def test_every_source_of_the_commands_exists():
    assert set(GOAL_SOURCES) == {"dset", "random_state", "random_action", "file"}
