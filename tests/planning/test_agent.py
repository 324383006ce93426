"""``planning.agent``: the same decisions as an evaluation's, and all that comes from outside."""

import copy
import json
import pickle
import threading
import time
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import tests.envs.toy_gymnasium  # noqa: F401  (registers Walk)
from envs.wall.vector_env import WallVectorEnv
from launch.from_python import settings_of
from models.latent import Latent
from models.speed.fast_paths import FastPaths
from plan import plan
from planning.agent import Agent, Goal
from planning.config import PlanConfig
from planning.episode_record import EPISODES, EpisodeRecord
from planning.live_episodes import LiveEpisodes
from planning.load_agent import AgentParts
from planning.mpc import MPCController
from planning.newest import Newest
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.planners.gd import GDPlanner
from planning.prepare_evaluation import LoadedModel
from planning.saved_evaluation import TARGETS
from planning.targets import read_targets
from tests.builders import (
    NARROW,
    POINT_NORMALIZER,
    REPOSITORY,
    PointEnv,
    jepa_wms_file,
    point_model,
    wall_data,
    wall_model_directory,
)

QUICK = ("planner.sub_planner.horizon=3", "planner.sub_planner.opt_steps=3", "device=cpu", "num_threads=1")
LBFGS = ("planner=mpc_gd_lbfgs", *QUICK)
SIDE = 65


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return wall_model_directory(tmp_path_factory.mktemp("model"), num_hist=2)


@pytest.fixture(scope="module")
def agent(model):
    """Every test resets it."""
    return Agent.load(model, *LBFGS)


def picture(seed: int = 0, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*(shape or (SIDE, SIDE)), 3), np.uint8)


GOAL = Goal(picture(9), [40.0, 20.0])


def drawn(env: WallVectorEnv) -> np.ndarray:
    return env.render()[0].permute(1, 2, 0).numpy()


LOOPS = {
    "two blocks of each plan": ("planner=mpc_gd", *QUICK, "planner.n_taken_actions=2", "objective=deadline"),
    "a model that learns": (*LBFGS, "planner.adapt={lr: 0.1}", "planner.n_taken_actions=2"),
    "cross-entropy in open loop": ("planner=cem", *QUICK[2:], "planner.num_samples=8", "planner.topk=2"),
}


@pytest.mark.parametrize("settings", LOOPS.values(), ids=LOOPS)
def test_the_same_actions_as_in_an_evaluation(model, tmp_path, settings):
    """One episode in ``plan.py``, and the same one with an agent that sees nothing but images and proprio."""
    loops = settings[0].startswith("planner=mpc")
    given = [*settings, *(["planner.max_iter=3"] if loops else ["planner.horizon=2", "planner.opt_steps=3"])]
    few = ["n_evals=1", "n_plot_samples=0", "seed=5", f"run_dir={tmp_path}"]
    plan(settings_of(PlanConfig, "plan_wall", [f"ckpt_path={model}", *given, *few]))
    executed = torch.from_numpy(EpisodeRecord.read(tmp_path / EPISODES).actions)[0]

    agent = Agent.load(model, *given, "seed=5")
    env = agent.simulator()
    episode = read_targets(tmp_path / TARGETS, env, 1)
    layout = {name: value[0] for name, value in episode.layouts.items()}
    agent.reset(Goal.from_state(env, episode.goal_states[0], layout), seeds=episode.seeds)
    state, acted = env.reset(episode.seeds, episode.states, episode.layouts), []
    while 5 * len(acted) < len(executed):
        acted.append(torch.from_numpy(agent.act(drawn(env), env.proprio(state)[0])))
        state = env.step(acted[-1][None])[:, -1]
    assert len(executed) >= 10 and torch.equal(torch.cat(acted), executed)


def test_what_an_answer_tells(agent):
    agent.reset(GOAL)
    actions = agent.act(picture(1), [20.0, 30.0])
    first = agent.answer
    assert actions.shape == (5, 2) and actions.dtype == np.float32
    np.testing.assert_array_equal(first.plan[:5], actions)
    assert first.plan.shape == (15, 2) and first.frames.shape == (4, SIDE, SIDE, 3) and first.frames.dtype == np.uint8
    assert first.cost_after < first.cost_before and first.evaluations == 4
    assert first.imagined.num_frames == 4 and first.surprise is None and first.replanned and not first.late
    agent.act(picture(2), [21.0, 30.0])
    surprise = agent.answer.surprise
    assert surprise.compared_with == "change" and surprise.ratio == pytest.approx(surprise.error / surprise.usual)
    assert str(agent.answer).endswith(f" in 4 rollouts, surprise {surprise.ratio:.2g} x change")
    assert agent.answers == 2 and agent.late_answers == 0


