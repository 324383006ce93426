"""Every setting of every entry, given what nobody would: it is accepted, or refused in one line that names the key."""

import copy
import logging
from typing import Any, get_type_hints

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

import utils.runtime as runtime
from datasets.collect import collections
from datasets.collecting.config import CollectConfig
from datasets.previewing.config import PreviewConfig
from envs.config import EnvConfig
from launch.command_line import _message
from launch.conf import CONF
from launch.names import FACTS
from launch.values import checked
from planning.config import PlanConfig
from planning.prepare_evaluation import prepare_evaluation
from tests.builders import wall_model_directory
from tests.training.tiny import STATE, _composed, composed
from training.assemble import build_trainer
from training.config import TrainConfig, TrainingConfig
from utils.annotations import alternatives
from utils.printable import shown
from utils.ranges import Share
from utils.schema import SettingError, arguments_of, check_arguments, parsed

HOSTILE = [None, 0, 1, 2, -1, 10**12, -(10**12), 10**400, 0.0, 1.5, -0.5, 1e308, True, False, "word", "", "a\n\x1b[2J",
           "x" * 5000, [], [1], [None], [[1]], {"a": 1}]  # fmt: skip
SMALL_PLAN = ("n_evals=2", "goal_source=random_state", "n_plot_samples=0", "device=cpu")


def build_training(node):
    config = parsed(TrainConfig, node)
    device = runtime.pick_device(config.device)
    runtime.autocast(config.precision, device)
    build_trainer(config, set(), device).close()


def build_evaluation(node):
    config = parsed(PlanConfig, node)
    device = runtime.pick_device(config.device)
    runtime.autocast(config.precision, device)
    prepare_evaluation(config, device).task.close()


def build_collections(node):
    collections(parsed(CollectConfig, node))


SCHEMAS = {build_training: TrainConfig, build_evaluation: PlanConfig, build_collections: CollectConfig}
ONLINE = ("method=online_adversarial", "planner@method.planner=mpc_gd", "from_scratch=true")
CASES = {
    "train": ("train", STATE, build_training),
    "plan": ("plan_wall", (*SMALL_PLAN, "planner=mpc_cem"), build_evaluation),
    "collect_wall": ("collect", ("env=wall",), build_collections),
    "collect_pusht": ("collect", ("env=pusht",), build_collections),
    "collect_point_maze": ("collect", ("env=point_maze",), build_collections),
}
VARIANTS = {  # what differs from the cases above
    "train_online": ("train", (*STATE, *ONLINE), build_training),
    "train_images": ("train", ("experiment=wall_small", "training.latent_cache=none", *STATE[1:]), build_training),
    **{
        f"plan_{planner}": ("plan_wall", (*SMALL_PLAN, f"planner={planner}"), build_evaluation)
        for planner in ("gd", "mpc_gd_lbfgs", "mppi", "cem_gd", "gradcem", "icem")
    },
}

PLANNERS = [case for case in VARIANTS if case.startswith("plan_") and case != "plan_gd"]
"""Cases whose settings are in part those of ``plan_gd``."""


def settings(node, prefix=""):
    """(key, value) of every setting and group."""
    for name, value in node.items():
        if name != "_target_":
            yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from settings(value, f"{prefix}{name}.")


LIKE = {2: 1, 1.5: 1, 0.0: 0}
"""A number, and the one that is accepted for the same reason where either may stand: then that one alone is built."""


def says_more(value, accepted):
    """Whether building with a value that may be given can show what building with those before it did not."""
    return isinstance(value, bool) or not isinstance(value, int | float) or LIKE.get(value, ...) not in accepted


def value_of(config, key):
    """The value of a setting; ``...`` if there is none."""
    for name in key.split("."):
        config = config.get(name, ...) if isinstance(config, dict) else ...
    return config


def put(config, key, value):
    *way, last = key.split(".")
    for name in way:
        config = config[name]
    config[last] = value


def following(entry, overrides):
    """Keys whose value is another key's: {"replay_buffer_frequency": ["method.replay_buffer_frequency"]}."""
    raw = OmegaConf.to_container(_composed(entry, tuple(overrides)), resolve=False)
    found: dict[str, list[str]] = {}
    for key, value in settings(raw):
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


LONG = ("train", "train_online", "plan")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in LONG else ()) for case in (*CASES, *VARIANTS)]
)
def test_every_setting_is_accepted_or_named(case, model, data_root, tmp_path, monkeypatch):
    """Those of a variant whose group is that of its entry's first case are tried there alone.

    What passes the checks is built, unless that was seen in the case before or with a number like it.
    """
    entry, overrides, build = (CASES | VARIANTS)[case]
    base = str(model if entry == "plan_wall" else tmp_path / "none")
    places = {} if entry == "collect" else {"run_dir": str(tmp_path / "run"), "ckpt_path": base}
    config, follows = composed(*overrides, name=entry, **places), following(entry, overrides)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    usual_case = next(each for each in CASES.values() if each[0] == entry)
    known = composed(*usual_case[1], name=entry, **places) if case in VARIANTS else {}
    first = composed(*VARIANTS["plan_gd"][1], name=entry, **places) if case in PLANNERS else {}
    for key, usual in list(settings(config)):
        group = key.partition(".")[0]
        if group in known and known[group] == config[group]:
            continue
        was_built = any(value_of(each, key) == usual for each in (known, first))
        accepted: list = []
        for value in HOSTILE:
            if key in (*places, *FACTS) or (isinstance(usual, dict) and isinstance(value, dict)):
                continue  # a group takes more settings; which ones, Hydra knows
            changed = copy.deepcopy(config)
            for place in (key, *follows.get(key, ())):
                put(changed, place, value)
            try:
                parsed(SCHEMAS[build], checked(changed))
                if not was_built and says_more(value, accepted):
                    build(changed)
                    accepted.append(value)
            except Exception as error:  # whatever comes is what is to be judged
                assert_one_line(error, key, value)


