"""What the numbers of an evaluation mean: their moments, and their documentation."""

import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.stages import composed
from plan import plan, summary
from planning.arithmetic import EpisodeTflop
from planning.config import PlanConfig
from planning.episode_record import EpisodeRecord
from planning.metrics import _random_actions, final_metrics, solved_by
from planning.mpc import MPCController
from planning.observer import Observer
from planning.problem import Problem
from planning.replay import Replay
from planning.saved_evaluation import FINISHED, STATE, agreed, read_finished
from tests.builders import POINT_NORMALIZER, REPOSITORY, PointEnv, near, point_task, wall_model_directory
from utils.loggers import read_json_lines

QUICK = ["n_evals=3", "n_plot_samples=0", "device=cpu", "num_threads=1", "planner.max_iter=2"]
QUICK += ["planner.sub_planner.horizon=2", "planner.sub_planner.opt_steps=2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return wall_model_directory(tmp_path_factory.mktemp("model"))


def evaluated(model, folder, *more):
    return plan(composed(PlanConfig, "plan_wall", [*QUICK, f"ckpt_path={model}", f"run_dir={folder}", *more]))


def documented(heading: str) -> set[str]:
    """The names in the first column of the tables under a heading."""
    page = (REPOSITORY / "docs" / "results_format.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_field_is_documented_and_every_documented_field_is_there(model, tmp_path):
    settings = ("goal_source=random_action", "goal_H=2", "planner.adapt={lr: 0.01}", "save_latents=true")
    results = evaluated(model, tmp_path, *settings)
    assert documented("results.json") == set(results) == set(json.loads((tmp_path / "results.json").read_text()))
    *iterations, final = read_json_lines(tmp_path / "logs.json")
    assert documented("logs.json") == set(iterations[0])
    assert set(final) == {f"final_eval/{name}" for name in results}
    with np.load(tmp_path / "plan_targets.npz") as arrays:
        assert documented("plan_targets.npz") == {re.sub("/.*", "/<name>", name) for name in arrays.files}
    assert documented("episodes.json") == set(json.loads((tmp_path / "episodes.json").read_text()))
    with np.load(tmp_path / "episodes.npz") as arrays:
        assert documented("episodes.npz") == set(arrays.files)
    assert EpisodeRecord.read(tmp_path / "episodes.npz").imagined_visual.shape[:3] == (3, 2, 3)


SMALL_STEPS = "planner.sub_planner.var_scale=0.1"
RECOMPUTED = {
    "mpc_gd": [*QUICK, "planner.max_iter=3"],
    "mpc_cem": [
        *QUICK,
        "planner.sub_planner.num_samples=4",
        "planner.sub_planner.topk=2",
        SMALL_STEPS,
        "planner.n_taken_actions=2",
    ],
}


@pytest.mark.parametrize("planner", list(RECOMPUTED))
def test_results_can_be_computed_again_from_what_is_kept_of_the_episodes(model, tmp_path, planner):
    given = [f"ckpt_path={model}", f"run_dir={tmp_path}", *goals_file(tmp_path / "goals.npz")]
    results = plan(composed(PlanConfig, "plan_wall", [f"planner={planner}", *RECOMPUTED[planner], *given]))
    record = EpisodeRecord.read(tmp_path / "episodes.npz")
    with np.load(tmp_path / "plan_targets.npz") as targets:
        goals = targets["goal_states"]
        assert np.array_equal(record.states[:, 0], targets["states"])

    apart = np.linalg.norm(record.states - goals[:, None], axis=2)
    assert record.distances == pytest.approx(apart) and np.array_equal(record.inside, apart < 4.5)
    ends = record.iteration_ends
    solved = record.inside[:, ends[1:]]
    at = [int(row.argmax()) + 1 if row.any() else 0 for row in solved]
    assert results["solved_at"] == at and results["success_rate"] == np.mean(np.array(at) > 0)
    assert results["solved_at_step"] == [ends[number] for number in at]
    assert results["solved_at_start_rate"] == record.inside[:, 0].mean() == pytest.approx(1 / 3)
    assert results["state_dist_at_end"] == record.distances[:, ends[-1]].tolist()
    chosen = [ends[number] if number else ends[-1] for number in at]
    assert results["state_dist_at_solve"] == record.distances[range(3), chosen].tolist()
    assert results["mean_state_dist_at_solve"] == pytest.approx(record.distances[range(3), chosen].mean())
    assert results["iterations"] == len(ends) - 1 and results["do_nothing_steps"] == record.actions.shape[1]
    assert results["model_evaluations"] == record.evaluations.sum(1).tolist()
    assert results["gradient_evaluations"] == record.gradients.sum(1).tolist()
    assert results["gradient_evaluations_per_episode"] == pytest.approx(record.gradients.sum() / 3)
    assert results["final"] == record.inside[:, -1].tolist() and results["final_rate"] == record.inside[:, -1].mean()
    assert results["planning_seconds"] == pytest.approx(record.planning_seconds.sum())
    assert results["simulation_seconds"] == pytest.approx(record.simulation_seconds.sum())

    assert np.array_equal(record.planned, [[not n or i < n for i in range(len(ends) - 1)] for n in at])
    for name in ("plans", "cost_before", "cost_after", "imagined_distance", "true_distance", "trace"):
        assert np.array_equal(np.isfinite(getattr(record, name)).reshape(3, len(ends) - 1, -1).all(2), record.planned)
    assert (record.cost_after[record.planned] <= record.cost_before[record.planned]).all()
    assert (record.trace[:, :, 0] == record.cost_before)[record.planned].all()
    first = record.plans[:, 0, : ends[1]]
    assert np.array_equal(first, record.actions[:, : ends[1]]), "what was planned is what was executed"
    assert any(at) and not all(at)
    for number, actions in zip(at, record.actions, strict=True):
        assert bool(number) == (actions[ends[number] :] == 0).all(), "solved episodes alone do nothing"


def goals_file(path, rows=slice(None)):
    """Three episodes, the first of which begins solved, and the last of which has a goal in the other room."""
    states, goals = np.array([[15.0, 20], [15, 20], [15, 30]]), np.array([[16.0, 20], [19.8, 20], [50, 30]])
    np.savez(path, seeds=np.array([5, 6, 7])[rows], states=states[rows], goal_states=goals[rows])
    return ["goal_source=file", f"goal_file_path={path}"]


@pytest.mark.parametrize("planner", list(RECOMPUTED))
def test_what_becomes_of_an_episode_depends_neither_on_chunks_nor_on_the_others(model, tmp_path, planner):
    """Outcomes and counts are equal; numbers are up to the rounding of products of other sizes."""

    def outcome(name, rows, *more):
        given = [f"ckpt_path={model}", f"run_dir={tmp_path / name}", *goals_file(tmp_path / f"{name}.npz", rows), *more]
        plan(composed(PlanConfig, "plan_wall", [f"planner={planner}", *RECOMPUTED[planner], *given]))
        return EpisodeRecord.read(tmp_path / name / "episodes.npz")

    def assert_same(found, rows):
        iterations = found.planned.shape[1]  # where the others went on, nothing more happened to it
        assert not whole.planned[rows, iterations:].any()
        for array in ("inside", "planned", "evaluations", "gradients"):
            wanted = getattr(whole, array)[rows]
            wanted = wanted if array == "inside" else wanted[:, :iterations]
            assert np.array_equal(getattr(found, array), wanted), array
        for array in ("states", "actions", "distances"):
            assert getattr(found, array) == pytest.approx(getattr(whole, array)[rows], abs=1e-3), array

    whole = outcome("whole", slice(None))
    assert 0 < whole.inside[:, whole.iteration_ends[1:]].any(1).sum() < 3
    assert_same(outcome("chunks", slice(None), "memory_budget_gb=1e-6"), slice(None))
    assert_same(outcome("first", slice(1), "n_evals=1"), slice(1))
    assert_same(outcome("last", slice(2, 3), "n_evals=1"), slice(2, 3))


class Coasting(PointEnv):
    """A point that drifts on by itself."""

    def step(self, actions):
        return super().step(actions.double() + torch.tensor([0.3, 0.0]).double())


class Scripted(MPCController):
    """Executes given raw actions (B, n, 2), a block of two in each iteration."""

    def script(self, task, raw):
        episodes = task.start()
        for block in raw.split(2, 1):
            episodes.played = torch.cat([episodes.played, block], 1)
            episodes.states = task.env.step(block)[:, -1]
            episodes.iteration += 1
            success = task.env.success(episodes.states, task.problem.goal_states).success
            episodes.solved_at[success & ~episodes.solved] = episodes.iteration
            episodes.records.append(
                {"planning_seconds": 1.0, "simulation_seconds": 1.0, "gradient_evaluations": 0, "planned_episodes": 1}
            )
        return episodes


def coasted():
    """Three episodes: solved at once and coasting out again, solved last, never; the drift is 0.6 per iteration."""
    task, _ = point_task(gains=(1.0, 1.0, 1.0))
    env = Coasting()
    starts = torch.zeros(3, 2).double()
    goals = torch.tensor([[0.7, 0.0], [1.8, 0.0], [0.0, 50.0]]).double()
    problem = type(task.problem)([1, 2, 3], starts, goals, env.default_layouts(3))
    task = type(task)(**{**vars(task), "env": env, "problem": problem})
    controller = Scripted.__new__(Scripted)
    episodes = controller.script(task, torch.zeros(3, 6, 2))
    replay = Replay.of(task.env, task.problem, episodes.played, [0, 2, 4, 6])
    return final_metrics(task, episodes, replay, EpisodeTflop(*torch.zeros(3, 3)))


def test_distances_belong_to_the_moment_that_their_name_says():
    found = coasted()
    assert found["solved_at"] == [1, 3, 0]
    assert found["solved_at_step"] == [2, 6, 0]
    assert found["final"] == [False, True, False] and found["final_rate"] == pytest.approx(1 / 3)
    never = float(np.hypot(1.8, 50))
    assert found["state_dist_at_solve"] == pytest.approx([0.1, 0.0, never], abs=1e-5)
    assert found["state_dist_at_end"] == pytest.approx([1.1, 0.0, never], abs=1e-5)
    for name in ("state", "proprio"):
        assert found[f"mean_{name}_dist_at_solve"] == pytest.approx((0.1 + never) / 3, rel=1e-5)
        assert (
            found[f"mean_{name}_dist"]
            == found[f"mean_{name}_dist_at_end"]
            == pytest.approx((1.1 + never) / 3, rel=1e-5)
        )
    assert found["mean_visual_dist_at_solve"] < found["mean_visual_dist_at_end"] == found["mean_visual_dist"]


def test_doing_nothing_is_a_baseline_by_the_rule_of_mpc():
    """The drift alone passes the first two goals, and nothing begins within 0.5 of them."""
    found = coasted()
    assert found["solved_by_doing_nothing"] == [True, True, False]
    assert found["do_nothing_rate"] == pytest.approx(2 / 3) and found["do_nothing_rate_low"] < 2 / 3
    assert found["do_nothing_steps"] == 6
    assert found["solved_at_start"] == [False] * 3 and found["solved_at_start_rate"] == 0


def test_random_actions_have_the_mean_and_the_deviation_of_the_data():
    """Without a deviation ten steps lead to ten times the mean; with it, an episode goes its own way."""
    task, env = point_task(gains=(1.0, 1.0))
    starts = torch.zeros(2, 2).double()
    problem = Problem([1, 2], starts, starts + torch.tensor([1.0, -2.0]), env.default_layouts(2))
    units = replace(task.observer.normalizer, action_std=torch.full((2,), 1e-6))
    task = replace(task, problem=problem, observer=Observer(task.observer.model, units))
    episodes = Scripted.__new__(Scripted).script(task, torch.zeros(2, 10, 2))
    replay = Replay.of(task.env, problem, episodes.played, [0, 2, 10])
    found = final_metrics(task, episodes, replay, EpisodeTflop(*torch.zeros(3, 2)))
    assert found["solved_by_random_actions"] == [True, True] and found["random_rate"] == 1
    assert "expert_rate" not in found
    drawn = _random_actions(point_task(gains=(1.0,) * 50)[0], 200)
    near(drawn.mean((0, 1)), POINT_NORMALIZER.action_mean, 0.05)
    near(drawn.flatten(0, 1).std(0), POINT_NORMALIZER.action_std, 0.05)
    assert len(torch.unique(drawn[:, 0, 0])) == 50


def test_recorded_actions_are_a_baseline_by_the_rule_of_mpc():
    """Three steps to the goal: after four the point has gone nowhere else, in two it is not there yet."""
    env = PointEnv()
    actions = torch.tensor([[[0.0, 1.0]] * 3, [[0.0, 0.5]] * 3])
    starts = torch.zeros(2, 2).double()
    problem = Problem([1, 2], starts, starts + actions.sum(1), env.default_layouts(2), actions)
    for ends, expected in (([0, 2, 4], [True, True]), ([0, 2], [False, False]), ([0, 3], [True, True])):
        assert solved_by(env, problem, ends, actions).tolist() == expected


def test_episodes_that_begin_solved_and_repeat_are_counted_and_said(model, tmp_path):
    states = np.array([[15.0, 20], [15, 20], [15, 30]])
    goals = np.array([[16.0, 20], [16, 20], [50, 30]])
    np.savez(tmp_path / "goals.npz", seeds=np.array([5, 6, 7]), states=states, goal_states=goals)
    found = evaluated(model, tmp_path / "run", "goal_source=file", f"goal_file_path={tmp_path / 'goals.npz'}")
    assert found["solved_at_start"] == [True, True, False]
    assert found["solved_at_start_rate"] == found["do_nothing_rate"] == pytest.approx(2 / 3)
    assert found["distinct_episodes"] == 2 and found["episode_seed"] == [5, 6, 7]
    assert found["episode_hash"][0] == found["episode_hash"][1] != found["episode_hash"][2]
    line = summary(found)
    assert "doing nothing 67 % [21-94], random actions " in line
    assert "], 67 % begin solved, 3 episodes (2 distinct)" in line


def test_goals_beyond_what_can_be_executed_are_a_warning(model, tmp_path, caplog):
    far = ["goal_source=random_action", "goal_H=3"]
    with caplog.at_level(logging.WARNING):
        evaluated(model, tmp_path / "far", *far)
    assert "goals may be out of reach: they are 3 action blocks (goal_H)" in caplog.text
    caplog.clear()
    evaluated(model, tmp_path / "near", *far, "planner.n_taken_actions=2")
    assert "out of reach" not in caplog.text


def test_an_evaluation_begun_before_the_protocol_was_a_setting_goes_on_with_its_own_episodes(
    model, tmp_path, monkeypatch
):
    """Its state does not know the setting, and its seed meant other episodes then."""
    old = ["seed=3", "unsolved_starts_only=false"]
    monkeypatch.setattr(
        "planning.prepare_evaluation.episode_seeds", lambda seed, count: [seed * n + 1 for n in range(count)]
    )
    expected = evaluated(model, tmp_path / "whole", *old)
    iterate = MPCController.iterate

    def stopped_in_the_second(self, task, episodes, progress):
        if episodes.iteration == 1:
            raise KeyboardInterrupt
        iterate(self, task, episodes, progress)

    with monkeypatch.context() as patch:
        patch.setattr(MPCController, "iterate", stopped_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            evaluated(model, tmp_path / "run", *old)
    monkeypatch.undo()
    state = torch.load(tmp_path / "run" / STATE, weights_only=True)
    del state["identity"]["unsolved_starts_only"], state["identity"]["dynamics"]
    torch.save(state, tmp_path / "run" / STATE)

    with pytest.raises(ValueError, match="holds an evaluation with another dynamics"):
        agreed(state["identity"] | {"dynamics": "simulator"}, tmp_path / "run")
    found = evaluated(model, tmp_path / "run", "seed=3")  # where the default is true
    assert found["unsolved_starts_only"] is False
    assert found["episode_seed"] == [1, 4, 7]
    for name in ("episode_hash", "state_dist_at_end", "solved_at"):
        assert found[name] == expected[name]
    kept = json.loads((tmp_path / "run" / FINISHED).read_text())
    assert "unsolved_starts_only" not in kept["identity"]
    assert evaluated(model, tmp_path / "run", "seed=3") == found


def test_the_protocol_is_part_of_what_a_run_is(model, tmp_path):
    assert evaluated(model, tmp_path)["unsolved_starts_only"] is True
    with pytest.raises(ValueError, match="finished evaluation with other settings"):
        evaluated(model, tmp_path, "unsolved_starts_only=false")


def test_a_finished_evaluation_without_its_numbers_is_called_broken(tmp_path):
    for metrics in ({}, {"success_rate": "half"}):
        (tmp_path / FINISHED).write_text(json.dumps({"identity": {}, "metrics": metrics}))
        with pytest.raises(ValueError, match=r"finished\.json: success_rate, .* should be numbers; delete it"):
            read_finished(tmp_path / FINISHED)