def test_a_batch_answers_for_each_row_as_if_it_were_alone(agent):
    images, proprio = np.stack([picture(1), picture(2)]), [[20.0, 30.0], [50.0, 10.0]]
    goals = Goal(np.stack([picture(3), picture(4)]), [[1.0, 2.0], [3.0, 4.0]])
    agent.reset(goals, seeds=[7, 3])
    together = [agent.act(images, proprio) for _ in range(3)]
    assert together[0].shape == (2, 5, 2) and agent.answer.plan.shape == (2, 15, 2)
    assert agent.answer.frames.shape == (2, 4, SIDE, SIDE, 3) and agent.answer.surprise.error.shape == (2,)
    agent.reset(Goal(goals.image[1], goals.proprio[1]), seeds=3)
    alone = [agent.act(images[1], proprio[1]) for _ in range(3)]
    np.testing.assert_allclose(alone, [actions[1] for actions in together], atol=1e-3)


def test_a_new_goal_is_planned_for_at_once_and_the_history_stays(model):
    agent = Agent.load(model, *LBFGS, "planner.n_taken_actions=2")
    agent.reset(GOAL)
    planned = []
    for number in range(5):
        if number == 3:
            agent.set_goal(image=picture(8), proprio=[1.0, 2.0])
        agent.act(picture(number), [20.0, 30.0])
        planned.append(agent.answer.replanned)
    assert planned == [True, False, True, True, False]
    assert agent.answer._decision.request.context.num_frames == 2
    assert agent.answer.surprise is not None


def point_agent(num_hist: int = 2, **arguments) -> Agent:
    """A planner whose model of ``PointEnv`` is right."""
    observer = Observer(point_model(num_hist), POINT_NORMALIZER)
    planner = GDPlanner(horizon=2, opt_steps=60, lr=0.5, action_noise=0.0, sample_type="zero", budget_ms=None)
    config = SimpleNamespace(seed=0, memory_budget_gb=1.0, precision="auto")
    loaded = LoadedModel(observer, None, 8, 2, FastPaths())
    parts = AgentParts(config, loaded, MPCController(planner), GoalDistance(), False, None)
    return Agent(parts, **arguments)


def test_a_loop_reaches_its_goal_and_a_right_model_is_not_surprised():
    env, agent = PointEnv(), point_agent()
    goal = torch.tensor([[2.0, -1.0]])
    agent.reset(Goal(state=goal[0], proprio=goal[0]))
    state = env.reset([0], torch.tensor([[-3.0, 1.0]]))
    for _ in range(6):
        actions = agent.act(state[0], state[0])
        state = env.step(torch.from_numpy(actions)[None])[:, -1]
    assert env.success(state, goal).success
    assert agent.answer.surprise.error < 1e-10


def test_what_was_really_executed_can_be_said():
    """The robot did nothing instead: only an agent that knows this predicts that nothing has changed."""
    errors = {}
    for said in (None, np.zeros((2, 2))):
        agent = point_agent()
        agent.reset(Goal(state=[2.0, -1.0], proprio=[2.0, -1.0]))
        for _ in range(2):
            agent.act([-3.0, 1.0], [-3.0, 1.0], executed=said)
        errors[said is None] = float(agent.answer.surprise.error)
    assert errors[False] < 1e-10 < 0.1 < errors[True]


def test_plans_stay_within_the_bounds():
    agent = point_agent(bounds=([-0.1, -np.inf], [0.2, 0.3]))
    agent.reset(Goal(state=[2.0, 3.0], proprio=[2.0, 3.0]))
    for _ in range(3):
        actions = agent.act([-3.0, 1.0], [-3.0, 1.0])
        assert actions.max(0) == pytest.approx([0.2, 0.3]) and actions.min() >= -0.1
        assert agent.answer.plan[:, 0].max() <= 0.2 + 1e-6


