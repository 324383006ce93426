import io
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from datasets.units.normalizer import Normalizer
from envs.base import VectorEnv
from envs.process_vector import ProcessVectorEnv
from envs.wall.vector_env import WallVectorEnv
from models.latent import Latent
from planning.cost import LatentGoalCost
from planning.episodes import Episodes
from planning.goals import Problem
from planning.mpc import MPCController, _distance
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.planners.gd import GDPlanner
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import Plan
from planning.task import PlanningTask
from tests.builders import (
    POINT_NORMALIZER,
    WALL_NORMALIZER,
    batch_sizes,
    near,
    numbers,
    plan_of,
    point_model,
    point_task,
    wall_model,
)


def planner(horizon: int = 1, **changes) -> GDPlanner:
    settings = {"opt_steps": 80, "lr": 0.5, "action_noise": 0.0, "sample_type": "zero"}
    return GDPlanner(horizon=horizon, **settings | changes)


class Scripted(GDPlanner):
    """Returns what it was told to, or else its start plus one; remembers what it was given."""

    def __init__(self, horizon: int, script: list[torch.Tensor] | None = None, rollout_type: str = "regular") -> None:
        super().__init__(horizon=horizon, rollout_type=rollout_type)
        self.script = script or []
        self.given: list[tuple] = []
        self.plans: list[torch.Tensor] = []

    def optimize(self, cost, actions_init: torch.Tensor, noise: EpisodeNoise, space=None) -> Plan:
        self.given.append((cost, actions_init, noise))
        self.plans.append(self.script.pop(0) if self.script else actions_init + 1)
        return plan_of(self.plans[-1])


def run(controller: MPCController, task: PlanningTask) -> Episodes:
    episodes = task.start()
    controller.run(task, episodes, lambda _: None)
    return episodes


def test_episodes_are_solved_as_soon_as_the_dynamics_allow():
    """At gain 1 the model is right; at 0.5 every iteration halves the distance; at 0 nothing helps."""
    task, _ = point_task(gains=(1.0, 0.5, 0.0))
    distance = (task.problem.goal_states - task.problem.states).norm(dim=1)
    halvings = int(torch.ceil(torch.log2(distance[1] / 0.5)))
    episodes = run(MPCController(planner(), max_iter=halvings + 2), task)
    assert episodes.solved_at.tolist() == [1, halvings, 0]
    assert episodes.iteration == halvings + 2
    assert episodes.solved.tolist() == [True, True, False]


def test_solved_episodes_leave_the_batch_and_do_nothing():
    task, env = point_task(gains=(0.5, 1.0, 0.0))
    sizes = batch_sizes(task.observer.model.predictor)
    episodes = run(MPCController(planner(opt_steps=60), max_iter=8), task)
    solved_at = episodes.solved_at.tolist()
    assert 1 < solved_at[0] < 8 and solved_at[1] == 1 and solved_at[2] == 0  # or this shows nothing
    active = [sum(not at or at > done for at in solved_at) for done in range(8)]
    per_iteration = 60 + 1 + 1  # optimisation, its end, and the picture of what was planned
    assert sizes == [count for count in active for _ in range(per_iteration)]
    assert [record["planned_episodes"] for record in episodes.records] == active
    for iteration, raw in enumerate(env.executed, start=1):
        for episode, at in enumerate(solved_at):
            idle = bool(at and iteration > at)
            assert (raw[episode] == 0).all() == idle


def test_it_ends_when_all_are_solved():
    task, env = point_task()
    assert run(MPCController(planner(), max_iter=10), task).iteration == 1
    assert len(env.executed) == 1


