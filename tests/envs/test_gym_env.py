"""A single episode behind Gymnasium's interface."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401  (registers the environments)
from envs.gym_env import SingleEpisodeEnv
from envs.wall.vector_env import WallVectorEnv

MAZES = [pytest.param(f"point_maze{size}", marks=pytest.mark.render) for size in ("", "_medium", "_large")]


@pytest.fixture
def env():
    return gymnasium.make("wall", image_size=65, render_mode="rgb_array")


@pytest.mark.parametrize("options", [{}, {"image_size": 65}, {"render_mode": "rgb_array"}])
@pytest.mark.parametrize("name", ["wall", "pusht", *MAZES])
def test_gymnasiums_checker_has_nothing_to_say(name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(name, **options).unwrapped)


def test_a_seed_means_the_same_start_and_goal_as_in_the_vector_environment(env):
    _, info = env.reset(seed=100)
    start, goal = WallVectorEnv(65).sample_start_goal([100])
    assert np.array_equal(info["state"], start[0])
    assert np.array_equal(info["goal"], goal[0])
    assert not np.array_equal(env.reset()[1]["goal"], info["goal"])  # without a seed: another episode


def test_steps_are_those_of_the_vector_environment(env):
    _, info = env.reset(seed=1)
    vector_env = WallVectorEnv(65)
    vector_env.reset([1], torch.from_numpy(info["state"])[None])
    action = np.array([0.5, -0.25], np.float32)
    observation, reward, terminated, truncated, info = env.step(action)
    expected = vector_env.step(torch.from_numpy(action)[None, None])[0, 0]
    assert np.array_equal(info["state"], expected)
    assert np.array_equal(observation["proprio"], expected.float())
    assert np.array_equal(observation["visual"], vector_env.render()[0].permute(1, 2, 0))
    assert np.array_equal(env.render(), observation["visual"])
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_reaching_the_goal_is_rewarded_and_ends_the_episode(env):
    options = {"state": np.array([20.0, 20.0]), "goal": np.array([26.0, 20.0])}
    _, info = env.reset(seed=0, options=options)
    assert not info["success"]
    assert info["state_dist"] == 6.0
    _, reward, terminated, _, info = env.step(np.array([1.0, 0.0], np.float32))
    assert (reward, terminated, info["state_dist"]) == (1.0, True, 4.0)


def test_the_layout_can_be_set(env):
    layouts = {"fix_wall_location": [24.0], "fix_door_location": 20.0}
    observation, info = env.reset(seed=0, options={"layouts": layouts})
    assert (observation["visual"][50, 24] == 0).all()
    assert (observation["visual"][20, 24] == 255).all()
    assert min(info["state"][0], info["goal"][0]) < 21  # drawn for this wall


def test_observations_are_the_callers_own(env):
    state = np.array([20.0, 20.0], np.float32)
    first, info = env.reset(seed=0, options={"state": state})
    first["proprio"] += 1
    info["goal"] += 1
    second, _, _, _, later = env.step(np.zeros(2, np.float32))
    assert second["proprio"].tolist() == later["state"].tolist() == [20.0, 20.0]
    assert not np.array_equal(later["goal"], info["goal"])


def test_enlarged_images_are_whole_numbers():
    env = SingleEpisodeEnv(WallVectorEnv(224))
    observation, _ = env.reset(seed=0)
    assert observation["visual"].shape == (224, 224, 3)
    assert observation["visual"].dtype == np.uint8
    exact = env.vector_env.render()[0].permute(1, 2, 0).numpy()
    assert np.abs(observation["visual"] - exact).max() <= 0.5
    assert env.render() is None  # no render mode


def test_bad_arguments_are_named(env):
    with pytest.raises(ValueError, match="start"):
        env.reset(options={"start": [1.0, 2.0]})
    with pytest.raises(ValueError, match="render_mode"):
        SingleEpisodeEnv(WallVectorEnv(65), render_mode="human")
    with pytest.raises(ValueError, match="already built"):
        SingleEpisodeEnv(WallVectorEnv(65), image_size=32)
