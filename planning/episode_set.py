"""The set of episodes of an evaluation as a file that people and other projects read, ``episodes.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planning.episode_hashes import LAYOUT, episode_hashes, episode_set_hash
from planning.problem import Problem
from utils.files import write_text
from utils.reading.json_file import read_json
from utils.reading.opening import FileError, failure_reason
from utils.retry import Retry

MANIFEST = "episodes.json"
FORMAT = 1
SEED_RULE = (
    "seed 99: episode n has environment seed 99 n + 1; any other seed s: (s + 1) 2^32 + n. An episode that begins "
    "solved is drawn again if unsolved_starts_only, and keeps its seed. The planner's noise is drawn from seed, "
    "environment seed and MPC iteration."
)
MOST_BYTES = 1_000_000_000
SETTINGS = ("seed", "goal_source", "goal_H", "unsolved_starts_only", "vary")
"""Settings of the evaluation that say where its episodes come from."""
Arrays = Mapping[str, NDArray[Any]]


def write_manifest(
    path: Path, problem: Problem, env: str, settings: Mapping[str, Any], retry: Retry | None = None
) -> None:
    """Write an ``episodes.json``; docs/results_format.md describes it.

    Args:
        path: Of the file.
        problem: The episodes.
        env: Name of their environment.
        settings: Those of the evaluation, ``SETTINGS`` at least as far as it has them.
        retry: See ``utils.files.write_file``.
    """
    arrays = problem.arrays()
    names = {name: name.removeprefix(LAYOUT) for name in arrays if name.startswith(LAYOUT)}
    hashes = episode_hashes(arrays)
    episodes = [
        {
            "id": row,
            "seed": seed,
            "hash": hashes[row],
            "start": arrays["states"][row].tolist(),
            "goal": arrays["goal_states"][row].tolist(),
            "layout": {name: arrays[key][row].tolist() for key, name in names.items()},
            **({"actions": arrays["actions"][row].tolist()} if "actions" in arrays else {}),
        }
        for row, seed in enumerate(problem.seeds)
    ]
    about = {
        "format": FORMAT,
        "env": env,
        "seed_rule": SEED_RULE,
        **{name: settings[name] for name in SETTINGS if name in settings},
        "episode_set_hash": episode_set_hash(arrays),
        "types": {name: str(value.dtype) for name, value in arrays.items() if name != "seeds"},
    }
    lines = ",\n".join(f"  {json.dumps(episode)}" for episode in episodes)  # a line each
    text = json.dumps(about, indent=1).removesuffix("\n}") + f',\n "episodes": [\n{lines}\n ]\n}}\n'
    write_text(path, text, retry)


def read_manifest(path: Path, env: str) -> Arrays:
    """Read the arrays of a ``plan_targets.npz``, to the last bit, from an ``episodes.json``.

    Raises:
        FileError: If it is broken, of another environment, or its hashes are not those of its episodes.
        OSError: If it cannot be read.
    """
    remedy = "restore it, or use the plan_targets.npz beside it"
    content = read_json(path, dict, remedy, MOST_BYTES)
    if content.get("format") != FORMAT:
        raise FileError(f"{path} is no {MANIFEST} of format {FORMAT}; {remedy}")
    if content.get("env") != env:
        raise FileError(f"{path} holds episodes of env={content.get('env')}, not of env={env}")
    try:
        arrays = _arrays(content["episodes"], content["types"])
        found, said = episode_hashes(arrays), [episode["hash"] for episode in content["episodes"]]
        whole = episode_set_hash(arrays) == content["episode_set_hash"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {failure_reason(error)}"
        raise FileError(f"{path} is no {MANIFEST} of this project ({reason}); {remedy}") from None
    if wrong := [row for row, pair in enumerate(zip(found, said, strict=True)) if pair[0] != pair[1]]:
        row = wrong[0]
        raise FileError(f"{path}: episode {row} is not the one that its hash {said[row]} names; {remedy}")
    if not whole:
        raise FileError(f"{path}: the episodes are not the ones that episode_set_hash names; {remedy}")
    return arrays


def _arrays(episodes: list[dict[str, Any]], types: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    columns = {"states": "start", "goal_states": "goal", "actions": "actions"}
    arrays = {"seeds": np.array([episode["seed"] for episode in episodes])}
    for name, kind in types.items():
        if np.dtype(kind).kind not in "biuf":
            raise ValueError(f"{name} of type {kind}")
        if name.startswith(LAYOUT):
            values = [episode["layout"][name.removeprefix(LAYOUT)] for episode in episodes]
        else:
            values = [episode[columns[name]] for episode in episodes]
        arrays[name] = np.array(values, kind)
    return arrays
