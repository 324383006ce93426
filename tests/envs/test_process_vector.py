"""Batches of one-episode simulators: the same bits in any number of processes, and no way to hang or to leak."""

import contextlib
import gc
import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from envs import process_vector
from envs.base import simulate
from envs.gym_env import SingleEpisodeEnv
from envs.process_vector import EnvWorkerError, ProcessVectorEnv
from tests.conftest import REPOSITORY
from tests.envs.toy_simulator import CRASH, EXIT, HANG, KILL, RAISE, REPORT, ToySimulator

TOY = "tests.envs.toy_simulator:ToySimulator"
NUM_EPISODES = 7
ACTIONS = torch.randn(NUM_EPISODES, 6, 2, generator=torch.Generator().manual_seed(0))
STATES = torch.linspace(0, 1, NUM_EPISODES * 3, dtype=torch.float64).reshape(-1, 3)
LAYOUTS = {"gain": torch.linspace(2.0, 4.0, NUM_EPISODES)[:, None]}
SEEDS = range(100, 100 + NUM_EPISODES)


@pytest.fixture(params=[0, 1, 2, 3], scope="module")
def any_env(request):
    """Shared by tests, in whatever state the last one left it: that no reset minds is part of what is tested."""
    env = ProcessVectorEnv(TOY, 8, request.param)
    yield env
    env.close()


@pytest.fixture(scope="module")
def env():
    env = ProcessVectorEnv(TOY, 8, 2)
    yield env
    env.close()


def started(env, num_episodes=NUM_EPISODES):
    env.reset(SEEDS[:num_episodes], STATES[:num_episodes])
    return env


def command(number, row=3, num_episodes=NUM_EPISODES):
    """Zero actions of one step, but the command for one row."""
    actions = torch.zeros(num_episodes, 1, 2)
    actions[row] = number
    return actions


def reports(env, num_episodes=NUM_EPISODES):
    """Per row: process id of its simulator, images drawn so far, whether torch is loaded there."""
    return env.step(torch.full((num_episodes, 1, 2), REPORT))[:, 0]


def one_by_one(states, actions, gain, image_size=8):
    """The same episodes without any batch: visited states (B, K + 1, 3), images (B, K + 1, 3, H, W)."""
    visited: list[list[np.ndarray]] = []
    images: list[list[np.ndarray]] = []
    for state, block, one_gain in zip(states.numpy(), actions.numpy(), gain.numpy(), strict=True):
        simulator = ToySimulator(image_size)
        layout = ToySimulator.default_layout() | {"gain": one_gain}
        visited.append([simulator.reset(state.copy(), layout).copy()])
        images.append([simulator.render()])
        for action in block:
            visited[-1].append(simulator.step(action[None])[0])
            images[-1].append(simulator.render())
    return torch.from_numpy(np.array(visited)), torch.from_numpy(np.array(images)).permute(0, 1, 4, 2, 3)


def test_a_batch_is_its_episodes_played_one_by_one(any_env):
    expected, images = one_by_one(STATES, ACTIONS, LAYOUTS["gain"])
    played = simulate(any_env, SEEDS, STATES, ACTIONS, LAYOUTS, frame_every=2)
    assert torch.equal(played.states, expected)
    assert torch.equal(played.frames, images[:, ::2])
    assert (played.states.dtype, played.frames.dtype) == (torch.float64, torch.uint8)
    assert played.frames.is_contiguous()
    assert expected[:, -1].unique(dim=0).shape[0] == NUM_EPISODES


@pytest.mark.parametrize("frame_bytes", [1, 3 * 8 * 8 * NUM_EPISODES * 2, 1 << 20])
def test_a_rollout_is_many_steps_and_images_in_one_call(any_env, frame_bytes, monkeypatch):
    monkeypatch.setattr(process_vector, "FRAME_BYTES_AT_ONCE", frame_bytes)
    played = simulate(any_env, SEEDS, STATES, ACTIONS, LAYOUTS, frame_every=2)
    any_env.reset(SEEDS, STATES, LAYOUTS)
    visited, frames = any_env.rollout(ACTIONS, 2)
    assert torch.equal(visited, played.states[:, 1:])
    assert torch.equal(frames, played.frames)
    following = any_env.step(ACTIONS)  # the episodes are at their end, not elsewhere
    assert torch.equal(following, simulate(any_env, SEEDS, STATES, ACTIONS.repeat(1, 2, 1), LAYOUTS).states[:, 7:])


