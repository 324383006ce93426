import pytest

from utils.moved_classes import MOVED, current_names, former_names


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("planning.gd.GDPlanner", "planning.planners.gd.GDPlanner"),
        ("envs.wall:WallSimulator", "envs.wall.vector_env:WallSimulator"),
        ("utils.loggers.WandbLogger", "utils.wandb_logger.WandbLogger"),  # alone of what was in its module
        ("utils.loggers.JsonLinesLogger", "utils.loggers.JsonLinesLogger"),
        ("planning.gd", "planning.gd"),  # no class
        ("planning.gd.png", "planning.gd.png"),
        ("Pendulum-v1", "Pendulum-v1"),
        ("", ""),
    ],
)
def test_a_class_that_moved_has_its_present_name_and_nothing_else_changes(before, now):
    assert current_names(before) == now
    assert current_names({"a": [{"_target_": before, "n": 3}]}) == {"a": [{"_target_": now, "n": 3}]}


def test_former_names_undo_it():
    before = {"a": [{"_target_": "models.vit.ViTPredictor", "n": 3}], "b": "envs.wall:WallSimulator", "c": "x"}
    assert former_names(current_names(before)) == before
    assert len(set(MOVED.values())) == len(MOVED)
