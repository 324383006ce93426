"""Trainings and evaluations in processes that start fast, to be killed; and whether what they leave is whole."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
import torch._dynamo  # what making an optimiser imports, in seconds
from safetensors.torch import load_file
from tqdm import tqdm

import envs.wall.vector_env  # noqa: F401  (what a config names)
import training.methods.online  # noqa: F401
from datasets.formats.wall import WallTrajectories  # noqa: F401
from models.checkpoints.native import read_checkpoint
from plan import plan
from planning.config import PlanConfig
from planning.saved_evaluation import STATE as PLANNING_STATE
from tests.builders import wall_model_directory
from tests.forked import CONTEXT
from tests.training.resuming import assert_same_run
from tests.training.tiny import BRIEF_PLANS, STATE, composed, make_wall, run, without_times
from training.state import FILENAME
from utils.schema import parsed

SAVING = (*STATE, *BRIEF_PLANS["online"], "training.num_reconstruct_samples=0", "method.replay_capacity=8")


@dataclass(frozen=True)
class Work:
    """Something to be killed.

    Attributes:
        run: does it in a folder, to the end, with overrides. overrides: of some seconds that save often.
        look: asserts that what is in a folder can be read; returns how far it had come.
        compare: asserts that two finished folders hold the same.
    """

    run: Callable[..., object]
    overrides: tuple[str, ...]
    look: Callable[[Path], int]
    compare: Callable[[Path, Path], None]


def start(
    work: Callable[..., object], folder: Path, overrides: tuple[str, ...], at: int | None = None
) -> ForkServerProcess:
    """Do ``work`` in a process of its own, which kills itself at its ``at``-th file operation if that is given.

    File operations are those that change what a later process finds: syncs, renames, removals, truncations.
    """
    variables = {"DATASET_DIR": os.environ["DATASET_DIR"]}
    process = CONTEXT.Process(target=_in_process, args=(work, folder, overrides, at, variables), daemon=True)
    process.start()
    return process


def _in_process(
    work: Callable[..., object], folder: Path, overrides: tuple[str, ...], at: int | None, variables: dict[str, str]
) -> None:
    os.environ |= variables
    torch.set_num_threads(1)
    logging.disable()
    tqdm.set_lock(threading.RLock())  # its own is one of all processes, which nobody would clear away
    with folder.with_suffix(".txt").open("a") as file:
        os.dup2(file.fileno(), 2)  # progress bars of a hundred runs
    if at is not None:
        _kill_at(at)
    work(folder, *overrides)


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


def finish(process: ForkServerProcess, folder: Path) -> None:
    """Wait for a good end."""
    process.join(120)
    assert process.exitcode == 0, f"{process.exitcode}: {folder.with_suffix('.txt').read_text()[-2000:]}"


def _kill_at_random(work: Work, folder: Path, kills: int, moment: Callable[[], float]) -> tuple[int, int]:
    """Start, kill after so many seconds, look at what is left, at most so often; then let it end.

    Returns:
        How often, and how often more had been saved by then than at the kill before.
    """
    process, killed, further, before = start(work.run, folder, work.overrides), 0, 0, work.look(folder)
    while killed < kills:
        at = time.monotonic() + moment()
        while process.is_alive() and time.monotonic() < at:
            time.sleep(0.001)
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, folder.with_suffix(".txt").read_text()[-2000:]
        killed += 1
        left = work.look(folder)
        assert left >= before, f"step {before} had been saved, {left} is left"
        further += left > before
        process, before = start(work.run, folder, work.overrides), left
    finish(process, folder)
    return killed, further


def kill_often(work: Work, root: Path, kills: int, seed: int) -> tuple[int, int]:
    """Until so many kills were survived; every run must end as the undisturbed one does.

    Returns:
        The number of runs, and of kills before which something new had been saved.
    """
    chance, survived, runs, further = random.Random(seed), 0, 0, 0
    began = time.monotonic()
    finish(start(work.run, root / "whole", work.overrides), root / "whole")
    longest = (time.monotonic() - began) / 2  # a start takes a part of it, more of it when others run meanwhile
    with tqdm(total=kills, unit="kill", disable=not sys.stderr.isatty()) as bar:
        while survived < kills:
            folder, runs = root / f"killed_{runs}", runs + 1
            killed, steps = _kill_at_random(work, folder, kills - survived, lambda: chance.uniform(0, longest))
            work.compare(folder, root / "whole")
            survived, further = survived + killed, further + steps
            bar.update(killed)
    return runs, further


def _training_is_whole(folder: Path) -> int:
    """The log has every step of the saved state once, and each checkpoint and replay entry can be read."""
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


TRAINING = Work(
    run,
    (*SAVING, "training.max_batches=40", "training.save_every_x_batch=1", "training.epochs=5"),
    _training_is_whole,
    assert_same_run,
)
"""Plans, simulates, keeps a replay memory and saves after every step."""


def _plan(folder: Path, *overrides: str) -> None:
    model = folder.parent / "model"
    node = composed(*overrides, name="plan_wall", run_dir=str(folder), ckpt_path=str(model))
    plan(parsed(PlanConfig, node))


def _planning_is_whole(folder: Path) -> int:
    """The log has every iteration of the saved state once; a finished evaluation has its results."""
    if (folder / "finished.json").exists():
        json.loads((folder / "results.json").read_text())
        return sys.maxsize
    if not (folder / PLANNING_STATE).exists():
        return 0
    state = torch.load(folder / PLANNING_STATE, weights_only=True)
    lines = [json.loads(line) for line in (folder / "logs.json").read_bytes()[: state["log"]].splitlines()]
    iteration = state["episodes"]["iteration"]
    assert [line["iteration"] for line in lines] == list(range(1, iteration + 1))
    return iteration


def _assert_same_plans(folder: Path, undisturbed: Path) -> None:
    logs, results, names = [], [], []
    for each in (folder, undisturbed):
        lines = [*without_times(each / "logs.json"), json.loads((each / "results.json").read_text())]
        logs.append(
            [
                {key: value for key, value in line.items() if "seconds" not in key and "memory" not in key}
                for line in lines
            ]
        )
        results.append({path.name: path.read_bytes() for path in each.glob("*.png")})
        names.append(sorted(path.name for path in each.rglob("*") if ".hydra" not in path.parts))
    assert logs[0] == logs[1] and results[0] == results[1] and names[0] == names[1]


PLANNING = Work(
    _plan,
    ("n_evals=2", "n_plot_samples=1", "device=cpu", "num_threads=1", "planner.max_iter=60",
     "planner.sub_planner.horizon=2", "planner.sub_planner.opt_steps=2"),
    _planning_is_whole,
    _assert_same_plans,
)  # fmt: skip
"""Replans often and saves each time; needs a model in ``model`` beside its folder."""


def prepare(root: Path) -> None:
    """What ``PLANNING`` and ``TRAINING`` need; the model believes that nothing moves, so that it never arrives."""
    wall_model_directory(root / "model", moves=False)
    os.environ["DATASET_DIR"] = str(make_wall(root / "data"))