def test_success_counts_at_the_end_of_an_iteration_only():
    """Through the goal in the first block, away from it in the second."""
    task, _ = point_task(gains=(1.0,))
    towards = ((task.problem.goal_states - task.problem.states) / 2).float()  # per raw step, two of which make a block
    block = POINT_NORMALIZER.actions_to_z(towards.repeat(1, 2))
    there_and_away = torch.stack([block, block], 1)
    there_and_back = torch.stack([block, POINT_NORMALIZER.actions_to_z(-towards.repeat(1, 2))], 1)
    nothing = POINT_NORMALIZER.actions_to_z(torch.zeros(1, 2, 4))
    for script, solved_at in (([there_and_away, nothing], 0), ([there_and_back, there_and_away], 0)):
        assert run(MPCController(Scripted(2, script), 2, 2), task).solved_at.tolist() == [solved_at]
    stays = torch.stack([block, POINT_NORMALIZER.actions_to_z(torch.zeros(1, 4))], 1)
    assert run(MPCController(Scripted(2, [there_and_back, stays]), 3, 2), task).solved_at.tolist() == [2]


def test_the_simulator_is_stepped_forward_and_never_replayed():
    task, env = point_task(gains=(0.0, 0.0))
    run(MPCController(planner(horizon=3, opt_steps=2), max_iter=4, n_taken_actions=2), task)
    assert len(env.resets) == 1
    assert len(env.executed) == 4 * 2
    assert all(raw.shape == (2, 2, 2) for raw in env.executed)  # one block of two raw steps each


def test_nothing_is_drawn_for_a_model_of_states():
    task, env = point_task()
    run(MPCController(planner(), max_iter=2), task)
    assert env.rendered == []


@pytest.mark.parametrize("rollout_type", ["regular", "custom"])
@pytest.mark.parametrize("n_taken", [1, 2, 3, 5])
@pytest.mark.parametrize("num_hist", [1, 3])
def test_the_model_is_given_the_true_past(num_hist, n_taken, rollout_type):
    """The last H real frames in order, oldest first, with the blocks that were executed between them."""
    task, env = point_task(gains=(0.0, 0.5, 1.0), num_hist=num_hist)
    scripted = Scripted(5, rollout_type=rollout_type)
    controller = MPCController(scripted, max_iter=4, n_taken_actions=n_taken)
    episodes, rows_planned = task.start(), []
    for _ in range(4):
        rows_planned.append(episodes.active)
        controller.iterate(task, episodes)
    for iteration, ((cost, _, _), rows) in enumerate(zip(scripted.given, rows_planned, strict=True)):
        frames = min(1 if rollout_type == "custom" else num_hist, iteration * n_taken + 1)
        last = iteration * n_taken
        states = torch.stack(env.ends[last - frames + 1 : last + 1], 1)[rows]
        assert cost.context.num_frames == frames
        near(cost.context.visual[:, :, 0], POINT_NORMALIZER.states_to_z(states), 1e-5)
        near(cost.context.proprio, POINT_NORMALIZER.proprio_to_z(states), 1e-5)
        assert cost.past_actions.shape == (len(rows), frames - 1, 4)
        if frames > 1:
            raw = torch.stack(env.executed[last - frames + 1 : last], 1)[rows].flatten(2)
            near(cost.past_actions, POINT_NORMALIZER.actions_to_z(raw), 1e-5)
        near(cost.goal.visual[:, 0, 0], POINT_NORMALIZER.states_to_z(task.problem.goal_states[rows]), 1e-6)


def test_only_frames_that_stay_in_the_history_are_encoded():
    for num_hist, n_taken, expected in ((1, 5, 1), (3, 5, 3), (3, 2, 2)):
        task, _ = point_task(gains=(0.0, 0.0), num_hist=num_hist)
        sizes = batch_sizes(task.observer.model.encoder)
        controller = MPCController(Scripted(5), max_iter=2, n_taken_actions=n_taken)
        run(controller, task)
        assert sizes == [2] * (1 + 2 * expected)  # the start, then a few per iteration


def test_a_plan_starts_from_what_was_left_of_the_last_one():
    task, _ = point_task(gains=(0.0, 1.0, 0.0))
    scripted = Scripted(3)
    controller = MPCController(scripted, max_iter=3, n_taken_actions=2)
    episodes = task.start()
    controller.iterate(task, episodes)
    episodes.solved_at[1] = 1  # one leaves: the others must keep their own
    controller.iterate(task, episodes)
    first, second = (start for _, start, _ in scripted.given)
    assert torch.equal(second[:, :1], scripted.plans[0][[0, 2], 2:])
    assert second.shape == (2, 3, 4)
    assert not torch.equal(second[:, 1:], first[[0, 2], 1:])  # the rest is drawn anew


