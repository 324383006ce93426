"""The Wall against recordings of the original, and the properties the planners rely on."""

import itertools

import numpy as np
import pytest
import torch

from envs.base import simulate
from envs.wall import render as wall_render
from envs.wall import vector_env as wall_module
from envs.wall.vector_env import WallVectorEnv
from tests.builders import render_wall

NUM_CASES = 38
DOOR_AND_WALL = ("fix_door_location", "fix_wall_location")


@pytest.fixture
def recorded(golden):
    with np.load(golden("wall.npz")) as data:
        return {
            key: torch.from_numpy(data[key]) if data[key].dtype.kind in "fiub" else data[key].tolist() for key in data
        }


def layouts(door, wall):
    return {"fix_door_location": door.reshape(-1, 1), "fix_wall_location": wall.reshape(-1, 1)}


def random_episodes(count, dtype=torch.float64, num_steps=10):
    """States all over both rooms and the wall, layouts of every kind, actions up to several times the usual."""
    generator = torch.Generator().manual_seed(0)
    states = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 54 + 5).to(dtype)
    door = torch.randint(10, 55, (count,), generator=generator)
    wall = torch.randint(20, 45, (count,), generator=generator)
    actions = 2 * torch.randn(count, num_steps, 2, generator=generator)
    return states, layouts(door, wall), actions


def sampled_episodes(seeds, wall=32.0):
    env = WallVectorEnv(65, wall=wall)
    states = env.sample_start_goal(seeds)[0]
    env.reset(seeds, states)
    return env, states


def test_single_steps_are_those_of_the_original_to_the_last_bit(recorded):
    env = WallVectorEnv(65)
    env.reset(range(6000), recorded["ss_pos"], layouts(recorded["ss_door"], recorded["ss_wall"]))
    assert torch.equal(env.step(recorded["ss_action"][:, None])[:, 0], recorded["ss_next"])


@pytest.mark.parametrize("case", range(NUM_CASES))
def test_trajectories_are_those_of_the_original(recorded, case):
    name = recorded["case_names"][case]
    dtype = getattr(torch, recorded["init_dtype"][case])
    start, actions, expected = (recorded[key][case][None] for key in ("init", "actions", "states"))
    layout = layouts(recorded["door"][case], recorded["wall"][case])
    visited = simulate(WallVectorEnv(65), [0], start.to(dtype), actions, layout).states
    assert visited.dtype == dtype
    assert visited.isfinite().all()
    if name == "vertical_exact_nan":  # mended: see test_vertical_moves_meet_the_border_like_all_others
        visited, expected = visited[:, :15], expected[:, :15]
    tolerance = 1e-4 if dtype == torch.float32 else 1e-5
    torch.testing.assert_close(visited.double(), expected, atol=tolerance, rtol=0.0)


def test_vertical_moves_meet_the_border_like_all_others():
    env = WallVectorEnv(65)
    env.reset([0], torch.tensor([[20.0, 56.5]], dtype=torch.float64))
    visited = env.step(torch.tensor([[[0.0, 1.0], [0.0, 1.0], [0.0, -1.0]]]))
    # A slanted move rebounds by half a pixel across the line and by +0.5 along it; so does this one.
    assert visited[0].tolist() == [[20.0, 58.5], [20.5, 59.5], [20.5, 57.5]]


def test_vertical_moves_meet_the_edges_of_the_door():
    env = WallVectorEnv(65)  # door rows 26 to 34
    env.reset([0, 1], torch.tensor([[32.0, 33.0], [32.0, 27.0]], dtype=torch.float64))
    visited = env.step(torch.tensor([[[0.0, 1.0]], [[0.0, -1.0]]]))
    assert visited[:, 0].tolist() == [[32.5, 33.5], [32.5, 26.5]]


@pytest.mark.parametrize(
    ("start", "action", "expected"),
    [
        ((6.0, 20.0), (-1.0, 0.0), (4.5, 20.5)),  # touching a line is meeting it
        ((59.0, 5.0), (1.0, -1.0), (59.7, 4.5)),  # a corner: the y limit wins the tie, then x is clipped
        ((32.0, 34.0), (0.0, 1.0), (32.0, 36.0)),  # who starts on the door's edge does not meet it
    ],
)
def test_ties_are_decided_as_specified(start, action, expected):
    env = WallVectorEnv(65)
    env.reset([0], torch.tensor([start], dtype=torch.float64))
    assert env.step(torch.tensor([[action]]))[0, 0].tolist() == list(expected)