def test_a_rollout_without_frames_or_steps(any_env):
    started(any_env)
    visited, frames = any_env.rollout(ACTIONS)
    assert (visited.shape, frames) == ((NUM_EPISODES, 6, 3), None)
    visited, frames = any_env.rollout(ACTIONS[:, :0], 5)
    assert (visited.shape, frames.shape) == ((NUM_EPISODES, 0, 3), (NUM_EPISODES, 1, 3, 8, 8))
    assert torch.equal(frames[:, 0], any_env.render())
    with pytest.raises(ValueError, match="6 actions are not a multiple of frame_every=4"):
        any_env.rollout(ACTIONS, 4)


def test_only_the_rows_asked_for_are_drawn(any_env):
    started(any_env)
    everything = any_env.render()
    drawn_before = reports(started(any_env))[:, 1]
    rows = torch.tensor([5, 0, 5, 2])
    assert torch.equal(started(any_env).render(rows), everything[rows])
    assert any_env.render(rows[:0]).shape == (0, 3, 8, 8)
    assert (reports(any_env)[:, 1] - drawn_before).tolist() == [1, 0, 1, 0, 0, 2, 0]


def test_nothing_is_shared_with_the_caller(any_env):
    states, gain, actions = STATES.clone(), LAYOUTS["gain"].clone(), ACTIONS.clone()
    expected = simulate(any_env, SEEDS, states, actions.repeat(1, 2, 1), LAYOUTS, frame_every=6)
    given = [any_env.reset(SEEDS, states, {"gain": gain}), any_env.render(), any_env.step(actions)]
    kept = [tensor.clone() for tensor in given]
    states.zero_(), gain.zero_(), actions.zero_()
    assert torch.equal(any_env.step(ACTIONS), expected.states[:, 7:])
    any_env.reset(SEEDS, states)
    any_env.render()
    assert all(torch.equal(*pair) for pair in zip(given, kept, strict=True))
    for tensor in given:
        tensor.zero_()
    again = simulate(any_env, SEEDS, STATES, ACTIONS.repeat(1, 2, 1), LAYOUTS, frame_every=6)
    assert torch.equal(again.states, expected.states)
    assert torch.equal(again.frames, expected.frames)


def test_the_number_of_episodes_may_change_with_every_reset(any_env):
    expected, images = one_by_one(STATES, ACTIONS, torch.full((NUM_EPISODES, 1), 3.0))
    for count in (2, 7, 1, 0, 5):
        played = simulate(any_env, SEEDS[:count], STATES[:count], ACTIONS[:count], frame_every=3)
        assert torch.equal(played.states, expected[:count])
        assert torch.equal(played.frames, images[:count, ::3])


