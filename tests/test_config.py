"""The configuration: every option of every group composes, names classes that exist, and works."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from datasets.trajectories import Trajectories
from envs.expert import Expert
from models.architecture import Architecture
from models.build import build_world_model
from models.interfaces import Encoder, Projector, Proposal
from models.speed.fast_paths import FastPaths
from planning.mpc import MPCController
from planning.objectives import REPLANNED, GoalDistance
from planning.planners.base import Planner
from tests.training.tiny import REPOSITORY, composed, config_folder
from training.methods.base import Method
from training.regularizer import Regularizer
from utils.loggers import read_json_lines

CONF = REPOSITORY / "conf"
OPTIONS = sorted(path.relative_to(CONF).with_suffix("") for path in CONF.glob("*/*.yaml"))
SMALL_PARTS = ("encoder=small", "predictor=residual", "decoder=conv", "img_size=65", "has_decoder=false")
NAMED = {
    "decoder": {
        "vqvae": ("encoder=dino", "encoder.weights=random", "img_size=224", "decoder=vqvae", "has_decoder=true"),
        "conv": ("decoder=conv", "has_decoder=true"),
    },
    "predictor": {"adaln": ("predictor=adaln", "predictor.embed_dim=14", "predictor.heads=2", "action_emb_dim=24")},
}
"""What an option of a model's part needs beside it; most need nothing."""


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    """Composing and building need no data set."""
    monkeypatch.delenv("DATASET_DIR", raising=False)


