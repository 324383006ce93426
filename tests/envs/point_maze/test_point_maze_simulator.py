"""PointMaze against recordings of the original, and the properties that data and planners rely on."""

import subprocess
import sys

import mujoco
import numpy as np
import pytest

from envs.opengl import OpenGLError, graphics
from envs.point_maze import model as point_maze_model
from envs.point_maze.mazes import U_MAZE
from envs.point_maze.render import MazeRenderer, maze_renderer
from envs.point_maze.simulator import PointMazeSimulator

NUM_CASES = 14
TOLERANCE = 1e-8
START = np.array([0.8, 0.8, 0.0, 0.0])


@pytest.fixture
def recorded(golden):
    with np.load(golden("point_maze.npz")) as data:
        return dict(data)


@pytest.fixture
def opengl():
    try:
        return graphics()
    except OpenGLError as error:
        pytest.skip(str(error))


def play(start, actions, image_size=224):
    """The simulator at the end of an episode, and its states (K + 1, 4)."""
    simulator = PointMazeSimulator(image_size)
    return simulator, np.vstack([simulator.reset(start, {}), simulator.step(actions)])


def random_play(simulator, seed, num_steps):
    simulator.reset(simulator.sample_start_goal(seed)[0], {})
    return simulator.step(np.random.default_rng(seed).uniform(-1, 1, (num_steps, 2)).astype(np.float32))


def largest_errors(data):
    """Over all trajectories, and over all single steps."""
    trajectories = (play(start, actions)[1] for start, actions in zip(data["init"], data["actions"], strict=True))
    single = (
        play(state, action[None])[1][1] for state, action in zip(data["ss_state"], data["ss_action"], strict=True)
    )
    return abs(np.stack(list(trajectories)) - data["qstate"]).max(), abs(np.stack(list(single)) - data["ss_next"]).max()


def assert_same_image(image, expected, driver):
    if "llvmpipe" in driver:
        assert np.array_equal(image, expected)
    else:  # another rasteriser: edges and texture filtering differ
        assert abs(image.astype(float) - expected).mean() < 0.5


@pytest.mark.parametrize("case", range(NUM_CASES))
def test_trajectories_are_those_of_the_original(recorded, case):
    states = play(recorded["init"][case], recorded["actions"][case])[1]
    assert states.dtype == np.float64
    np.testing.assert_allclose(states, recorded["qstate"][case], atol=TOLERANCE, rtol=0)


def test_single_steps_are_those_of_the_original(recorded):
    assert largest_errors(recorded)[1] < TOLERANCE


def test_all_that_was_recorded(shared_golden):
    with np.load(shared_golden("envs/pointmaze.npz")) as data:
        assert max(largest_errors(dict(data))) < TOLERANCE


@pytest.mark.parametrize("correction", ["margin", "inverse mass"])
def test_without_the_corrections_contacts_would_be_wrong(recorded, monkeypatch, correction):
    """What the tests above are good for; should MuJoCo take one of the changes back, this one says so."""
    if correction == "margin":
        xml = point_maze_model.maze_xml(U_MAZE).replace('margin="0.001"', 'margin="0.002"')
        monkeypatch.setattr(point_maze_model, "maze_xml", lambda maze: xml)
    wrong = point_maze_model.maze_model.__wrapped__(U_MAZE)
    if correction == "inverse mass":
        wrong.body_invweight0[1, 0] *= 3 / 2
    monkeypatch.setattr("envs.point_maze.simulator.maze_model", lambda maze: wrong)
    in_trajectories, in_steps = largest_errors(recorded)
    assert in_trajectories > 1
    assert in_steps > 0.01


def test_sampling(recorded):
    drawn = [PointMazeSimulator.sample_start_goal(seed) for seed in recorded["sample_seed"].tolist()]
    starts, goals = (np.stack(states) for states in zip(*drawn, strict=True))
    assert np.array_equal(starts, recorded["sample_init"])
    assert np.array_equal(goals, recorded["sample_goal"])


def test_success(recorded):
    success, state_dist = PointMazeSimulator.compare(recorded["eval_cur"], recorded["sample_goal"])
    assert np.array_equal(success, recorded["eval_success"])
    assert success.any() and not success.all()
    np.testing.assert_allclose(state_dist, recorded["eval_state_dist"], atol=1e-12, rtol=0)


def test_velocities_do_not_count_for_success_but_for_the_distance():
    states = np.array([[1.0, 1.0, 5.0, 0.0], [1.0, 1.5, 0.0, 0.0]])
    success, state_dist = PointMazeSimulator.compare(states, np.array([[1.0, 1.0, 2.0, 4.0], [1.0, 1.0, 0.0, 0.0]]))
    assert success.tolist() == [True, False]  # half a metre is too far
    assert state_dist.tolist() == [5.0, 0.5]


