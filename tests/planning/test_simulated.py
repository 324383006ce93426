"""Plans that are rolled out in the simulator instead of imagined."""

import pytest
import torch
from torch import nn

from datasets.units.normalizer import Normalizer
from envs.process_vector import ProcessVectorEnv
from envs.wall.vector_env import WallVectorEnv
from models.networks.state_encoder import StateEncoder
from models.tokens import FeatureConcat
from models.world_model import WorldModel
from plan import plan, summary
from planning.config import PlanConfig
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.planners.cem import CEMPlanner
from planning.prepare_evaluation import prepare_evaluation
from planning.problem import Problem
from planning.targets import write_targets
from planning.task import PlanningTask
from tests.builders import WALL_NORMALIZER, batch_sizes, near, numbers, wall_model, wall_model_directory
from tests.training.tiny import composed
from utils.schema import parsed

FRAMESKIP = 5


def task_of(make_env, model, normalizer, states, goals, objective):
    """Episodes in one simulator, whose plans are rolled out in another."""
    env, seeds = make_env(), list(range(len(states)))
    problem = Problem(seeds, states, goals, env.default_layouts(len(states)))
    observer = Observer(model, normalizer)
    goal = observer.present(env, env.reset(seeds, goals, problem.layouts))
    return PlanningTask(env, observer, problem, goal, objective, 7, FRAMESKIP, rollout_env=make_env())


def wall(objective="all", num_episodes=3):
    """Images and a small encoder with random weights."""
    states, goals = WallVectorEnv(image_size=65).sample_start_goal(range(num_episodes))
    units = Normalizer.from_dict(WALL_NORMALIZER)
    return task_of(lambda: WallVectorEnv(image_size=65), wall_model(), units, states, goals, GoalDistance(objective))


def pusht():
    """The agent beside the block, so that it pushes; the latent is the state itself."""
    states = torch.tensor([[200.0, 250, 260, 250, 0.3, 0, 0], [300.0, 300, 240, 300, 1.0, 0, 0]]).double()
    goals = states + 20
    layout = FeatureConcat(num_patches=1, visual_dim=7, proprio_dim=4, action_dim=2 * FRAMESKIP)
    model = WorldModel(StateEncoder(7), nn.Linear(4, 4), nn.Identity(), None, None, layout, 1).eval()
    units = Normalizer.identity(2, 7, 4)

    def env():
        return ProcessVectorEnv("envs.pusht.simulator:PushTSimulator", image_size=32, num_workers=0)

    return task_of(env, model, units, states, goals, GoalDistance("all"))


def ahead(task, blocks=2):
    """The request of a controller after some blocks, and the episodes then."""
    controller, episodes = MPCController(CEMPlanner(horizon=3), n_taken_actions=1), task.start()
    raw = 0.4 * numbers(len(task.problem), blocks, 2 * FRAMESKIP, seed=3)
    for block in raw.split(1, 1):
        task.execute(episodes, episodes.active, block)
        episodes.iteration += 1
    return controller.request(task, episodes, episodes.active), episodes


@pytest.mark.parametrize("make_task", [wall, pusht])
def test_a_candidate_costs_what_executing_it_comes_to(make_task):
    """To the last bit, also for a pushed block, which goes on differently when it is restarted from its state."""
    task = make_task()
    request, episodes = ahead(task)
    rows, actions = episodes.active, 0.4 * numbers(len(task.problem), 3, 2 * FRAMESKIP, seed=4)
    found, present = request.cost(actions[:, None])[:, 0], request.context[:, -1:]
    before, played = episodes.states.clone(), request.cost.imagine(actions)
    visual, proprio = [present.visual], [present.proprio]
    for block in actions.split(1, 1):
        seen = task.execute(episodes, rows, block)
        visual.append(seen.visual)
        proprio.append(seen.proprio)
    real = type(present)(torch.cat(visual, 1), torch.cat(proprio, 1))
    assert torch.equal(found, task.objective(real, task.goal))
    assert torch.equal(played.visual, real.visual) and torch.equal(played.proprio, real.proprio)
    if make_task is pusht:
        task.env.reset(task.problem.seeds, before, task.problem.layouts)
        restarted = task.env.step(task.observer.raw_actions(actions))[:, -1]
        assert not torch.equal(restarted, episodes.states)