def targets(node):
    """Every ``_target_`` below a node."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)


def check_part(group, option, tmp_path):
    """A world model with this part encodes, predicts and decodes."""
    extra = NAMED.get(group, {}).get(option, (f"{group}={option}",))
    config = composed("env=wall", *SMALL_PARTS, *extra, run_dir=str(tmp_path))
    model = build_world_model(Architecture.from_dict(config), 2, 2, 2).eval()
    size = config["img_size"]
    if model.encoder.observes == "visual":
        seen = torch.randint(0, 256, (2, 1, 3, size, size), dtype=torch.uint8)
    else:
        seen = torch.randn(2, 1, 2)
    with torch.no_grad():
        latent = model.encode(seen, torch.randn(2, 1, 2))
        following = model.predict(latent, torch.randn(2, 1, 10))
        assert following.visual.shape == latent.visual.shape == (2, 1, model.encoder.num_patches, model.encoder.emb_dim)
        assert following.proprio.shape == latent.proprio.shape == (2, 1, 10)
        assert following.visual.isfinite().all()
        if model.decoder is not None:
            assert model.decode(latent).shape == (2, 1, 3, size, size)
    assert model.decoder is not None or group != "decoder"


def check_class(group, option, tmp_path):
    """It names a class of its group; what that does is in tests/contracts."""
    config = composed(*(("method=proposal",) if group == "proposal" else ()), f"{group}={option}", run_dir="r")
    assert issubclass(get_class(config[group]["_target_"]), {"encoder": Encoder, "proposal": Proposal}[group])


def check_projector(group, option, tmp_path):
    """It names a class, or leaves no trace in the config; what the class does is in tests/contracts."""
    found = composed(f"projector={option}", run_dir="r").get("projector")
    assert found is None if option == "none" else issubclass(get_class(found["_target_"]), Projector)


def check_env(group, option, tmp_path):
    """Its expert acts and its data are read; what the environment does is in tests/contracts."""
    config = composed(f"env={option}", run_dir=str(tmp_path))["env"]
    assert isinstance(instantiate(config["collector"]), Expert)
    assert get_class(config["dataset"]["_target_"]).writer is not None


def check_method(group, option, tmp_path):
    method = instantiate(composed(f"method={option}", run_dir=str(tmp_path))["method"])
    assert isinstance(method, Method)
    assert method.name == {"initnet": "proposal"}.get(option, option)


def check_regularizer(group, option, tmp_path):
    """It gives terms exactly if it says that it acts."""
    regularizer = instantiate(composed(f"regularizer={option}", run_dir=str(tmp_path))["regularizer"])
    regularizer.setup(num_frames=3, num_patches=4, dim=5)
    assert isinstance(regularizer, Regularizer)
    assert regularizer.name == option
    assert bool(regularizer.losses(torch.randn(2, 3, 4, 5))) == regularizer.acts


def check_planner(group, option, tmp_path):
    planner = instantiate(composed(f"planner={option}", name="plan_wall", run_dir="r", ckpt_path="c")["planner"])
    assert isinstance(planner, MPCController if option.startswith("mpc_") else Planner)
    assert isinstance(MPCController.of(planner), MPCController)
    if not option.startswith("mpc_"):
        assert MPCController.of(planner).max_iter == 1
        online = composed("method=online", f"planner@method.planner={option}", run_dir="r")
        assert isinstance(instantiate(online["method"]).planner, type(planner))


def check_objective(group, option, tmp_path):
    objective = instantiate(composed(f"objective={option}", name="plan_wall", run_dir="r", ckpt_path="c")["objective"])
    assert isinstance(objective, GoalDistance)
    assert objective.mode == option


PLANNERS = sorted(path.stem for path in (CONF / "planner").glob("*.yaml"))


def minimised(*overrides, name="plan_pusht"):
    """What the first plan of a command minimises."""
    config = composed(*overrides, name=name, run_dir="r", ckpt_path="c")
    loop = MPCController.of(instantiate(config["planner"]))
    return str(instantiate(config["objective"]).at(0, loop.planner.horizon, loop.n_taken_actions))


@pytest.mark.parametrize("planner", PLANNERS)
def test_open_loop_minimises_the_last_frame_and_replanning_the_measured_default(planner):
    """docs/objectives.md."""
    config = composed(f"planner={planner}", name="plan_pusht", run_dir="r", ckpt_path="c")["planner"]
    replans = config.get("n_taken_actions", 5) < 5
    assert minimised(f"planner={planner}") == str(GoalDistance(**REPLANNED) if replans else GoalDistance("last"))


@pytest.mark.parametrize("planner", ["gd", "mpc_gd"])
def test_whoever_names_an_objective_gets_that_one(planner):
    for named, expected in {
        "objective=all": "all, base 2, alpha 1",
        "objective.mode=all": "all, base 2, alpha 1",
        "objective=last": "last, alpha 1",
        "objective.mode=last": "last, alpha 1",
    }.items():
        assert minimised(f"planner={planner}", named) == expected
    assert minimised(f"planner={planner}", "objective.alpha=3").endswith("alpha 3")


def test_the_planning_commands_of_the_readme_do_not_minimise_the_last_frame_alone():
    for name in ("plan_wall", "plan_point_maze", "plan_pusht"):
        assert minimised(name=name) == str(GoalDistance(**REPLANNED))


def check_speed(group, option, tmp_path):
    speed = instantiate(composed(f"speed={option}", name="plan_wall", run_dir="r", ckpt_path="c")["speed"])
    assert isinstance(speed, FastPaths)
    online = composed("method=online", f"speed={option}", run_dir="r")
    assert vars(instantiate(online["method"]).corrector.speed) == vars(speed)


def check_logger(group, option, tmp_path):
    if option == "wandb":
        pytest.skip("starts a process of its own; see the slow test")
    logger = instantiate(composed(f"logger={option}", run_dir=str(tmp_path))["logger"], folder=tmp_path)
    logger.log({"step": 1, "loss": float("nan")})
    logger.close()
    assert read_json_lines(tmp_path / "logs.json") == [{"step": 1, "loss": None}]


def check_experiment(group, option, tmp_path):
    """It builds a world model, and each of its settings reaches the composed config."""
    config = composed(f"experiment={option}", run_dir=str(tmp_path))
    if config["encoder"].get("weights", "") is None:
        config["encoder"]["weights"] = "random"
    sizes = (config["env"][size] for size in ("env_action_dim", "proprio_dim", "state_dim"))
    build_world_model(Architecture.from_dict(config), *sizes)
    given = OmegaConf.to_container(OmegaConf.load(CONF / "experiment" / f"{option}.yaml"))
    given.pop("defaults", None)
    assert given
    assert_contained(given, config)


def check_cluster(group, option, tmp_path):
    """It chooses a launcher, and each of its settings is one of that launcher's."""
    with config_folder():
        chosen = compose("plan_wall", [f"cluster={option}"], return_hydra_config=True).hydra
    assert chosen.runtime.choices["hydra/launcher"] == "submitit_slurm"
    assert_contained(OmegaConf.to_container(OmegaConf.load(CONF / "cluster" / f"{option}.yaml"))["hydra"], chosen)