def test_native_images_are_exact(recorded):
    door, wall = recorded["img_layout"].T
    frames = render_wall(recorded["img_pos"], layouts(door, wall))
    assert frames.dtype == torch.uint8
    assert torch.equal(frames, recorded["img65"])


def test_enlarged_images(recorded):
    door, wall = recorded["img_layout"].T
    frames = render_wall(recorded["img_pos"], layouts(door, wall), image_size=224)
    assert frames.dtype == torch.float32
    torch.testing.assert_close(frames.permute(0, 2, 3, 1), recorded["img224"], atol=1e-3, rtol=0.0)


def test_each_episode_has_its_own_door_and_wall_in_the_image():
    states = torch.full((3, 2), 12.0)
    layout = layouts(torch.tensor([20.0, 20.0, 40.0]), torch.tensor([24.0, 40.0, 24.0]))
    red = render_wall(states, layout)[:, 0]
    columns, rows = torch.tensor([24, 40, 24]), torch.tensor([20, 20, 40])
    episodes = torch.arange(3)
    assert (red[episodes, rows, columns] == 255).all()
    assert (red[episodes, rows + 4, columns - 3] == 255).all()
    assert (red[episodes, rows - 5, columns + 3] == 0).all()
    assert (red[episodes, rows + 5, columns] == 0).all()
    assert (red[episodes, rows + 5, columns + 4] == 255).all()
    only_doors_differ = render_wall(states[[0, 2]], {key: value[[0, 2]] for key, value in layout.items()})[:, 0]
    assert torch.equal(only_doors_differ, red[[0, 2]])