def test_known_actions_start_the_first_plan_only():
    known = numbers(2, 5, 4)
    task, _ = point_task(gains=(0.0, 0.0), initial_actions=known)
    scripted = Scripted(3)
    run(MPCController(scripted, max_iter=2, n_taken_actions=1), task)
    starts = [start for _, start, _ in scripted.given]
    assert torch.equal(starts[0], known[:, :3])
    assert torch.equal(starts[1][:, :2], scripted.plans[0][:, 1:])


def test_planners_know_no_simulator():
    task, _ = point_task()
    scripted = Scripted(1)
    run(MPCController(scripted, max_iter=1), task)
    cost, start, noise = scripted.given[0]
    assert isinstance(cost, LatentGoalCost) and isinstance(start, torch.Tensor) and isinstance(noise, EpisodeNoise)
    for value in vars(cost).values():
        assert not isinstance(value, VectorEnv | PlanningTask | Observer | Problem)
    assert not any(value is task.problem.goal_states for value in vars(cost).values())


def test_an_episode_goes_the_same_way_alone_and_in_company():
    def states(keep: list[int]) -> torch.Tensor:
        task, _ = point_task(gains=(0.5, 0.0, 1.0))
        problem = Problem(
            [task.problem.seeds[i] for i in keep],
            task.problem.states[keep],
            task.problem.goal_states[keep],
            {"gain": task.problem.layouts["gain"][keep]},
        )
        smaller = PlanningTask(**{**vars(task), "problem": problem, "goal": task.goal[keep]})
        noisy = planner(horizon=2, opt_steps=5, action_noise=0.1, sample_type="randn")
        return run(MPCController(noisy, max_iter=3), smaller).states

    together = states([0, 1, 2])
    for keep in ([1], [2, 0]):
        torch.testing.assert_close(states(keep), together[keep], atol=1e-4, rtol=0)


def test_the_planner_seed_changes_the_plan_and_nothing_else():
    noisy = planner(horizon=2, opt_steps=5, action_noise=0.1, sample_type="randn")
    ends = []
    for seed in (1, 1, 2):
        task, _ = point_task(gains=(0.5, 0.5), seed=seed)
        ends.append(run(MPCController(noisy, max_iter=2), task).states)
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_the_noise_of_every_iteration_is_new():
    task, _ = point_task(gains=(0.0,))
    scripted = Scripted(1)
    run(MPCController(scripted, max_iter=2), task)
    first, second = (start for _, start, _ in scripted.given)
    assert not torch.equal(first, second)


def test_saved_episodes_continue_where_they_were():
    noisy = planner(horizon=3, opt_steps=4, action_noise=0.1, sample_type="randn")
    controller = MPCController(noisy, max_iter=5, n_taken_actions=2)
    task, _ = point_task(gains=(0.5, 0.25, 0.0), num_hist=3)
    expected = run(controller, task)

    task, _ = point_task(gains=(0.5, 0.25, 0.0), num_hist=3)
    episodes = task.start()
    for _ in range(2):
        controller.iterate(task, episodes)
    file = io.BytesIO()
    torch.save(episodes.as_dict(), file)
    file.seek(0)
    again = Episodes(**torch.load(file, weights_only=True))
    task, env = point_task(gains=(0.5, 0.25, 0.0), num_hist=3)
    task.resume(again)
    controller.run(task, again, lambda _: None)
    assert len(env.resets) == 1
    assert torch.equal(again.states, expected.states)
    assert again.solved_at.tolist() == expected.solved_at.tolist()
    timing = ("planning_seconds", "simulation_seconds")
    for found, record in zip(again.records, expected.records, strict=True):
        assert all(found[key] == value for key, value in record.items() if key not in timing)


def test_open_loop_plans_once_and_executes_everything():
    task, env = point_task(gains=(0.0, 0.0))
    open_loop = Scripted(4)
    episodes = run(MPCController.of(open_loop), task)
    assert episodes.iteration == 1
    assert len(open_loop.given) == 1
    raw = torch.stack(env.executed, 1).flatten(2)
    near(POINT_NORMALIZER.actions_to_z(raw), open_loop.plans[0], 1e-5)