def assert_contained(part, whole):
    for key, value in part.items():
        if isinstance(value, dict):
            assert_contained(value, whole[key])
        else:
            assert whole[key] == value, key


def check_dataset(group, option, tmp_path):
    """It is a reader, which gets as far as looking for the data."""
    config = composed(f"dataset={option}", run_dir=str(tmp_path))["env"]["dataset"]
    assert issubclass(get_class(config["_target_"]), Trajectories)
    with pytest.raises(Exception, match="DATASET_DIR"):
        instantiate(config)


def check_collector(group, option, tmp_path):
    """It takes the place of the environment's own, and gets as far as looking for what it replays."""
    env = option.partition("_")[0]
    config = composed(f"env={env}", f"collector@env.collector={option}", name="collect")["env"]["collector"]
    assert config == OmegaConf.load(CONF / "collector" / f"{option}.yaml")
    assert issubclass(get_class(config["_target_"]), Expert)
    if "demonstrations" in config:
        with pytest.raises(Exception, match=r"env\.collector\.demonstrations=null: name the folder"):
            instantiate(config)
    else:
        instantiate(config)


CHECKS = {
    "env": check_env,
    "collector": check_collector,
    "dataset": check_dataset,
    "encoder": check_class,
    "predictor": check_part,
    "decoder": check_part,
    "action_encoder": check_part,
    "proprio_encoder": check_part,
    "projector": check_projector,
    "proposal": check_class,
    "method": check_method,
    "regularizer": check_regularizer,
    "planner": check_planner,
    "objective": check_objective,
    "speed": check_speed,
    "logger": check_logger,
    "experiment": check_experiment,
    "cluster": check_cluster,
}


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_works(option, tmp_path):
    CHECKS[option.parent.name](option.parent.name, option.name, tmp_path)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_no_file_names_a_class_that_does_not_exist(path):
    for target in targets(OmegaConf.to_container(OmegaConf.load(path))):
        get_class(target)


@pytest.mark.parametrize("path", [CONF / option.with_suffix(".yaml") for option in OPTIONS], ids=lambda p: p.stem)
def test_every_option_says_what_it_is(path):
    comments = [line for line in path.read_text().splitlines()[:2] if line.startswith("# ")]
    assert any(not line.startswith("# @package") for line in comments)


def test_every_group_has_its_folder():
    assert {option.parent.name for option in OPTIONS} == set(CHECKS)


