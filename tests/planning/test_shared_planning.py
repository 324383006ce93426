"""Several processes plan for the episodes of one evaluation: what one process finds, in one set of files."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from plan import plan
from planning.config import PlanConfig
from planning.episode_record import EpisodeRecord
from planning.mpc import MPCController
from planning.planners.plan import join_plans
from planning.saved_evaluation import STATE
from tests.builders import plan_of, wall_model_directory
from tests.training.tiny import composed
from utils.loggers import read_json_lines
from utils.schema import parsed

ROUNDING = 1e-4  # relative; matrix products of other sizes add up in another order, and gradient steps pass that on
CLOSED = ("planner.max_iter=3", "planner.n_taken_actions=1", "planner.sub_planner.horizon=3")
STALLING = ("planner.sub_planner.opt_steps=6", "planner.sub_planner.stop_gain=0.1", "planner.sub_planner.stop_steps=2")
DROPPING = "planner.sub_planner.drop_every=2"
PLANNERS = {
    "gd": ["planner=mpc_gd", *CLOSED, "planner.sub_planner.opt_steps=3", "planner.sub_planner.eval_every=2"],
    "starts, dropped": ["planner=mpc_gd", *CLOSED, *STALLING, "planner.sub_planner.num_starts=4", DROPPING],
    "cem": ["planner=mpc_cem", *CLOSED, "planner.sub_planner.num_samples=8", "planner.sub_planner.topk=2"],
    "evaluations counted": ["planner=mpc_gd", *CLOSED, "planner.sub_planner.budget_evals=3", "planner.adapt={lr: 0.1}"],
    "open loop": ["planner=gd", "planner.opt_steps=3"],
    "fewer episodes than processes": ["planner=mpc_gd", *CLOSED, "planner.sub_planner.opt_steps=3", "n_evals=1"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return wall_model_directory(tmp_path_factory.mktemp("model"))


def config(model, folder, overrides):
    """Of five episodes, which fall into unequal shares."""
    given = ("n_evals=5", "n_plot_samples=1", "num_threads=1", *overrides)
    node = composed(*given, name="plan_wall", ckpt_path=str(model), run_dir=str(folder), device="cpu")
    return parsed(PlanConfig, node)


def logged(folder):
    lines = read_json_lines(folder / "logs.json")
    return [
        {name: value for name, value in line.items() if "seconds" not in name and "memory" not in name}
        for line in lines
    ]


def planned(settings):
    """In any process: the metrics."""
    torch.set_num_threads(1)
    return plan(settings)


def assert_alike(found, wanted, where=""):
    """Nested results, numbers up to rounding."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            assert_alike(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for number, pair in enumerate(zip(found, wanted, strict=True)):
            assert_alike(*pair, f"{where}[{number}]")
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=ROUNDING, abs_tol=ROUNDING), f"{where}: {found} != {wanted}"
    else:
        assert found == wanted, where


@pytest.mark.parametrize("name", list(PLANNERS))
def test_results_are_those_of_one_process(pair, model, tmp_path, name):
    alone = planned(config(model, tmp_path / "alone", PLANNERS[name]))
    found, other = pair(planned, config(model, tmp_path / "pair", PLANNERS[name]))
    assert other["solved_at"] == found["solved_at"]
    assert_alike(logged(tmp_path / "pair"), logged(tmp_path / "alone"))
    assert found["solved_at"] == alone["solved_at"] and found["final"] == alone["final"]
    records = [EpisodeRecord.read(tmp_path / run / "episodes.npz") for run in ("pair", "alone")]
    for array in ("inside", "planned", "evaluations", "gradients", "trace_steps"):
        assert np.array_equal(*(getattr(record, array) for record in records)), array
    for array in ("states", "plans", "cost_before", "cost_after", "imagined_distance", "true_distance"):
        first, second = (torch.from_numpy(getattr(record, array)) for record in records)
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3, equal_nan=True)
    written = [{path.name for path in (tmp_path / run).iterdir()} for run in ("alone", "pair")]
    assert written[0] == written[1]


def interrupted(settings):
    """Planning that ends in the middle of its third iteration."""
    iterate, done = MPCController.iterate, []

    def once_more(self, task, episodes, progress):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(iterate(self, task, episodes, progress))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MPCController, "iterate", once_more)
        with pytest.raises(KeyboardInterrupt):
            planned(settings)


def test_any_number_of_processes_continues_what_another_began(pair, model, tmp_path):
    alone = planned(config(model, tmp_path / "alone", PLANNERS["gd"]))
    interrupted(config(model, tmp_path / "begun", PLANNERS["gd"]))
    assert (tmp_path / "begun" / STATE).exists()
    found, _ = pair(planned, config(model, tmp_path / "begun", PLANNERS["gd"]))
    assert found["solved_at"] == alone["solved_at"]
    assert_alike(logged(tmp_path / "begun"), logged(tmp_path / "alone"))
    # finished: nothing is planned again
    assert pair(planned, config(model, tmp_path / "begun", PLANNERS["gd"]))[0] == found


def test_joined_plans_have_the_steps_of_all():
    """Under a budget in time one process may get farther than another; where it ended, its cost stays."""
    long = replace(plan_of(torch.zeros(2, 1, 1), 7, 6), cost=torch.tensor([1.0, 2.0]))
    long.trace.extend([(0, torch.ones(2)), (5, torch.ones(2)), (8, long.cost)])
    short = replace(plan_of(torch.ones(1, 1, 1), 5, 4), cost=torch.tensor([3.0]))
    short.trace.extend([(0, torch.zeros(1)), (4, short.cost)])
    joined = join_plans([long, short])
    assert joined.actions.flatten().tolist() == [0, 0, 1]
    assert [(step, cost.tolist()) for step, cost in joined.trace] == [(0, [1, 1, 0]), (5, [1, 1, 3]), (8, [1, 2, 3])]
    assert (joined.evaluations.tolist(), joined.gradient_evaluations.tolist()) == ([7, 7, 5], [6, 6, 4])
