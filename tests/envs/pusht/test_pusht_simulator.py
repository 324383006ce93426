"""PushT against recordings of the original, its images against pymunk's own debug drawing, and exact restoring."""

import dataclasses
import itertools
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from benchmarks.plain_pusht import debug_drawing
from envs.pusht.render import num_tiles
from envs.pusht.simulator import SHAPES, PushTSimulator

NUM_CASES = 18
NUM_IMAGES = 15
CENTRE = [100.0, 100.0, 256.0, 256.0, 0.0, 0.0, 0.0]
PUSHING = 4  # a recorded case in which the block is pushed


@pytest.fixture(scope="module")
def recorded(request):
    with np.load(request.config.rootpath / "tests" / "golden" / "pusht.npz") as data:
        return dict(data)


def layout(shape):
    return {"shape": np.array([shape])}


def started(state, shape=0, image_size=224):
    simulator = PushTSimulator(image_size)
    simulator.reset(np.array(state, np.float64), layout(shape))
    return simulator


def pushes(simulator, generator):
    """An action towards the block, from whichever side, hard enough to be felt."""
    state = simulator.snapshot().state
    target = state[2:4] + generator.normal(0, 30, 2)
    return ((target - state[:2]) / 100 + generator.normal(0, 0.1, 2)).astype(np.float32)[None]


def random_state(generator):
    return [*generator.integers(0, 512, 4), generator.normal() * 6, *generator.normal(0, 50, 2)]


def difference(image, expected):
    """Mean absolute difference and share of differing pixels."""
    off = np.abs(image.astype(int) - expected)
    return off.mean(), (off.max(2) > 0).mean()


@pytest.mark.parametrize("case", range(NUM_CASES))
def test_trajectories_are_those_of_the_original_to_the_last_bit(recorded, case):
    simulator = PushTSimulator()
    start = simulator.reset(recorded["init"][case], layout(recorded["shape"][case]))
    visited = np.vstack([start, simulator.step(recorded["actions"][case])])
    assert visited.dtype == np.float64
    assert np.array_equal(visited.astype(np.float32), recorded["states"][case])
    assert np.array_equal(visited[:, [0, 1, 5, 6]], recorded["agent"][case])
    assert np.array_equal(visited[:, 2:4], recorded["block_pose"][case, :, :2])
    assert np.array_equal(visited[:, 4], recorded["block_pose"][case, :, 2] % (2 * math.pi))


def test_a_reset_is_not_the_identity_but_that_of_the_original(recorded):
    simulator = PushTSimulator()
    after = [simulator.reset(state, {}) for state in recorded["reset_in"]]
    assert np.array_equal(np.float32(after), recorded["reset_state"])
    assert np.abs(recorded["reset_state"] - recorded["reset_in"])[:, :4].max() > 1  # overlaps are pushed apart


def test_sampling(recorded):
    drawn = [PushTSimulator.sample_start_goal(seed) for seed in recorded["sample_seed"].tolist()]
    start, goal = np.swapaxes(drawn, 0, 1)
    assert np.array_equal(start, recorded["sample_init"])
    assert np.array_equal(goal, recorded["sample_goal"])


def test_success(recorded):
    success, distance = PushTSimulator.compare(recorded["eval_cur"], recorded["eval_goal"])
    assert success.dtype == bool
    mended = np.arange(len(success)) == 4  # see the next test
    assert np.array_equal(success[~mended], recorded["eval_success"][~mended])
    np.testing.assert_allclose(distance, recorded["eval_state_dist"], rtol=1e-13)


def test_a_goal_far_outside_the_circle_is_not_reached_by_every_angle(recorded):
    state, goal = recorded["eval_cur"][[4]], recorded["eval_goal"][[4]]
    apart = abs(state[0, 4] - goal[0, 4])
    assert recorded["eval_success"][4]  # so says the original, which takes the smaller of these two:
    assert min(apart, 2 * math.pi - apart) < 0
    assert not PushTSimulator.compare(state, goal)[0]
    state[0, 4] = goal[0, 4] + 4 * math.pi - 0.3
    assert PushTSimulator.compare(state, goal)[0]


