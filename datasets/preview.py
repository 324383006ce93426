"""Look at a data set: ``python -m datasets.preview env=wall``."""

from __future__ import annotations

from launch import startup
from utils import missing  # noqa: F401  (first: what comes next may not be installed)

if __name__ == "__main__":
    startup.check_command_line("python -m datasets.preview", __doc__, "preview")  # before torch is loaded

# isort: split
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from datasets.collect import make_env
from datasets.previewing.config import PreviewConfig
from datasets.previewing.findings import Finding, table_findings
from datasets.previewing.frames import frame_findings
from datasets.previewing.page import Preview, write_preview
from datasets.previewing.replay import Replay, replay
from datasets.previewing.survey import choose, survey
from datasets.trajectories import Trajectories
from envs.base import VectorEnv
from launch.command_line import one_line_errors, parse
from utils.files import remove_unfinished
from utils.interrupts import stopping_at_once
from utils.machine import check_writable

log = logging.getLogger(__name__)

SUSPICIOUS = 3
"""The exit code where the page was written and something is suspicious."""


@hydra.main(version_base="1.3", config_path="../conf", config_name="preview")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Write a page about the data set of ``env``; exit code 3 if something is suspicious."""
    with stopping_at_once((signal.SIGTERM,)):  # half files go
        sys.exit(SUSPICIOUS if preview(parse(cfg, PreviewConfig)).findings else 0)


def preview(config: PreviewConfig) -> Preview:
    """Look at a data set, write the page, and say what is suspicious.

    Raises:
        ValueError: If the data cannot be read, or the page cannot be written.
    """
    folder = Path(config.out_dir).expanduser()
    check_writable("out_dir", folder)
    remove_unfinished(folder)
    data, findings = open_data(config)
    rng = np.random.default_rng(config.seed)
    found = survey(data, config.episodes, rng)
    env, note = _simulator(config)
    try:
        findings += table_findings(found, config.window, env)
        numbers = [episode.number for episode in found.episodes]
        looked_at = choose(found.parts, numbers, config.frame_episodes, rng)
        unseen = frame_findings(data, looked_at)
        played = choose(found.parts, numbers, config.replay_episodes, rng)
        replayed = replay(data, env, played, found.usual) if env is not None else Replay({}, [], note)
    finally:
        if env is not None:
            env.close()
    broken = {number for finding in unseen if finding.kind == "truncated" for number in finding.episodes}
    shown = [int(number) for number in rng.permutation(looked_at) if int(number) not in broken]
    facts = _facts(config, data, found.parts, len(numbers), len(looked_at))
    result = Preview(facts, found, [*findings, *unseen, *replayed.findings], replayed, shown)
    path = write_preview(folder, data, result, config.window)
    _tell(result, path)
    return result


def open_data(config: PreviewConfig) -> tuple[Trajectories, list[Finding]]:
    """Open the data as they are configured; raw, and with a finding, if they cannot be z-scored.

    Raises:
        InstantiationException: If they cannot be read.
    """
    described = config.env.data
    try:
        return described.build(), []
    except InstantiationException as error:
        if "cannot be z-scored" not in str(error.__cause__ or error):
            raise
        why = f"{error.__cause__ or error}".partition(";")[0]
        return described.build(normalize_action=False), [Finding("constant", why, "see the columns below")]


def _simulator(config: PreviewConfig) -> tuple[VectorEnv | None, str]:
    try:
        return make_env(config.env.simulator, image_size=32), ""
    except (InstantiationException, ValueError, ImportError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        return None, f"nothing was simulated: {reason}"


def _facts(config: PreviewConfig, data: Trajectories, parts: Any, tables_of: int, frames_of: int) -> dict[str, Any]:
    return {
        "name": config.env.name,
        "data": str(data.data_path),
        "reader": config.env.data.settings["_target_"],
        "episodes": len(data),
        "train": list(parts.values()).count("train"),
        "val": list(parts.values()).count("val"),
        "rows": int(data.lengths.sum()),
        "frame_size": data.frame_size,
        "tables_of": tables_of,
        "frames_of": frames_of,
        "seed": config.seed,
        "window": config.window,
    }


def _tell(result: Preview, path: Path) -> None:
    facts = result.facts
    log.info(
        "%s: %d episodes (%d train, %d val), %d steps, %d pixels; looked at: tables of %d, frames of %d, steps of %d",
        *(facts[key] for key in ("data", "episodes", "train", "val", "rows", "frame_size", "tables_of", "frames_of")),
        len(result.replay.errors),
    )
    for line in result.lines():
        log.info("suspicious: %s", line)
    if result.replay.note:
        log.info("%s", result.replay.note)
    log.info("%s: %s", "page" if result.findings else "nothing is suspicious; page", path)


if __name__ == "__main__":
    main()
