"""Places where a block is pushed: what a push does in the simulator, and that the ways there are free."""

import cmath
import math

import numpy as np
import pytest

from envs.pusht.contacts import contacts
from envs.pusht.physics import World
from envs.pusht.shapes import BLOCKS, SHAPES

ORIGIN, ANGLE = 250 + 260j, 0.7


def placed(shape, agent):
    """A world with the block in a fixed pose and the agent at a place of the block's own directions."""
    known, turn = contacts(shape), cmath.exp(1j * ANGLE)
    center = ORIGIN + known.center * turn
    start = center + agent * turn
    return World(BLOCKS[shape], [start.real, start.imag, ORIGIN.real, ORIGIN.imag, ANGLE, 0.0, 0.0])


def moved(world, shape):
    """How far the block has come: centre of gravity in its first directions, and the angle as pixels."""
    known, state = contacts(shape), world.state()
    center = complex(*state[2:4]) + known.center * cmath.exp(1j * state[4])
    way = (center - ORIGIN) / cmath.exp(1j * ANGLE) - known.center
    return np.array((way.real, way.imag, math.remainder(state[4] - ANGLE, 2 * math.pi) * known.gyration))


def walk(world, way):
    """Go about ``way``, given in the block's first directions, from rest."""
    move = way * cmath.exp(1j * ANGLE)
    before = complex(*world.agent_position())
    world.step(move.real, move.imag)
    return abs(complex(*world.agent_position()) - before)


@pytest.mark.parametrize("shape", SHAPES)
def test_pushes_move_the_block_as_they_say(shape):
    known = contacts(shape)
    for number in range(0, len(known.points), 5):
        world = placed(shape, known.points[number])
        gone = walk(world, 10 * known.inward[number])
        push = known.pushes[number]
        expected = gone * push / (push @ push)
        assert gone > 2
        np.testing.assert_allclose(moved(world, shape), expected, atol=0.35, err_msg=f"contact {number}")


@pytest.mark.parametrize("shape", SHAPES)
def test_ways_along_the_ring_and_from_it_to_the_contacts_are_free(shape):
    known = contacts(shape)
    places = [(place, outward) for place, outward in zip(known.ring, known.outward, strict=True)]
    places += [(point - 0.5 * inward, -inward) for point, inward in zip(known.points, known.inward, strict=True)]
    for place, away in places:
        world = placed(shape, place)
        walk(world, 100 * away)  # leaves straight, and starts where nothing is touched
        assert np.abs(moved(world, shape)).max() < 1e-9
    corners = np.array([complex(*corner) for polygon in BLOCKS[shape].polygons for corner in polygon]) - known.center
    gaps = np.abs(known.ring[:, None] - corners).min(1)
    assert gaps.min() == pytest.approx(27.0, abs=0.1)  # the agent's radius and 12 px
    assert np.abs(np.abs(np.diff(known.ring)) - known.spacing).max() < 0.3


def test_sides_are_told_by_the_tangents():
    known = contacts("T")
    assert known.outside(0j).max() < -15
    seen = known.outside(200 + 0j) > 0
    assert (known.ring.real[seen] > 20).all() and (known.outside(-200 + 0j)[seen] < 0).all()
    assert known.along_ring(3)[[3, 4, 0, 2]] == pytest.approx(known.spacing * np.array([0, 1, 3, 1]))
    assert known.along_ring(0)[-1] == pytest.approx(known.spacing)