def test_every_worker_gets_its_share_of_all_usual_subsets():
    for num_workers, count in itertools.product((1, 2, 3, 4), (1, 5, 16, 50)):
        dealt = ProcessVectorEnv(TOY, 8, num_workers)
        for rows in (range(count), range(0, count, 2), range(1, count, 2), range(count // 2, count)):
            hands = dealt._deal(rows)
            assert sorted(itertools.chain(*hands)) == list(range(len(rows)))
            sizes = [len(places) for places in hands]
            assert max(sizes) - min(sizes) <= 2


def test_simulators_and_processes_are_kept_and_know_no_torch(env):
    first = reports(started(env))
    assert set(first[:, 0].int().tolist()).isdisjoint({os.getpid()})
    assert len(first[:, 0].unique()) == 2
    assert not first[:, 2].any()
    assert torch.equal(reports(started(env))[:, 0], first[:, 0])
    few = ProcessVectorEnv(TOY, 8, 3)
    assert len(reports(started(few, 1), 1)[:, 0].unique()) == len(few._pool._workers) == 1  # no process without work


def test_attributes_layouts_and_samples_are_those_of_the_simulator():
    env = ProcessVectorEnv(TOY, 8, 0)
    assert (env.name, env.state_dim, env.proprio_dim, env.env_action_dim, env.image_size) == ("toy", 3, 2, 2, 8)
    layouts = env.default_layouts(4)
    assert layouts["gain"].tolist() == [[3.0]] * 4
    assert layouts["offset"].shape == (4, 2)
    start, goal = env.sample_start_goal([5, 6])
    assert np.array_equal(torch.stack([start[1], goal[1]]), ToySimulator.sample_start_goal(6))
    assert start.dtype == torch.float64
    assert env.sample_start_goal([])[0].shape == (0, 3)
    assert env.default_layouts(0)["offset"].shape == (0, 2)
    proprio = env.proprio(STATES[:, None])
    assert proprio.dtype == torch.float32
    assert torch.equal(proprio, STATES[:, None, [2, 0]].float())
    outcome = env.success(start, start + torch.tensor([[0.4, 0.0, 0.0], [0.0, 0.6, 0.0]]))
    assert outcome.success.tolist() == [True, False]
    assert outcome.state_dist.tolist() == pytest.approx([0.4, 0.6])


def test_one_episode_is_a_gymnasium_environment():
    options = {"simulator": TOY, "image_size": 8, "num_workers": 0}
    env = SingleEpisodeEnv("envs.process_vector:ProcessVectorEnv", proprio_limits=(-1e9, 1e9), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
    assert env.reset(seed=5)[1]["goal"].tolist() == ToySimulator.sample_start_goal(5)[1].tolist()


def test_float32_states_and_double_actions_are_converted(any_env):
    start = any_env.reset(SEEDS, STATES.float().requires_grad_())
    assert start.dtype == torch.float64
    assert torch.equal(start[:, :2], STATES[:, :2].float().double())
    doubled = any_env.step(ACTIONS.double())
    any_env.reset(SEEDS, STATES.float())
    assert torch.equal(any_env.step(ACTIONS), doubled)


@pytest.mark.parametrize(
    ("layouts", "message"),
    [
        ({"gian": LAYOUTS["gain"]}, r"env toy: unknown layout keys \['gian'\], known are \['gain', 'offset'\]"),
        ({"gain": LAYOUTS["gain"][:3]}, r"env toy: layout gain must be \(7, 1\), got \(3, 1\)"),
        ({"offset": torch.zeros(7)}, r"env toy: layout offset must be \(7, 2\), got \(7,\)"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(layouts, message):
    with pytest.raises(ValueError, match=message):
        ProcessVectorEnv(TOY, 8, 0).reset(SEEDS, STATES, layouts)


def test_numbers_per_episode_need_no_second_axis():
    env = ProcessVectorEnv(TOY, 8, 0)
    played = [
        simulate(env, SEEDS, STATES, ACTIONS, {"gain": gain}).states
        for gain in (LAYOUTS["gain"], LAYOUTS["gain"][:, 0])
    ]
    assert torch.equal(*played)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda env: env.reset(SEEDS, STATES[:2]), r"env toy: states must be float32 or float64 of shape \(7, 3\)"),
        (lambda env: env.reset(SEEDS, STATES.int()), "got torch.int32"),
        (lambda env: env.step(ACTIONS[0]), r"env toy: actions must be \(7, K, 2\), got \(6, 2\)"),
        (lambda env: env.step(ACTIONS[:3]), r"env toy: actions must be \(7, K, 2\), got \(3, 6, 2\)"),
        (lambda env: env.render(torch.tensor([0, 7])), r"env toy: there are 7 episodes, none of them \[7\]"),
        (lambda env: env.render(torch.tensor([-1])), r"none of them \[-1\]"),
        (lambda env: env.render(torch.ones(7, dtype=torch.bool)), "env toy: rows must be integers of shape"),
        (lambda env: env.success(STATES, STATES[:1]), r"must both be \(B, 3\), got \(7, 3\) and \(1, 3\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_and_change_nothing(call, message):
    env = started(ProcessVectorEnv(TOY, 8, 0))
    with pytest.raises(ValueError, match=message):
        call(env)
    assert torch.equal(env.step(ACTIONS), started(env).step(ACTIONS))


def test_settings_that_make_no_sense_are_refused():
    for arguments, message in [
        ((TOY, 0), "env.image_size must be at least 1"),
        ((TOY, 8, -1), "env.simulator.num_workers must be at least 0"),
        (("tests.envs.toy_simulator",), "named as module:Class"),
        (("tests.envs.toy_simulator:os",), "no subclass of Simulator named 'os'"),
    ]:
        with pytest.raises(ValueError, match=message):
            ProcessVectorEnv(*arguments)


def test_there_is_nothing_to_step_before_the_first_reset():
    env = ProcessVectorEnv(TOY, 8)
    for call in (lambda: env.step(ACTIONS), env.render):
        with pytest.raises(RuntimeError, match="env toy: call reset"):
            call()


def test_a_refusal_names_the_first_episode_concerned(any_env):
    actions = ACTIONS.clone()
    actions[[6, 4, 5], [0, 3, 1]] = torch.nan
    with pytest.raises(ValueError, match=re.escape("env toy: actions must be numbers (episodes [4] with seeds [104])")):
        started(any_env).step(actions)
    with pytest.raises(RuntimeError, match="again after an error"):
        any_env.step(ACTIONS)
    states = STATES.clone()
    states[2] = torch.inf
    with pytest.raises(ValueError, match=r"^env toy: state must be finite, got .*episodes \[2\]"):
        any_env.reset(SEEDS, states)
    assert torch.equal(started(any_env).step(ACTIONS), started(ProcessVectorEnv(TOY, 8, 0)).step(ACTIONS))


def test_a_simulator_that_fails_is_reported_with_its_traceback(any_env):
    with pytest.raises(
        EnvWorkerError, match=r"ZeroDivisionError: toy trouble.*episodes \[3\] with seeds \[103\]"
    ) as error:
        started(any_env).step(command(RAISE))
    assert "toy_simulator.py" in error.value.__notes__[0]
    any_env.close()
    assert torch.equal(started(any_env).step(ACTIONS), started(ProcessVectorEnv(TOY, 8, 0)).step(ACTIONS))


@pytest.mark.parametrize(
    ("number", "how"),
    [(EXIT, "exit code 3"), (KILL, "SIGKILL.*memory ran out"), (CRASH, r"crashed \(signal SIGSEGV\)")],
)
def test_a_worker_that_dies_is_reported_at_once(env, number, how):
    others_hang = torch.full((NUM_EPISODES, 1, 2), HANG)
    others_hang[[0, 3, 4]] = number
    begin = time.monotonic()
    with pytest.raises(EnvWorkerError, match=rf"{how}.*episodes \[0, 3, 4\] with seeds \[100, 103, 104\]"):
        started(env).step(others_hang)
    assert time.monotonic() - begin < 5
    with pytest.raises(RuntimeError, match="call reset"):
        env.render()


def test_a_worker_that_died_while_idle_is_reported_by_the_next_call(env):
    victim = int(reports(started(env))[3, 0])
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(EnvWorkerError, match=rf"worker process {victim} was killed"):
        env.step(ACTIONS)


def test_an_interrupted_step_leaves_no_answer_behind(env):
    started(env)
    expected = env.step(ACTIONS)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        env.step(command(HANG))
    assert time.monotonic() - begin < 2
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(ACTIONS)
    assert torch.equal(started(env).step(ACTIONS), expected)


def test_workers_ignore_what_is_sent_to_the_whole_process_group(env):
    for worker in reports(started(env))[:, 0].int().unique().tolist():
        os.kill(worker, signal.SIGINT)
        os.kill(worker, signal.SIGTERM)
    assert torch.equal(env.render(), started(env).render())


def test_closing_ends_the_processes_and_can_be_repeated(env):
    processes = reports(started(env))[:, 0].int().unique().tolist()
    begin = time.monotonic()
    env.close()
    env.close()
    assert time.monotonic() - begin < 1
    assert not any(Path(f"/proc/{process}").exists() for process in processes)
    with pytest.raises(RuntimeError, match="call reset"):
        env.render()
    assert started(env).render().shape == (NUM_EPISODES, 3, 8, 8)


def test_closing_closes_the_simulators():
    env = started(ProcessVectorEnv(TOY, 8, 0))
    before = ToySimulator.num_closed
    env.close()
    env.close()
    assert ToySimulator.num_closed == before + NUM_EPISODES


def open_files() -> set[tuple[str, str]]:
    """Descriptors of this process, with what each is open on: a number alone could have been given out again."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add((entry.name, str(entry.readlink())))
    return found


def test_an_environment_that_nobody_keeps_ends_its_processes():
    others = started(ProcessVectorEnv(TOY, 8, 1))  # what is opened once per process is open from here on
    # a buffer that another test has left to the collector has the same name as ours, and ours may get its number
    gc.collect()
    before = open_files()
    env = ProcessVectorEnv(TOY, 8, 1)
    process = int(reports(started(env))[0, 0])
    opened = open_files() - before
    assert len(opened) >= 3  # connection, buffer, and the buffer's mapping
    del env
    assert not Path(f"/proc/{process}").exists()
    # counting would also see what the garbage collector closes of other tests meanwhile
    assert not opened & open_files()
    others.close()


@pytest.mark.parametrize(
    "simulator",
    [
        "envs.pusht.simulator:PushTSimulator",
        pytest.param("envs.point_maze.simulator:PointMazeSimulator", marks=pytest.mark.render),
    ],
)
def test_real_simulators_give_the_same_bits_alone_and_in_any_batch(simulator):
    """Always in workers: a graphics driver that was loaded into this process could disturb the tests after this one."""
    if importlib.util.find_spec(simulator.partition(":")[0]) is None:
        pytest.skip(f"{simulator} does not exist")
    seeds = [3, 1, 4, 15, 9]
    envs = [ProcessVectorEnv(simulator, 96, num_workers) for num_workers in (1, 2)]
    starts = envs[0].sample_start_goal(seeds)[0]
    actions = torch.randn(len(seeds), 10, 2, generator=torch.Generator().manual_seed(0))
    alone = [simulate(envs[0], seeds[i : i + 1], starts[i : i + 1], actions[i : i + 1], None, 5) for i in range(5)]
    for env in envs:
        together = simulate(env, seeds, starts, actions, None, 5)
        assert torch.equal(together.states, torch.cat([played.states for played in alone]))
        assert torch.equal(together.frames, torch.cat([played.frames for played in alone]))
        env.reset(seeds, starts)
        visited, frames = env.rollout(actions, 5)
        assert torch.equal(visited, together.states[:, 1:])
        assert torch.equal(frames, together.frames)
    assert len(frames.flatten(2).unique(dim=0)) == len(seeds)
    for env in envs:
        env.close()


@pytest.mark.parametrize("module", ["simulator_worker", "pusht", "point_maze"])
def test_workers_import_no_torch(module):
    if importlib.util.find_spec(f"envs.{module}") is None:
        pytest.skip(f"envs.{module} does not exist")
    source = f"import sys, envs.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], cwd=REPOSITORY).returncode == 0


def test_recorded_point_maze_trajectories_in_float64_through_the_batch(golden):
    """Actions rounded to float32 would end 1e-4 away."""
    with np.load(golden("point_maze.npz")) as data:
        init, actions, expected = (torch.from_numpy(data[name]) for name in ("init", "actions", "qstate"))
    env = ProcessVectorEnv("envs.point_maze.simulator:PointMazeSimulator", 64, num_workers=0)
    env.reset(range(len(init)), init)
    assert (env.step(actions) - expected[:, 1:]).abs().max() < 1e-8
    env.close()
