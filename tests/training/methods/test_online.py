"""The online method: its plans, its simulator, its windows."""

import random
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from envs.base import simulate
from envs.process_vector import ProcessVectorEnv
from envs.wall.vector_env import WallVectorEnv
from planning.planners.base import Planner
from planning.planners.gd import GDPlanner
from tests.builders import plan_of
from tests.training.tiny import STATE, build, changed, run, weights, without_times
from training.methods.adversarial import Adversarial
from training.methods.base import Method, TrainingContext
from training.methods.online import Online
from training.methods.replay_buffer import Corrected

ONLINE = ("method=online", "replay_buffer_frequency=2", "gd_opt_steps=2")
WITH_HISTORY = ("predictor=residual", "num_hist=3")


@pytest.fixture
def online(tmp_path):
    """Build a trainer with ``method=online`` on states, the quickest, or on images."""

    def make(*overrides, images=False):
        return build(tmp_path / "run", *(() if images else STATE), *ONLINE, *overrides)

    return make


def step_of(trainer, position=0, count=4):
    """Batch, latents and expert windows, as the trainer would hand them over."""
    batch = trainer.train_data.__getitems__(range(position, position + count))
    latent = trainer.train_step.latent(batch)
    return batch, latent, trainer.model.windows(latent, batch.actions)


class Given(Planner):
    """Returns the actions it was given, and remembers what it was asked."""

    def __init__(self, actions=None, horizon=5, look=None):
        super().__init__(horizon, 1)
        self.actions, self.look, self.asked = actions, look, []

    def optimize(self, cost, actions_init, noise, space=None):
        self.asked.append(cost)
        if self.look is not None:
            self.look(cost, actions_init)
        actions = actions_init if self.actions is None else self.actions
        return plan_of(actions)

    def _search(self, search, start, noise):
        raise AssertionError("optimize is overridden")


@pytest.mark.parametrize("images", [False, True])
def test_a_plan_that_repeats_the_data_set_gives_the_data_set_back(online, images):
    """Start, units of actions and proprio, layouts, frames and their order: all are right, or this fails."""
    training = online(images=images)
    batch, latent, _ = step_of(training)
    assert batch.layouts["fix_door_location"].unique().numel() > 1 or len(batch.trajectory.unique()) == 1
    training.method.corrector.planner = Given(batch.actions[:, :5])
    [corrected] = training.method.correct(batch, latent)
    assert corrected.features.shape == latent.visual.shape
    torch.testing.assert_close(corrected.features, latent.visual, rtol=0, atol=2e-3)
    torch.testing.assert_close(corrected.proprio, batch.proprio, rtol=0, atol=1e-4)
    torch.testing.assert_close(corrected.actions.flatten(1), batch.actions[:, :5].flatten(1))


def test_the_layouts_of_the_batch_reach_the_simulator(online):
    training = online(images=True)
    samples = torch.tensor([0, 11, 22, 33])  # of four trajectories
    batch = training.train_data.__getitems__(samples)
    assert len(batch.layouts["fix_wall_location"].unique()) > 1 and len(batch.layouts["fix_door_location"].unique()) > 1
    told, original = [], training.method.context.env.reset

    def noting(seeds, states, layouts=None):
        told.append(layouts)
        return original(seeds, states, layouts)

    training.method.context.env.reset = noting
    training.method.corrector.planner = Given(batch.actions[:, :5])
    [corrected] = training.method.correct(batch, training.train_step.latent(batch))
    assert len(told) == 1
    for name in ("fix_door_location", "fix_wall_location"):
        assert torch.equal(told[0][name], batch.layouts[name])
    torch.testing.assert_close(corrected.features, training.train_step.features(batch), rtol=0, atol=2e-3)