def test_surprise_is_compared_with_the_error_in_training_where_the_run_tells_it(tmp_path):
    folder = wall_model_directory(tmp_path / "trained")
    (folder / "logs.json").write_text(json.dumps({"step": 1, "val_loss": 0.25}) + "\n")
    agent = Agent.load(folder, *LBFGS)
    agent.reset(GOAL)
    for _ in range(2):
        agent.act(picture(1), [20.0, 30.0])
    assert agent.answer.surprise.compared_with == "validation"
    assert agent.answer.surprise.ratio == pytest.approx(4 * agent.answer.surprise.error)


def test_goals_from_a_state_an_episode_and_a_file_are_the_same(agent, tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_DIR", str(tmp_path))
    wall_data(tmp_path / "wall_single", count=2, num_steps=12)
    trajectories = agent.trajectories()
    recorded = Goal.from_episode(trajectories, 1, step=-4)
    layout = trajectories.layout(1)
    from_state = Goal.from_state(agent.simulator(), trajectories.states[1][8], layout)
    Image.fromarray(recorded.image).save(tmp_path / "goal.png")
    from_file = Goal.from_file(tmp_path / "goal.png", recorded.proprio)
    for other in (from_state, from_file):
        np.testing.assert_array_equal(other.image, recorded.image)
        np.testing.assert_array_equal(other.proprio, recorded.proprio)
    with pytest.raises(ValueError, match=r"there is no episode 2: the data set has 2"):
        Goal.from_episode(trajectories, 2)
    with pytest.raises(ValueError, match=r"there is no step 12: episode 0 has 12"):
        Goal.from_episode(trajectories, 0, 12)


def test_any_gymnasium_environment_in_a_loop(tmp_path):
    """Its name says nothing to us, and its images are of another size: the checkpoint brings the units."""
    folder = wall_model_directory(tmp_path / "walk")
    (folder / "hydra.yaml").write_text((folder / "hydra.yaml").read_text().replace("name: wall", "name: Walk-v0"))
    env = gymnasium.make("Walk-v0", render_mode="rgb_array", disable_env_checker=True)
    space = env.action_space
    agent = Agent.load(folder, *LBFGS, bounds=(space.low, space.high))
    env.reset(seed=1)
    goal = Goal(env.render(), env.unwrapped.place)
    env.reset(seed=2)
    agent.reset(goal)
    for _ in range(3):
        for action in agent.act(env.render(), env.unwrapped.place):
            assert space.contains(action)
            env.step(action)
    with pytest.raises(ValueError, match=r"the simulator of Walk-v0 is not known: load the agent with its environment"):
        agent.simulator()
    with pytest.raises(ValueError, match="env=Walk-v0 says nothing of its data"):
        agent.trajectories()


def test_a_model_of_another_program_needs_no_environment(tmp_path):
    path = jepa_wms_file(tmp_path / "dino_wm_pusht.pth.tar")
    encoder = [f"encoder.{key}={value}" for key, value in NARROW.items()]
    encoder.append(f"encoder.weights={REPOSITORY}/tests/golden/dinov2_reduced.safetensors")
    agent = Agent.load(path, *LBFGS, *encoder, "foreign.heads=2", "foreign.img_size=56")
    agent.reset(Goal(picture(1, 96, 128), [1.0, 2.0, 3.0, 4.0]))
    assert agent.act(picture(2, 96, 128), [1.0, 2.0, 3.0, 4.0]).shape == (5, 2)
    assert agent.answer.frames is None, "it has no decoder"
    other = path.rename(tmp_path / "mine.pth.tar")
    with pytest.raises(ValueError, match="does not say in which units its actions are: name its environment"):
        Agent.load(other, *LBFGS, *encoder, "foreign.heads=2", "foreign.img_size=56", "foreign.num_hist=3",
                   "foreign.frameskip=5")  # fmt: skip


MISTAKES = {
    "channels first": ({"image": picture().transpose(2, 0, 1)}, r"shape \(3, 65, 65\); here the channels come"),
    "grey": ({"image": picture()[..., 0]}, r"must be \(H, W, 3\).* got uint8 of shape \(65, 65\)"),
    "whole numbers": ({"image": picture().astype(int)}, r"must be uint8, or floats in 0..255; got int64"),
    "in 0..1": ({"image": picture() / 255}, r"floats in 0..255; got float64 of shape \(65, 65, 3\) with values 0..1"),
    "no image": ({"image": None}, "must be .* got object of shape"),
    "no proprio": ({"proprio": None}, r"proprio must be \(2,\) or \(1, 2\) numbers in raw units; got None"),
    "long proprio": ({"proprio": [1.0, 2.0, 3.0]}, r"proprio must be \(2,\).* got shape \(3,\)"),
    "infinite proprio": ({"proprio": [1.0, np.inf]}, r"proprio must be finite numbers; got \[1.0, inf\]"),
    "a text": ({"proprio": "home"}, r"proprio must be \(2,\)"),
    "executed": ({"executed": [0.0, 0.0]}, r"executed must be finite raw actions of shape \(5, 2\)"),
    "ragged rows": ({"image": [[1], [2, 3]]}, r"an image must be \(H, W, 3\)"),
    "ragged proprio": ({"proprio": [[1.0], [2.0, 3.0]]}, r"proprio must be \(2,\)"),
    "executed text": ({"executed": "all"}, r"executed must be finite raw actions"),
    "another batch": ({"image": np.stack([picture()] * 2)}, "images are of 2 episodes, so far of 1: call reset"),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "message"), MISTAKES.values(), ids=MISTAKES)