def test_a_block_equals_its_single_steps():
    simulator = PointMazeSimulator()
    block = random_play(simulator, 3, 60)
    simulator.reset(simulator.sample_start_goal(3)[0], {})
    actions = np.random.default_rng(3).uniform(-1, 1, (60, 2)).astype(np.float32)
    single = [simulator.step(actions[k : k + 1]) for k in range(60)]
    assert np.array_equal(np.concatenate(single), block)
    assert simulator.step(actions[:0]).shape == (0, 4)


def test_episodes_do_not_depend_on_what_was_simulated_before_or_meanwhile():
    used, fresh, other = PointMazeSimulator(), PointMazeSimulator(), PointMazeSimulator()
    random_play(used, 1, 100)
    random_play(other, 2, 1)
    used.reset(START, {})
    fresh.reset(START, {})
    pushes = np.tile(np.float32([-1.0, 0.3]), (5, 1))  # against a wall
    for _ in range(8):
        states = used.step(pushes)
        other.step(pushes)
        assert np.array_equal(states, fresh.step(pushes))
    other.close()
    assert np.array_equal(used.step(pushes), fresh.step(pushes))


def test_actions_and_speed_are_limited():
    far, near = (play(START, np.full((6, 2), push, np.float32))[1] for push in (7.0, 1.0))
    assert np.array_equal(far, near)
    fast, top = (play([0.8, 0.8, 0.0, speed], np.zeros((1, 2)))[1][1] for speed in (20.0, 5.0))
    assert np.array_equal(fast, top)


def test_the_ball_stays_inside_the_maze():
    simulator = PointMazeSimulator()
    states = np.concatenate([random_play(simulator, seed, 100) for seed in range(40)])
    x, y = states[:, :2].T
    assert (
        (states[:, :2] > 0.33) & (states[:, :2] < 3.27)
    ).all()  # at 6 m/s it presses 0.06 m into a wall of 0.4 and 3.2
    assert not ((x > 1.27) & (x < 2.33) & (y < 2.33)).any()
    assert ((x > 1.3) & (x < 2.3)).any()  # some went from one arm to the other


def test_returned_states_are_the_callers_own():
    simulator = PointMazeSimulator()
    start = START.astype(np.float32)
    started = simulator.reset(start, {})
    assert started.dtype == np.float64
    started += 1
    start += 1
    visited = simulator.step(np.zeros((1, 2)))
    np.testing.assert_allclose(visited[0], START, atol=1e-7)
    visited += 1
    np.testing.assert_allclose(simulator.step(np.zeros((1, 2)))[0], START, atol=1e-7)


def test_an_unstable_simulation_is_an_error_and_leaves_no_file(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    simulator = PointMazeSimulator()
    simulator.reset(START, {})
    simulator._position[:] = 1e12  # MuJoCo would go on from position 0
    with pytest.raises(RuntimeError, match=r"point_maze.*unstable.*BADQPOS"):
        simulator.step(np.zeros((1, 2)))
    assert "QPOS" in caplog.text
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="call reset"):
        simulator.step(np.zeros((1, 2)))
    simulator.reset(START, {})
    assert np.array_equal(simulator.step(np.zeros((1, 2)))[0], START)


@pytest.mark.parametrize(
    "state", [[1.0, 1.0], [[1.0] * 4], [1.0, np.nan, 0.0, 0.0], [1.0, 1.0, np.inf, 0.0], [1e11] * 4]
)
def test_bad_states_are_named(state):
    with pytest.raises(ValueError, match="env point_maze: a state must be 4 finite numbers"):
        PointMazeSimulator().reset(np.array(state), {})


@pytest.mark.parametrize("actions", [[0.0, 0.0], [[0.0] * 3], [[[0.0, 0.0]]], [[0.0, np.nan]], [[np.inf, 0.0]]])
def test_bad_actions_are_named_and_change_nothing(actions):
    simulator = PointMazeSimulator()
    simulator.reset(START, {})
    with pytest.raises(ValueError, match=r"env point_maze: actions must be (\(K, 2\)|finite), got"):
        simulator.step(np.array(actions))
    assert np.array_equal(simulator.step(np.zeros((1, 2)))[0], START)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match=r"image_size.*got 0"):
        PointMazeSimulator(0)
    simulator = PointMazeSimulator()
    with pytest.raises(ValueError, match=r"unknown layout keys \['shape'\]"):
        simulator.reset(START, {"shape": np.zeros(1)})
    for use in (simulator.render, lambda: simulator.step(np.zeros((1, 2)))):
        with pytest.raises(RuntimeError, match="call reset"):
            use()


def test_a_mujoco_that_computes_contacts_differently_is_refused(monkeypatch):
    monkeypatch.setattr(mujoco, "mj_version", lambda: 327)  # how 3.2.7 counts
    monkeypatch.setattr(mujoco, "__version__", "3.2.7")
    with pytest.raises(RuntimeError, match=r"mujoco 3\.6 or newer, found 3\.2\.7"):
        point_maze_model.maze_model.__wrapped__(U_MAZE)


