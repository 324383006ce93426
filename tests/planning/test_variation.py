"""Evaluations in worlds that differ: which episodes they have, and what is kept of them."""

from __future__ import annotations

import json

import pytest
import torch

from envs.factors import chosen_factors
from envs.wall.vector_env import WallVectorEnv
from planning.episode_set import write_manifest
from planning.goals import GoalRequest, make_problem
from tests.builders import POINT_NORMALIZER


@pytest.fixture(scope="module")
def env():
    return WallVectorEnv(image_size=65)


def problem(env, vary, source="random_state", path=None, count=6, unsolved=True):
    factors = chosen_factors(env.factors, vary, "wall")
    about = (env, list(range(count)), 5, 5, lambda: None, POINT_NORMALIZER, path, unsolved)
    return make_problem(source, GoalRequest(*about, vary=factors))


def test_starts_goals_and_seeds_stay_those_of_the_episode_without_variation(env):
    plain, varied = problem(env, []), problem(env, ["colour", "door"])
    assert torch.equal(plain.states, varied.states) and torch.equal(plain.goal_states, varied.goal_states)
    assert plain.seeds == varied.seeds and not {*plain.hashes()} & {*varied.hashes()}
    assert {*varied.layouts} - {*plain.layouts} == {"background_colour", "wall_colour", "dot_colour"}
    assert not torch.equal(varied.layouts["fix_door_location"], plain.layouts["fix_door_location"])


def test_known_actions_are_left_out_only_where_the_start_varies(env):
    plain, coloured, elsewhere = (problem(env, vary, "random_action") for vary in ([], ["colour"], ["start"]))
    assert torch.equal(coloured.actions, plain.actions) and elsewhere.actions is None
    assert torch.equal(elsewhere.goal_states, plain.goal_states) and not torch.equal(elsewhere.states, plain.states)


def test_an_episode_whose_other_start_is_solved_is_drawn_again(env):
    away = [problem(env, ["start"], "random_action", count=60, unsolved=unsolved) for unsolved in (False, True)]
    near = [env.success(each.states, each.goal_states).success for each in away]
    assert near[0].any() and not near[1].any()
    plain = [problem(env, [], "random_action", count=60, unsolved=unsolved).goal_states for unsolved in (False, True)]
    same = ~near[0] & (plain[0] == plain[1]).all(1)
    assert same.any() and torch.equal(away[0].states[same], away[1].states[same]), "the others stay as they were"


def test_a_manifest_keeps_the_variation_and_a_file_replays_it(env, tmp_path):
    varied = problem(env, ["all"])
    write_manifest(tmp_path / "episodes.json", varied, "wall", {"vary": ["all"]})
    varied.save(tmp_path / "plan_targets.npz")
    assert json.loads((tmp_path / "episodes.json").read_text())["vary"] == ["all"]
    for name in ("episodes.json", "plan_targets.npz"):
        read = problem(env, [], "file", tmp_path / name)
        assert read.hashes() == varied.hashes() and read.layouts.keys() == varied.layouts.keys()
        assert all(torch.equal(read.layouts[key], values) for key, values in varied.layouts.items())
        images = []
        for each in (read, varied):
            env.reset(each.seeds, each.states, each.layouts)
            images.append(env.render())
        assert torch.equal(*images)
