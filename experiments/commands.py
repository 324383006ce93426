"""The command lines that do the same as the stages of a study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from launch.job import Job

ENTRIES = {"collect": "datasets.collect", "train": "train.py", "evaluate": "plan.py", "diagnose": "planning.diagnose"}


def commands(jobs: Sequence[Job]) -> list[str]:
    """The command lines that do the same as the jobs."""
    lines = []
    for job in jobs:
        if (entry := ENTRIES.get(job.run.__name__)) is None:
            continue
        words = ["python", *([entry] if entry.endswith(".py") else ["-m", entry])]
        words += _config_words(job.arguments)
        words += [text.replace("run_dir=", "hydra.run.dir=") for text in job.arguments.get("overrides", ())]
        words += [job.arguments["run_folder"]] if "run_folder" in job.arguments else []
        words += [word for folder in job.arguments.get("beside", ()) for word in ("--beside", folder)]
        words += job.arguments.get("settings", ())
        lines.append(shlex.join(words))
    return lines


def _config_words(arguments: Mapping[str, Any]) -> list[str]:
    words = ["--config-dir", arguments["config_dir"]] if "config_dir" in arguments else []
    return [*words, "--config-name", f"{arguments['config_name']}.yaml"] if "config_name" in arguments else words