@pytest.mark.parametrize("history", [1, 3])
def test_no_window_mixes_and_every_one_is_a_transition_of_the_simulator(online, history):
    training = online(*(WITH_HISTORY if history == 3 else ()))
    batch, latent, expert = step_of(training)
    joined = training.method.windows(expert, batch, latent, position=0)
    count, per_trajectory = len(expert.actions), 6 - history
    for part in ("visual", "proprio"):
        assert torch.equal(getattr(joined.source, part)[:count], getattr(expert.source, part))
        assert torch.equal(getattr(joined.target, part)[:count], getattr(expert.target, part))
    assert torch.equal(joined.actions[:count], expert.actions)
    assert len(joined.actions) == count + 4 * per_trajectory  # all windows of the slot, in order
    normalizer, env = training.train_step.observer.normalizer, training.method.context.env

    def raw_states(visual):  # (W, 1, D), what encoder=state shows
        return (visual[:, 0] * normalizer.state_std + normalizer.state_mean).double()

    owner = torch.arange(4).repeat_interleave(per_trajectory)
    layouts = {name: value[owner] for name, value in batch.layouts.items()}
    for frame in range(history):
        env.reset([0] * len(owner), raw_states(joined.source.visual[count:, frame]), layouts)
        raw = normalizer.actions_to_raw(joined.actions[count:, frame]).unflatten(1, (5, 2))
        reached = env.step(raw)[:, -1]
        torch.testing.assert_close(raw_states(joined.target.visual[count:, frame]), reached, rtol=0, atol=1e-4)
        if frame + 1 < history:
            following = joined.source.visual[count:, frame + 1]
            torch.testing.assert_close(raw_states(following), reached, rtol=0, atol=1e-4)
    entry = training.method.replay.entries(0)[0]
    last = joined.target.visual[count:].unflatten(0, (4, per_trajectory))[:, -1, -1]
    assert torch.equal(last, entry.features[:, -1])  # the effect of the last block is learnt
    first = joined.source.visual[count:].unflatten(0, (4, per_trajectory))[:, 0, 0]
    assert torch.equal(first, entry.features[:, 0])


@pytest.mark.parametrize("horizon", [3, 5])
def test_the_goal_lies_as_many_blocks_ahead_as_the_planner_looks(online, horizon):
    training = online(f"method.planner.horizon={horizon}")
    batch, latent, expert = step_of(training)
    training.method.corrector.planner = planner = Given(horizon=horizon)
    training.method.windows(expert, batch, latent, 0)
    cost = planner.asked[0]
    assert torch.equal(cost.goal.visual, latent.visual[:, horizon : horizon + 1])
    assert torch.equal(cost.goal.proprio, training.model.proprio_encoder(batch.proprio[:, horizon : horizon + 1]))
    assert torch.equal(cost.context.visual, latent.visual[:, :1])
    assert cost.context.num_frames == 1 and cost.past_actions.shape[1] == 0
    assert training.method.replay.entries(0)[0].features.shape[1] == horizon + 1


def test_a_sample_too_short_for_the_goal_is_an_error_that_says_what_to_set(online, tmp_path):
    message = r"N=4: .*shorter than the 6 that method=online needs.*N to at least 5, or lower method\.planner\.horizon"
    with pytest.raises(ValueError, match=message):
        online("N=4")
    assert not (tmp_path / "run" / "checkpoints").exists()
    online("N=4", "method.planner.horizon=4")
    drawn = online("N=1", "method.tasks=random_state")  # its goals do not come from the sample
    drawn.method.windows(*reordered(step_of(drawn)), 0)


def test_a_plan_too_short_for_one_window_is_an_error(online):
    with pytest.raises(ValueError, match=r"method.planner.horizon must be at least num_hist=3.*got 2"):
        online(*WITH_HISTORY, "method.planner.horizon=2")


def reordered(step):
    batch, latent, expert = step
    return expert, batch, latent


