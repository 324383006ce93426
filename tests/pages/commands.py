"""Checks a command of the documentation in this process: composes its config, or parses its options, no more."""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence

import pytest
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, open_dict, read_write

from datasets import collect
from datasets.collecting.config import CollectConfig
from datasets.convert import ConvertConfig
from datasets.converting.conversion import check_target
from datasets.previewing.config import PreviewConfig
from experiments.shorthand import study_config
from experiments.words import in_hydras_words
from launch.command_line import parse, plain
from planning.config import PlanConfig
from planning.mpc import MPCController
from tests.builders import REPOSITORY
from tests.training.tiny import config_folder
from training.config import TrainConfig

ENTRIES = {  # config if none is named, schema of its settings
    "train.py": ("train", TrainConfig),
    "plan.py": ("plan_wall", PlanConfig),
    "datasets.collect": ("collect", CollectConfig),
    "datasets.preview": ("preview", PreviewConfig),
    "datasets.convert": ("convert", ConvertConfig),
    "experiments": ("compare", None),
}
PARSED = {  # where their main is
    "datasets.fetch": "datasets.fetch",
    "models.fetch": "models.fetch",
    "models.checkpoint": "models.checkpoints.command",
    "launch.sweep_table": "launch.sweep_table",
    "experiments collect": "experiments.collected",
    "experiments.page": "experiments.page.__main__",
    "doctor": "doctor.__main__",
    "planning.diagnose": "planning.diagnose",
    "benchmarks": "benchmarks.__main__",
    "tests.kills": "tests.kills",
}
NOT_OURS = ("apt-get", "mkdir", "source", "tmux")


class ParsedError(Exception):
    """Its options were understood."""


def check(text: str, patch: pytest.MonkeyPatch) -> None:
    """Fail if a command line would not be understood."""
    text = re.sub(r"\$\([^)]*\)", "substituted", text)
    text = re.sub(r"<([\w ]+)>", lambda found: found[1].replace(" ", "_"), text)
    for part in re.split(r"&&|;", re.sub(r"(^|\s)#\s.*", "", text)):
        check_words([word for word in shlex.split(part) if word != "..."], patch)


def check_words(words: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    """The same for one program and its arguments; programs that start others are looked through."""
    while re.match(r"[A-Z_]+=", words[0]):  # of the environment, for this command alone
        words = words[1:]
    program, rest = words[0], words[1:]
    if program == "export":
        assert re.match(r"\w+=", rest[0])
    elif program == "make":
        check_make(rest)
    elif program.removeprefix(".venv/bin/") == "python":
        module = rest[0] == "-m"
        check_python(rest[1] if module else rest[0], rest[2:] if module else rest[1:], patch)
    elif program in ("torchrun", "accelerate", "srun"):
        script = next(n for n, word in enumerate(words) if word in ("train.py", "plan.py"))
        check_python(words[script], words[script + 1 :], patch)
    elif program == "sbatch":
        check(next(word for word in rest if word.startswith("--wrap=")).removeprefix("--wrap="), patch)
    elif program == "conda":
        assert (REPOSITORY / rest[rest.index("-f") + 1]).exists()
    elif program.endswith("uv"):
        groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]
        assert "--group" not in rest or rest[rest.index("--group") + 1] in groups
    else:
        assert program in NOT_OURS, f"nobody told this test what {program} is"


def check_make(words: Sequence[str]) -> None:
    """Targets exist, and so does the environment."""
    rules = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
    for word in words:
        key, _, value = word.partition("=")
        known = (REPOSITORY / "conf" / f"demo_{value}.yaml").exists() if key == "ENV" else word in rules
        assert known or key == "PYTHON", f"make {word}"