def test_simulating_loads_neither_torch_nor_opengl(request):
    code = """
import sys
import numpy as np
from envs.point_maze.simulator import PointMazeSimulator
simulator = PointMazeSimulator()
simulator.reset(np.zeros(4), {})
simulator.step(np.zeros((1, 2)))
print(sorted({"torch", "triton", "OpenGL"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=request.config.rootpath, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.render
def test_images_after_a_reset(recorded, opengl):
    simulator = PointMazeSimulator()
    for state, expected in zip(recorded["render_states"], recorded["render_images"], strict=True):
        simulator.reset(state, {})
        assert_same_image(simulator.render(), expected, opengl.driver)


@pytest.mark.render
def test_images_of_trajectories(recorded, opengl):
    for case, step, expected in zip(recorded["img_case"], recorded["img_step"], recorded["images"], strict=True):
        simulator, _ = play(recorded["init"][case], recorded["actions"][case, :step])
        assert_same_image(simulator.render(), expected, opengl.driver)


@pytest.mark.render
def test_all_images_that_were_recorded(shared_golden, opengl):
    with np.load(shared_golden("envs/pointmaze.npz")) as data:
        for case, images in zip(data["img_case"], data["images"], strict=True):
            for step, expected in zip(data["img_steps"], images, strict=True):
                simulator, _ = play(data["init"][case], data["actions"][case, :step])
                assert_same_image(simulator.render(), expected, opengl.driver)
        for state, expected in zip(data["render_states"], data["render_images"], strict=True):
            assert_same_image(play(state, np.zeros((0, 2)))[0].render(), expected, opengl.driver)


@pytest.mark.render
def test_images_show_the_ball_one_simulation_step_before_the_state(opengl):
    simulator, states = play([0.8, 0.8, 0.0, 4.0], np.zeros((1, 2)))
    moving = simulator.render()
    x, y, vx, vy = states[1]
    simulator.reset(np.array([x - 0.01 * vx, y - 0.01 * vy, 0.0, 0.0]), {})
    assert_same_image(moving, simulator.render(), opengl.driver)
    simulator.reset(states[1], {})
    assert not np.array_equal(moving, simulator.render())


@pytest.mark.render
@pytest.mark.parametrize("image_size", [64, 65, 224])
def test_drawing_only_a_part_changes_no_bit(image_size, opengl):
    renderer = maze_renderer(U_MAZE, image_size)
    generator = np.random.default_rng(image_size)
    inside = generator.uniform(1.5, 4.5, (150, 2))
    anywhere = generator.uniform(-3, 9, (50, 2))
    for x, y in [*inside, *anywhere, (1e9, 2.0), (-1e9, -1e9), (4.55, 4.55)]:
        assert_same_image(renderer.draw(x, y), renderer._draw_whole(x, y), opengl.driver)


@pytest.mark.render
@pytest.mark.parametrize("image_size", [1, 16, 64, 65, 224, 300])
def test_images_of_any_size(image_size, opengl):
    simulator = PointMazeSimulator(image_size)
    simulator.reset(START, {})
    image = simulator.render()
    assert (image.shape, image.dtype) == ((image_size, image_size, 3), np.uint8)
    if image_size < 64:
        return
    red, green, blue = image.astype(int).transpose(2, 0, 1)
    is_ball = (green > red + 20) & (green > blue + 20)
    scale = image_size * 27.776 / 224
    expected = (image_size - 1) / 2 + scale * (START[:2] + 1.2 - U_MAZE.camera_center)
    rows, columns = np.nonzero(is_ball)
    assert abs(columns.mean() - expected[0]) < 0.5
    assert abs(rows.mean() - expected[1]) < 0.5
    assert np.sqrt(is_ball.sum() / np.pi) == pytest.approx(0.2 * scale, rel=0.25)


@pytest.mark.render
def test_small_images_are_the_large_one_shrunk(opengl):
    small, large = (play(START, np.zeros((0, 2)), size)[0].render().astype(float) for size in (56, 224))
    shrunk = large.reshape(56, 4, 56, 4, 3).mean((1, 3))
    assert abs(small - shrunk).mean() < 2


@pytest.mark.render
def test_episodes_share_the_renderer_but_not_the_images(opengl, monkeypatch):
    created = []
    create = MazeRenderer.__init__
    monkeypatch.setattr(
        MazeRenderer, "__init__", lambda self, maze, size: created.append(size) or create(self, maze, size)
    )
    first, second = PointMazeSimulator(72), PointMazeSimulator(72)
    first.reset(START, {})
    second.reset(START[[0, 0, 2, 3]] + [2.0, 2.0, 0.0, 0.0], {})
    image, other = first.render(), second.render()
    assert created == [72]
    assert not np.array_equal(image, other)
    image[:] = 0
    first.close()
    assert np.array_equal(second.render(), other)
    assert first.render().any()


@pytest.mark.render
def test_images_too_large_for_opengl_are_refused(opengl):
    simulator = PointMazeSimulator(10**6)
    simulator.reset(START, {})
    with pytest.raises(OpenGLError, match="no images of 1000000 pixels"):
        simulator.render()
    assert play(START, np.zeros((0, 2)))[0].render().any()  # the others still work
