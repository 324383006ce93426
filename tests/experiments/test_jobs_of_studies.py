"""What the configured studies run."""

from pathlib import Path

import pytest

from datasets.collecting.config import CollectConfig
from experiments.commands import commands
from experiments.publish import study_of
from experiments.stages import composed
from planning.config import PlanConfig
from tests.builders import REPOSITORY
from tests.experiments import tiny
from tests.experiments.test_shorthand import TRAINED
from training.config import TrainConfig

STUDIES = sorted(
    path.stem for path in (REPOSITORY / "conf").glob("*_*.yaml") if not path.stem.startswith(("plan_", "train"))
)


@pytest.fixture(scope="module")
def studies():
    return {name: study_of(name) for name in STUDIES}


@pytest.mark.parametrize("name", STUDIES)
def test_every_stage_is_an_ordinary_command_that_waits_for_what_it_uses(studies, name):
    schemas = {"collect": CollectConfig, "train": TrainConfig}
    jobs, seen, done = studies[name].jobs(), set(), set()
    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        assert set(job.after) <= done
        done.add(job.name)
        if job.run.__name__ in ("diagnose", "inspect"):
            continue
        settings = {text for text in job.arguments["overrides"] if not text.startswith(("run_dir", "ckpt_path"))}
        if settings - seen:  # each setting once, in the first stage that has it
            seen |= settings
            entry = job.run.__name__
            composed(
                schemas.get(entry, PlanConfig), job.arguments.get("config_name", entry), job.arguments["overrides"]
            )
    without = ("gap", "inspect")
    assert len(commands(jobs)) == sum(not job.name.startswith(without) for job in jobs), "all but these have a command"


@pytest.mark.parametrize("name", STUDIES)
def test_models_are_finetuned_for_as_many_steps_as_their_control(studies, name):
    steps: dict[str, set] = {}
    for job in studies[name].jobs():
        base = next(
            (studies[name].config.models[m].base for m in studies[name].config.models if job.name == f"{m}_s0"), None
        )
        if base is not None and job.run.__name__ == "train":
            training = composed(TrainConfig, "train", job.arguments["overrides"]).training
            told = (training.epochs, training.max_batches, training.batch_size, training.predictor_lr)
            steps.setdefault(base, set()).add(told)
    assert all(len(each) == 1 for each in steps.values())


def test_every_planner_that_searches_is_in_the_results(studies):
    group = {path.stem for path in (REPOSITORY / "conf" / "planner").glob("*.yaml")}
    chosen = {text for own in studies["results_wall"].planners.values() for text in own}
    assert {f"planner={name}" for name in group - {"random", "mpc_random", "policy", "mpc_policy"}} <= chosen


def test_the_curves_have_six_budgets_for_each_planner(studies):
    points = studies["results_wall"].config.points()
    for curve in ("GD", "L-BFGS", "CEM"):
        own = {name: budget for name, (of, budget) in points.items() if of == curve}
        assert len(own) == 6
        for name, budget in own.items():
            settings = studies["results_wall"].composed(name).planner.settings
            assert settings["sub_planner"]["budget_evals"] == budget and settings["n_taken_actions"] == 1


def test_a_model_is_evaluated_as_soon_as_it_is_trained_and_finetunings_wait_for_their_base():
    jobs = {job.name: job for job in tiny.study("x", **TRAINED, collect=["env=wall"], gap_planner="few").jobs()}
    names = list(jobs)
    assert names[:4] == ["collect", "plain_s0", "plain_s0_few", "plain_s0_fewer"]
    assert jobs["plain___more_s0"].after == ["plain_s0"] and jobs["plain___more_s0_few"].after == ["plain___more_s0"]
    assert jobs["gap_plain_s0"].after == ["plain_s0", "plain___more_s0"]
    assert "n_evals=2" in jobs["plain_s0_fewer"].arguments["overrides"]


def test_the_ceiling_is_search_with_the_simulator_or_cem_where_nothing_searches():
    (one,) = tiny.study("x").ceilings
    assert (one.model, one.n_evals) == ("a", 2) and one.planner.startswith("cem, the simulator")
    for planner, search in (("mpc_gd", "mpc_cem"), ("gd", "cem")):
        of = tiny.study("x", planners=[planner])
        (one,) = of.ceilings
        assert of.planners[one.planner][:2] == [f"planner={search}", "dynamics=simulator"]
    assert not tiny.study("x", ceiling=False).ceilings


def test_every_distance_is_a_set_of_goals_with_evaluations_of_its_own():
    jobs = tiny.study("x", distances=[5, 10], ceiling=False).jobs()
    assert [job.name for job in jobs][:2] == ["a_s0_gd_goal_H_5", "a_s0_cem_goal_H_5"] and len(jobs) == 8
    assert {"goal_source=dset", "goal_H=10"} <= set(jobs[2].arguments["overrides"])


def test_names_that_would_share_a_stage_are_refused():
    planners = {"gd": ["planner=gd"], "gd 2": ["planner=gd"]}
    goals = {"far": [], "2 far": []}
    with pytest.raises(ValueError, match=r"two stages would be called a_s0_gd_2_far .*: rename a model or planner"):
        tiny.study("x", planners=planners, goals=goals, ceiling=False).jobs()
    with pytest.raises(ValueError, match="two stages would be called why_a_s0_gd"):
        tiny.study("x", models={"a": "x/a", "why_a": "x/b"}, planners=["gd"], ceiling=False, why_evals=3).jobs()


def test_several_checkpoints_of_a_model_are_its_training_seeds():
    of = tiny.study("x", models={"a": ["x/1", "x/2"], "b": "x/3"}, planners=["gd"], ceiling=False)
    used = [Path(text.split("=")[1]).name for job in of.jobs() for text in job.arguments["overrides"] if "ckpt" in text]
    assert used == ["1", "3", "2"]