def check_python(name: str, arguments: Sequence[str], patch: pytest.MonkeyPatch) -> None:
    """A script or module of ours, with its arguments."""
    if name == "experiments" and arguments[:1] == ["collect"]:
        name, arguments = "experiments collect", arguments[1:]
    elif name == "experiments" and "--config-dir" in arguments:
        return  # a file that the page shows
    elif name == "experiments":
        arguments = in_hydras_words(arguments)
    if name in ENTRIES and "--config-dir" not in arguments:
        return check_entry(name, list(arguments))
    if name == "pytest" or name.startswith("../mine/") or "--config-dir" in arguments:
        assert "../mine" in [name.rpartition("/")[0], *arguments], "test_extending.py follows these"
        return
    assert name in PARSED or name == "tests.cluster.local_slurm", f"nobody told this test what {name} is"
    if name in PARSED:
        main = importlib.import_module(PARSED[name])
        stop_after_parsing(patch)
        patch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(ParsedError):
            main.main()


def stop_after_parsing(patch: pytest.MonkeyPatch) -> None:
    """Let argparse do its work, and nothing come after it."""

    def understood(self, *args, original=argparse.ArgumentParser.parse_known_args, **options):
        unknown = original(self, *args, **options)[1]
        assert all("=" in word for word in unknown), unknown  # overrides of an entry
        raise ParsedError

    patch.setattr(argparse.ArgumentParser, "parse_args", understood)
    patch.setattr(argparse.ArgumentParser, "parse_known_args", understood)


def check_entry(name: str, words: list[str]) -> None:
    """Compose the config, of a sweep with every option of its groups, and build what needs no data and no model."""
    if any(word.startswith("resume=") or word == "--help" for word in words):
        return
    words = [word for word in words if word not in ("-m", "--multirun")]
    config_name = ENTRIES[name][0]
    if "--config-name" in words:
        at = words.index("--config-name")
        config_name = words[at + 1].removesuffix(".yaml")
        del words[at : at + 2]
    parsed = OverridesParser.create().parse_overrides(words)
    firsts = [values(each)[0] for each in parsed]
    compose_and_build(name, config_name, tuple(firsts))
    for number, override in enumerate(parsed):
        if (REPOSITORY / "conf" / override.key_or_group).is_dir():
            for option in values(override)[1:]:
                compose_and_build(name, config_name, (*firsts[:number], option, *firsts[number + 1 :]))


def values(override: Override) -> list[str]:
    """An override for each of its values; of an interval for one."""
    key = override.input_line.split("=", 1)[0]
    if not override.is_sweep_override():
        return [override.input_line]
    if isinstance(override.value(), IntervalSweep):
        return [f"{key}={override.value().start}"]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


@functools.cache
def composed(config_name: str, overrides: tuple[str, ...], hydras: bool) -> DictConfig:
    """A config, with Hydra's own part or without; composing takes most of the time."""
    with config_folder():
        return compose(config_name, list(overrides), return_hydra_config=hydras)


def compose_and_build(name: str, config_name: str, overrides: tuple[str, ...]) -> None:
    """What an entry does before it looks for data and a model; folders have no say in it."""
    paths = ("ckpt_path=", "hydra.run.dir=", "folder=", "data_path=")
    given = tuple(sorted(text for text in overrides if not text.startswith(paths)))
    build(name, config_name, (*given, "ckpt_path=unused") if name in ("plan.py", "train.py") else given)


@functools.cache
def build(name: str, config_name: str, overrides: tuple[str, ...]) -> None:
    """Compose, check the types, and build what needs no data."""
    cfg = copy.deepcopy(composed(config_name, overrides, True))
    with read_write(cfg.hydra):
        cfg.hydra.runtime.output_dir = "run"
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    if schema := ENTRIES[name][1]:
        config = parse(cfg, schema)
    if name == "experiments":
        raw = plain(cfg)
        study_config(raw | {"environment": raw["environment"] or "wall"}, config_name)  # no checkpoint could say it
    elif name == "plan.py":
        MPCController.of(config.planner.build())
        config.objective.build()
    elif name == "train.py":
        config.method.build()
    elif name == "datasets.collect" and not any("=/path/to/" in text for text in overrides):  # what is read is not here
        collect.collections(config)
    elif name == "datasets.convert":
        check_target(config.to)
