"""The whole way on the other two environments: collect, train with every method, plan for goals of every source."""

import json
from pathlib import Path

import av
import pytest

import plan
import train
from datasets.collect import collections
from datasets.collecting.config import CollectConfig
from experiments.stages import composed
from launch.command_line import overridden_keys
from planning.config import PlanConfig
from training.config import TrainConfig

ENVIRONMENTS = ["pusht", pytest.param("point_maze", marks=pytest.mark.render)]
SHORT = ["training.epochs=1", "training.max_batches=3", "training.val_batches=1", "training.batch_size=2"]


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def env(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def data(env, tmp_path_factory) -> Path:
    """A few short trajectories."""
    folder = tmp_path_factory.mktemp(env)
    short = [f"env={env}", f"data_path={folder}", "n_rollout=6", "num_steps=60", "image_size=64", "num_workers=1"]
    if env == "pusht":
        short += ["n_val=3", "env.collector.min_steps=50"]
    for collection in collections(composed(CollectConfig, "collect", short)):
        collection.run(1)
    return folder


@pytest.fixture(scope="module")
def base(env, data, tmp_path_factory) -> Path:
    return trained(env, data, tmp_path_factory.mktemp("base") / "model", "offline")


def trained(env: str, data: Path, folder: Path, method: str, start: Path | None = None, *more: str) -> Path:
    overrides = [f"experiment={env}_small", f"method={method}", f"env.dataset.data_path={data}", *SHORT, *more]
    overrides += [f"ckpt_path={start or folder}", f"run_dir={folder}", "num_threads=1", "device=cpu"]
    return train.train(composed(TrainConfig, "train", overrides), overridden_keys(overrides))


def planned(env: str, model: Path, data: Path, folder: Path, *more: str) -> dict:
    settings = [
        f"ckpt_path={model}",
        f"run_dir={folder}",
        f"env.dataset.data_path={data}",
        "n_evals=3",
        "num_threads=1",
    ]
    settings += ["n_evals=3", "n_plot_samples=1", "env.simulator.num_workers=2", "device=cpu", *more]
    return plan.plan(composed(PlanConfig, f"plan_{env}", settings))


def test_every_method_trains(env, data, base, tmp_path):
    for method, more in (("online", ["method.planner.opt_steps=2"]), ("adversarial", [])):
        folder = trained(env, data, tmp_path / method, method, base, *more)
        losses = [json.loads(line) for line in (folder / "logs.json").read_text().splitlines()]
        assert any("loss" in line for line in losses)
        assert (folder / "checkpoints/model_latest.safetensors").exists()


@pytest.mark.parametrize("source", ["dset", "random_state", "random_action"])
def test_goals_of_every_source_are_planned_for(env, data, base, tmp_path, source):
    quick = ["planner.max_iter=2", "planner.sub_planner.opt_steps=2", f"goal_source={source}"]
    metrics = planned(env, base, data, tmp_path, *quick)
    assert 0 <= metrics["success_rate"] <= 1
    video = next(tmp_path.glob("output_final_*.mp4"))
    with av.open(str(video)) as container:
        assert len(list(container.decode(video=0))) >= 6
    again = [*quick[:2], "goal_source=file", f"goal_file_path={tmp_path / 'plan_targets.npz'}"]
    assert planned(env, base, data, tmp_path / "again", *again)["solved_at"] == metrics["solved_at"]


def test_cem_plans_too(env, data, base, tmp_path):
    small = ["planner=cem", "planner.opt_steps=2", "planner.num_samples=8", "planner.topk=2"]
    assert planned(env, base, data, tmp_path, *small)["iterations"] == 1


def test_known_actions_reach_the_goal_they_came_from(env, data, base, tmp_path):
    """Start, goal, units, action blocks and simulator agree: the recorded actions, left as they are, solve all."""
    known = ["planner=gd", "planner.opt_steps=1", "planner.lr=1e-9", "planner.action_noise=0", "goal_source=dset"]
    metrics = planned(env, base, data, tmp_path, *known, "debug_dset_init=true")
    assert metrics["success_rate"] == 1.0
    assert metrics["mean_state_dist"] < 1e-2


def test_the_released_model_plans_on_the_environment(env, shared_golden, golden, data, tmp_path):
    """A checkpoint and a hydra.yaml as DINO-WM writes them, with the narrow encoder they were recorded with."""
    if env != "pusht":
        pytest.skip("recorded for PushT")
    encoder = [f"encoder.weights={golden('dinov2_reduced.safetensors')}", "encoder.embed_dim=48", "encoder.depth=2"]
    big = tmp_path / "big"
    short = ["env=pusht", f"data_path={big}", "n_rollout=2", "n_val=2", "num_steps=60"]
    for collection in collections(composed(CollectConfig, "collect", short)):
        collection.run(1)
    model = shared_golden("checkpoints/pusht_h3")
    quick = ["planner.max_iter=1", "planner.sub_planner.opt_steps=1", "n_evals=2", *encoder, "encoder.num_heads=3"]
    assert planned("pusht", model, big, tmp_path / "plan", *quick)["n_evals"] == 2