def test_what_an_iteration_reports():
    task, _ = point_task(gains=(1.0, 1.0, 0.0))
    controller = MPCController(planner(opt_steps=80, eval_every=40), max_iter=2)
    episodes = run(controller, task)
    first, second = episodes.records
    assert (first["iteration"], second["iteration"]) == (1, 2)
    assert (first["planned_episodes"], second["planned_episodes"]) == (3, 1)
    assert first["success_rate"] == second["success_rate"] == pytest.approx(2 / 3)
    assert [step for step, _ in first["cost_trace"]] == [0, 40, 80]
    assert first["planned_cost"] < first["cost_trace"][0][1]
    assert (first["model_evaluations"], first["gradient_evaluations"]) == (81, 80)
    assert episodes.evaluations.tolist() == [81, 81, 162]
    distance = (episodes.states - task.problem.goal_states).norm(dim=1)
    assert second["mean_state_dist"] == pytest.approx(distance.mean().item())
    assert first["planning_seconds"] > 0 and first["simulation_seconds"] > 0
    assert episodes.planning_seconds[:2].tolist() == pytest.approx([first["planning_seconds"] / 3] * 2)
    both = first["planning_seconds"] / 3 + second["planning_seconds"]
    assert episodes.planning_seconds[2].item() == pytest.approx(both)


def test_episodes_that_stop_early_are_counted_by_themselves():
    """The second can be nowhere but at its start, so it gains nothing."""
    task, _ = point_task(gains=(0.0, 0.0))
    problem = replace(task.problem, goal_states=task.problem.goal_states.clone())
    problem.goal_states[1] = problem.states[1]
    goal = task.observer.present(task.env, task.env.reset(problem.seeds, problem.goal_states, problem.layouts))
    task = replace(task, problem=problem, goal=goal)
    episodes = task.start()
    MPCController(planner(stop_gain=0.01, stop_steps=4, opt_steps=20), max_iter=1).iterate(task, episodes)
    first, second = episodes.evaluations.tolist()
    assert 5 == second < first <= 21
    assert episodes.records[0]["model_evaluations"] == (first + second) / 2


def test_the_divergence_is_between_the_imagined_and_the_true_end():
    task, _ = point_task(gains=(1.0, 0.0))
    scripted = Scripted(3)
    episodes = run(MPCController(scripted, max_iter=1, n_taken_actions=2), task)
    assert episodes.divergence[0].max() < 1e-5  # the model is right
    imagined = scripted.given[0][0].imagine(scripted.plans[0][:, :2])
    stayed = POINT_NORMALIZER.states_to_z(task.problem.states)
    expected = (imagined.visual[1, -1, 0] - stayed[1]).norm()
    assert episodes.divergence[1].tolist() == pytest.approx([expected.item()] * 2, rel=1e-4)


def test_no_iteration_begins_after_the_time_limit(monkeypatch):
    task, _ = point_task(gains=(0.0,))
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def half_a_minute_passes(_):
        now[0] += 30

    controller = MPCController(Scripted(1), max_iter=None, time_limit_minutes=2)
    episodes = task.start()
    controller.run(task, episodes, half_a_minute_passes)
    assert episodes.iteration == 5  # begun at 0, 30, 60, 90 and 120 seconds


