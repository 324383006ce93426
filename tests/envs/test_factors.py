"""Factors of variation: names, streams of random numbers, and what is drawn and simulated of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.factors import DISTRACTORS_KEY, chosen_factors, distractor_places, draw_factors, shifted
from envs.point_maze.simulator import PointMazeSimulator
from envs.pusht.simulator import PushTSimulator
from envs.vary import vary
from envs.wall.factors import FACTORS
from envs.wall.vector_env import WallVectorEnv
from tests.builders import REPOSITORY

STATES = np.array([[15.0, 20.0], [50.0, 40.0]])
LAYOUT = {"fix_door_location": np.array([30.0]), "fix_wall_location": np.array([32.0])}


def drawn(names: list[str], seed: int = 5, attempt: int = 0) -> dict[str, np.ndarray]:
    return draw_factors(chosen_factors(FACTORS, names, "wall"), seed, STATES, LAYOUT, attempt)


def test_a_group_is_all_that_begin_with_its_name():
    assert list(chosen_factors(FACTORS, ["size"], "wall")) == ["size.agent", "size.door", "size.wall"]
    assert list(chosen_factors(FACTORS, "start, door", "wall")) == ["door", "start"], "in the order of declaration"
    assert list(chosen_factors(FACTORS, ["all"], "wall")) == list(FACTORS)


@pytest.mark.parametrize(("name", "near"), [("color", "did you mean colour?"), ("dor", "did you mean door")])
def test_a_misspelt_factor_gets_the_nearest_name_and_the_list(name, near):
    with pytest.raises(ValueError, match=f"vary={name}: env=wall has no such factor; {near}.* there are colour.back"):
        chosen_factors(FACTORS, [name], "wall")
    with pytest.raises(ValueError, match="it declares none"):
        chosen_factors({}, [name], "mine")


def test_a_factor_draws_the_same_whatever_else_varies_and_something_else_for_another_seed_or_attempt():
    alone, beside = drawn(["size.door"]), drawn(["colour", "size", "start"])
    assert beside["door_half_height"] == alone["door_half_height"]
    others = [drawn(["size.agent"], seed)["dot_sigma"] for seed in range(4)] + [
        drawn(["size.agent"], 0, 1)["dot_sigma"]
    ]
    assert len({float(value[0]) for value in others}) == 5
    assert draw_factors(chosen_factors(FACTORS, "door", "wall"), 2**70 + 3, STATES, LAYOUT), "seeds of 96 bits"


def test_the_wall_goes_where_start_and_goal_keep_their_rooms_and_their_distance():
    places = [float(drawn(["wall"], seed)["fix_wall_location"][0]) for seed in range(60)]
    assert {*places} <= {*range(22, 44)} - {32} and len({*places}) > 10  # 15 + 6.4 and 50 - 6.4


def test_starts_lie_along_a_side_of_their_room():
    for seed in range(40):
        x, y = drawn(["start"], seed)["start"]
        gaps = [x - 4, 29 - x, y - 4, 60 - y]
        assert 0.5 <= min(gaps) <= 3.4


def test_a_wide_door_lets_through_what_the_usual_one_stops():
    env, start = WallVectorEnv(image_size=65), torch.tensor([[25.0, 36.0]], dtype=torch.float64)
    for half, x in ((None, 28.5), (8.0, 45.0)):
        env.reset([0], start, None if half is None else {"door_half_height": torch.tensor([[half]])})
        assert env.step(torch.tensor([[[10.0, 0.0]]]))[0, -1, 0] == x
    env.reset([0], start, {"wall_half_width": torch.tensor([[5.0]])})
    assert env.step(torch.tensor([[[10.0, 0.0]]]))[0, -1, 0] == 26.5
    assert env.misplaced(torch.tensor([[28.0, 10.0]]), {"wall_half_width": torch.tensor([[5.0]])})[0] != ""


def test_a_picture_has_the_colours_that_its_layout_says():
    env, start = WallVectorEnv(image_size=65), torch.tensor([[20.0, 40.0]], dtype=torch.float64)
    colours = {"background_colour": [10.0, 200, 30], "wall_colour": [250.0, 240, 5], "dot_colour": [0.0, 0, 255]}
    env.reset([0], start, {key: torch.tensor([value]) for key, value in colours.items()})
    image = env.render()[0]
    for (x, y), colour in zip(((50, 50), (32, 10), (20, 40)), colours.values(), strict=True):
        assert image[:, y, x].tolist() == colour
    with pytest.raises(ValueError, match=r"dot_colour must be in \[0, 255\], got \[-1.0\]"):
        env.reset([0], start, {"dot_colour": torch.tensor([[-1.0, 0, 0]])})
    with pytest.raises(ValueError, match="unknown layout keys"):
        env.reset([0], start, {"dot_hue": torch.tensor([[1.0]])})


def test_the_camera_shifts_the_picture_and_repeats_its_edge():
    env = WallVectorEnv(image_size=65)
    start, _ = env.sample_start_goal([3])
    env.reset([3], start)
    plain = env.render()[0].permute(1, 2, 0).numpy()
    env.reset([3], start, {"camera_shift": torch.tensor([[3.2 / 65, -2.0 / 65]])})
    moved = env.render()[0].permute(1, 2, 0).numpy()
    assert np.array_equal(moved[:-2, 3:], plain[2:, :-3])
    assert np.array_equal(moved[-2:], np.repeat(moved[-3:-2], 2, 0)), "the last row again"
    assert np.array_equal(moved, shifted(plain, np.array([3.2 / 65, -2.0 / 65]))), "one image and a batch"


def test_moving_distractors_are_drawn_where_they_are_and_turn_round_at_the_edge():
    assert distractor_places(np.array([0.9, 0.1, 0.05, -0.05, 0.1, 0, 0, 0]), 4) == pytest.approx([0.9, 0.1])
    env = WallVectorEnv(image_size=65)
    start, goal = env.sample_start_goal([0, 1])
    _, layouts = vary(chosen_factors(env.factors, "distractors.moving", "wall"), [0, 1], [start, goal], {})
    env.reset([0, 1], start, layouts)
    env.step(torch.zeros(2, 30, 2))
    images = env.render()
    assert torch.equal(env.render(torch.tensor([1])), images[1:])
    x, y = (distractor_places(layouts[DISTRACTORS_KEY][1, 2].numpy(), 30) * 65).astype(int)
    assert images[1, :, y, x].tolist() == layouts[DISTRACTORS_KEY][1, 2, 5:].tolist(), "the last lies on top"


def played_pusht(steps: int = 12, **layout: float) -> tuple[PushTSimulator, np.ndarray]:
    """The agent goes right, against the stem of an upright T."""
    simulator = PushTSimulator(image_size=64)
    given = {key: np.array([value], np.float32) for key, value in layout.items()}
    simulator.reset(np.array([180.0, 330, 256, 240, 0, 0, 0]), given)
    return simulator, simulator.step(np.tile([0.3, 0.0], (steps, 1)))


def test_a_block_of_pusht_glides_on_where_it_usually_stops():
    for glide, moves in ((0.0, False), (0.1, True)):
        simulator, visited = played_pusht(block_glide=glide)
        assert visited[-1, 2] > 256, "it was pushed"
        after = simulator.step(np.tile([-1.0, 0.0], (3, 1)))[:, 2:5]
        assert bool(abs(after[-1] - after[0]).max() > 0.1) is moves


def test_friction_and_sizes_change_what_a_push_does():
    usual = played_pusht()[1]
    for layout in ({"friction": 1.0}, {"block_scale": 1.25}, {"agent_radius": 20.0}):
        assert abs(played_pusht(**layout)[1][-1, 2:5] - usual[-1, 2:5]).max() > 0.1, layout
    same = {"friction": 0.0, "block_scale": 1.0, "agent_radius": 15.0, "block_glide": 0.0}
    assert np.array_equal(played_pusht(**same)[1], usual)


def test_a_copy_and_a_snapshot_go_on_in_the_world_that_differs():
    simulator, _ = played_pusht(friction=0.8, block_scale=0.9)
    other = PushTSimulator(image_size=64)
    other.restore(simulator.snapshot())
    more = np.tile([0.2, 0.1], (5, 1))
    assert np.array_equal(other.step(more), simulator.step(more)) and np.array_equal(other.render(), simulator.render())


def test_damping_slows_the_ball_and_a_larger_one_stops_farther_from_the_wall():
    ends = []
    for layout in ({}, {"damping": 20.0}, {"ball_size": 1.5}, {}):
        simulator = PointMazeSimulator(image_size=64)
        simulator.reset(np.array([0.8, 0.8, 0.0, 0.0]), {key: np.array([value]) for key, value in layout.items()})
        slow = simulator.step(np.tile([0.0, 0.2], (5, 1)))[-1, 3]
        ends.append((slow, simulator.step(np.tile([0.0, 1.0], (60, 1)))[-1, 1]))
    assert ends[1][0] < 0.8 * ends[0][0] and ends[2][1] < ends[0][1] - 0.03 and ends[3] == ends[0]
    with pytest.raises(ValueError, match=r"damping must be in \[0, 1000\]"):
        simulator.reset(np.array([0.8, 0.8, 0.0, 0.0]), {"damping": np.array([-1.0])})


def test_every_factor_stands_on_its_page():
    page = (REPOSITORY / "docs" / "variation.md").read_text()
    for factors in (FACTORS, PushTSimulator.factors, PointMazeSimulator.factors):
        for name, factor in factors.items():
            assert f"| `{name}` | {factor.what} |" in page