def test_shrunk_images_lose_no_line():
    states = torch.tensor([[45.0, 20.0]])
    native, small = (render_wall(states, WallVectorEnv(65).default_layouts(1), size).float() for size in (65, 13))
    torch.testing.assert_close(small.mean((2, 3)), native.mean((2, 3)), atol=2.0, rtol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drawing_only_a_patch_loses_nothing(dtype):
    """Against the formula over the whole picture, dots at and beyond the edges of the image included."""
    generator = torch.Generator().manual_seed(0)
    states = (torch.rand(400, 2, generator=generator, dtype=torch.float64) * 80 - 8).to(dtype)
    states[:8] = torch.tensor(list(itertools.product((6.5, 57.5, 30.0), repeat=2))[:8], dtype=dtype)
    pixel = torch.arange(65, dtype=torch.float64)
    x, y = states.double().T[:, :, None, None]
    bell = torch.exp(((pixel - x) ** 2 + (pixel[:, None] - y) ** 2) / (-2 * 1.7**2))
    expected = 255 - (255 * (bell / bell.amax((1, 2), keepdim=True))).to(torch.uint8)
    frames = render_wall(states, WallVectorEnv(65).default_layouts(400))
    white = frames[:, 0] == 255
    assert torch.equal(frames[:, 1][white], expected[white])
    assert torch.equal(frames[:, 1], frames[:, 2])
    assert (frames[:, 1][~white] == 0).all()


def test_images_of_the_environment_follow_layout_and_size():
    states, layout, actions = random_episodes(5)
    for size in (65, 32, 100):
        env = WallVectorEnv(size)
        env.reset(range(5), states, layout)
        visited = env.step(actions)
        assert torch.equal(env.render(), render_wall(visited[:, -1], layout, size))
        assert env.render().shape == (5, 3, size, size)
        env.reset(range(5), states)  # the walls are drawn anew
        assert torch.equal(env.render(), render_wall(states, env.default_layouts(5), size))


def test_only_some_episodes_can_be_drawn():
    states, layout, _ = random_episodes(9)
    env = WallVectorEnv(65)
    env.reset(range(9), states, layout)
    rows = torch.tensor([7, 0, 3])
    assert torch.equal(env.render(rows), env.render()[rows])
    assert env.render(rows[:0]).shape == (0, 3, 65, 65)


def test_sampling(recorded):
    start, goal = WallVectorEnv(65).sample_start_goal(recorded["sample_seed"].tolist())
    assert torch.equal(start, recorded["sample_init"])
    assert torch.equal(goal, recorded["sample_goal"])


def test_sampling_follows_the_layout_where_the_original_did_not(recorded):
    seeds = recorded["sample_seed"][:20].tolist()
    stale_start, stale_goal = WallVectorEnv(65).sample_start_goal(seeds)  # rooms of wall 32
    assert torch.equal(stale_start, recorded["sample_init_stale"])  # what the original drew for wall 24
    assert torch.equal(stale_goal, recorded["sample_goal_stale"])
    wall = torch.full((20, 1), 24.0)
    start, goal = WallVectorEnv(65).sample_start_goal(seeds, {"fix_wall_location": wall})
    in_left, in_right = ((x >= 7.4) & (x <= 17.6) for x in (start[:, 0], goal[:, 0]))
    assert (in_left ^ in_right).all()
    right = torch.where(in_left, goal[:, 0], start[:, 0])
    assert ((right >= 30.4) & (right <= 56.6)).all()
    stale_left = torch.minimum(stale_start[:, 0], stale_goal[:, 0])
    assert (stale_left > 17.6).any()  # i.e. inside the wall, which starts at 21, or next to it


def test_success(recorded):
    outcome = WallVectorEnv(65).success(recorded["eval_cur"], recorded["eval_goal"])
    assert torch.equal(outcome.success, recorded["eval_success"])
    assert torch.equal(outcome.state_dist, recorded["eval_state_dist"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("image_size", [65, 96])
def test_a_batch_equals_its_episodes_run_alone(dtype, image_size):
    states, layout, actions = random_episodes(40, dtype)
    env = WallVectorEnv(image_size)
    together = simulate(env, range(40), states, actions, layout, frame_every=5)
    for i in range(40):
        one = slice(i, i + 1)
        own_layout = {key: value[one] for key, value in layout.items()}
        alone = simulate(env, [i], states[one], actions[one], own_layout, frame_every=5)
        assert torch.equal(alone.states, together.states[one])
        assert torch.equal(alone.frames, together.frames[one])


def test_taking_a_large_batch_in_parts_changes_nothing(monkeypatch):
    states, layout, actions = random_episodes(100)
    env = WallVectorEnv(65)
    at_once = simulate(env, range(100), states, actions, layout, frame_every=10)
    monkeypatch.setattr(wall_module, "EPISODES_AT_ONCE", 7)
    monkeypatch.setattr(wall_render, "DOTS_AT_ONCE", 11)
    in_parts = simulate(env, range(100), states, actions, layout, frame_every=10)
    assert torch.equal(in_parts.states, at_once.states)
    assert torch.equal(in_parts.frames, at_once.frames)


def test_a_block_equals_its_single_steps():
    states, layout, actions = random_episodes(500)
    env = WallVectorEnv(65)
    env.reset(range(500), states, layout)
    block = env.step(actions)
    env.reset(range(500), states, layout)
    single = [env.step(actions[:, k : k + 1]) for k in range(actions.shape[1])]
    assert torch.equal(torch.cat(single, 1), block)
    assert (block != states[:, None]).any(2).all()  # and something happened


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_actions_keep_reachable_states(dtype):
    env, states = sampled_episodes(range(200))
    states = env.reset(range(200), states.to(dtype))
    reached = env.step(torch.randn(200, 40, 2, generator=torch.Generator().manual_seed(0)))[:, -1]
    assert torch.equal(env.step(torch.zeros(200, 5, 2)), reached[:, None].expand(-1, 5, -1))
    assert not torch.equal(states, reached)


def test_reachable_states_are_inside_the_border_and_outside_the_wall():
    env, _ = sampled_episodes(range(300), wall=24.0)
    visited = env.step(3 * torch.randn(300, 100, 2, generator=torch.Generator().manual_seed(0)))
    assert ((visited > 4) & (visited < 60)).all()
    x, y = visited.unbind(2)
    assert not (((x - 24).abs() < 3) & ((y - 30).abs() > 4)).any()
    rooms = x > 24
    assert (rooms[:, 0] != rooms[:, -1]).any()  # some went through the door


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_stay_finite_for_every_action(dtype):
    limits = torch.finfo(torch.float32)
    steps = [0.0, 1.0, 20.0, 1e-7, 1e-30, limits.smallest_normal, 1e9, limits.max, float("inf")]
    components = [sign * step for step in steps for sign in (1, -1)]
    places = [4.0, 4.3, 20.0, 28.5, 29.0, 32.0, 35.0, 59.7, 60.0, 26.0, 34.0]
    episodes = list(itertools.product(places, places, components, components))
    values = torch.tensor(episodes, dtype=dtype)
    env = WallVectorEnv(65)
    env.reset(range(len(values)), values[:, :2].contiguous())
    visited = env.step(values[:, None, 2:].float().repeat(1, 3, 1))
    assert visited.isfinite().all()


def test_simulate_renders_only_the_frames_asked_for(monkeypatch):
    states, layout, actions = random_episodes(3)
    env = WallVectorEnv(65)
    calls, render = [], env.render
    monkeypatch.setattr(env, "render", lambda: calls.append(1) or render())
    trajectory = simulate(env, range(3), states, actions, layout, frame_every=5)
    assert len(calls) == 3
    for frame, step in enumerate((0, 5, 10)):
        assert torch.equal(trajectory.frames[:, frame], render_wall(trajectory.states[:, step], layout))
    assert simulate(env, range(3), states, actions, layout).frames is None
    assert len(calls) == 3


def test_returned_states_are_the_callers_own():
    env, states = sampled_episodes([0])
    given = states.clone()
    started = env.reset([0], given)
    given += 1
    assert torch.equal(started, states)
    started += 1
    visited = env.step(torch.zeros(1, 1, 2))
    assert torch.equal(visited[:, 0], states)
    visited += 1
    assert torch.equal(env.step(torch.zeros(1, 1, 2))[:, 0], states)


def test_constructor_defaults_reach_dynamics_and_sampling():
    env = WallVectorEnv(65, door=20, wall=24)
    assert [env.default_layouts(2)[key].tolist() for key in DOOR_AND_WALL] == [[[20.0]] * 2, [[24.0]] * 2]
    env.reset([0, 0], torch.tensor([[20.0, 40.0], [20.0, 20.0]]))
    visited = env.step(torch.ones(2, 1, 2) * torch.tensor([2.0, 0.0]))
    assert visited[:, 0].tolist() == [[20.5, 40.5], [24.0, 20.0]]  # stopped by the face at 21; through the door


def test_proprio_is_the_state_in_float32():
    states = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    assert WallVectorEnv(65).proprio(states).dtype == torch.float32
    assert torch.equal(WallVectorEnv(65).proprio(states).double(), states)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"fix_door": torch.ones(1, 1)}, "fix_door"),
        ({"fix_wall_location": torch.full((1, 1), 3.0)}, "fix_wall_location must be in"),
        ({"fix_door_location": torch.full((1, 1), float("nan"))}, "fix_door_location must be in"),
        ({"fix_door_location": torch.full((2, 1), 30.0)}, r"must be \(1, 1\)"),
    ],
)
def test_bad_layouts_are_named(layout, message):
    with pytest.raises(ValueError, match=message):
        WallVectorEnv(65).reset([0], torch.full((1, 2), 20.0), layout)