OPTIONS = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
OTHERS = ("demo_", "recipe_", "results_", "cluster")
"""Files whose settings are overrides of the entries, or those of a launcher."""


def components(node):
    """Every group below a node that names a class."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from components(value)


def assert_has_range(name, hint):
    for kind in alternatives(hint):
        assert kind not in (int, float), f"{name}: say beside the argument how large it may be, see utils/ranges.py"


@pytest.mark.parametrize("path", [path for path in OPTIONS if not str(path).startswith(OTHERS)], ids=str)
def test_every_number_of_every_option_has_its_range(path):
    for node in components(OmegaConf.to_container(OmegaConf.load(CONF / path))):
        hints, takes_more = arguments_of(get_object(node["_target_"]))
        for name in node.keys() - {"_target_", "defaults"}:
            assert name in hints or takes_more
            assert_has_range(f"{node['_target_']}.{name}", hints.get(name, Any))


@pytest.mark.parametrize("schema", [TrainConfig, TrainingConfig, PlanConfig, CollectConfig, PreviewConfig, EnvConfig])
def test_every_number_of_every_schema_has_its_range(schema):
    for name, hint in get_type_hints(schema, include_extras=True).items():
        assert_has_range(name, hint)


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: shown(value)[:20])
def test_what_is_shown_of_a_value_is_short_and_harmless(value):
    assert shown(value).isprintable() and len(shown(value)) <= 60


class Own:
    """A planner of a user's, of which some arguments say what they may be."""

    def __init__(self, speed: Share, sub_planner: Any, mode="fast", scale=1, rest=None):
        pass


class Unclear:
    """Has an annotation that only a type checker understands."""

    def __init__(self, odd: "NoSuchName" = 3, speed: float = 1.0):  # noqa: F821
        pass


class Shapeless(Own):
    """Takes whatever its base takes, and more."""

    def __init__(self, width: "int | None" = None, names: "dict[str, float] | None" = None, **more):
        super().__init__(**more)


def own(**arguments):
    return {"_target_": f"{__name__}.Own", **arguments}


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (own(speed=2.0), "planner.speed=2.0 must be a number, at least 0, at most 1; correct it"),
        (own(sped=0.5), "planner.sped: there is no such setting; did you mean planner.speed or"),
        (own(mode=3), "planner.mode=3 must be a text"),
        (own(scale="x"), "planner.scale=x must be a number"),
        (own(sub_planner={"_target_": "planning.planners.gd.GDPlanner", "horizon": -1}),
         "planner.sub_planner.horizon=-1 must be a whole number, at least 1"),
        ({"_target_": f"{__name__}.Shapeless", "width": 1.5}, "planner.width=1.5 must be a whole number or null"),
        ({"_target_": f"{__name__}.Shapeless", "names": {"a": "b"}}, "planner.names.a=b must be a number"),
        ({"_target_": f"{__name__}.Shapeless", "wide": 1}, "planner.wide: there is no such setting; did you mean"),
        ({"_target_": "training.regularizer.Regularizer", "pool": "mean"}, "planner.pool: there is no such setting"),
    ],
)  # fmt: skip
def test_the_class_of_a_user_is_held_to_its_own_annotations(node, said):
    with pytest.raises(SettingError) as error:
        check_arguments(node, "planner")
    assert said in str(error.value)


def test_what_the_class_of_a_user_leaves_open_may_be_anything():
    check_arguments(own(speed=1, mode="slow", scale=0.5, rest=[1, {"a": 2}], _partial_=True), "planner")
    check_arguments({"_target_": f"{__name__}.Shapeless", "width": None, "names": {"a": 1.0}, "speed": 1}, "planner")
    check_arguments({"_target_": f"{__name__}.Unclear", "odd": 0.5, "speed": 2}, "planner")
    check_arguments({"_target_": "no.such.Class", "x": 1}, "planner")  # building it says so
    check_arguments({"_target_": f"{__name__}.own", "anything": 1}, "planner")


@pytest.mark.parametrize(
    ("entry", "settings", "named"),
    [
        ("train", {"training.batch_size": 60000, "N": 500, "img_size": 4096},
         "training.batch_size=60000, N=500, img_size=4096"),
        ("collect", {"num_steps": 10**6, "image_size": 4096}, "num_steps=1000000, image_size=4096"),
        ("plan_wall", {"n_evals": 10**5, "planner.sub_planner.num_samples": 10**6},
         "n_evals=100000, planner.sub_planner.num_samples=1000000, planner.sub_planner.horizon=5"),
    ],
)  # fmt: skip
def test_what_cannot_fit_into_memory_names_its_sizes(entry, settings, named):
    places = {} if entry == "collect" else {"run_dir": "r", "ckpt_path": "c"}
    node = composed(*(["planner=mpc_cem"] if entry == "plan_wall" else []), name=entry, **places)
    for key, value in settings.items():
        put(node, key, value)
    schema = {"train": TrainConfig, "collect": CollectConfig, "plan_wall": PlanConfig}[entry]
    with pytest.raises(ValueError, match=rf"{named}: that takes .* of memory at least, and this machine has"):
        parsed(schema, node)