def test_wrong_inputs_get_one_line_and_change_nothing(agent, wrong, message):
    right = {"image": picture(1), "proprio": [20.0, 30.0]}
    agent.reset(GOAL)
    agent.act(**right)
    with pytest.raises(ValueError, match=message) as refused:
        agent.act(**right | wrong)
    assert "\n" not in str(refused.value)
    assert agent.answers == 1


@pytest.mark.parametrize("before", [0, 2], ids=["the first call", "a later call"])
def test_a_call_that_is_interrupted_changes_nothing(model, monkeypatch, before):
    """The same agent with and without the interrupt answers the same, also one that learns."""
    answers = {}
    agent = Agent.load(model, *LOOPS["a model that learns"])
    for interrupted in (False, True):
        agent.reset(GOAL)
        given = [agent.act(picture(number), [20.0, 30.0]) for number in range(before)]
        if interrupted:
            with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(MPCController, "request", interrupt)
                agent.act(picture(7), [20.0, 30.0])
        given += [agent.act(picture(before + number), [20.0, 30.0]) for number in range(3)]
        answers[interrupted] = given
        assert agent.answers == before + 3
    np.testing.assert_array_equal(answers[True], answers[False])


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_a_wrong_goal_leaves_the_episode_as_it_is(agent):
    agent.reset(GOAL)
    agent.act(picture(1), [20.0, 30.0])
    for wrong in (Goal(picture()[..., 0], [1.0, 2.0]), picture(), Goal()):
        with pytest.raises(ValueError, match=r"must be (\(H, W, 3\)|a Goal\(image, proprio\))"):
            agent.reset(wrong)
    agent.act(picture(2), [20.0, 30.0])
    assert agent.answers == 2 and agent.answer.surprise is not None


def test_tensors_with_gradients_are_taken_as_numbers(agent):
    agent.reset(GOAL)
    image = torch.from_numpy(picture(1)).float().requires_grad_()
    actions = agent.act(image, torch.tensor([20.0, 30.0], requires_grad=True))
    agent.reset(GOAL)
    np.testing.assert_allclose(actions, agent.act(picture(1), [20.0, 30.0]), atol=1e-4)


def test_an_agent_is_not_sent_to_another_process(agent):
    for send in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"cannot be pickled or copied: call Agent\.load where it is to act"):
            send(agent)