@pytest.mark.parametrize(
    ("shrinking", "taken", "lengths", "executed"),
    [
        ("none", 2, [5, 5, 5, 5, 5], [2, 4, 6, 8, 10]),
        ("plan", 2, [5, 3, 1, 5, 3], [2, 4, 5, 7, 9]),
        ("plan", 1, [5, 4, 3, 2, 1], [1, 2, 3, 4, 5]),
        ("budget", 1, [5, 4, 3, 2, 1], [1, 2, 3, 4, 5]),
        ("budget", 2, [5, 5, 5, 4, 2], [2, 4, 6, 8, 10]),
    ],
)
def test_a_shrinking_horizon_plans_what_is_left(shrinking, taken, lengths, executed):
    """The rest of the old plan is where the next one starts, so only a full new plan has blocks of its own."""
    task, env = point_task(gains=(0.0, 0.0))
    task = replace(task, objective=GoalDistance("deadline"))
    scripted = Scripted(5)
    controller = MPCController(scripted, max_iter=5, n_taken_actions=taken, shrinking=shrinking)
    episodes = run(controller, task)
    assert [plan.shape[1] for plan in scripted.plans] == lengths
    assert controller.executed(5) == [0, *executed]
    assert episodes.played.shape[1] == executed[-1] * task.frameskip == len(env.executed) * task.frameskip
    for number, (_, start, _) in enumerate(scripted.given[1:]):
        left = scripted.plans[number][:, taken : taken + lengths[number + 1]]
        assert torch.equal(start[:, : left.shape[1]], left)


def test_each_iteration_says_what_it_minimised():
    task, _ = point_task(gains=(0.0,))
    task = replace(task, objective=GoalDistance("staged", base=0.5))
    scripted = Scripted(2)
    episodes = run(MPCController(scripted, max_iter=3), task)
    expected = ["last, alpha 1", "last, alpha 1", "all, base 0.5, alpha 1"]
    assert [record["objective"] for record in episodes.records] == expected
    assert [str(cost.objective) for cost, _, _ in scripted.given] == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_iter": None}, r"planner\.max_iter=null would never end.*planner\.time_limit_minutes"),
        ({"max_iter": 0}, r"planner\.max_iter must be at least 1, got 0"),
        ({"n_taken_actions": 0}, r"planner\.n_taken_actions must be in \[1, 3\], the horizon, got 0"),
        ({"n_taken_actions": 4}, r"planner\.n_taken_actions must be in \[1, 3\], the horizon, got 4"),
        ({"shrinking": "yes"}, r"planner\.shrinking must be one of none, plan, budget, got 'yes'"),
        (
            {"shrinking": "budget", "max_iter": None, "time_limit_minutes": 1},
            r"shrinking=budget needs planner\.max_iter",
        ),
        ({"time_limit_minutes": 0}, r"planner\.time_limit_minutes must be > 0 or null, got 0"),
    ],
    ids=str,
)
def test_wrong_settings_name_key_value_and_what_is_allowed(settings, message):
    with pytest.raises(ValueError, match=message):
        MPCController(Scripted(3), **settings)


def test_the_wall_from_images():
    """Real simulator, real images, a model that believes that nothing ever moves: it stays where it is."""
    env, model = WallVectorEnv(image_size=65), wall_model(moves=False)
    states, goals = env.sample_start_goal([1, 2, 3])
    goals[1] = states[1] + 1  # solved by staying
    problem = Problem([1, 2, 3], states, goals, env.default_layouts(3))
    observer = Observer(model, Normalizer.from_dict(WALL_NORMALIZER))
    goal = observer.present(env, env.reset(problem.seeds, goals, problem.layouts), torch.arange(3))
    encoded = batch_sizes(model.encoder)
    task = PlanningTask(env, observer, problem, goal, GoalDistance(), 0, 5)
    still = GDPlanner(horizon=2, opt_steps=2, action_noise=0.0, sample_type="zero")
    episodes = run(MPCController(still, max_iter=3), task)
    assert episodes.solved_at.tolist() == [0, 1, 0]
    torch.testing.assert_close(episodes.states, states, atol=1e-5, rtol=0)
    assert encoded == [3, 3, 2, 2]  # start, then what each iteration planned for
    images = env.render()
    expected = model.encode(images[:, None], observer.proprio(env, episodes.states)[:, None])
    rows = torch.tensor([0, 2])
    near(episodes.visual[rows], expected.visual[rows], 1e-6)


