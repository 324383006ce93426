"""``plan.plan`` from a composed config to the files it leaves behind."""

import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from datasets.files import DatasetError
from envs.process_vector import EnvWorkerError
from envs.wall.vector_env import WallVectorEnv
from launch.command_line import parse
from models.flops import ModelFlops
from plan import plan
from planning import metrics as evaluate
from planning import videos
from planning.config import PlanConfig
from planning.episode_record import EpisodeRecord
from planning.evaluation import Evaluation
from planning.goals import Problem
from planning.mpc import MPCController
from planning.objectives import REPLANNED, GoalDistance
from planning.saved_evaluation import STATE
from planning.videos import REST
from tests.builders import REPOSITORY, wall_data, wall_model, wall_model_directory
from utils.interrupts import StopRequested
from utils.loggers import read_json_lines
from utils.pictures import write_mp4
from utils.retry import Retry

QUICK = ["n_evals=3", "n_plot_samples=2", "planner.max_iter=3"]
QUICK += ["planner.sub_planner.horizon=3", "planner.sub_planner.opt_steps=3", "planner.sub_planner.eval_every=2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return wall_model_directory(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def still_model(tmp_path_factory) -> Path:
    """Believes that nothing ever moves, so that it plans to do nothing."""
    return wall_model_directory(tmp_path_factory.mktemp("still"), moves=False)


def config(model: Path, run_dir: Path, *overrides: str, base: Sequence[str] = QUICK) -> PlanConfig:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        places = [f"ckpt_path={model}", f"run_dir={run_dir}", "device=cpu", "num_threads=1"]
        return parse(compose("plan_wall", overrides=[*places, *base, *overrides]), PlanConfig)


def untimed(value):
    if isinstance(value, dict):
        return {k: untimed(v) for k, v in value.items() if "seconds" not in k and "memory" not in k}
    return value


def logged(folder: Path) -> list[dict]:
    return [untimed(line) for line in read_json_lines(folder / "logs.json")]


def goals_at(path: Path, distances: list[float]) -> Path:
    """Problems in one room, with goals so many pixels from their starts."""
    states = torch.tensor([[15.0, 20.0 + 5 * i] for i in range(len(distances))], dtype=torch.float64)
    goals = states + torch.tensor([[d, 0.0] for d in distances], dtype=torch.float64)
    Problem(list(range(len(distances))), states, goals, WallVectorEnv().default_layouts(len(distances))).save(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def drawn_frames():
    """Keep every video's frames beside it as ``.npy``, so that comparing them does not hang on the codec."""

    def write_and_keep(path: Path, frames: Sequence[np.ndarray], fps: int = 4, retry: Retry | None = None) -> None:
        write_mp4(path, frames, fps, retry)
        np.save(path.with_suffix(".npy"), np.stack(frames))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "write_mp4", write_and_keep)
        yield


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """(folder, metrics) of an ordinary evaluation."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, plan(config(model, folder))


def test_what_an_evaluation_returns(finished):
    _, metrics = finished
    assert 0 <= metrics["success_rate_low"] <= metrics["success_rate"] <= metrics["success_rate_high"] <= 1
    assert metrics["n_evals"] == len(metrics["solved_at"]) == 3
    for name in ("mean_state_dist", "mean_visual_dist", "mean_proprio_dist", "mean_div_visual_emb"):
        assert metrics[name] > 0
    assert metrics["planning_seconds"] > 0
    assert metrics["planning_seconds_per_episode"] == pytest.approx(metrics["planning_seconds"] / 3)
    assert metrics["planning_seconds_per_iteration"] == pytest.approx(metrics["planning_seconds"] / 3)
    assert metrics["model_evaluations_per_episode"] == 3 * (3 + 1)
    assert metrics["simulation_seconds_per_episode"] == pytest.approx(metrics["simulation_seconds"] / 3)
    assert 0.1 < metrics["peak_memory_gb"] < 100
    assert re.fullmatch("[0-9a-f]{64}", metrics["episode_set_hash"])


def test_the_arithmetic_of_an_episode_is_that_of_its_rollouts_and_frames(finished):
    """Horizon 3, one frame of history: three steps, each from one frame, three times differentiated, and once not."""
    _, metrics = finished
    flops = ModelFlops.of(wall_model())
    solved_or_end = [at or 3 for at in metrics["solved_at"]]
    forward = [plans * 4 * 3 * flops.predict(1) for plans in solved_or_end]
    backward = [plans * 3 * 3 * (flops.predict(1, "inputs") - flops.predict(1)) for plans in solved_or_end]
    encoder = [(2 + plans) * flops.encoder for plans in solved_or_end]
    for name, wanted in {"forward": forward, "backward": backward, "encoder": encoder}.items():
        assert metrics[f"tflop_{name}_per_episode"] == pytest.approx(np.mean(wanted) / 1e12), name
    each = [sum(parts) / 1e12 for parts in zip(encoder, forward, backward, strict=True)]
    assert metrics["tflop"] == pytest.approx(each) and metrics["tflop_per_episode"] == pytest.approx(np.mean(each))


def test_a_budget_of_operations_is_kept_by_every_plan(finished, model, tmp_path):
    """Three gradient steps and the end are four rollouts; a budget between three and four steps gives three."""
    flops = ModelFlops.of(wall_model())
    plain, differentiated = (3 * flops.predict(1, backward) / 1e12 for backward in ("none", "inputs"))
    budget = 3.5 * differentiated + plain
    settings = ("planner.sub_planner.opt_steps=1000", f"planner.sub_planner.budget_tflops={budget}")
    found = plan(config(model, tmp_path / "run", *settings, "n_plot_samples=0"))
    assert untimed(found) == untimed(finished[1])
    with pytest.raises(ValueError, match=r"planner\.budget_tflops=1e-09 does not allow one step, which takes .* TFLOP"):
        plan(config(model, tmp_path / "little", "planner.sub_planner.budget_tflops=1e-9", "n_plot_samples=0"))
    assert not (tmp_path / "little" / "plan_targets.npz").exists()


def test_every_line_of_the_log_is_json(finished):
    folder, metrics = finished
    *iterations, final = [json.loads(line) for line in (folder / "logs.json").read_text().splitlines()]
    assert [line["iteration"] for line in iterations] == [1, 2, 3]
    assert final == {f"final_eval/{name}": value for name, value in metrics.items()}
    assert json.loads((folder / "results.json").read_text()) == metrics


def test_the_goals_are_left_behind_and_can_be_used_again(finished, model, tmp_path):
    folder, metrics = finished
    with np.load(folder / "plan_targets.npz", allow_pickle=False) as data:
        assert data["seeds"].tolist() == [1, 100, 199]
        states, goals = WallVectorEnv().sample_start_goal([1, 100, 199])
        assert np.array_equal(data["states"], states)
        assert np.array_equal(data["goal_states"], goals)
    for name in ("plan_targets.npz", "episodes.json"):
        again = plan(config(model, tmp_path / name, "goal_source=file", f"goal_file_path={folder / name}"))
        assert untimed(again) == untimed(metrics)
    manifest = json.loads((folder / "episodes.json").read_text())
    assert manifest["episode_set_hash"] == metrics["episode_set_hash"]
    assert [episode["hash"] for episode in manifest["episodes"]] == metrics["episode_hash"]
    assert (manifest["env"], manifest["seed"], manifest["goal_source"]) == ("wall", 99, "random_state")


def test_one_picture_per_iteration(finished):
    folder, _ = finished
    assert sorted(path.name for path in folder.glob("*.png")) == [f"iteration_{i}.png" for i in (1, 2, 3)]
    with Image.open(folder / "iteration_1.png") as picture:
        width, height = picture.size
    assert width > height  # start, present, imagined, goal beside each other; two episodes below each other


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_as_many_videos_as_were_asked_for(finished):
    folder, metrics = finished
    results = ["success" if at else "failure" for at in metrics["solved_at"]]
    chosen = videos.chosen_episodes(torch.tensor(metrics["solved_at"]) > 0, 2)
    names = {f"output_final_{i}_{results[i]}.mp4" for i in chosen}
    assert {path.name for path in folder.glob("*.mp4")} == names
    for name in names:
        frames = frames_of(folder / name)
        assert len(frames) == 16 + REST or "success" in name  # the start and three blocks of five steps
        height, width, _ = frames[0].shape
        assert height >= 2 * 224 and width >= 2 * 224  # simulator above imagination, goal at the right
        right = frames[0][36:260, 228:452].astype(int)
        assert np.abs(right - frames[-1][36:260, 228:452].astype(int)).mean() < 1  # the goal does not move


def test_what_happened_in_every_episode_is_kept(finished):
    folder, metrics = finished
    record = EpisodeRecord.read(folder / "episodes.npz")
    assert record.states.shape == (3, 16, 2) and record.plans.shape == (3, 3, 15, 2)
    assert record.trace_steps.tolist() == [[0, 2, 3]] * 3
    assert record.evaluations.sum(1).tolist() == metrics["model_evaluations"]


def test_no_state_is_left_when_it_is_done(finished):
    assert not (finished[0] / STATE).exists()
    assert not [path.name for path in finished[0].iterdir() if "world-models" in path.name]


def test_the_same_config_gives_the_same_results(finished, model, tmp_path):
    assert untimed(plan(config(model, tmp_path, "n_plot_samples=0"))) == untimed(finished[1])
    assert logged(tmp_path) == logged(finished[0])


def test_another_seed_gives_other_results(finished, model, tmp_path):
    assert untimed(plan(config(model, tmp_path, "n_plot_samples=0", "seed=1"))) != untimed(finished[1])


def test_without_plots_nothing_is_drawn(model, tmp_path, monkeypatch):
    monkeypatch.setattr("models.world_model.WorldModel.decode", lambda *_: pytest.fail("decoded for nobody"))
    plan(config(model, tmp_path, "n_plot_samples=0"))
    assert not list(tmp_path.glob("*.png")) + list(tmp_path.glob("*.mp4"))
    assert (tmp_path / "results.json").exists()


def test_only_what_is_plotted_is_decoded(model, tmp_path, monkeypatch):
    from models.world_model import WorldModel

    decode, sizes = WorldModel.decode, []

    def counted(self, latent):
        sizes.append(latent.visual.shape[:2])
        assert not torch.is_grad_enabled()
        return decode(self, latent)

    monkeypatch.setattr(WorldModel, "decode", counted)
    plan(config(model, tmp_path, "n_plot_samples=1"))
    assert sizes == [(1, 1)] * 6  # one episode, one executed block, three iterations: pictures, then a video


def test_more_plots_than_episodes_are_all_episodes(model, tmp_path):
    plan(config(model, tmp_path, "n_plot_samples=10", "n_evals=1", "planner.max_iter=1"))
    assert len(list(tmp_path.glob("*.mp4"))) == 1


def test_the_model_plans_in_eval_mode_and_frozen(model, tmp_path, monkeypatch):
    iterate, seen = MPCController.iterate, []

    def witnessed(self, task, episodes, progress):
        network = task.observer.model
        seen.append(any(m.training for m in network.modules()) or any(p.requires_grad for p in network.parameters()))
        iterate(self, task, episodes, progress)

    monkeypatch.setattr(MPCController, "iterate", witnessed)
    plan(config(model, tmp_path, "n_plot_samples=0"))
    assert seen == [False] * 3


def test_solved_episodes_are_named_so_and_cost_no_more_planning(still_model, tmp_path):
    goals = goals_at(tmp_path / "goals.npz", [2.0, 12.0, 3.0])
    settings = ["goal_source=file", f"goal_file_path={goals}", "planner.sub_planner.sample_type=zero"]
    settings += ["planner.sub_planner.action_noise=0", "n_plot_samples=2"]
    metrics = plan(config(still_model, tmp_path / "run", *settings))
    assert metrics["solved_at"] == [1, 0, 1]
    assert metrics["success_rate"] == pytest.approx(2 / 3)
    assert [record.get("planned_episodes") for record in logged(tmp_path / "run")[:-1]] == [3, 1, 1]
    assert metrics["model_evaluations_per_episode"] == pytest.approx((4 + 12 + 4) / 3)
    assert metrics["mean_state_dist"] == pytest.approx((2 + 12 + 3) / 3, abs=1e-3)
    assert metrics["mean_proprio_dist"] == pytest.approx((2 + 12 + 3) / 3, abs=1e-3)
    shown = {path.name: len(frames_of(path)) for path in (tmp_path / "run").glob("*.mp4")}
    assert set(shown) == {"output_final_0_success.mp4", "output_final_1_failure.mp4"}
    assert shown["output_final_1_failure.mp4"] == shown["output_final_0_success.mp4"] + 10  # two more blocks


def test_pictures_of_solved_episodes_only_go_on(still_model, tmp_path):
    """The recorded one is solved at once, the others plan on; the only video is of a failure."""
    goals = goals_at(tmp_path / "goals.npz", [2.0, 12.0, 12.0])
    settings = ["goal_source=file", f"goal_file_path={goals}", "planner.sub_planner.sample_type=zero"]
    plan(config(still_model, tmp_path / "run", *settings, "planner.sub_planner.action_noise=0", "n_plot_samples=1"))
    assert [path.name for path in (tmp_path / "run").glob("*.mp4")] == ["output_final_1_failure.mp4"]
    assert (tmp_path / "run/iteration_3.png").exists()


def test_image_distance_is_that_of_numbers_not_of_bytes(still_model, tmp_path):
    """Differences of uint8 would wrap around."""
    goals = goals_at(tmp_path / "goals.npz", [8.0, 0.0])
    settings = ["goal_source=file", f"goal_file_path={goals}", "planner.sub_planner.sample_type=zero", "n_evals=2"]
    settings += ["planner.sub_planner.action_noise=0", "n_plot_samples=0", "planner.max_iter=1"]
    found = plan(config(still_model, tmp_path / "run", *settings))["mean_visual_dist"]
    env = WallVectorEnv(image_size=65)
    images = []
    for x in (15.0, 23.0):
        env.reset([0], torch.tensor([[x, 20.0]], dtype=torch.float64))
        images.append(env.render().double())
    expected = (images[0] - images[1]).square().mean().sqrt().item() / 2  # the other episode is at its goal
    assert found == pytest.approx(expected, rel=1e-4)


def test_without_opengl_one_number_is_left_out(still_model, tmp_path, monkeypatch, caplog):
    def fail(*arguments):
        raise EnvWorkerError("env point_maze: OpenGLError: no OpenGL to draw images with")

    monkeypatch.setattr(evaluate, "_pixel_distances", fail)
    found = plan(config(still_model, tmp_path / "run", "n_evals=1", "n_plot_samples=0", "planner.max_iter=1"))
    assert found["mean_visual_dist"] is None and found["mean_state_dist"] > 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["mean_visual_dist"] is None
    assert "mean_visual_dist is left out, the images for it cannot be drawn: env point_maze: OpenGLError" in caplog.text


def test_open_loop_evaluations(model, tmp_path):
    settings = ["planner=gd", "planner.horizon=3", "planner.opt_steps=2"]
    wanted = [s for s in QUICK if "sub_planner" not in s and "max_iter" not in s]
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        places = [f"ckpt_path={model}", f"run_dir={tmp_path}", "device=cpu", "num_threads=1"]
        metrics = plan(parse(compose("plan_wall", overrides=[*places, *wanted, *settings]), PlanConfig))
    assert metrics["iterations"] == 1
    assert len(frames_of(next(tmp_path.glob("*.mp4")))) >= 4


def at_iteration(monkeypatch, number: int, act) -> None:
    """Call ``act`` in the middle of MPC iteration ``number``."""
    iterate = MPCController.iterate

    def interrupted(self, task, episodes, progress):
        if episodes.iteration + 1 == number:
            act()
        iterate(self, task, episodes, progress)

    monkeypatch.setattr(MPCController, "iterate", interrupted)


def crash():
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_polite_signal_saves_and_the_rest_follows_later(finished, model, tmp_path, monkeypatch, number):
    with monkeypatch.context() as patch:
        at_iteration(patch, number, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StopRequested) as stopped:
            plan(config(model, tmp_path))
    assert stopped.value.code == 128 + signal.SIGTERM
    done = logged(tmp_path) if (tmp_path / "logs.json").exists() else []
    assert [line["iteration"] for line in done] == list(range(1, number))  # half an iteration is not kept
    assert_continued(finished, model, tmp_path)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_sudden_end_loses_one_iteration(finished, model, tmp_path, monkeypatch, number):
    with monkeypatch.context() as patch:
        at_iteration(patch, number, crash)
        with pytest.raises(KeyboardInterrupt):
            plan(config(model, tmp_path))
    assert_continued(finished, model, tmp_path)


def test_what_was_learnt_while_planning_is_saved_and_used_again(model, tmp_path, monkeypatch):
    adapt, whole, cut = "planner.adapt={lr: 0.01, parameters: all}", tmp_path / "whole", tmp_path / "cut"
    finished = whole, plan(config(model, whole, adapt))
    with monkeypatch.context() as patch:
        at_iteration(patch, 3, crash)
        with pytest.raises(KeyboardInterrupt):
            plan(config(model, cut, adapt))
    assert_continued(finished, model, cut, adapt)


@pytest.mark.parametrize("moment", ["_save", "_finish"])
def test_an_end_between_two_files_repeats_nothing(finished, model, tmp_path, monkeypatch, moment):
    """After the log was written and before the state was; and after all planning."""
    original = getattr(Evaluation, moment)

    def before(self, episodes):
        if moment == "_save" and episodes.iteration < 2:
            return original(self, episodes)
        if moment == "_finish":
            self.logger.log({"half": "written"})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, moment, before)
        with pytest.raises(KeyboardInterrupt):
            plan(config(model, tmp_path))
    assert_continued(finished, model, tmp_path)


def assert_continued(finished, model: Path, folder: Path, *overrides: str) -> None:
    """The rest gives what an uninterrupted run gave: numbers, log, pictures, videos."""
    expected, metrics = finished
    assert untimed(plan(config(model, folder, *overrides))) == untimed(metrics)
    assert logged(folder) == logged(expected)
    found, whole = (EpisodeRecord.read(path / "episodes.npz") for path in (folder, expected))
    for name, value in vars(whole).items():
        if "seconds" not in name and value is not None:
            assert np.array_equal(getattr(found, name), value, equal_nan=np.asarray(value).dtype.kind == "f"), name
    for path in expected.glob("iteration_*.png"):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    for path in expected.glob("*.mp4"):
        again = np.load((folder / path.name).with_suffix(".npy"))
        assert np.array_equal(again, np.load(path.with_suffix(".npy")))
        assert len(frames_of(folder / path.name)) == len(again)
    assert not (folder / STATE).exists()


@pytest.fixture
def interrupted(model, tmp_path, monkeypatch) -> Path:
    """A run folder that waits to be continued."""
    with monkeypatch.context() as patch:
        at_iteration(patch, 2, crash)
        with pytest.raises(KeyboardInterrupt):
            plan(config(model, tmp_path / "run"))
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("seed=5", "seed"),
        ("n_evals=2", "n_evals"),
        ("objective.alpha=0.5", "objective"),
        ("planner.sub_planner.lr=0.1", "planner"),
        ("planner.adapt={lr: 0.1}", "planner"),
        ("n_plot_samples=0", "n_plot_samples"),
        ("n_plot_samples=3", "n_plot_samples"),
        ("+env.simulator.door=25", "env"),
    ],
)
def test_other_settings_do_not_continue_a_run(interrupted, model, change, named):
    before = {path: path.read_bytes() for path in interrupted.iterdir()}
    with pytest.raises(ValueError, match=rf"holds an evaluation with another {named}; use another folder"):
        plan(config(model, interrupted, change))
    assert {path: path.read_bytes() for path in interrupted.iterdir()} == before


def test_an_evaluation_from_before_the_default_depended_on_the_planner_goes_on_as_it_began(interrupted, model, caplog):
    """Then the objective was last, and some settings were not there."""
    state = torch.load(interrupted / STATE, weights_only=True)
    planner = state["identity"]["planner"]
    del planner["shrinking"], planner["adapt"], planner["sub_planner"]["adds_proposal"]
    del planner["sub_planner"]["stop_gain"], state["episodes"]["adapted"], state["episodes"]["history"]
    state["identity"]["objective"]["mode"] = "last"
    torch.save(state, interrupted / STATE)
    with caplog.at_level("INFO"):
        metrics = plan(config(model, interrupted))
    assert "objective=last: plans minimise last, alpha 1" in caplog.messages
    assert metrics["objective"].endswith("; then last, alpha 1")
    assert plan(config(model, interrupted)) == metrics, "and it is found to be finished"


def test_log_and_results_say_what_was_minimised(model, tmp_path, caplog):
    for planner, expected in {"gd": "last, alpha 1", "mpc_gd": str(GoalDistance(**REPLANNED))}.items():
        quick = [text.replace("sub_planner.", "" if planner == "gd" else "sub_planner.") for text in QUICK]
        quick = [text for text in quick if not text.startswith("planner.max_iter")]
        own = config(model, tmp_path / planner, f"planner={planner}", *quick, base=[])
        with caplog.at_level("INFO"):
            plan(own)
        assert f"objective=auto: plans minimise {expected}" in caplog.messages
        assert json.loads((tmp_path / planner / "results.json").read_text())["objective"] == expected
        assert read_json_lines(tmp_path / planner / "logs.json")[0]["objective"] == expected


def test_a_broken_state_is_named_with_a_remedy(interrupted, model):
    (interrupted / STATE).write_bytes((interrupted / STATE).read_bytes()[:200])
    with pytest.raises(ValueError, match=rf"cannot resume: .*{STATE} is broken .*; delete it to start anew"):
        plan(config(model, interrupted))


def test_a_state_is_read_without_running_its_code(interrupted, model, tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/pwned",))

    torch.save({"episodes": Payload()}, interrupted / STATE)
    with pytest.raises(ValueError, match=rf"{STATE} does not load safely: it asks for posix.system"):
        plan(config(model, interrupted))
    assert not (tmp_path / "pwned").exists()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return wall_data(tmp_path_factory.mktemp("data") / "wall_single", door_range=(12, 52))


def test_goals_from_the_validation_trajectories_of_the_model(model, data, tmp_path):
    """Trajectories 1 and 3, which the checkpoint names, whatever split the data set would make."""
    settings = ["goal_source=dset", f"env.dataset.data_path={data}", "n_plot_samples=0", "planner.max_iter=1"]
    plan(config(model, tmp_path, *settings, "goal_H=2"))
    doors = torch.load(data / "door_locations.pth", weights_only=True)[[1, 3], 0, 0].tolist()
    with np.load(tmp_path / "plan_targets.npz") as targets:
        assert targets["actions"].shape == (3, 10, 2)
        assert set(targets["layout/fix_door_location"].ravel().tolist()) <= set(doors)


def test_known_actions_start_the_first_plan(still_model, data, tmp_path):
    """Executed as they are by a model that sees nothing to improve, they reach the goal."""
    settings = ["goal_source=dset", f"env.dataset.data_path={data}", "n_plot_samples=0", "debug_dset_init=true"]
    settings += ["goal_H=3", "planner.n_taken_actions=3", "planner.max_iter=1", "planner.sub_planner.action_noise=0"]
    metrics = plan(config(still_model, tmp_path / "known", *settings))
    assert metrics["success_rate"] == 1
    assert metrics["mean_state_dist"] < 1e-3
    with pytest.raises(ValueError, match="debug_dset_init=true needs goals with known actions"):
        plan(config(still_model, tmp_path / "unknown", "debug_dset_init=true"))


def test_the_data_set_is_opened_only_where_it_is_needed(model, tmp_path, monkeypatch):
    monkeypatch.delenv("DATASET_DIR", raising=False)
    plan(config(model, tmp_path, "n_plot_samples=0", "planner.max_iter=1"))  # random_state needs no data
    with pytest.raises(DatasetError, match="DATASET_DIR"):
        plan(config(model, tmp_path / "dset", "goal_source=dset"))


def test_fewer_trajectories_than_the_model_was_trained_on(model, data, tmp_path):
    settings = ["goal_source=dset", f"env.dataset.data_path={data}", "env.dataset.n_rollout=2"]
    with pytest.raises(ValueError, match=r"validation trajectory number 3, this one has 2 trajectories"):
        plan(config(model, tmp_path, *settings))


def test_an_epoch_can_be_chosen(model, finished, tmp_path):
    wall_model_directory(tmp_path / "model", epoch=7, seed=4)
    metrics = plan(config(tmp_path / "model", tmp_path / "run", "model_epoch=7", "n_plot_samples=0"))
    assert metrics["mean_div_visual_emb"] != finished[1]["mean_div_visual_emb"]
    with pytest.raises(ValueError, match=r"no checkpoints/model_latest\.safetensors or \.pth; found model_7"):
        plan(config(tmp_path / "model", tmp_path / "run2"))


def test_a_model_without_decoder_is_evaluated_all_the_same(tmp_path):
    model = wall_model_directory(tmp_path / "model", has_decoder=False)
    plan(config(model, tmp_path / "run", "planner.max_iter=1"))
    assert len(list((tmp_path / "run").glob("*.mp4"))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("n_plot_samples=-1", r"n_plot_samples=-1 must be a whole number, at least 0"),
        ("memory_budget_gb=0", r"memory_budget_gb=0 must be a number, above 0, .* or auto"),
        ("memory_budget_gb=much", r"memory_budget_gb=much must be a number, above 0, .* or auto"),
        ("n_evals=0", r"n_evals=0 must be a whole number, at least 1"),
        ("goal_H=0", r"goal_H=0 must be a whole number, at least 1"),
        ("goal_source=nowhere", r"goal_source must be one of"),
        ("goal_source=file", r"goal_source=file needs goal_file_path"),
        ("device=abacus", r"device=abacus cannot be used here"),
        ("precision=half", r"precision must be one of"),
        ("num_threads=0", r"num_threads=0 must be a whole number, at least 1, .* or null"),
        ("encoder.weights=x.pth", r"encoder\.weights=x\.pth has no effect"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_planned(model, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(MPCController, "iterate", lambda *_: pytest.fail("planned all the same"))
    with pytest.raises(ValueError, match=message):
        plan(config(model, tmp_path, change))


def test_a_model_of_another_environment_is_refused(tmp_path):
    model = wall_model_directory(tmp_path / "model")
    hydra_yaml = model / "hydra.yaml"
    hydra_yaml.write_text(hydra_yaml.read_text().replace("name: wall", "name: pusht"))
    with pytest.raises(ValueError, match=r"env=wall was asked for, but .* was trained on env=pusht"):
        plan(config(model, tmp_path / "run"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_agrees_and_continues_what_a_cpu_began(finished, model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_iteration(patch, 2, crash)
        with pytest.raises(KeyboardInterrupt):
            plan(config(model, tmp_path))
    metrics = plan(config(model, tmp_path, "device=cuda", "precision=float32"))
    expected = finished[1]
    assert metrics["solved_at"] == expected["solved_at"]
    for name in ("mean_state_dist", "mean_visual_dist", "mean_div_visual_emb"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-2)


def test_a_finished_evaluation_is_not_planned_again(finished, model, monkeypatch):
    folder, metrics = finished
    before = (folder / "logs.json").read_bytes()
    monkeypatch.setattr("planning.mpc.MPCController.iterate", lambda *_: pytest.fail("it planned again"))
    assert plan(config(model, folder)) == metrics
    assert (folder / "logs.json").read_bytes() == before
    with pytest.raises(ValueError, match="finished evaluation with other settings"):
        plan(config(model, folder, "seed=98"))