def test_mistakes_before_the_first_image(agent, model):
    with pytest.raises(ValueError, match="the agent has no goal yet"):
        point_agent().act([1.0, 2.0], [1.0, 2.0])
    agent.reset(Goal(np.stack([picture()] * 3), [1.0, 2.0]))
    with pytest.raises(ValueError, match="there are goals for 3 episodes, and images of 1"):
        agent.act(picture(), [1.0, 2.0])
    agent.reset(GOAL, seeds=[1, 2])
    with pytest.raises(ValueError, match="reset was given 2 seeds, and the images are of 1 episodes"):
        agent.act(picture(), [1.0, 2.0])
    for arguments, message in (
        ({"budget_ms": 0}, "budget_ms must be above 0"),
        ({"bounds": (1.0, -1.0)}, "bounds must be"),
        ({"bounds": ([0, 0, 0], 1)}, "bounds must be"),
    ):
        with pytest.raises(ValueError, match=message):
            point_agent(**arguments)
    for setting, message in (
        ("planner=mpc_gdd", "planner has no option mpc_gdd; did you mean mpc_gd"),
        ("planner.shrinking=budget", "planner.shrinking=budget needs an end"),
        ("dynamics=simulator", "an agent plans with its model"),
        ("env=pusht", "env=pusht was asked for, but .* was trained on env=wall"),
        ("planner.n_taken_actions=9", r"n_taken_actions must be in \[1, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            Agent.load(model, *LBFGS, setting)
    with pytest.raises(ValueError, match="there is no checkpoints/model_latest"):
        Agent.load(model / "nowhere")


class Clock:
    """Time that passes only while networks compute: 1 ms a call of the predictor, 20 ms a call of the encoder."""

    def __init__(self, monkeypatch, agent: Agent) -> None:
        self.now, model = 0.0, agent._observer.model
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(model.predictor, "forward", self.timed(model.predictor.forward, 0.001))
        monkeypatch.setattr(model.encoder, "forward", self.timed(model.encoder.forward, 0.02))

    def timed(self, function, seconds):
        def called(*args, **kwargs):
            self.now += seconds
            return function(*args, **kwargs)

        return called


def test_answers_keep_the_budget_and_use_it(model, monkeypatch):
    """What learning takes is left out of the search."""
    budget_ms, step = 60, 3  # ms: a rollout of three blocks takes 3
    agent = Agent.load(model, *LBFGS, "planner.sub_planner.opt_steps=1000", "speed=plain", budget_ms=budget_ms)
    clock = Clock(monkeypatch, agent)
    monkeypatch.setattr(LiveEpisodes, "learn", clock.timed(LiveEpisodes.learn, 0.015))
    agent.reset(GOAL)
    for _ in range(3):
        agent.act(picture(1), [20.0, 30.0])
        assert budget_ms - 2 * step <= 1000 * agent.answer.seconds <= budget_ms + 1e-6
        assert 1000 * agent.answer.encoding_seconds == pytest.approx(20)
    assert agent.late_answers == 0 and agent.answers == 3


def test_late_answers_are_counted(model, monkeypatch):
    """Encoding alone takes longer than the budget: the planner still takes its one step."""
    agent = Agent.load(model, *LBFGS, "speed=plain", "planner.n_taken_actions=2", budget_ms=22)
    Clock(monkeypatch, agent)
    agent.reset(GOAL)
    late = []
    for _ in range(4):
        agent.act(picture(1), [20.0, 30.0])
        late.append(agent.answer.late)
    assert late == [True, False, True, False], "what a plan still holds is given out without planning"
    assert agent.late_answers == 2
    agent.reset()
    assert agent.late_answers == agent.answers == 0


def test_a_camera_thread_at_ten_images_a_second(model):
    """The loop takes the newest image; how many are dropped in between depends on the machine, that they add up not."""
    agent = Agent.load(model, *LBFGS, budget_ms=100)
    agent.reset(GOAL)
    agent.warm_up()
    camera, count, used, late = Newest(), 6, [], 0

    def film() -> None:
        for number in range(count):
            camera.put(number)
            time.sleep(0.1)

    filming = threading.Thread(target=film)
    filming.start()
    while not used or used[-1] < count - 1:
        number = camera.take(timeout=60)
        agent.act(picture(number), [20.0, 30.0])
        used.append(number)
        late += agent.answer.seconds > 0.1
    filming.join()
    assert used == sorted(set(used)) and len(used) + camera.dropped == count
    assert agent.answers == len(used) and agent.late_answers == late


def test_the_newest_thing_is_taken_and_older_ones_are_dropped():
    place = Newest()
    for number in range(3):
        place.put(number)
    assert place.take() == 2 and place.dropped == 2
    with pytest.raises(TimeoutError, match=r"nothing came within 0\.01 s"):
        place.take(timeout=0.01)


def test_threads_wait_for_each_other(agent):
    agent.reset(GOAL)
    errors = []

    def act() -> None:
        try:
            for _ in range(3):
                agent.act(picture(1), [20.0, 30.0])
                agent.set_goal(GOAL)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=act) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and agent.answers == 9
    assert isinstance(agent.answer.imagined, Latent)