def test_bad_input_is_named():
    env = WallVectorEnv(65)
    with pytest.raises(RuntimeError, match="call reset"):
        env.render()
    with pytest.raises(ValueError, match="one per seed"):
        env.reset([0, 1], torch.full((1, 2), 20.0))
    with pytest.raises(ValueError, match="float32 or float64"):
        env.reset([0], torch.full((1, 2), 20))
    with pytest.raises(ValueError, match="must be finite"):
        env.reset([0], torch.tensor([[20.0, float("inf")]]))
    with pytest.raises(ValueError, match="leaves no room"):
        env.sample_start_goal([0], {"fix_wall_location": torch.full((1, 1), 10.0)})
    with pytest.raises(ValueError, match="image_size"):
        WallVectorEnv(0)
    with pytest.raises(ValueError, match="fix_wall_location"):
        WallVectorEnv(65, wall=60)
    env.reset([0, 1], torch.full((2, 2), 20.0))
    with pytest.raises(ValueError, match=r"\(2, K, 2\)"):
        env.step(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"NaN.*episodes \[1\]"):
        env.step(torch.tensor([[[0.0, 0.0]], [[0.0, float("nan")]]]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees_with_the_cpu():
    states, layout, actions = random_episodes(300)
    cpu, gpu = (
        simulate(WallVectorEnv(65, device=device), range(300), states, actions, layout, frame_every=5)
        for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(gpu.states.cpu(), cpu.states, atol=1e-9, rtol=0.0)
    assert (gpu.frames.cpu().int() - cpu.frames.int()).abs().max() <= 1
