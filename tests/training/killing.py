"""Trainings in processes that start fast, to be killed; and whether what they leave is whole."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
import torch._dynamo  # what making an optimiser imports, in seconds
from safetensors.torch import load_file

import envs.wall  # noqa: F401  (what a config names)
import training.online  # noqa: F401
from datasets.wall import WallTrajectories  # noqa: F401
from models.checkpoint import read_checkpoint
from tests.training.tiny import run
from training.state import FILENAME

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.training.killing"])  # torch is loaded once; a start takes no 4 s but 0.3


def start(folder: Path, *overrides: str, at: int | None = None) -> ForkServerProcess:
    """Train in ``folder`` in a process of its own, which kills itself at its ``at``-th file operation if that is given.

    File operations are those that change what a later process finds: syncs, renames, removals, truncations.
    """
    variables = {"DATASET_DIR": os.environ["DATASET_DIR"]}
    process = _CONTEXT.Process(target=_train, args=(str(folder), overrides, at, variables), daemon=True)
    process.start()
    return process


def _train(folder: str, overrides: tuple[str, ...], at: int | None, variables: dict[str, str]) -> None:
    os.environ |= variables
    torch.set_num_threads(1)
    logging.disable()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # progress bars of a hundred runs
    if at is not None:
        _kill_at(at)
    run(Path(folder), *overrides)


def _kill_at(number: int) -> None:
    left = [number]

    def counted(original: Callable) -> Callable:
        def operation(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return operation

    for owner, name in ((os, "fsync"), (os, "truncate"), (Path, "replace"), (Path, "unlink")):
        setattr(owner, name, counted(getattr(owner, name)))


def assert_all_is_whole(folder: Path) -> int:
    """Whatever a kill left can be read, and the log has every step of the saved state once; returns its step."""
    for path in (folder / "checkpoints").glob("model_*.safetensors"):
        read_checkpoint(folder, path.stem.removeprefix("model_"))
    path = folder / "checkpoints" / FILENAME
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, *_ in state["method"].get("memory", {"entries": []})["entries"]:
        load_file(folder / "replay" / f"{name}.safetensors")
    kept = (folder / "logs.json").read_bytes()[: state["log"]]
    lines = [json.loads(line) for line in kept.splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, state["step"] + 1))
    return state["step"]
