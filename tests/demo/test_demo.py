import json
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from datasets.collecting.config import CollectConfig
from demo.__main__ import commands, make_jobs
from experiments.stages import composed
from launch.command_line import plain
from planning.config import PlanConfig
from training.config import TrainConfig

REPOSITORY = Path(__file__).resolve().parents[2]
DEMOS = sorted(path.stem for path in (REPOSITORY / "conf").glob("demo_*.yaml"))


def demo_jobs(name, folder):
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = plain(compose(name))
    return make_jobs(config, folder)


@pytest.mark.parametrize("name", DEMOS)
def test_every_stage_is_an_ordinary_command(name, tmp_path):
    jobs = demo_jobs(name, tmp_path)
    planning = name.replace("demo_", "plan_")
    evaluation = (PlanConfig, planning)
    entries = {"collect": (CollectConfig, "collect"), "train": (TrainConfig, "train")}
    entries |= {"evaluate": evaluation, "measure_gap": evaluation}
    for job in jobs:
        if job.run.__name__ in entries:
            config = composed(
                *entries[job.run.__name__], job.arguments["overrides"]
            )  # Hydra knows every key and option
            assert f"demo_{config.env.name}" == name
    assert len(commands(jobs)) == len(jobs) - 1, "all but the gap have a command line"


def test_finetuning_runs_take_as_many_steps_as_their_control():
    steps = set()
    for job in demo_jobs("demo_wall", Path("x")):
        if job.name in ("control", "online", "adversarial"):
            training = composed(TrainConfig, "train", job.arguments["overrides"]).training
            steps.add((training.epochs, training.max_batches, training.batch_size, training.predictor_lr))
    assert len(steps) == 1


def listed(key, *overrides):
    """A list of overrides, as an override of the demo."""
    return f"{key}=[" + ",".join(f"'{override}'" for override in overrides) + "]"


@pytest.mark.slow
def test_the_whole_story_in_small(forked, tmp_path):
    folder = tmp_path / "demo"
    small = [
        f"folder={folder}",
        "n_evals=4",
        "num_workers=1",  # a second would load torch once more
        listed("collect", "env=wall", "n_rollout=20", "image_size=65", "image_dtype=uint8"),
        listed("pretrain", "experiment=wall_small", "training.epochs=1", "training.max_batches=5"),
        listed("finetune.common", "experiment=wall_small", "training.epochs=1", "training.max_batches=3"),
        listed("finetune.online", "method=online", "method.planner.opt_steps=2"),
        listed("evaluate.common", "env=wall", "n_plot_samples=2", "planner.max_iter=2"),
        listed("evaluate.L-BFGS", "planner=mpc_gd_lbfgs", "planner.sub_planner.opt_steps=2"),
    ]
    first = forked("-m", "demo", *small)
    output, errors = first.communicate(300)
    assert first.returncode == 0 and "one-step visual error" in output + errors, errors
    report = json.loads((folder / "report.json").read_text())
    assert len(report["scores"]) == 8 and len(report["gap"]) == 4
    assert (folder / "report.html").stat().st_size > 50_000
    assert all(shlex.split(line)[0] == "python" for line in report["commands"])
    again = forked("-m", "demo", *small)
    assert "14/14" in again.communicate(60)[1] and again.returncode == 0, "a second call only reports"
