"""PushT's physics: a disc that is steered pushes a block over a table without friction between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pymunk

from envs.pusht.shapes import Block, Point

WINDOW_SIZE = 512  # side of the table, pixels
AGENT_RADIUS = 15.0
WALL_RADIUS = 2.0
WALL_LOW, WALL_HIGH = 5.0, 506.0
WALLS: tuple[tuple[Point, Point], ...] = (
    ((WALL_LOW, WALL_HIGH), (WALL_LOW, WALL_LOW)),
    ((WALL_LOW, WALL_LOW), (WALL_HIGH, WALL_LOW)),
    ((WALL_HIGH, WALL_LOW), (WALL_HIGH, WALL_HIGH)),
    ((WALL_LOW, WALL_HIGH), (WALL_HIGH, WALL_HIGH)),
)
SUBSTEPS = 10  # per action
SUBSTEP_SECONDS = 0.01
STIFFNESS, DAMPING = 100.0, 20.0  # of the spring that draws the agent to its target, 1/s^2 and 1/s
CONTACT_LINE_REACH = 2.0  # how far the line that marks a contact goes beyond it, pixels


class World:
    """One episode: agent, block and walls in a space of their own.

    The block is quasi-static: a damping of 0 wipes its velocity in every substep. The solver still remembers more than
    poses and velocities: the last impulses of each contact, and how far it is in pushing the bodies apart. What
    follows from a moment is therefore known only from the start and all actions since.

    Source: the environment of Diffusion Policy in DINO-WM's version. Friction is 0, because that sets it where pymunk
    does not look for it.
    """

    def __init__(
        self,
        block: Block,
        state: Sequence[float],
        agent_radius: float = AGENT_RADIUS,
        friction: float = 0.0,
        glide: float = 0.0,
    ) -> None:
        """Set everything up in ``state`` (7,) and let the first 0.01 s pass, which may already change it.

        Args:
            block: What to push.
            state: Agent x, y, block x, y and angle, agent velocity x, y; finite.
            agent_radius: Pixels.
            friction: Between agent and block.
            glide: Seconds in which a block that is not pushed loses its speed to 1/e; 0: it stops at once.
        """
        self._space = pymunk.Space()
        self._space.damping = math.exp(-1 / glide) if glide else 0.0  # what is left after a second
        static = self._space.static_body
        self._space.add(*(pymunk.Segment(static, a, b, WALL_RADIUS) for a, b in WALLS))
        self._agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)  # walls and block do not stop it
        self._agent.position = 256.0, 400.0
        disc = pymunk.Circle(self._agent, agent_radius)
        self._space.add(self._agent, disc)
        self._block, self._polygons = self._add_block(block)
        if friction:
            for shape in (disc, *self._block.shapes):  # contacts multiply the two
                shape.friction = math.sqrt(friction)

        # The order matters: setting the angle turns the block about its centre of gravity, which moves the origin.
        self._agent.velocity = state[5], state[6]
        self._agent.position = state[0], state[1]
        self._block.angle = state[4]
        self._block.position = state[2], state[3]
        self._space.step(SUBSTEP_SECONDS)

    def _add_block(self, block: Block) -> tuple[pymunk.Body, list[list[Point]]]:
        polygons = block.polygons
        moment = sum(pymunk.moment_for_poly(1.0, polygons[index]) for index in block.inertia_of)
        body = pymunk.Body(1.0, moment)
        parts = [pymunk.Poly(body, corners) for corners in polygons]
        body.center_of_gravity = block.center_of_gravity
        body.position = 256.0, 300.0  # where it enters the collision tree; the order of contacts may depend on it
        self._space.add(body, *parts)
        return body, [[(v.x, v.y) for v in part.get_vertices()] for part in parts]

    def step(self, move_x: float, move_y: float) -> None:
        """Steer the agent towards the point (move_x, move_y) pixels from where it is, for 0.1 s."""
        x, y = self._agent.position
        vx, vy = self._agent.velocity
        target_x, target_y = x + move_x, y + move_y
        agent, advance = self._agent, self._space.step
        for _ in range(SUBSTEPS):
            vx += (STIFFNESS * (target_x - x) - DAMPING * vx) * SUBSTEP_SECONDS
            vy += (STIFFNESS * (target_y - y) - DAMPING * vy) * SUBSTEP_SECONDS
            agent.velocity = vx, vy
            advance(SUBSTEP_SECONDS)
            # What the space has just done to the agent, to the last bit; asking it would take a quarter of the time.
            x += vx * SUBSTEP_SECONDS
            y += vy * SUBSTEP_SECONDS

    def state(self) -> tuple[float, ...]:
        """Agent x, y, block x, y, block angle in [0, 2 pi), agent velocity x, y."""
        block = self._block
        return (*self._agent.position, *block.position, block.angle % (2 * math.pi), *self._agent.velocity)

    def agent_position(self) -> Point:
        """The agent's centre."""
        return self._agent.position

    def polygons(self) -> list[list[Point]]:
        """The corners of the block's parts on the table, in the order in which they are drawn."""
        x, y = self._block.position
        cos, sin = self._block.rotation_vector
        return [[(cos * u - sin * v + x, sin * u + cos * v + y) for u, v in part] for part in self._polygons]

    def contact_lines(self) -> list[tuple[Point, Point]]:
        """A short line across each place where the block touched something in the last substep."""
        per_arbiter: list[list[tuple[Point, Point]]] = []

        def collect(arbiter: pymunk.Arbiter) -> None:
            contacts = arbiter.contact_point_set
            reach = contacts.normal * CONTACT_LINE_REACH  # from the block outwards
            per_arbiter.append([(point.point_b + reach, point.point_a - reach) for point in contacts.points])

        self._block.each_arbiter(collect)  # the latest first
        lines = [line for lines in reversed(per_arbiter) for line in lines]
        return [(start, end) for start, end in lines if not any(map(math.isnan, (*start, *end)))]
