import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from launch import command_line as cli
from launch.command_line import overridden_keys, plain
from utils.settings import same_settings


def test_keys_of_overrides_of_every_kind():
    overrides = ["num_hist=3", "+experiment=wall_small", "~decoder", "++a.b=c=d", "encoder@model.encoder=dino"]
    assert overridden_keys(overrides) == {"num_hist", "experiment", "decoder", "a.b", "encoder"}


def test_plain_data_are_resolved():
    found = plain(OmegaConf.create({"a": 1, "b": {"c": "${a}"}, "d": [1, "${b.c}"]}))
    assert found == {"a": 1, "b": {"c": 1}, "d": [1, 1]}
    assert type(found["b"]) is dict


@pytest.mark.parametrize("content", [{"a": "???"}, {"a": "${nowhere}"}, {"a": "${oc.env:NO_SUCH_VARIABLE}"}])
def test_a_config_with_gaps_is_refused_in_one_line(content):
    with pytest.raises(ValueError, match="the configuration is not complete: ") as error:
        plain(OmegaConf.create(content))
    assert "\n" not in str(error.value)


def test_differences_of_settings_name_the_key_and_both_values():
    before = {"seed": 1, "training": {"epochs": 3, "lr": 0.1}, "gone": True, "run_dir": "a", "env": {"num_workers": 0}}
    now = {"seed": 2, "training": {"epochs": 3, "lr": 0.2}, "new": "x", "run_dir": "b", "env": {"num_workers": 4}}
    found = same_settings(before, now, free=("run_dir", "env.num_workers"))
    assert found == ["gone: True -> None", "seed: 1 -> 2", "training.lr: 0.1 -> 0.2"]  # "new" contradicts nothing
    assert same_settings(before, before, ()) == []


def test_a_free_group_frees_all_below_it():
    assert same_settings({"logger": {"a": 1}}, {"logger": {"a": 2}}, ("logger",)) == []
    assert same_settings({"logger": {"a": 1}}, {"logger": None}, ()) == ["logger: {'a': 1} -> None"]


class Refusing:
    """A class whose constructor raises what it is given."""

    def __init__(self, kind: str) -> None:
        raise {"value": ValueError("key must be 1"), "os": FileNotFoundError("no file"), "type": TypeError("odd")}[kind]


def instantiation_error(kind: str) -> InstantiationException:
    with pytest.raises(InstantiationException) as error:
        instantiate({"_target_": f"{__name__}.Refusing", "kind": kind})
    return error.value


class OurError(RuntimeError):
    """An error of ours, like a loss that is not finite."""


def test_errors_of_users_become_a_message_and_ours_keep_their_traceback():
    assert cli._message(ValueError("key must be 1")) == "key must be 1"
    assert "no file" in cli._message(FileNotFoundError("no file"))
    assert cli._message(OurError("the loss is nan")) == "the loss is nan"
    assert cli._message(RuntimeError("shapes do not match")) is None


def test_the_reason_inside_an_instantiation_error_is_what_counts():
    assert cli._message(instantiation_error("value")) == "key must be 1"
    assert "no file" in cli._message(instantiation_error("os"))
    assert "\n" not in cli._message(instantiation_error("type"))
