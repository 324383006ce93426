"""Say why an evaluation failed: ``python -m planning.diagnose <run folder of plan.py>``."""

from __future__ import annotations

import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import Tensor

from envs.base import VectorEnv
from launch.command_line import one_line, plain
from launch.composing import Composer
from launch.values import TRUSTED, checked
from models.checkpoints.native import read_checkpoint
from planning.config import PlanConfig
from planning.diagnosis.account import account
from planning.diagnosis.diagnosis import PLANES, Others, chosen_episodes, diagnosed
from planning.diagnosis.subject import Subject
from planning.episode_record import EPISODES, EpisodeRecord
from planning.gap import Visits, dataset_visits
from planning.model_data import ModelData
from planning.mpc import MPCController
from planning.prepare_evaluation import load_model, make_task
from planning.problem import Problem
from planning.saved_evaluation import FINISHED, IDENTITY, TARGETS, read_finished
from planning.targets import read_targets
from utils.files import write_json
from utils.moved_classes import current_names
from utils.printable import write_printable
from utils.schema import parsed

log = logging.getLogger(__name__)

DIAGNOSIS = "diagnosis.json"
LOOKED_AT = 60  # episodes, unless said otherwise


def main(arguments: Sequence[str] | None = None) -> None:
    """Diagnose a run folder and print what was found; mistakes of the user are one line and exit code 1."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with one_line():
        found = diagnose(given.run_folder, given.beside, given.episodes, given.planes, given.settings)
        write_printable(account(found), sys.stdout)
        log.info("written to %s", given.run_folder / DIAGNOSIS)


def diagnose(
    run_folder: Path,
    beside: Sequence[Path] = (),
    episodes: int = LOOKED_AT,
    planes: int = PLANES,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Diagnose a finished evaluation, and write ``diagnosis.json`` into its folder.

    Args:
        run_folder: Of ``plan.py``.
        beside: Folders of other evaluations of the same episodes, whose plans may be better and may show a way.
        episodes: At most so many are looked at, failed ones first, >= 3.
        planes: For how many the objective is drawn in a plane, >= 0.
        settings: Of this machine, as ``plan.py`` takes them: ``device=cuda``, ``env.dataset.data_path=...``.

    Returns:
        What is written, see docs/why.md.

    Raises:
        ValueError: In one line, if the folder holds no finished evaluation with a record of its episodes, if its
            checkpoint is gone or was trained on, or if a setting is wrong.
    """
    if episodes < 3 or planes < 0:
        raise ValueError(
            f"a diagnosis looks at 3 or more episodes and draws 0 or more planes, got {episodes}, {planes}"
        )
    identity = read_identity(run_folder)
    config = settings_of(run_folder, identity, settings)
    device = runtime.pick_device(config.device)
    runtime.set_threads(config.num_threads)
    with runtime.autocast(config.precision, device, keeps_casts=False):
        subject, data = subject_of(config, identity, lambda solved: chosen_episodes(solved, episodes), device)
        try:
            recorded = _segments(subject, data)
            others = _others(subject.task.problem, subject.task.env, beside)
            found = diagnosed(subject, recorded, others, planes)
        finally:
            subject.task.close()
            subject.simulator.close()
    named = {"model": config.ckpt_path, "planner": type(subject.controller.planner).__name__}
    found |= named | {"goals": identity["goal_source"], "seed": config.seed}
    write_json(run_folder / DIAGNOSIS, found)
    return found


def read_identity(run_folder: Path) -> dict[str, Any]:
    """Read the settings of the finished evaluation in a folder.

    Raises:
        ValueError: If there is none, or it planned in the simulator.
    """
    if not (run_folder / FINISHED).is_file():
        raise ValueError(
            f"{run_folder} holds no finished evaluation: give the folder of a run of plan.py, or let it end with "
            f"python plan.py resume={run_folder}"
        )
    identity: dict[str, Any] = read_finished(run_folder / FINISHED)["identity"]
    if identity.get("dynamics") == "simulator":
        raise ValueError(f"{run_folder} planned in the simulator (dynamics=simulator): no model took part in it")
    return identity


def settings_of(run_folder: Path, identity: Mapping[str, Any], given: Sequence[str]) -> PlanConfig:
    """Put the settings of a finished evaluation together; those of the machine are today's defaults, or ``given``.

    Raises:
        ValueError: If ``given`` would change what was evaluated, or a setting is not what it must be.
    """
    unused = ["ckpt_path=unused", "run_dir=unused", "n_plot_samples=0"]
    defaults = plain(Composer("plan", None).config(unused))
    kept = {key: identity[key] for key in IDENTITY if key in identity and key != "n_plot_samples"}
    places: dict[str, Any] = {**_checkpoint_of(Path(identity["model"][0])), "run_dir": str(run_folder)}
    settings = {**defaults, **kept, **places}
    for text in given:
        key = text.partition("=")[0]
        if key.partition(".")[0] not in {*settings, TRUSTED} or "=" not in text:
            raise ValueError(f"{text}: there is no such setting of plan.py")
        if key.partition(".")[0] in {*kept, *places} and not key.startswith("env.dataset."):
            raise ValueError(
                f"{text}: a diagnosis takes what was evaluated as it was; only the machine's settings and "
                "env.dataset may be set"
            )
    merged = OmegaConf.to_container(OmegaConf.merge(settings, OmegaConf.from_dotlist(list(given))))
    assert isinstance(merged, dict)
    return parsed(PlanConfig, checked({str(key): current_names(value) for key, value in merged.items()}))


