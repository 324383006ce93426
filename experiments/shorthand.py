"""From what a user writes, lists of folders and planners, to the mappings of a ``StudyConfig``."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.factors import factor_names
from experiments import stages
from experiments.config import StudyConfig
from launch.paths import at_home
from models.checkpoints.config_file import read_model_config
from utils.model_hub import SCHEME, fetch_model
from utils.schema import parsed

PLANNERS = ("mpc_gd_lbfgs", "mpc_cem")
"""What a comparison uses if nothing is said: one planner of either kind."""

MOMENT = re.compile(r"\d{4}-\d\d-\d\d|\d\d-\d\d-\d\d")
"""A date or time in the path of a run, which says nothing about a model."""

ONLY = "as configured"
"""Name of the only set of goals, where none is named."""


UNVARIED = "no variation"
"""What that is called beside sets that vary."""

EACH = "each"
"""Stands for all factors of an environment, one after the other."""


def study_config(raw: Mapping[str, Any], name: str, config_dir: str | None = None) -> StudyConfig:
    """Complete a composed config.

    Args:
        raw: As plain data: ``models`` may be a list of folders, ``planners`` one of options, ``distances`` stand for
            ``goals``, ``vary`` for more of them, ``environment`` for ``env``, and that and ``folder`` be null.
        name: Of the config.
        config_dir: A further folder of configs and options.

    Raises:
        ValueError: Naming the key, the value and what is allowed.
    """
    config = {key: value for key, value in raw.items() if key not in ("distances", "vary")}
    config["name"] = name
    config["models"] = _models(raw.get("models"))
    planners = list(PLANNERS) if raw.get("planners") is None else raw["planners"]
    if isinstance(planners, str | list):
        planners = {each: [f"planner={each}"] for each in _unlike("planners", planners)}
    config["planners"] = planners
    goals = _goals(raw.get("goals"), raw.get("distances"))
    config["env"] = raw.get("environment") or raw.get("env") or _environment(config["models"])
    factors = raw.get("vary") or []
    if factors in (EACH, [EACH]):
        factors = list(stages.factors(config["env"], config_dir))
    config["goals"], config["controls"] = _varied(goals, factors)
    config["folder"] = raw.get("folder") or _folder(config, name)
    return parsed(StudyConfig, config)


def _models(given: Any) -> dict[str, Any]:
    if not given:
        raise ValueError("models: name at least one, e.g. models=[outputs/wall]; conf/compare.yaml says more")
    if isinstance(given, str | list):
        paths = _unlike("models", given)
        return {name: {"ckpt_path": [_here(path)]} for name, path in zip(names_of(paths), paths, strict=True)}
    found = {}
    for name, model in given.items():
        if model is None:  # taken out of the study that this one builds on
            continue
        model = model if isinstance(model, dict) else {"ckpt_path": model}
        path = model.get("ckpt_path")
        found[name] = model | ({"ckpt_path": [_here(path)]} if isinstance(path, str) else {})
    return found


def _here(path: str) -> str:
    """Where a model directory is, which may be one of a hub or begin at home."""
    return str(fetch_model(path)) if path.startswith(SCHEME) else at_home(path)


def _unlike(key: str, given: str | Sequence[Any]) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    for place, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"{key}: {name} is no name; names with settings are written {key}='{{name: ...}}'")
        if _place(name) in map(_place, names[:place]):
            raise ValueError(f"{key}: {name} is there twice")
    return names


def _place(path: str) -> str:
    return os.path.normpath(path)


def names_of(paths: Sequence[str]) -> list[str]:
    """Name folders by what tells them apart, dates and times only where nothing else does."""
    full = [Path(_place(path)).parts for path in paths]
    short = [tuple(part for part in parts if not MOMENT.fullmatch(part)) or parts for parts in full]
    names, longer = _below_common(short), _below_common(full)
    return [name if names.count(name) == 1 else more for name, more in zip(names, longer, strict=True)]


def _below_common(paths: Sequence[tuple[str, ...]]) -> list[str]:
    columns = zip(*(parts[:-1] for parts in paths), strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    return ["/".join(parts[common:]) for parts in paths]


def _goals(goals: Any, distances: Any) -> dict[str, Any]:
    if goals and distances:
        raise ValueError("distances stand for goals: set one of the two")
    if not distances:
        return goals or {ONLY: []}
    for blocks in distances if isinstance(distances, list) else [distances]:
        if not isinstance(blocks, int) or isinstance(blocks, bool) or blocks < 1:
            raise ValueError(f"distances={distances} must be numbers of blocks (goal_H), such as [5,10,15]")
    return {f"goal_H {blocks}": ["goal_source=dset", f"goal_H={blocks}"] for blocks in distances}


def _varied(goals: Mapping[str, Any], factors: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Add each set of goals with every factor of variation, or several at once, and say what it is to be compared with.

    Returns:
        The sets, and for each that varies the name of the one that does not.
    """
    if not factors:
        return dict(goals), {}
    combinations = [factor_names(each) for each in (factor_names(factors) if isinstance(factors, str) else factors)]
    found, controls = {}, {}
    for name, overrides in goals.items():
        control = UNVARIED if name == ONLY else name
        found[control] = overrides
        for names in combinations:
            varied = " + ".join(names) if name == ONLY else f"{name}, {' + '.join(names)}"
            found[varied] = [*overrides, f"vary=[{','.join(names)}]"]
            controls[varied] = control
    return found, controls


def _environment(models: Mapping[str, Any]) -> str:
    """Find out in which environment the checkpoints were trained."""
    found: dict[str, str] = {}
    for model in models.values():
        for path in model.get("ckpt_path") or []:
            env = read_model_config(Path(path) / "hydra.yaml").get("env")
            name = env.get("name") if isinstance(env, Mapping) else None
            if isinstance(name, str):
                found.setdefault(name, path)
    if len(found) > 1:
        (env, path), (other, elsewhere), *_ = found.items()
        raise ValueError(f"models: {path} is of env={env}, {elsewhere} of env={other}; compare models of one")
    if not found:
        raise ValueError("env: the checkpoints do not say theirs; give it, e.g. env=wall")
    return next(iter(found))


def _folder(config: Mapping[str, Any], name: str) -> str:
    """Name a study's folder; that of a comparison after its models and episodes, so that others may be added."""
    if not any(model.get("ckpt_path") for model in config["models"].values()):
        return f"experiments_outputs/{name}"
    about = [config["models"], config.get("evaluate"), config.get("goals_seed"), config.get("n_evals")]
    same = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    return f"experiments_outputs/{name}_{config['env']}_{same}"
