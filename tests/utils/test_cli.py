import shutil

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.builders import REPOSITORY
from utils import cli
from utils.cli import expand_resume, overridden_keys, plain, same_settings


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


@pytest.fixture
def run_folder(tmp_path):
    """Write what Hydra leaves behind of a run; returns the function."""

    def write(overrides: list[str], name: str = "run", config_name: str = "plan_wall"):
        folder = tmp_path / name
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(overrides), folder / ".hydra" / "overrides.yaml")
        OmegaConf.save({"hydra": {"job": {"config_name": config_name}}}, folder / ".hydra" / "hydra.yaml")
        return folder

    return write


def test_without_resume_the_arguments_stay_what_they_are():
    assert expand_resume(["--config-name", "x", "seed=1"]) == ["--config-name", "x", "seed=1"]


def test_resuming_repeats_the_recorded_command_in_the_same_folder(run_folder):
    folder = run_folder(["ckpt_path=outputs/wall", "planner=gd", "planner.lr=0.1"])
    found = expand_resume([f"resume={folder}", "device=cpu"])
    assert found[:2] == ["--config-name", "plan_wall"]
    assert found[2:5] == ["ckpt_path=outputs/wall", "planner=gd", "planner.lr=0.1"]
    assert found[-1] == "device=cpu"  # after the recorded ones, so that it wins
    assert str(folder) in found[5]


@pytest.mark.parametrize("name", ["plain", "planner=mpc_gd,seed=1", "with space", "it's", "[1]{2}"])
def test_any_folder_name_survives_the_override_grammar(run_folder, name):
    folder = run_folder(["seed=1"], name)
    arguments = [a for a in expand_resume([f"resume={folder}"]) if not a.startswith("--") and a != "plan_wall"]
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        composed = compose("plan_wall", overrides=[*arguments, "ckpt_path=x"], return_hydra_config=True)
    assert composed.hydra.run.dir == str(folder)


@pytest.mark.parametrize(
    "override", ["+planner._target_=os.system", "++a={_target_:os.system}", "planner.sub_planner._target_=x.y"]
)
def test_recorded_overrides_that_name_a_class_are_left_out(run_folder, override):
    found = expand_resume([f"resume={run_folder(['seed=1', override])}"])
    assert "seed=1" in found
    assert not any("_target_" in argument for argument in found)


def test_a_folder_that_is_no_run_is_one_line(tmp_path, run_folder):
    with pytest.raises(SystemExit, match=r"error: resume=.*nowhere: there is no run to resume"):
        expand_resume([f"resume={tmp_path / 'nowhere'}"])
    folder = run_folder([])
    shutil.rmtree(folder / ".hydra")
    with pytest.raises(SystemExit, match="there is no run to resume"):
        expand_resume([f"resume={folder}"])


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
