"""``episodes.npz``: what is refused, and what becomes of evaluations that were begun before there was one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from planning.episode_record import EpisodeRecord
from planning.history import reconstructed
from planning.mpc import MPCController
from planning.planners.gd import GDPlanner
from planning.replay import Replay
from tests.builders import point_task
from utils.reading.opening import FileError


def evaluated(gains=(1.0, 0.5, 0.0), shrinking="none", **changes):
    """(episodes, record) of three iterations, of two blocks of two raw steps each."""
    task, _ = point_task(gains=gains, **changes)
    planner = GDPlanner(horizon=3, opt_steps=4, sample_type="zero")
    controller, episodes = MPCController(planner, 3, 2, shrinking=shrinking), task.start()
    controller.run(task, episodes)
    ends = [task.frameskip * blocks for blocks in controller.executed(3)]
    replay = Replay.of(task.env, task.problem, episodes.played, ends)
    return episodes, EpisodeRecord.of(episodes, replay, task.frameskip, planner.horizon)


def test_what_is_written_is_what_is_read(tmp_path):
    _, record = evaluated(saves_latents=True)
    record.write(tmp_path / "episodes.npz")
    again = EpisodeRecord.read(tmp_path / "episodes.npz")
    for name, value in vars(record).items():
        found = getattr(again, name)
        assert np.array_equal(found, value, equal_nan=np.asarray(value).dtype.kind == "f"), name
    assert again.imagined_visual.dtype == np.float16 and again.imagined_visual.shape == (3, 3, 4, 1, 2)


def test_a_part_of_the_episodes_and_the_record_without_latents_are_the_same_numbers(tmp_path):
    _, record = evaluated(saves_latents=True)
    record.write(tmp_path / "episodes.npz")
    light = EpisodeRecord.read(tmp_path / "episodes.npz", latents=False)
    assert light.imagined_visual is None and np.array_equal(light.states, record.states)
    part = record.part([2, 0])
    assert np.array_equal(part.states, record.states[[2, 0]]) and part.imagined_visual.shape[0] == 2
    assert np.array_equal(part.iteration_ends, record.iteration_ends)


def test_what_was_imagined_is_kept_to_half_precision():
    """Where the model is right, the imagined latents are those of the planned states."""
    task, env = point_task(gains=(1.0,), saves_latents=True)
    episodes = task.start()
    MPCController(GDPlanner(horizon=3, opt_steps=4), 1, 1).run(task, episodes)
    record = EpisodeRecord.of(episodes, Replay.of(env, task.problem, episodes.played, [0, 2]), 2, 3)
    env.reset(task.problem.seeds, task.problem.states, task.problem.layouts)
    states = env.step(torch.from_numpy(record.plans[:, 0]))[:, 1::2]
    expected = task.observer.normalizer.states_to_z(states)
    assert record.imagined_visual[:, 0, 1:, 0] == pytest.approx(expected.numpy(), abs=0.01)
    goal = task.goal.visual[0, 0, 0].numpy()
    apart = 2 * np.square(record.imagined_visual[0, 0, 1, 0] - goal).mean()  # visual and proprio are the same here
    assert record.imagined_distance[0, 0] == pytest.approx(apart, rel=0.01)
    assert record.true_distance[0, 0] == pytest.approx(record.imagined_distance[0, 0], rel=1e-3)


def test_a_horizon_that_shrinks_leaves_the_rest_of_the_plan_empty():
    _, record = evaluated(gains=(0.0,), shrinking="budget")
    planned = np.isfinite(record.plans[0]).all(2).sum(1)
    assert planned.tolist() == [6, 6, 4] and record.plans.shape == (1, 3, 6, 2)


def test_iterations_from_before_there_was_a_history_say_what_the_log_said():
    episodes, record = evaluated()
    task, _ = point_task(gains=(1.0, 0.5, 0.0))
    replay = Replay.of(task.env, task.problem, episodes.played, [0, 4, 8, 12])
    before = replace(episodes, history=reconstructed(episodes.records[:2], episodes.solved_at) + episodes.history[2:])
    found = EpisodeRecord.of(before, replay, 2, 3)
    for name in ("planned", "evaluations", "gradients", "planning_seconds", "states", "inside", "trace_steps"):
        last = slice(2, None) if name == "trace_steps" else slice(None)
        assert np.array_equal(getattr(found, name)[last], getattr(record, name)[last]), name
    assert np.isnan(found.plans[:, :2]).all() and np.isnan(found.cost_after[:, :2]).all()
    assert np.array_equal(found.plans[:, 2], record.plans[:, 2], equal_nan=True)


BROKEN = {
    "nothing": (lambda arrays: arrays.clear(), "it has no format"),
    "a later format": (lambda arrays: arrays.update(format=np.array(2)), "it has format 2"),
    "no frameskip": (lambda arrays: arrays.pop("frameskip"), "frameskip must be a whole number"),
    "an array less": (lambda arrays: arrays.pop("plans"), "without plans"),
    "words": (lambda arrays: arrays.update(planned=np.zeros((3, 3), "U3")), "planned.npy does not begin like an array"),
    "another type": (lambda arrays: arrays.update(inside=np.zeros((3, 13))), "inside is float64"),
    "fewer sides": (lambda arrays: arrays.update(plans=arrays["plans"][0]), "plans is float32"),
    "fewer episodes": (lambda arrays: arrays.update(planned=arrays["planned"][:2]), r"planned has the shape \(2, 3\)"),
    "fewer steps": (lambda arrays: arrays.update(actions=arrays["actions"][:, :5]), "not one entry more"),
    "ends that fall": (lambda arrays: arrays.update(iteration_ends=np.array([0, 8, 4, 12])), "do not rise"),
}


@pytest.mark.parametrize(("spoil", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_record_is_refused_in_one_line(tmp_path, spoil, words):
    path = tmp_path / "episodes.npz"
    evaluated()[1].write(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    spoil(arrays)
    np.savez(path, **arrays)
    with pytest.raises(FileError, match=rf"episodes\.npz is no .*{words}.*; plan again in another folder") as error:
        EpisodeRecord.read(path)
    assert "\n" not in str(error.value)