def test_simulated_proprio_is_in_the_units_of_the_data_set(online):
    training = online()
    batch, latent, expert = step_of(training)
    training.method.windows(expert, batch, latent, 0)
    entry, normalizer = training.method.replay.entries(0)[0], training.train_step.observer.normalizer
    torch.testing.assert_close(entry.proprio[:, 0], batch.proprio[:, 0])
    raw = normalizer.actions_to_raw(entry.actions)
    states = simulate(training.method.context.env, [0] * 4, batch.states[:, 0], raw, batch.layouts).states[:, ::5]
    expected = (states.float() - normalizer.proprio_mean) / normalizer.proprio_std
    torch.testing.assert_close(entry.proprio, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tasks", ["batch", "random_state"])
def test_planning_leaves_the_global_generators_alone(online, tasks):
    training = online(f"method.tasks={tasks}")
    batch, latent, expert = step_of(training)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002  (watched)
    training.method.windows(expert, batch, latent, 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()
    training.method.windows(expert, batch, latent, 0)
    one, other = training.method.replay.entries(0)
    assert not torch.equal(one.actions, other.actions)  # another refresh, another draw


def test_the_model_plans_in_eval_mode_without_weight_gradients_and_is_put_back(online):
    training = online("predictor=residual", "predictor.dropout=0.5")
    model = training.model
    model.train()
    model.encoder.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and not modes["encoder"]
    seen = []

    def look(cost, actions):
        seen.append(True)
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        with torch.enable_grad():
            actions = actions.clone().requires_grad_()
            assert torch.equal(cost(actions[:, None]), cost(actions[:, None]))  # no dropout
            assert torch.autograd.grad(cost(actions[:, None]).sum(), actions)[0].isfinite().all()

    training.method.corrector.planner = Given(look=look)
    batch, latent, expert = step_of(training)
    training.method.windows(expert, batch, latent, 0)
    assert seen
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_model_is_put_back_even_if_planning_fails(online):
    training = online()
    training.model.train()
    batch, latent, expert = step_of(training)
    training.method.corrector.planner = Given(torch.full((4, 5, 10), float("nan")))
    with pytest.raises(ValueError, match=r"actions must be numbers, got NaN \(did the planner diverge\?\)"):
        training.method.windows(expert, batch, latent, 0)
    assert training.model.predictor.training
    assert any(parameter.requires_grad for parameter in training.model.parameters())
    assert len(training.method.replay) == 0


def test_a_diverging_plan_stops_training_before_the_update(online):
    training = online()
    before = weights(training.model)
    training.method.corrector.planner = Given(torch.full((4, 5, 10), float("nan")))
    with pytest.raises(ValueError, match=r"got NaN"):
        training.fit()
    assert not changed(before, weights(training.model))


@pytest.mark.parametrize(
    "choice",
    [
        (
            "planner@method.planner=cem",
            "method.planner.opt_steps=2",
            "method.planner.num_samples=8",
            "method.planner.topk=2",
        ),
        ("planner@method.planner=gd", "method.planner.optimizer_type=sgd", "method.planner.rollout_type=custom"),
    ],
)
def test_any_planner_proposes_the_actions(online, choice):
    training = online(*choice)
    assert training.method.planner.opt_steps == 2
    training.fit()
    assert training.step == 10 and len(training.method.replay) == 2 * 3 * 4


CLOSED = ("planner@method.planner=mpc_gd", "method.planner.sub_planner.opt_steps=3", "method.planner.max_iter=3")


@pytest.mark.parametrize("tasks", ["batch", "random_state"])
@pytest.mark.parametrize("images", [False, True])
def test_a_closed_loop_is_carried_out_as_in_an_evaluation(online, images, tasks):
    """What is kept is what the simulator did in all iterations, from the task's own start."""
    options = [o for o in CLOSED if images or "opt_steps" not in o]
    training = online(*options, "method.planner.n_taken_actions=2", f"method.tasks={tasks}", images=images)
    method, env = training.method, training.method.context.env
    batch, latent, _ = step_of(training)
    ran, run = [], method.corrector.loop.run
    method.corrector.loop.run = lambda task, episodes: (run(task, episodes), ran.append((task, episodes)))
    parts = method.correct(batch, latent)
    task, episodes = ran[0]
    normalizer = training.train_step.observer.normalizer
    env.reset(task.problem.seeds, task.problem.states, task.problem.layouts)
    visited = env.step(episodes.played)
    ended = torch.where(episodes.solved, episodes.solved_at, episodes.iteration)
    assert sum(len(part.actions) for part in parts) == len(batch)
    for part, iterations in zip(parts, ended.unique().tolist(), strict=True):
        rows, steps = ended == iterations, 10 * iterations
        assert part.actions.shape[1] == steps and part.features.shape[1] == 2 * iterations + 1
        torch.testing.assert_close(
            normalizer.actions_to_raw(part.actions), episodes.played[rows, :steps], atol=1e-5, rtol=1e-5
        )
        last = normalizer.proprio_to_z(env.proprio(visited[rows, steps - 1]))
        torch.testing.assert_close(part.proprio[:, -1], last, atol=1e-4, rtol=0)
    if tasks == "batch":
        assert torch.equal(task.problem.states, batch.states[:, 0])
        assert torch.equal(task.problem.goal_states, batch.states[:, 5])


def test_what_a_solved_episode_does_no_more_is_not_trained_on(online):
    training = online(*CLOSED[:1], "method.planner.max_iter=3", "method.planner.sub_planner.opt_steps=1")
    method, run = training.method, training.method.corrector.loop.run
    batch, latent, _ = step_of(training)

    def solve_some(task, episodes):
        run(task, episodes)
        episodes.solved_at[:] = torch.tensor([0, 1, 1, 2])

    method.corrector.loop.run = solve_some
    assert [part.actions.shape[:2] for part in method.correct(batch, latent)] == [(2, 5), (1, 10), (1, 15)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method.planner.budget_ms=15",), "budget_ms=15 makes plans depend on the machine"),
        ((CLOSED[0], "method.planner.time_limit_minutes=1"), "time_limit_minutes=1 makes plans depend on the machine"),
        (
            (CLOSED[0], "method.planner.max_iter=1", *WITH_HISTORY),
            "max_iter \\* n_taken_actions must be at least num_hist=3",
        ),
        (("method.planner.sample_type=initnet",), "planner.sample_type=proposal needs a model with a proposal"),
    ],
)
def test_planners_that_cannot_be_repeated_or_teach_nothing_are_refused(online, overrides, message):
    with pytest.raises(Exception, match=message):
        online(*overrides)


def test_a_closed_loop_replans_with_its_own_noise_at_every_refresh(online):
    training = online(*CLOSED[:1], "method.planner.max_iter=1", "method.planner.sub_planner.opt_steps=1")
    batch, latent, expert = step_of(training)
    training.method.windows(expert, batch, latent, 0)
    training.method.windows(expert, batch, latent, 0)
    first, second = training.method.replay.entries(0)
    assert not torch.equal(first.actions, second.actions)


def test_frame_stride_1_gives_a_window_at_every_offset(online):
    training = online("method.frame_stride=1")
    batch, latent, expert = step_of(training)
    training.method.windows(expert, batch, latent, 0)
    entry = training.method.replay.entries(0)[0]
    assert entry.features.shape[:2] == (4, 26)
    drawn = training.method._draw(0, at_most=1000)
    assert len(drawn.actions) == 4 * 21
    starts = drawn.source.visual.unflatten(0, (4, 21))[:, :, 0]
    assert torch.equal(starts, entry.features[:, :21])
    assert torch.equal(drawn.target.visual.unflatten(0, (4, 21))[:, :, 0], entry.features[:, 5:])
    for offset in (0, 7, 20):
        block = drawn.actions.unflatten(0, (4, 21))[:, offset, 0]
        assert torch.equal(block, entry.actions[:, offset : offset + 5].flatten(1))
    sampled = training.method._draw(0, at_most=20)
    assert len(sampled.actions) == 20
    with pytest.raises(ValueError, match=r"frame_stride must divide frameskip=5, got 2"):
        online("method.frame_stride=2")


def constant(value: float) -> Corrected:
    return Corrected(torch.full((4, 6, 1, 2), value), torch.full((4, 6, 2), value), torch.full((4, 25, 2), value), 5)


def test_later_epochs_replay_the_slot_of_the_batch(online):
    training = online("replay_buffer_frequency=3")
    method, (batch, latent, expert) = training.method, step_of(training)
    for slot in range(3):
        method.replay.add(slot, f"old{slot}", constant(10.0 + slot))
    for position, slot in ((1, 0), (2, 0), (4, 1), (8, 2)):
        joined = method.windows(expert, batch, latent, position)
        assert len(joined.actions) == 2 * len(expert.actions)
        assert (joined.source.visual[len(expert.actions) :] == 10 + slot).all()
    assert len(method.replay.entries(None)) == 3  # none of these positions refreshes
    method.windows(expert, batch, latent, 3)
    assert len(method.replay.entries(1)) == 2
    empty = method.windows(expert, batch, latent, 10)
    assert len(empty.actions) == len(expert.actions)


def test_replay_from_the_whole_memory_reaches_all_of_it(online):
    training = online("replay_buffer_frequency=3", "method.replay_sampling=all")
    method, (batch, latent, expert) = training.method, step_of(training)
    for slot in range(3):
        method.replay.add(slot, f"old{slot}", constant(10.0 + slot))
    seen = set()
    for _ in range(5):
        joined = method.windows(expert, batch, latent, 1)
        assert len(joined.actions) == 2 * len(expert.actions)
        seen |= set(joined.source.visual[len(expert.actions) :].unique().tolist())
    assert seen == {10.0, 11.0, 12.0}


def test_random_tasks_are_those_of_an_evaluation_in_the_layouts_of_the_batch(online, monkeypatch):
    training = online("method.tasks=random_state", "method.replay_capacity=8")
    method, env = training.method, training.method.context.env
    batch, latent, _ = step_of(training)
    asked, original = [], env.sample_start_goal
    monkeypatch.setattr(
        env, "sample_start_goal", lambda seeds, layouts: asked.append((seeds, layouts)) or original(seeds, layouts)
    )
    costs = []
    for _ in range(2):
        method.corrector.planner = Given()
        [corrected] = method.correct(batch, latent)
        costs.append(method.planner.asked[0])
        seeds, layouts = asked[-1]
        assert all(torch.equal(layouts[name], batch.layouts[name]) for name in batch.layouts)
        starts, goals = original(seeds, layouts)
        for latent, states in ((costs[-1].context, starts), (costs[-1].goal, goals)):
            torch.testing.assert_close(
                latent.visual[:, 0, 0], training.train_step.observer.normalizer.states_to_z(states)
            )
        torch.testing.assert_close(corrected.features[:, 0], costs[-1].context.visual[:, 0])
    assert set(asked[0][0]).isdisjoint(asked[1][0])
    assert not torch.equal(costs[0].goal.visual, costs[1].goal.visual)


def test_the_memory_is_bounded_and_its_size_reported(online):
    training = online("method.replay_capacity=9")
    training.fit()
    assert len(training.method.replay) == 8  # two refreshes of four; a third would not fit
    report = training.method.updated()
    size = 8 * (6 * 2 + 6 * 2 + 25 * 2) * 4
    assert report == {"replay_trajectories": 8.0, "replay_megabytes": pytest.approx(size / 2**20)}
    assert '"replay_trajectories": 8.0' in training.logger.path.read_text().splitlines()[-2]
    stored = {path.stem for path in (training.folder / "replay").iterdir()}
    assert stored == {"00000004", "00000005"}  # the last two of 2 x 3 refreshes


def test_each_frame_is_encoded_once(online):
    training = online(images=True)
    encoded = []
    training.model.encoder.register_forward_hook(lambda module, given, found: encoded.append(given[0].flatten(0, -4)))
    training.method.corrector.planner = GDPlanner(opt_steps=3)
    training.train_step(training.train_data.__getitems__(range(4)))
    assert sum(len(frames) for frames in encoded) == 4 * 6 + 4 * 6  # the batch's, the simulator's; planning none
    assert {frames.dtype for frames in encoded} == {torch.uint8}


@pytest.mark.parametrize("images", [False, True])
def test_only_frames_that_the_model_sees_are_drawn(online, images, monkeypatch):
    training = online(images=images)
    drawn, render = [], training.method.context.env.render
    monkeypatch.setattr(training.method.context.env, "render", lambda: drawn.append(render()) or drawn[-1])
    training.train_step(training.train_data.__getitems__(range(4)))
    assert sum(len(frames) for frames in drawn) == (4 * 6 if images else 0)  # of 26 states each


OVERLAPPING = (
    "method.overlap=true",
    "replay_buffer_frequency=1",
    "method.replay_sampling=all",
    "training.max_batches=3",
)


def test_what_a_refresh_shows_is_learnt_from_the_next_batch_on(online):
    training = online(*OVERLAPPING)
    counts, predict = [], training.model.prediction_loss
    training.model.prediction_loss = lambda predicted, target: (
        counts.append(len(predicted)) or predict(predicted, target)
    )
    for position in range(2):
        training.method.period = 2
        training.train_step(training.train_data.__getitems__(range(4)), position)
    assert counts == [20, 40]


def test_the_simulator_plays_while_the_batch_trains(online, monkeypatch):
    training = online(*OVERLAPPING)
    env, training_began = training.method.context.env, threading.Event()
    rollout, losses = env.rollout, training.method.loss
    monkeypatch.setattr(env, "rollout", lambda *given: training_began.wait(60) and rollout(*given))
    monkeypatch.setattr(training.method, "loss", lambda windows: training_began.set() or losses(windows))
    training.train_step(training.train_data.__getitems__(range(4)))
    assert len(training.method.replay) == 4


@pytest.mark.parametrize("seconds", [None, 0.0, 0.2])
def test_overlapping_depends_on_no_timing(tmp_path, monkeypatch, seconds):
    """``None`` plays before the batch trains, in the same thread."""
    reference = run(tmp_path / "overlapping", *ONLINE, *OVERLAPPING)
    playing = build(tmp_path / "other", *ONLINE, *OVERLAPPING)
    method, simulate_plans = playing.method, playing.method.corrector.play
    if seconds is None:
        monkeypatch.setattr(method._thread, "submit", lambda play, *given: _done(play(*given)))
    else:
        monkeypatch.setattr(method.corrector, "play", lambda *given: time.sleep(seconds) or simulate_plans(*given))
    playing.fit()
    assert without_times(playing.folder / "logs.json") == without_times(reference.folder / "logs.json")
    assert not changed(weights(playing.model), weights(reference.model))
    plain = run(tmp_path / "plain", *ONLINE, *OVERLAPPING[1:])
    assert changed(weights(plain.model), weights(reference.model)) == {"predictor", "action_encoder"}


def _done(result):
    future = Future()
    future.set_result(result)
    return future


def test_simulators_of_this_process_do_not_overlap(online, monkeypatch):
    monkeypatch.setattr(WallVectorEnv, "plays_in_background", False)
    with pytest.raises(ValueError, match=r"method.overlap=true needs simulators in processes of their own"):
        online(*OVERLAPPING)
    assert not ProcessVectorEnv("envs.pusht.simulator:PushTSimulator", num_workers=0).plays_in_background
    assert ProcessVectorEnv("envs.pusht.simulator:PushTSimulator", num_workers=1).plays_in_background


def test_a_shorter_history_is_seen_by_the_mask_not_made_up(online):
    """With H = 3 the predictor is trained on 1, 2 and 3 frames of a plan, as a rollout meets them."""
    training = online(*WITH_HISTORY)
    batch, latent, expert = step_of(training)
    joined = training.method.windows(expert, batch, latent, 0)
    model = training.model.eval()
    with torch.no_grad():
        model.predictor.head.weight.normal_(std=0.1)
        tokens = model.tokens(joined.source, joined.actions)[-3:]
        full = model.predict_tokens(tokens)
        for seen in (1, 2):
            torch.testing.assert_close(model.predict_tokens(tokens[:, :seen]), full[:, :seen])


@pytest.mark.parametrize("overrides", [(), WITH_HISTORY])
def test_it_trains(online, overrides):
    training = online(*overrides)
    before = weights(training.model)
    training.fit()
    assert "predictor" in changed(before, weights(training.model))
    assert training.epoch_batches == (2 if overrides else 5)  # longer samples leave fewer
    assert training.method._refreshes == 2 * (1 if overrides else 3)  # at every second batch, from the first on


def test_online_and_adversarial_compose(online, tmp_path):
    class Both(Online, Adversarial):
        """Corrected trajectories, perturbed too."""

    training = online()
    method = Both(planner=Given(), objective=training.method.corrector.objective, visual_eps_factor=0.5)
    method.setup(
        TrainingContext(training.model, training.train_step.observer, training.method.context.env, 5, 0, tmp_path / "b")
    )
    batch, latent, expert = step_of(training)
    windows = method.windows(expert, batch, latent, 0)
    assert len(windows.actions) == 2 * len(expert.actions)
    assert method.loss(windows).total > Method.loss(method, windows).total
    again = Both(planner=Given(), objective=training.method.corrector.objective, visual_eps_factor=0.5)
    again.setup(
        TrainingContext(training.model, training.train_step.observer, training.method.context.env, 5, 3, tmp_path / "b")
    )
    again.load_state_dict(method.state_dict())
    one, two = (each.windows(expert, batch, latent, 1) for each in (method, again))
    assert torch.equal(one.actions, two.actions)
    assert torch.equal(method.loss(one).total, again.loss(two).total)
    assert set(method.updated()) == {
        "replay_trajectories", "replay_megabytes", "visual_eps", "proprio_eps", "action_eps"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("replay_buffer_frequency=0", "replay_buffer_frequency=0 must be a whole number, at least 1"),
        ("method.tasks=hard", "method.tasks must be one of batch, random_state, got 'hard'"),
        ("method.replay_sampling=some", "method.replay_sampling must be one of slot, all, got 'some'"),
        ("method.replay_capacity=0", "method.replay_capacity=0 must be a whole number, at least 1"),
        ("method.replay_capacity=3", "method.replay_capacity=3 is less than one refresh of 4 trajectories"),
    ],
)
def test_settings_that_mean_nothing_are_refused(online, override, message):
    with pytest.raises(Exception) as caught:
        online(override).fit()
    assert message in str(caught.value)


def test_the_plan_is_better_than_its_start_under_the_model(online):
    """Gradient planning really runs inside the method: the plan's cost falls."""
    training = online("method.planner.opt_steps=20")
    training.fit()
    plans = []
    planner = training.method.planner

    class Noting(GDPlanner):
        def optimize(self, cost, actions_init, noise, space=None):
            plan = super().optimize(cost, actions_init, noise, space)
            plans.append((cost(actions_init[:, None]), plan.cost))
            return plan

    training.method.corrector.planner = Noting(
        opt_steps=20, lr=planner.descent.lr, action_noise=planner.descent.action_noise
    )
    batch, latent, expert = step_of(training)
    training.method.windows(expert, batch, latent, 0)
    before, after = plans[0]
    assert after.mean() < 0.5 * before.mean()