def test_a_history_is_kept_frame_by_frame():
    """``Episodes.observe`` by itself, for fewer, as many and more new frames than the history holds."""
    for taken in (1, 2, 3, 4):
        episodes = Episodes.begin(torch.zeros(2, 1), Latent(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1)), 1, 1)
        frames, actions = [0.0], []
        rows = torch.tensor([1])
        for _ in range(3):
            fresh = [frames[-1] + i + 1 for i in range(taken)]
            blocks = [value - 0.5 for value in fresh]
            frames, actions = frames + fresh, actions + blocks
            seen = torch.tensor(fresh[-3:]).view(1, -1, 1, 1)
            episodes.observe(rows, torch.tensor(blocks).view(1, -1, 1), Latent(seen, seen[..., 0]), limit=3)
            kept = frames[-3:]
            assert episodes.visual[1].flatten().tolist() == kept
            assert episodes.proprio[1].flatten().tolist() == kept
            assert episodes.past_actions[1].flatten().tolist() == actions[len(actions) - len(kept) + 1 :]


def test_a_model_that_sees_one_frame_needs_no_past():
    context, past = Episodes.begin(
        torch.zeros(2, 2), Latent(numbers(2, 1, 1, 2), numbers(2, 1, 2)), action_dim=4, env_action_dim=2
    ).context(torch.tensor([1]), None)
    assert torch.equal(context.visual, numbers(2, 1, 1, 2)[1:])
    assert past.shape == (1, 0, 4)


def test_a_resumed_simulator_goes_on_from_where_it_was_contacts_included():
    """PushT in the middle of a push: no state says all, and a reset to it would take a step."""
    start = torch.tensor([[190.0, 256.0, 256.0, 256.0, 0.5, 0.0, 0.0]], dtype=torch.float64)
    push = torch.tensor([0.3, 0.05]).expand(1, 40, 2)
    problem = Problem([0], start, start, {"shape": torch.zeros(1, 1, dtype=torch.long)})
    envs = [ProcessVectorEnv("envs.pusht.simulator:PushTSimulator", 64, num_workers=0) for _ in range(2)]
    envs[0].reset([0], start, problem.layouts)
    states = envs[0].step(push[:, :20])[:, -1]
    assert (states[:, 2:5] - start[:, 2:5]).abs().max() > 5, "the block moves"
    latent = Latent(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1))
    episodes = replace(Episodes.begin(states, latent, 10, 2), played=push[:, :20])
    PlanningTask.resume(SimpleNamespace(env=envs[1], problem=problem), episodes)
    assert torch.equal(episodes.states, states)
    assert torch.equal(envs[0].step(push[:, 20:]), envs[1].step(push[:, 20:]))


def test_the_point_model_is_exact():
    """Otherwise the tests above would show nothing."""
    task, env = point_task()
    blocks = numbers(3, 2, 4)
    imagined = point_model().rollout(
        task.observer.present(
            env, env.reset(task.problem.seeds, task.problem.states, task.problem.layouts), torch.arange(3)
        ),
        blocks,
    )
    env.step(POINT_NORMALIZER.actions_to_raw(blocks).reshape(3, 4, 2))
    near(imagined.visual[:, -1, 0], POINT_NORMALIZER.states_to_z(env.states), 1e-5)


def test_a_diverged_plan_waits_and_takes_no_other_episode_with_it():
    task, _ = point_task(gains=(1.0, 1.0, 1.0))
    action_dim = task.frameskip * task.env.env_action_dim
    plan = torch.ones(3, 2, action_dim)
    plan[0, 1, 0] = torch.nan
    controller = MPCController(Scripted(2, [plan]), max_iter=1, n_taken_actions=1)
    episodes = task.start()
    before = episodes.states.clone()
    controller.iterate(task, episodes)
    assert episodes.states.isfinite().all()
    assert torch.equal(episodes.states[0], before[0]), "it took the zero action"
    assert not torch.equal(episodes.states[1:], before[1:])
    assert episodes.warm_start.isfinite().all()


def test_what_an_encoder_gives_in_bf16_is_compared_in_float32():
    imagined, seen = (Latent(numbers(2, 1, 64, 8, seed=n).bfloat16(), numbers(2, 1, 3, seed=n)) for n in (1, 2))
    wide = [Latent(each.visual.float(), each.proprio) for each in (imagined, seen)]
    found = _distance(imagined, seen)
    assert found.dtype == torch.float32 and torch.equal(found, _distance(*wide))