@pytest.mark.parametrize(("turn", "expected"), [(0.34, True), (0.36, False), (2 * math.pi - 0.34, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_angles_are_compared_on_the_circle(turn, expected, sign):
    goal = np.zeros((1, 7))
    for whole_turns in (-2, 0, 3):
        state = np.array([[8.0, 9.0, 10.0, 11.0, sign * turn + whole_turns * 2 * math.pi, 99.0, 99.0]])
        assert PushTSimulator.compare(state, goal)[0] == expected  # 19.1 px apart; velocities do not count
    assert not PushTSimulator.compare(state + 1, goal)[0]  # 21.1 px


@pytest.mark.parametrize("index", range(NUM_IMAGES))
def test_images_are_those_of_the_original_up_to_versions_of_the_library(recorded, index):
    case, step = recorded["image_case"][index], recorded["image_step"][index]
    simulator = started(recorded["init"][case], recorded["shape"][case])
    simulator.step(recorded["actions"][case, :step])
    image = simulator.render()
    assert (image.shape, image.dtype) == ((224, 224, 3), np.uint8)
    mean, share = difference(image, recorded["images"][index])
    assert mean < 0.15
    assert share < 0.01


def test_an_image_of_the_whole_window_is_not_resized(recorded):
    mean, share = difference(started(recorded["reset_in"][0], image_size=512).render(), recorded["image512"])
    assert mean < 0.15
    assert share < 0.002


def test_all_recorded_images(shared_golden):
    with np.load(shared_golden("envs/pusht.npz")) as data:
        everything = dict(data)
    means, shares = [], []
    for case in range(NUM_CASES):
        simulator = started(everything["init"][case], SHAPES.index(everything["shape"][case]))
        steps = [0, *everything["img_steps"]]
        for index, (before, step) in enumerate(itertools.pairwise(steps)):
            simulator.step(everything["actions"][case, before:step])
            mean, share = difference(simulator.render(), everything["images"][case, index])
            means.append(mean)
            shares.append(share)
    assert max(means) < 0.15
    assert max(shares) < 0.01
    assert np.mean(means) < 0.06
    assert np.mean(shares) < 0.003


@pytest.mark.parametrize("shape", range(len(SHAPES)), ids=SHAPES)
def test_every_pixel_is_that_of_pymunks_debug_drawing(shape):
    """At walls, behind them and out of the window too; contact lines included."""
    generator = np.random.default_rng(shape)
    num_contacts = 0
    for _ in range(6):
        state = random_state(generator)
        simulators = [started(state, shape, size) for size in (224, 512, 300)]
        for _ in range(5):
            actions = pushes(simulators[0], generator)
            for simulator in simulators:
                simulator.step(actions)
            window, contacts = debug_drawing(simulators[0], shape)
            num_contacts += len(contacts)
            assert simulators[0]._world.contact_lines() == contacts
            for simulator in simulators:
                size = simulator.image_size
                assert np.array_equal(simulator.render(), cv2.resize(window, (size, size)))
    assert num_contacts > 10


@pytest.mark.parametrize(
    "state",
    [
        [-14.0, 256.0, 256.0, 256.0, 0.0, 0.0, 0.0],
        [256.0, 525.0, 256.0, 256.0, 0.0, 0.0, 0.0],
        [256.0, 256.0, -1e5, 256.0, 0.0, 0.0, 0.0],
        [9e5, -9e5, 9e5, 9e5, 0.0, 0.0, 0.0],
        [1.0, 1.0, 511.0, 511.0, 2.0, 0.0, 0.0],
        [5.0, 508.0, 0.0, 490.0, 1.0, 0.0, 0.0],
    ],
)
def test_what_is_outside_the_window_is_cut_off(state):
    simulator = started(state)
    assert np.array_equal(simulator.render(), cv2.resize(debug_drawing(simulator, 0)[0], (224, 224)))


def test_tiles_shrink_like_the_whole_image():
    generator = np.random.default_rng(0)
    whole = generator.integers(0, 256, (512, 512, 3), np.uint8)
    sizes = [size for size in range(1, 513) if num_tiles(size) > 1]
    assert {64, 96, 112, 128, 224, 256, 448} <= set(sizes)
    for size in sizes:
        expected = cv2.resize(whole, (size, size))
        tiles = num_tiles(size)
        before, after = 512 // tiles, size // tiles
        assert (before * tiles, after * tiles) == (512, size)
        for _ in range(20):
            (left, right), (top, bottom) = (np.sort(generator.choice(tiles + 1, 2, replace=False)) for _ in range(2))
            part = whole[top * before : bottom * before, left * before : right * before]
            shrunk = cv2.resize(part, ((right - left) * after, (bottom - top) * after))
            assert np.array_equal(shrunk, expected[top * after : bottom * after, left * after : right * after])


def test_an_image_leaves_no_trace_on_the_next():
    simulator = started(CENTRE)
    first = simulator.render()
    simulator.reset(np.array([400.0, 300.0, 150.0, 350.0, 1.0, 0.0, 0.0]), {})
    assert not np.array_equal(simulator.render(), first)
    simulator.reset(np.array(CENTRE), {})
    assert np.array_equal(simulator.render(), first)


def test_simulators_can_draw_in_several_threads():
    generator = np.random.default_rng(0)
    simulators = [started(random_state(generator)) for _ in range(4)]
    expected = [simulator.render() for simulator in simulators]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(50):
            images = list(pool.map(PushTSimulator.render, simulators))
            assert all(map(np.array_equal, images, expected))


def test_a_block_equals_its_single_steps(recorded):
    actions = recorded["actions"][PUSHING]
    simulator, other = started(recorded["init"][PUSHING]), started(recorded["init"][PUSHING])
    single = []
    for action in actions:
        single.append(simulator.step(action[None])[0])
        simulator.render()  # which must not change anything
    assert np.array_equal(other.step(actions), single)
    assert other.step(actions[:0]).shape == (0, 7)


def test_simulators_of_one_process_are_independent(recorded):
    cases = [4, 13, 5, 4]
    simulators = [started(recorded["init"][case], recorded["shape"][case]) for case in cases]
    visited = [
        [
            simulator.step(recorded["actions"][case, [step]])[0]
            for case, simulator in zip(cases, simulators, strict=True)
        ]
        for step in range(50)
    ]
    assert np.array_equal(np.float32(visited).swapaxes(0, 1), recorded["states"][cases, 1:])


@pytest.mark.parametrize("shape", range(len(SHAPES)), ids=SHAPES)
def test_a_restored_moment_goes_on_exactly_in_the_middle_of_a_push_too(shape):
    generator = np.random.default_rng(shape)
    num_touching = 0
    for _ in range(4):
        simulator, other = started(random_state(generator), shape), started(CENTRE)
        for _ in range(generator.integers(5, 30)):
            simulator.step(pushes(simulator, generator))
        moment, image = simulator.snapshot(), simulator.render()
        num_touching += bool(simulator._world.contact_lines())
        future = np.concatenate([simulator.step(pushes(simulator, generator)) for _ in range(20)])
        actions = simulator.snapshot().actions[-20:]
        assert np.array_equal(other.restore(moment), moment.state)
        assert np.array_equal(other.render(), image)
        assert np.array_equal(other.step(actions), future)
        assert np.array_equal(other.restore(moment), simulator.restore(moment))  # as often as one likes
        assert np.array_equal(simulator.step(actions), other.step(actions))
    assert num_touching


def test_a_reset_to_the_state_of_a_push_does_not_go_on_exactly(recorded):
    """Why ``restore`` is needed: the seven numbers do not hold what the solver remembers."""
    simulator = started(recorded["init"][PUSHING])
    simulator.step(recorded["actions"][PUSHING, :30])
    other = started(simulator.snapshot().state)
    actions = recorded["actions"][PUSHING, 30:]
    assert np.abs(simulator.step(actions) - other.step(actions)).max() > 1e-3


def test_a_moment_right_after_a_reset_can_be_restored():
    simulator = started(CENTRE)
    moment = simulator.snapshot()
    simulator.step(np.ones((3, 2), np.float32))
    assert len(moment.actions) == 0
    assert np.array_equal(simulator.restore(moment), moment.state)
    assert len(simulator.snapshot().actions) == 0


def test_a_moment_that_cannot_be_reproduced_is_refused():
    simulator = started(CENTRE)
    moment = simulator.snapshot()
    with pytest.raises(ValueError, match="same version of pymunk"):
        simulator.restore(dataclasses.replace(moment, state=moment.state + 1e-12))


def test_arrays_are_the_callers_own():
    simulator, start = PushTSimulator(), np.array(CENTRE)
    after = simulator.reset(start, {})
    actions = np.full((2, 2), 0.3, np.float32)
    visited = simulator.step(actions)
    moment = simulator.snapshot()
    image = simulator.render()
    kept = image.copy()
    for array in (start, after, actions, visited, image):
        array[...] = 7
    assert np.array_equal(simulator.render(), kept)
    spoilt = simulator.snapshot()
    for array in (spoilt.start, spoilt.actions, spoilt.state):
        array[...] = 7
    assert np.array_equal(simulator.restore(simulator.snapshot()), moment.state)
    assert np.array_equal(simulator.restore(moment), moment.state)


@pytest.mark.parametrize("size", [1.0, 1e4, 1e6, float(np.finfo(np.float32).max)])
def test_states_stay_finite_for_every_finite_action(size):
    generator = np.random.default_rng(0)
    for shape in range(len(SHAPES)):
        simulator = started(random_state(generator), shape)
        actions = (generator.uniform(-1, 1, (50, 2)) * size).astype(np.float32)
        assert np.isfinite(np.float32(simulator.step(actions))).all()
        simulator.render()


def test_commands_are_cut_off_at_a_million_pixels():
    simulator, other = started(CENTRE), started(CENTRE)
    far = simulator.step(np.array([[1e4, -0.5]], np.float32))
    assert np.array_equal(other.step(np.array([[1e30, -0.5]], np.float32)), far)
    assert far[0, 0] > 1e5


def test_the_default_is_the_t():
    assert SHAPES[0] == "T"
    assert PushTSimulator.default_layout()["shape"].tolist() == [0]
    images = [started(CENTRE, shape).render() for shape in range(len(SHAPES))]
    simulator = PushTSimulator()
    simulator.reset(np.array(CENTRE), {})
    assert np.array_equal(simulator.render(), images[0])
    assert len({image.tobytes() for image in images}) == len(SHAPES)
    simulator.reset(np.array(CENTRE), {"shape": np.float32([3])})  # layouts may have passed through float tensors
    assert np.array_equal(simulator.render(), images[3])


@pytest.mark.parametrize(
    "bad",
    [
        {"shape": np.array([7])},
        {"shape": np.array([-1])},
        {"shape": np.array([0.5])},
        {"shape": np.array([np.nan])},
        {"shape": np.array([0, 1])},
        {"shape": np.array(["L"])},
    ],
)
def test_unknown_shapes_are_answered_with_the_known_ones(bad):
    with pytest.raises(ValueError, match=r"env pusht: layout shape .* 0 = T, 1 = L, 2 = Z, .* 6 = \+; got"):
        PushTSimulator().reset(np.array(CENTRE), bad)


def test_unknown_layout_keys_are_named():
    with pytest.raises(ValueError, match=r"unknown layout keys \['colour'\]"):
        PushTSimulator().reset(np.array(CENTRE), {"colour": np.array([1])})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e7])
@pytest.mark.parametrize("entry", range(7))
def test_impossible_states_are_named(value, entry):
    state = np.array(CENTRE)
    state[entry] = value
    with pytest.raises(ValueError, match=rf"env pusht: a state must be finite .* got \[.*{value}".replace("+", r"\+")):
        PushTSimulator().reset(state, {})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_impossible_actions_are_named_and_not_begun(value):
    simulator = started(CENTRE)
    before = simulator.snapshot()
    actions = np.zeros((4, 2))
    actions[:, 0] = 0.5
    actions[2, 1] = value
    with pytest.raises(ValueError, match=r"env pusht: actions must be finite, got \[0.5, -?(nan|inf)\] in step 2"):
        simulator.step(actions)
    assert np.array_equal(simulator.snapshot().state, before.state)
    assert len(simulator.snapshot().actions) == 0


def test_other_bad_input_is_named():
    simulator = PushTSimulator()
    for call in (simulator.render, simulator.snapshot, lambda: simulator.step(np.zeros((1, 2)))):
        with pytest.raises(RuntimeError, match="call reset"):
            call()
    with pytest.raises(ValueError, match=r"\(7,\), got \(6,\)"):
        simulator.reset(np.zeros(6), {})
    simulator.reset(np.array(CENTRE), {})
    for shape in ((2,), (1, 3), (1, 1, 2)):
        with pytest.raises(ValueError, match="actions must be of shape"):
            simulator.step(np.zeros(shape))
    with pytest.raises(ValueError, match="image_size"):
        PushTSimulator(0)
    simulator.close()
    with pytest.raises(RuntimeError, match="call reset"):
        simulator.render()


def test_a_worker_needs_neither_torch_nor_a_display_and_stays_silent():
    program = (
        "import sys, numpy\n"
        "from envs.pusht.simulator import PushTSimulator\n"
        "simulator = PushTSimulator()\n"
        f"simulator.reset(numpy.array({CENTRE}), {{}})\n"
        "simulator.render()\n"
        "assert 'torch' not in sys.modules and not sys.modules['pygame'].display.get_init()\n"
    )
    hidden = ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY", "PYGAME_HIDE_SUPPORT_PROMPT")
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=variables, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