def _checkpoint_of(weights: Path) -> dict[str, Any]:
    """The settings that name a weights file: of a model directory, or by itself."""
    if weights.parent.name != "checkpoints":
        return {"ckpt_path": str(weights)}
    epoch = weights.stem.removeprefix("model_")
    return {"ckpt_path": str(weights.parent.parent), "model_epoch": int(epoch) if epoch.isdigit() else epoch}


def subject_of(
    config: PlanConfig, identity: Mapping[str, Any], choose: Callable[[Tensor], Tensor], device: torch.device
) -> tuple[Subject, ModelData]:
    """Put a finished evaluation together again; whoever asks about it closes its simulators.

    Args:
        config: Its settings, see ``settings_of``.
        identity: What its folder says, see ``read_identity``.
        choose: Whether each episode was solved, (B,) -> numbers (b,) of those to look at, ascending.
        device: Where the model goes.

    Raises:
        ValueError: In one line, if it has no record of its episodes, or its checkpoint is gone or was trained on.
    """
    run_folder = config.folder
    if not (run_folder / EPISODES).is_file():
        raise ValueError(
            f"{run_folder} has no {EPISODES}: it was planned before there was one; plan again in another folder"
        )
    record = EpisodeRecord.read(run_folder / EPISODES, latents=False)
    controller, objective = MPCController.of(config.planner.build()), config.objective.build()
    checkpoint = read_checkpoint(Path(config.ckpt_path), config.model_epoch)
    if identity["model"][1:] != [checkpoint.epoch, checkpoint.about.get("step")]:
        raise ValueError(
            f"{checkpoint.path} has been trained on since {run_folder} was planned with it: evaluate it again"
        )
    loaded = load_model(config, checkpoint, controller.planner, device)
    problem = read_targets(run_folder / TARGETS, loaded.env, config.n_evals)
    task = make_task(config, loaded, problem, objective)
    simulator = config.env.simulator.build(image_size=loaded.env.image_size)
    solved = torch.from_numpy(record.inside[:, record.iteration_ends[1:]].any(1))
    return Subject(task, controller, record, choose(solved), simulator), loaded.data


def _segments(subject: Subject, data: ModelData) -> Visits | None:
    """Draw segments of the data set, as long as a plan; None if it is not here."""
    steps = subject.controller.planner.horizon * subject.task.frameskip
    try:
        return dataset_visits(*data.validation(), len(subject.rows), steps, subject.task.seed)
    except (InstantiationException, ValueError, OSError) as error:
        log.info("the data set is left out: %s", error.__cause__ or error)
        return None


def _others(problem: Problem, env: VectorEnv, folders: Sequence[Path]) -> Others:
    """Read what other evaluations did in the same episodes; where they have none of them, they did nothing.

    Raises:
        ValueError: If one of them has no episode of ``problem``.
    """
    executed, plans = {}, {}
    for folder in folders:
        record = EpisodeRecord.read(folder / EPISODES, latents=False)
        hashes = read_targets(folder / TARGETS, env, len(record.states)).hashes()
        place = {each: number for number, each in enumerate(hashes)}
        rows = [place.get(each, -1) for each in problem.hashes()]
        if max(rows) < 0:
            raise ValueError(f"{folder} has none of the episodes of this run: name evaluations of the same goals")
        here = torch.tensor(rows) >= 0
        did, planned = torch.from_numpy(record.actions)[rows], torch.from_numpy(record.plans)[rows, 0]
        did[~here], planned[~here] = 0, torch.nan
        executed[folder.name], plans[folder.name] = did, planned
    return Others(executed, plans)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m planning.diagnose", description=__doc__)
    parser.add_argument("run_folder", type=Path, help="folder of a finished run of plan.py")
    parser.add_argument(
        "settings", nargs="*", help="of this machine: device=cuda, env.dataset.data_path=... and the like"
    )
    parser.add_argument(
        "--beside", type=Path, action="append", default=[], metavar="RUN", help="other runs on the same episodes"
    )
    parser.add_argument(
        "--episodes", type=int, default=LOOKED_AT, help=f"how many are looked at (default: {LOOKED_AT})"
    )
    parser.add_argument("--planes", type=int, default=PLANES, help=f"objectives drawn in a plane (default: {PLANES})")
    return parser


if __name__ == "__main__":
    main()
