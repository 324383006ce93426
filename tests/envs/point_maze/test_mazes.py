"""The medium and the large maze: their walls, physics, images, and how start and goal are drawn."""

import mujoco
import numpy as np
import pytest

from envs.point_maze.mazes import LARGE_MAZE, MEDIUM_MAZE, U_MAZE
from envs.point_maze.model import maze_xml
from envs.point_maze.render import MazeRenderer
from envs.point_maze.simulator import PointMazeLargeSimulator, PointMazeMediumSimulator, PointMazeSimulator

SIMULATORS = [PointMazeMediumSimulator, PointMazeLargeSimulator]
ALL = [PointMazeSimulator, *SIMULATORS]
DRAWN = {  # seed -> (start, goal), by a loop of its own over the specification
    (PointMazeMediumSimulator, 0): (
        [4.10759468, 1.05138169, 0.46914196, -0.79799903],
        [4.07294706, 4.96879361, 4.09501152, 4.84644001],
    ),
    (PointMazeMediumSimulator, 30): (  # the cell was the same at first
        [1.85912845, 1.95465626, 1.49535557, 2.15754871],
        [4.05003541, 2.21369677, 2.05549617, -4.97958837],
    ),
    (PointMazeMediumSimulator, 39): (  # and here again
        [3.15498746, 1.93344481, 3.43524036, 1.07647673],
        [2.95503051, 1.86396469, 2.00612097, -2.64013259],
    ),
    (PointMazeLargeSimulator, 148): (
        [2.82913636, 5.78122256, 0.79181859, 1.11220078],
        [4.86336213, 7.20741753, 4.34354253, 4.07897654],
    ),
}


def surroundings(maze, cell):
    """Which of the nine cells around one are walls."""
    i, j = cell
    return tuple(maze.rows[a][b] == "#" for a in (i - 1, i, i + 1) for b in (j - 1, j, j + 1))


def free_cells(maze):
    return [*maze.cells("O"), *maze.cells("G")]


@pytest.mark.parametrize(("kind", "count"), [*zip(ALL, (7, 26, 46), strict=True)])
def test_every_free_cell_can_be_reached_from_every_other(kind, count):
    cells = set(free_cells(kind.maze))
    assert len(cells) == count
    reached, border = set(), [min(cells)]
    while border:
        i, j = border.pop()
        reached.add((i, j))
        border += (cells & {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)}) - reached
    assert reached == cells


@pytest.mark.parametrize(("kind", "seed"), DRAWN)
def test_start_and_goal_are_drawn_in_the_stated_order(kind, seed):
    np.testing.assert_allclose(kind.sample_start_goal(seed), DRAWN[kind, seed], atol=1e-8, rtol=0)


@pytest.mark.parametrize("kind", SIMULATORS)
def test_starts_are_in_free_cells_and_goals_mostly_in_others(kind):
    drawn = np.array([kind.sample_start_goal(seed) for seed in range(1000)])
    cells = np.rint(drawn[..., :2]).astype(int)
    assert {tuple(cell) for cell in cells.reshape(-1, 2).tolist()} == set(free_cells(kind.maze))
    assert (abs(drawn[..., :2] - cells) <= 0.25).all() and (abs(drawn[..., 2:]) <= 5.2262554).all()
    same = (cells[:, 0] == cells[:, 1]).all(axis=1).sum()
    assert same < 10  # 1 / 26 ** 2 of them, as it is drawn once more only


@pytest.mark.parametrize("kind", SIMULATORS)
def test_steps_are_those_of_the_recorded_maze_wherever_the_walls_around_are_the_same(kind, golden):
    with np.load(golden("point_maze.npz")) as data:
        states, actions, after = data["ss_state"], data["ss_action"], data["ss_next"]
    alike = {
        cell: other
        for cell in free_cells(U_MAZE)
        for other in free_cells(kind.maze)
        if surroundings(U_MAZE, cell) == surroundings(kind.maze, other)
    }
    simulator, touched = kind(), 0
    for state, action, expected in zip(states, actions, after, strict=True):
        cell = tuple(np.rint(state[:2] + 0.2).astype(int).tolist())
        if cell in alike:
            shift = np.array([*np.subtract(alike[cell], cell), 0, 0])
            simulator.reset(state + shift, {})
            np.testing.assert_allclose(simulator.step(action[None])[0] - shift, expected, atol=1e-8, rtol=0)
            touched += U_MAZE.wall_distance(expected[:2]) < 0.1
    assert touched > 20, "some touch a wall"


@pytest.mark.parametrize("kind", SIMULATORS)
def test_the_ball_stays_inside_the_maze(kind):
    simulator = kind()
    nearest = []
    for seed in range(20):
        simulator.reset(kind.sample_start_goal(seed)[0], {})
        states = simulator.step(np.random.default_rng(seed).uniform(-1, 1, (100, 2)))
        nearest.append(min(kind.maze.wall_distance(state[:2]) for state in states))
        assert not [text for state in states if (text := kind.misplaced(state, {}))]
    assert min(nearest) < 0.1, "some touch a wall, whose nearest point is then nearer than the radius"


@pytest.mark.parametrize("kind", SIMULATORS)
def test_wrong_places_are_named_with_the_maze(kind):
    for place, said in (([0.8, 0.8], ""), ([-0.2, 0.8], "inside a wall"), ([99.0, 1.0], "outside the maze")):
        message = kind.misplaced(np.array([*place, 0.0, 0.0]), {})
        assert said in message and (kind.maze.rows[1] in message) == bool(said)
    with pytest.raises(ValueError, match=f"env {kind.name}: a state must be"):
        kind().reset(np.zeros(2), {})


@pytest.mark.parametrize("kind", ALL)
def test_the_camera_is_where_the_rule_puts_it(kind):
    """MuJoCo's own measure of the original model, in which the ground, counted to a tenth, is larger than ours."""
    xml = maze_xml(kind.maze).replace(f'<statistic extent="{kind.maze.extent}"/>', "")
    model = mujoco.MjModel.from_xml_string(xml.replace('size="16 16 32"', 'size="40 40 0.25"'))
    assert model.stat.extent == kind.maze.extent
    data = mujoco.MjData(model)
    data.qpos[:] = kind.sample_start_goal(0)[0][:2]
    mujoco.mj_forward(model, data)
    assert np.median(data.geom_xpos, axis=0).tolist() == [*kind.maze.camera_center, 0.0]


@pytest.mark.render
@pytest.mark.parametrize("maze", [MEDIUM_MAZE, LARGE_MAZE], ids=lambda maze: maze.name)
def test_images_show_walls_and_ball_and_drawing_a_part_changes_no_bit(maze):
    renderer = MazeRenderer(maze, 224)
    scale = 112 / (np.tan(np.pi / 8) * maze.extent)  # pixels per meter

    def pixels(place):
        return 111.5 + scale * (np.array(place) - maze.camera_center)

    for i, j in free_cells(maze)[::3]:
        image = renderer.draw(i + 1.2, j + 0.9)
        assert np.array_equal(image, renderer._draw_whole(i + 1.2, j + 0.9))
        red, green, blue = image.astype(int).transpose(2, 0, 1)
        rows, columns = np.nonzero((green > red + 20) & (green > blue + 20))
        assert abs([columns.mean(), rows.mean()] - pixels((i + 1.2, j + 0.9))).max() < 0.7
    for i, row in enumerate(maze.rows):
        for j, cell in enumerate(row):
            column, row_ = np.rint(pixels((i + 1, j + 1))).astype(int)
            assert (red[row_, column] > blue[row_, column]) == (cell == "#"), (i, j)