@pytest.mark.parametrize(
    ("mode", "frames"), [("last", 1), ("staged", 3), ("all", 3), ("soft_min", 3), ("deadline", 2), ("auto", 3)]
)
def test_only_frames_that_the_objective_looks_at_are_drawn(mode, frames):
    """Two blocks of three were executed, the deadline is at the third: with ``staged`` at the end of the fourth."""
    blocks = {"staged": 3, "deadline": 1}.get(mode, 2)
    task = wall(mode)
    request, _ = ahead(task, blocks)
    actions = numbers(3, 4, 3, 2 * FRAMESKIP)
    sizes = batch_sizes(task.observer.model.encoder)
    found = request.cost(actions)
    assert sizes == [12] * frames
    each = [request.objective(request.cost.imagine(actions[:, n]), request.goal) for n in range(4)]
    near(found, torch.stack(each, 1), 1e-6)


def test_candidates_are_simulated_a_few_at_a_time_and_for_some_problems_only():
    task = wall("last")
    request, _ = ahead(task)
    actions, counts = numbers(3, 4, 3, 2 * FRAMESKIP), []
    whole = request.cost(actions)
    request.cost.progress, task.observer.frames_per_chunk = counts.append, 5
    near(request.cost(actions), whole, 1e-6)
    assert counts == [5, 5, 2]
    some = torch.tensor([2, 0])
    near(request.cost(actions[some], some), whole[some], 1e-6)


def test_whoever_asks_for_gradients_is_told_which_planners_do_not():
    request, _ = ahead(wall())
    with pytest.raises(ValueError, match=r"dynamics=simulator gives no gradients.*planner=cem, icem or mppi"):
        request.cost(numbers(3, 1, 3, 2 * FRAMESKIP).requires_grad_())


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """Beside it, four episodes whose goals are 20 px away in the same room."""
    folder = wall_model_directory(tmp_path_factory.mktemp("model"))
    starts = torch.tensor([[15.0, 15], [15, 45], [50, 20], [50, 40]])
    away = torch.tensor([[0.0, 20], [0, -20], [0, 20], [0, -20]])
    write_targets(folder / "goals.npz", WallVectorEnv(), starts, starts + away)
    return folder


def evaluated(model, folder, *more):
    """At most two plans of three blocks."""
    few = ["n_evals=4", "n_plot_samples=1", "device=cpu", "num_threads=1", "goal_source=file"]
    loop = ["planner=mpc_cem", "planner.max_iter=2", "planner.n_taken_actions=3"]
    loop += [f"planner.sub_planner.{text}" for text in ("horizon=3", "opt_steps=4", "num_samples=32", "topk=5")]
    given = [*few, f"goal_file_path={model / 'goals.npz'}", f"ckpt_path={model}", f"run_dir={folder}", *loop, *more]
    return plan(parsed(PlanConfig, composed(*given, name="plan_wall")))


def test_the_search_solves_with_the_simulator_what_it_does_not_with_a_random_model(random_model, tmp_path):
    found = {name: evaluated(random_model, tmp_path / name, f"dynamics={name}") for name in ("model", "simulator")}
    rates = {name: each["success_rate"] for name, each in found.items()}
    assert rates["simulator"] == 1 > 0.25 >= rates["model"], rates
    ceiling = found["simulator"]
    assert ceiling["dynamics"] == "simulator" and found["model"]["dynamics"] == "model"
    assert ceiling["mean_div_visual_emb"] == ceiling["mean_div_proprio_emb"] == 0
    assert ceiling["tflop_forward_per_episode"] == ceiling["tflop_backward_per_episode"] == 0
    assert ceiling["tflop_encoder_per_episode"] > 100 * found["model"]["tflop_encoder_per_episode"] / 8
    assert ceiling["model_evaluations_per_episode"] <= 2 * (4 * 32 + 1)
    said = "success 100 % [51-100] with the simulator as the model (a ceiling of objective and search, not of the task)"
    assert summary(ceiling).startswith(said)
    with pytest.raises(ValueError, match="finished evaluation with other settings"):
        evaluated(random_model, tmp_path / "model", "dynamics=simulator")


@pytest.mark.parametrize(
    ("planner", "message"),
    [
        (["planner=mpc_gd_lbfgs"], r"^dynamics=simulator gives no gradients, and this planner wants them"),
        (
            ["planner=mpc_cem", "planner.adapt={lr: 0.1}"],
            r"^planner\.adapt lets the model learn, which dynamics=simulator",
        ),
    ],
)
def test_what_wants_the_model_is_refused_before_anything_is_read(tmp_path, planner, message):
    given = [*planner, "dynamics=simulator", "ckpt_path=none", f"run_dir={tmp_path}"]
    with pytest.raises(ValueError, match=message):
        prepare_evaluation(parsed(PlanConfig, composed(*given, name="plan_wall")), torch.device("cpu"))
