"""Random command lines of our keys and hostile values: the answer is one line, or a composed config."""

import os

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import open_dict

from launch.command_line import _message, parse
from launch.composing import Composer, keys_of
from launch.conf import CONF, groups
from launch.names import Names
from planning.config import PlanConfig
from training.config import TrainConfig

EXAMPLES = int(os.environ.get("COMMAND_EXAMPLES", "30"))
"""How many random command lines; a search for new faults sets more, and draws other ones every time."""

VALUES = [
    "null", "0", "-1", "1e999", "nan", "1000000000000", "true", "word", "", "???", "[]", "[1,[2]]", "{}", "{a:1}",
    "'", '"', "${x}", "${oc.env:HOME}", "${.}", "${..}", "${training.seed", "a=b", "ü", "../../x", "x" * 3000,
    "[" * 200, "{a:" * 50, "1,2", "range(1,3)", "glob(*)", "int(x)", "%", "\\", "\t", "\x1b[31m", "@", "a@b:c",
]  # fmt: skip
SETTINGS = sorted({key for name in ("train", "plan_wall") for key in keys_of(Composer(name, None).compose([]))})
KEYS = [
    *SETTINGS,
    *groups(),
    "hydra.run.dir",
    "hydra.job.name",
    "hydra/launcher",
    "defaults",
    "planner@method.planner",
    "nope",
]
VALUE = st.one_of(st.sampled_from(VALUES), st.text(max_size=12))
OPTIONS = st.sampled_from([f"{group}={option}" for group, options in groups().items() for option in options])
ASSIGNMENT = st.builds("{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(KEYS), VALUE)
COMMAND = st.lists(
    st.one_of(OPTIONS, ASSIGNMENT, st.sampled_from(["~env", "~training.seed", "x", "=", "+"])), max_size=4
)


@pytest.fixture(scope="module", autouse=True)
def config_folder():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def attempt(name, schema, overrides):
    """Compose and check a command line as an entry does; returns what the user is told, if anything."""
    try:
        cfg = compose(name, ["ckpt_path=x", "run_dir=x", *overrides], return_hydra_config=True)
        with open_dict(cfg):
            cfg.hydra.mode = RunMode.RUN
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        assert parse(cfg, schema)
    except CompactHydraException as error:  # Hydra says these without a traceback
        return str(error)
    except Exception as error:
        message = _message(error)
        assert message is not None and "\n" not in message, f"{overrides}: {type(error).__name__}: {error}"
        return message
    return None


@settings(max_examples=EXAMPLES, derandomize="COMMAND_EXAMPLES" not in os.environ, deadline=None, database=None,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(st.sampled_from([("train", TrainConfig), ("plan_wall", PlanConfig)]), COMMAND)
@example(("train", TrainConfig), ["training=3"])
@example(("train", TrainConfig), ["env=null"])
@example(("plan_wall", PlanConfig), ["planner.sub_planner=null"])
@example(("train", TrainConfig), ["~env"])
def test_no_command_line_is_a_traceback(entry, overrides):
    attempt(*entry, overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training=3"], "training=3 must be a group of settings"),
        (["env.simulator=null"], "env.simulator=null must be a group of settings"),
        (["training.epochs={a:1}"], "training.epochs={'a': 1} must be a whole number"),
        (["training.epochs=[1]"], "training.epochs=[1] must be a whole number"),
        (["num_threads=1000000"], "num_threads=1000000 must be a whole number, at least 1, at most"),
        (["env=pusht", "env.simulator.num_workers=100000"], "env.simulator.num_workers=100000 must be a whole number"),
        (["img_size=1000000"], "img_size=1000000 must be a whole number, at least 1, at most 4096"),
        (["training.batch_size=1000000000"], "training.batch_size=1000000000 must be"),
    ],
)
def test_what_they_are_told(overrides, said):
    assert said in attempt("train", TrainConfig, overrides)
    assert attempt("train", TrainConfig, []) is None


@pytest.mark.parametrize("override", ["~env", "env=null"])
def test_there_must_be_an_environment(override):
    with pytest.raises(ValueError, match="env=null: there must be one; choose among gymnasium, point_maze, "):
        Names(Composer("train", None), [override]).check(sweep=False)
