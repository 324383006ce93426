"""A copy of an environment, made at any moment, goes on with the same bits and by itself."""

import copy
import os
import pickle

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401  (registers the environments)
from envs.process_vector import ProcessVectorEnv
from envs.wall.vector_env import WallVectorEnv
from tests.envs.toy_simulator import REPORT

WAYS = {
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
SIMULATORS = {
    "toy": "tests.envs.toy_simulator:ToySimulator",
    "pusht": "envs.pusht.simulator:PushTSimulator",
    "point_maze": "envs.point_maze.simulator:PointMazeSimulator",
}
# in contact at once: the agent beside the T and pushing; the ball in a corner and pressed into it
STARTS = {
    "toy": [0.5, 0.25, 0.0],
    "pusht": [256.0, 230.0, 256.0, 300.0, 0.3, 0.0, 100.0],
    "point_maze": [0.6, 0.6, -3.0, -2.0],
    "wall": [27.0, 40.0],
}
BEFORE, AFTER = 12, 30  # steps


@pytest.fixture(params=WAYS)
def copied(request):
    return WAYS[request.param]


def actions(name, steps, seed=0):
    random = np.random.RandomState(seed)
    towards = {"pusht": (0.1, 0.6), "point_maze": (-1.0, -0.5), "wall": (1.0, 0.5), "toy": (0.0, 0.0)}[name]
    return random.normal(towards, 0.3, (steps, 2)).astype(np.float32)


def simulator_of(name):
    module, _, cls = SIMULATORS[name].partition(":")
    return getattr(__import__(module, fromlist=[cls]), cls)(64)


def begun(name):
    simulator = simulator_of(name)
    simulator.reset(np.array(STARTS[name]), simulator.default_layout())
    return simulator


drawn = pytest.param("point_maze", marks=pytest.mark.render)


@pytest.mark.parametrize("name", ["toy", "pusht", drawn])
@pytest.mark.parametrize("steps", [0, 1, BEFORE])
def test_a_copied_simulator_goes_on_as_the_original_would(name, steps, copied):
    reference, simulator = begun(name), begun(name)
    for each in (reference, simulator):
        each.step(actions(name, steps))
    other = copied(simulator)
    assert np.array_equal(other.render(), reference.render())
    other.step(-actions(name, 5, seed=1))  # does not touch the original, nor a copy of the copy
    third = copied(simulator)
    rest = actions(name, AFTER, seed=2)
    expected = reference.step(rest)
    assert np.array_equal(third.step(rest), expected)
    assert np.array_equal(simulator.step(rest), expected)
    assert np.array_equal(third.render(), reference.render())
    assert np.array_equal(copied(third).step(rest), reference.step(rest))


@pytest.mark.parametrize("name", ["pusht", "point_maze"])
def test_a_copy_of_a_simulator_without_an_episode_has_none(name, copied):
    other = copied(simulator_of(name))
    with pytest.raises(RuntimeError, match="call reset"):
        other.render()
    other.reset(np.array(STARTS[name]), other.default_layout())
    assert np.array_equal(other.step(actions(name, 5)), begun(name).step(actions(name, 5)))


def vector_env(name, num_workers=0):
    return WallVectorEnv(65) if name == "wall" else ProcessVectorEnv(SIMULATORS[name], 64, num_workers)


def batch(name, steps, seed=0):
    return torch.from_numpy(np.stack([actions(name, steps, seed + row) for row in range(3)]))


def reset(env, name):
    env.reset([1, 2, 3], torch.tensor([STARTS[name]] * 3, dtype=torch.float64))


@pytest.mark.parametrize("name", ["wall", "toy", "pusht", drawn])
def test_a_copied_vector_environment_has_episodes_of_its_own(name, copied):
    env = vector_env(name)
    before_reset = copied(env)
    for each in (env, before_reset):
        reset(each, name)
    assert torch.equal(before_reset.step(batch(name, BEFORE)), env.step(batch(name, BEFORE)))
    other, third = copied(env), copied(copied(env))
    other.step(-batch(name, AFTER))
    assert torch.equal(third.render(), env.render())
    assert torch.equal(third.step(batch(name, AFTER, 3)), env.step(batch(name, AFTER, 3)))
    assert torch.equal(third.render(), env.render())
    reset(other, name)
    reset(env, name)
    assert torch.equal(other.step(batch(name, BEFORE)), env.step(batch(name, BEFORE)))


def test_a_copy_of_an_environment_with_processes_starts_its_own():
    env = vector_env("toy", num_workers=1)
    reset(env, "toy")
    env.step(batch("toy", BEFORE))
    unused = copy.deepcopy(env)
    other = pickle.loads(pickle.dumps(unused))  # of a copy whose process has not begun yet
    expected = env.step(batch("toy", AFTER, 3))
    assert torch.equal(other.step(batch("toy", AFTER, 3)), expected)
    assert torch.equal(other.render(), env.render())
    asked = torch.full((3, 1, 2), REPORT)
    assert not {os.getpid(), *env.step(asked)[:, 0, 0].tolist()} & set(other.step(asked)[:, 0, 0].tolist())
    reset(env, "toy")
    reset(other, "toy")
    assert torch.equal(other.step(batch("toy", BEFORE)), env.step(batch("toy", BEFORE)))
    for each in (env, unused, other):
        each.close()


def test_what_a_worker_cannot_copy_is_refused_by_name():
    env = ProcessVectorEnv("tests.envs.toy_simulator:UncopiableSimulator", 64, 1)
    env.reset([1], torch.zeros(1, 3, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"UncopiableSimulator cannot be copied: .*lock"):
        copy.deepcopy(env)
    env.step(torch.zeros(1, 2, 2))  # and the original goes on
    env.close()


@pytest.mark.parametrize("name", ["wall", "pusht", drawn])
def test_a_copied_gymnasium_environment_goes_on_as_the_original_would(name, copied):
    reference, env = (gymnasium.make(name, image_size=64, max_episode_steps=BEFORE + AFTER) for _ in range(2))
    options = {"state": np.array(STARTS[name])}
    if copied is copy.copy:  # of Gymnasium's wrappers a copy is shallow, by its own rules
        reference, env = reference.unwrapped, env.unwrapped
    assert np.array_equal(copied(env).reset(seed=3)[0]["visual"], reference.reset(seed=3)[0]["visual"])
    for each in (reference, env):
        each.reset(seed=4)
        each.reset(options=options)  # the goal is drawn from the environment's own generator
        for action in actions(name, BEFORE):
            each.step(action)
    other = copied(env)
    other.step(np.ones(2, np.float32))
    third = copied(env)
    for action in actions(name, AFTER, seed=1):
        observation, *rest, info = reference.step(action)
        for each in (third, env):
            same, *same_rest, same_info = each.step(action)
            assert all(np.array_equal(same[key], observation[key]) for key in observation)
            assert all(np.array_equal(same_info[key], info[key]) for key in info)
            assert same_rest == rest
    assert np.array_equal(third.reset()[1]["goal"], reference.reset()[1]["goal"])
