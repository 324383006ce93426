"""What a folder says of the evaluation that was begun or finished in it, and whether it is the one asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planning.episodes import Episodes
from utils.moved_classes import current_names
from utils.reading.json_file import RESULTS_BYTES, read_json
from utils.reading.opening import FileError, failure_reason
from utils.reading.torch_file import read_torch

STATE, TARGETS, FINISHED = "planning_state.pt", "plan_targets.npz", "finished.json"
IDENTITY = (
    "env", "planner", "objective", "seed", "n_evals", "goal_source", "goal_file_path", "goal_H", "debug_dset_init",
    "n_plot_samples", "unsolved_starts_only", "dynamics", "vary",
)  # fmt: skip
"""Settings that must be equal for a saved state to be continued."""
_OF_A_PLANNER = {
    "adds_proposal": False,
    "stop_gain": None,
    "stop_steps": 5,
    "lr_schedule": "constant",
    "drop_every": None,
    "budget_tflops": None,
}
BEFORE: dict[str, Any] = {
    "planner": {"shrinking": "none", "adapt": None, **_OF_A_PLANNER, "sub_planner": _OF_A_PLANNER},
    "objective": {"first_frame": True},
    "dynamics": "model",
    "vary": [],
}
"""What evaluations did that were begun before there were these settings."""
SUMMARISED = ("success_rate", "success_rate_low", "success_rate_high", "n_evals", "planning_seconds_per_episode")
"""Metrics that the line on the terminal is made of."""
SUMMARISED_NOW = ("distinct_episodes", "solved_at_start_rate", *(
    f"{rate}{end}" for rate in ("do_nothing_rate", "random_rate", "expert_rate") for end in ("", "_low", "_high")
))  # fmt: skip
"""Those that some evaluations lack."""
NEWER = ("unsolved_starts_only",)  # an evaluation that was begun without one of these goes on without it


def agreed(identity: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], bool]:
    """Compare an evaluation with the one that ``folder`` may hold.

    One that was begun when ``objective`` was "last" by default goes on with that under today's default.

    Returns:
        ``identity`` as that evaluation goes on, and whether it was begun and has not ended.

    Raises:
        ValueError: If the folder holds an evaluation with other settings, or its files are broken.
    """
    is_begun = (folder / STATE).exists()
    if is_begun:
        then = read_state(folder / STATE)["identity"]
    elif (folder / FINISHED).exists():
        then = read_finished(folder / FINISHED)["identity"]
    else:
        return dict(identity), False
    identity = {key: value for key, value in identity.items() if key in then or key not in NEWER}
    objective = identity["objective"]
    if objective.get("mode") == "auto" and then.get("objective") == objective | {"mode": "last"}:
        identity["objective"] = then["objective"]
    now = json.loads(json.dumps(identity))
    then = _completed(then, BEFORE, now)
    changed = [key for key in now if then.get(key) != now[key]]
    if changed and is_begun:
        raise ValueError(f"{folder} holds an evaluation with another {', '.join(changed)}; use another folder")
    if changed:
        raise ValueError(f"{folder} holds a finished evaluation with other settings; use another folder")
    return identity, is_begun


def _completed(then: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the settings ``then`` those of ``before`` that they lack and that there are ``now``, at any depth."""
    found = dict(then)
    for key, value in before.items():
        if isinstance(value, dict) and isinstance(then.get(key), dict) and isinstance(now.get(key), dict):
            found[key] = _completed(then[key], value, now[key])
        elif key in now and not isinstance(value, dict):
            found.setdefault(key, value)
    return found


def read_state(path: Path) -> dict[str, Any]:
    """Read a ``planning_state.pt``.

    Raises:
        ValueError: If it is broken.
    """
    try:
        state = read_torch(path, "delete it to start anew")
        Episodes(**state["episodes"])
        return {**state, "identity": current_names(dict(json.loads(json.dumps(state["identity"]))))}
    except FileError as error:
        raise FileError(f"cannot resume: {error}") from None
    except (KeyError, TypeError, ValueError) as error:  # complete, but of something else
        reason = failure_reason(error)
        raise FileError(f"cannot resume: {path} is broken ({reason}); delete it to start anew") from None


def read_finished(path: Path) -> dict[str, Any]:
    """Read a ``finished.json``.

    Raises:
        FileError: If it is broken.
    """
    remedy = "delete it, and the evaluation is made again"
    kept = read_json(path, dict, remedy, RESULTS_BYTES)
    for key in ("identity", "metrics"):
        if not isinstance(kept.get(key), dict):
            raise FileError(f"{path} holds no {key}; {remedy}")
    metrics = kept["metrics"]
    names = [*SUMMARISED, *(name for name in SUMMARISED_NOW if re.sub("_(low|high)$", "", name) in metrics)]
    if odd := [name for name in names if not isinstance(metrics.get(name), int | float)]:
        raise FileError(f"{path}: {', '.join(odd)} should be numbers; {remedy}")
    return kept | {"identity": current_names(kept["identity"])}
