"""Every setting of every entry, given what nobody would: it is accepted, or refused in one line that names the key."""

import copy
import logging

import pytest
from omegaconf import OmegaConf

import utils.runtime as runtime
from datasets.collect import collections
from launch.command_line import _message
from launch.conf import CONF
from launch.limits import FACTS, RULES, check_memory
from launch.rules import GROUP_RULE, Rule, check_values, rule_of, shown
from planning.evaluation import Evaluation
from tests.builders import wall_model_directory
from tests.training.tiny import STATE, _composed, composed, make_wall
from training.assemble import build_trainer

HOSTILE = [None, 0, 1, 2, -1, 10**12, -(10**12), 10**400, 0.0, 1.5, -0.5, 1e308, True, False, "word", "", "a\n\x1b[2J",
           "x" * 5000, [], [1], [None], [[1]], {"a": 1}]  # fmt: skip
SMALL_PLAN = ("n_evals=2", "goal_source=random_state", "n_plot_samples=0", "device=cpu")


def build_training(config):
    device = runtime.pick_device(config["device"])
    runtime.autocast(config["precision"], device)
    build_trainer(config, set(), device).close()


def build_evaluation(config):
    device = runtime.pick_device(config["device"])
    runtime.autocast(config["precision"], device)
    Evaluation.prepare(config, device).task.env.close()


ONLINE = ("method=online_adversarial", "planner@method.planner=mpc_gd", "from_scratch=true")
CASES = {
    "train": ("train", STATE, build_training),
    "plan": ("plan_wall", (*SMALL_PLAN, "planner=mpc_cem"), build_evaluation),
    "collect_wall": ("collect", ("env=wall",), collections),
    "collect_pusht": ("collect", ("env=pusht",), collections),
    "collect_point_maze": ("collect", ("env=point_maze",), collections),
}
SLOW = {
    "train_online": ("train", (*STATE, *ONLINE), build_training),
    "train_images": ("train", ("experiment=wall_small", *STATE[1:]), build_training),
    **{
        f"plan_{planner}": ("plan_wall", (*SMALL_PLAN, f"planner={planner}"), build_evaluation)
        for planner in ("gd", "mpc_gd_lbfgs", "mppi", "cem_gd", "gradcem", "icem")
    },
}


def settings(node, prefix=""):
    """(key, value, name of the class that takes it) of every setting and group."""
    owner = node.get("_target_", "").rpartition(".")[2]
    for name, value in node.items():
        if name != "_target_":
            yield f"{prefix}{name}", value, owner
        if isinstance(value, dict):
            yield from settings(value, f"{prefix}{name}.")


def put(config, key, value):
    *way, last = key.split(".")
    for name in way:
        config = config[name]
    config[last] = value


def following(entry, overrides):
    """Keys whose value is another key's: {"replay_buffer_frequency": ["method.replay_buffer_frequency"]}."""
    raw = OmegaConf.to_container(_composed(entry, tuple(overrides)), resolve=False)
    found: dict[str, list[str]] = {}
    for key, value, _ in settings(raw):
        if isinstance(value, str) and value.startswith("${") and value.count("${") == 1:
            found.setdefault(value[2:-1], []).append(key)
    return found


def assert_one_line(error, key, value):
    """What the user would see is one line with the last part of the key in it."""
    message = _message(error)
    assert message is not None, f"{key}={value!r} is a traceback: {type(error).__name__} {error}"
    assert "\n" not in message and message.isprintable() and len(message) < 2000, f"{key}={value!r}: {message!r}"
    assert key.rpartition(".")[2] in message, f"{key}={value!r} is not named: {message}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return wall_model_directory(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_setting_is_accepted_or_named(case, model, tmp_path, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("DATASET_DIR", str(make_wall(tmp_path_factory.getbasetemp() / "tiny_data")))
    entry, overrides, build = (CASES | SLOW)[case]
    base = str(model if entry == "plan_wall" else tmp_path / "none")
    places = {} if entry == "collect" else {"run_dir": str(tmp_path / "run"), "ckpt_path": base}
    config, follows = composed(*overrides, name=entry, **places), following(entry, overrides)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    most = len(HOSTILE) if case in SLOW else 1  # of each setting, builds with values that are allowed
    for key, usual, owner in list(settings(config)):
        allowed = 0
        for value in HOSTILE:
            if key in (*places, *FACTS) or (isinstance(usual, dict) and isinstance(value, dict)):
                continue  # a group takes more settings; which ones, Hydra knows
            rule = rule_of(key, owner, RULES)
            if rule is not None and not rule.allows(value):
                with pytest.raises(ValueError) as error:
                    check_values({key: value}, {key: rule})
                assert_one_line(error.value, key, value)
                continue
            allowed += 1
            if allowed > most:
                continue
            changed = copy.deepcopy(config)
            for place in (key, *follows.get(key, ())):
                put(changed, place, value)
            try:
                check_values(changed, RULES)
                check_memory(changed)
                build(changed)
            except Exception as error:  # whatever comes is what is to be judged
                assert_one_line(error, key, value)


OPTIONS = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
OTHERS = ("demo_", "results_", "cluster")
"""Files whose settings are overrides of the entries, or those of a launcher."""


@pytest.mark.parametrize("path", [path for path in OPTIONS if not str(path).startswith(OTHERS)], ids=str)
def test_every_setting_of_every_option_has_its_rule(path):
    loaded = OmegaConf.to_container(OmegaConf.load(CONF / path))
    is_global = "@package _global_" in (CONF / path).read_text()
    prefix = "" if len(path.parts) == 1 or is_global else f"{path.parts[0]}."
    for key, value, owner in settings(loaded, prefix):
        if key.split(".")[-1] == "defaults" or key.split(".")[0] == "hydra":
            continue
        rule = rule_of(key, owner, RULES)
        assert rule is not None, f"{key}: say in launch/limits.py what it may be"
        if "${" not in str(value) and value != "???":
            assert rule.allows(value), f"{key}={value} must be {rule}"
        assert (rule is GROUP_RULE) == (isinstance(value, dict) or value == "${speed}"), key  # the run's group


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: shown(value)[:20])
def test_rules_judge_every_value_without_failing(value):
    for rule in (*RULES.values(), Rule(list, 0, 3)):
        assert isinstance(rule.allows(value), bool)
    assert shown(value).isprintable() and len(shown(value)) <= 60


def test_the_class_of_a_user_keeps_its_own_rules():
    own = {
        "planner": {
            "_target_": "mine.Planner",
            "horizon": -1,
            "sub_planner": {"_target_": "planning.planners.gd.GDPlanner"},
        }
    }
    check_values(own, RULES)
    own["planner"]["sub_planner"]["horizon"] = -1
    with pytest.raises(ValueError, match=r"planner\.sub_planner\.horizon=-1 must be a whole number, at least 1"):
        check_values(own, RULES)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"training": {"batch_size": 60000}, "N": 500, "img_size": 4096},
            "training.batch_size=60000, N=500, img_size=4096",
        ),
        ({"num_steps": 10**6, "image_size": 4096}, "num_steps=1000000, image_size=4096"),
        ({"n_evals": 10**5, "planner": {"num_samples": 10**6, "horizon": 5}}, "planner.num_samples=1000000"),
    ],
)
def test_what_cannot_fit_into_memory_names_its_sizes(settings, named):
    with pytest.raises(ValueError, match=rf"{named}.*of memory at least, and this machine has"):
        check_memory(settings)