TRAINING_KEYS = {
    "training.seed": 3,
    "training.epochs": 7,
    "training.batch_size": 5,
    "training.encoder_lr": 1e-5,
    "training.decoder_lr": 1e-4,
    "training.predictor_lr": 2e-5,
    "training.action_encoder_lr": 3e-4,
    "training.num_reconstruct_samples": 2,
    "N": 6,
    "num_hist": 3,
    "num_pred": 1,
    "frameskip": 4,
    "img_size": 112,
    "concat_dim": 0,
    "action_emb_dim": 12,
    "proprio_emb_dim": 14,
    "num_action_repeat": 2,
    "num_proprio_repeat": 3,
    "has_decoder": False,
    "has_predictor": False,
    "model.train_encoder": True,
    "model.train_predictor": False,
    "model.train_decoder": True,
    "env.dataset.n_rollout": 11,
    "env.num_workers": 2,
    "debug": True,
}
METHOD_KEYS = {
    "online": {"replay_buffer_frequency": 3},
    "adversarial": {
        "radii_method": "adaptive",
        "visual_eps_factor": 0.5,
        "proprio_eps_factor": 0.25,
        "action_eps_factor": 1.0,
    },
}


def overrides_of(keys):
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in keys.items()]


def test_the_keys_in_users_notes_exist_and_arrive():
    with config_folder():
        for method in ("offline", *METHOD_KEYS):
            keys = TRAINING_KEYS | METHOD_KEYS.get(method, {})
            cfg = compose("train.yaml", overrides=[f"method={method}", *overrides_of(keys)])
            for key, value in keys.items():
                assert OmegaConf.select(cfg, key) == value, key


def test_the_keys_of_a_method_reach_the_method():
    config = composed("method=adversarial", *overrides_of(METHOD_KEYS["adversarial"]), run_dir="r")
    adversarial = instantiate(config["method"])
    assert adversarial.radii_method == "adaptive" and adversarial.factors == (0.5, 0.25, 1.0)
    online = instantiate(composed("method=online", "replay_buffer_frequency=3", run_dir="r")["method"])
    assert online.period == 3


def test_the_defaults_are_those_of_the_papers():
    config = composed("method=online", run_dir="r")
    planner = config["method"]["planner"]
    assert (planner["lr"], planner["opt_steps"], planner["horizon"]) == (0.3, 100, 5)
    assert (planner["action_noise"], planner["rollout_type"], planner["optimizer_type"]) == (0.003, "regular", "adam")
    assert (config["method"]["objective"]["mode"], config["replay_buffer_frequency"]) == ("last", 10)
    assert (config["training"]["batch_size"], config["N"], config["training"]["epochs"]) == (8, 5, 100)
    adversarial = composed("method=adversarial", run_dir="r")
    factors = [adversarial["method"][f"{part}_eps_factor"] for part in ("visual", "proprio", "action")]
    assert factors == [0.05, 0.02, 0.02]
    assert adversarial["method"]["radii_method"] == "fixed"
    assert composed("env=wall", run_dir="r")["num_hist"] == 1  # the choice of the environment implies it


def test_a_plain_run_needs_no_scheduler():
    with config_folder():
        for name in ("train", "plan_wall"):
            cfg = compose(name, overrides=["ckpt_path=c"], return_hydra_config=True)
            assert cfg.hydra.launcher._target_ == "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
            assert cfg.hydra.sweeper._target_ == "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def test_the_entries_import_neither_wandb_nor_a_plotting_library():
    code = "import sys, train, plan; print([m for m in ('wandb', 'matplotlib', 'submitit') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_wandb_offline_leaves_nothing_but_files(tmp_path, monkeypatch, wall_root):
    from tests.training.tiny import STATE, build

    monkeypatch.setenv("DATASET_DIR", str(wall_root))
    monkeypatch.setenv("WANDB_SILENT", "true")
    options = (*STATE, "logger=wandb", "logger.mode=offline", "training.epochs=1")
    for _ in range(2):  # the second time it finds the run's id
        trainer = build(tmp_path / "run", *options)
        trainer.fit()
        trainer.logger.close()
    assert len(read_json_lines(tmp_path / "run" / "logs.json")) == 6
    identity = (tmp_path / "run" / "wandb_run_id").read_text().strip()
    runs = list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{identity}"))
    assert runs and all(list(run.glob("*.wandb")) for run in runs)
    assert Path(trainer.logger.path).exists()
