"""What no composed config may hold."""

import math

import pytest
from hydra import compose, initialize_config_dir

from launch.command_line import plain
from launch.conf import CONF, class_settings, groups, own_classes
from launch.values import checked


def composed(name: str, *overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose(name, overrides=[*overrides]))


@pytest.mark.parametrize(
    ("key", "spelling"),
    [
        ("training.predictor_lr", "nan"), ("memory_budget_gb", "nan"), ("env.dataset.split_ratio", "-inf"),
        ("method.objective.alpha", "1e400"), ("method.planner.lr", "inf"),
    ],
)  # fmt: skip
def test_a_number_that_is_not_finite_passes_no_setting_of_any_kind(key, spelling):
    with pytest.raises(ValueError, match=rf"{key}=-?(nan|inf) must be a finite number"):
        composed("train", "run_dir=x", "method=online", f"{key}={spelling}")


@pytest.mark.parametrize("value", [{"a": [1.0, {"b": math.nan}]}, {"a": {"b": [[math.inf]]}}])
def test_nor_does_one_inside_of_lists_and_groups(value):
    with pytest.raises(ValueError, match=r"a\.(1\.b|b\.0\.0)="):
        checked(value)


TARGETS = [
    "planner._target_=os.system",
    "++planner._target_=torch.hub.load",
    "planner.sub_planner._target_=numpy.load",
    "+planner.sub_planner.extra=[{_target_: joblib.load, _partial_: true}]",
    "planner._target_=planning.mpc.os.system",
    "planner._target_=hydra.utils.instantiate",
    "planner._target_=null",
    "env.simulator.simulator=antigravity:Fly",
    "env.simulator.simulator=antigravity",
]


@pytest.mark.parametrize("override", TARGETS)
def test_a_class_that_no_option_names_is_refused(override):
    with pytest.raises(ValueError, match="no option of this project names that class"):
        composed("plan_pusht", "run_dir=x", "ckpt_path=x", override)


def test_what_the_user_lists_is_trusted_wherever_the_list_stands_and_nobody_else_sees_it():
    own = {"planner": {"_target_": "mine.Planner", "trusted_targets": ["mine.Planner"], "lr": 1.0}}
    assert checked(own) == {"planner": {"_target_": "mine.Planner", "lr": 1.0}}
    found = composed(
        "plan_pusht",
        "run_dir=x",
        "ckpt_path=x",
        "env.simulator.simulator=rooms:Rooms",
        "+trusted_targets=[rooms:Rooms]",
    )
    assert found["env"]["simulator"]["simulator"] == "rooms:Rooms" and "trusted_targets" not in found
    with pytest.raises(ValueError, match="must be a list of classes"):
        checked({"trusted_targets": "mine.Planner"})


def test_the_list_of_classes_is_what_the_folder_names():
    assert {
        "planning.planners.cem.CEMPlanner",
        "envs.wall.vector_env.WallVectorEnv",
        "envs.pusht.simulator.PushTSimulator",
    } <= own_classes()
    assert not any(name.startswith(("hydra", "logging")) for name in own_classes())
    assert class_settings() == {"simulator"}
    assert groups()["env"] == ["gymnasium", "point_maze", "point_maze_large", "point_maze_medium", "pusht", "wall"]
