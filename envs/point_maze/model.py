"""A maze as a MuJoCo model, corrected for what newer versions of MuJoCo compute differently."""

from __future__ import annotations

import copy
import functools
import logging

from envs.opengl import mujoco
from envs.point_maze.mazes import ORIGIN, Maze

log = logging.getLogger(__name__)

FRAME_SKIP = 5  # simulation steps of 0.01 s in one environment step
OLDEST_MUJOCO = 3_006_000  # as mj_version() counts

# Deviation: what the original's picture never shows is left out (the sky, the target, which it keeps out of view),
# and its ground of 80 x 80 m in 320 x 320 pieces is one of 32 x 32 m in one piece. Not a bit of the image changes,
# nor does the physics: to MuJoCo every plane is infinite. Loading and drawing take a fraction of the time.
TEMPLATE = f"""
<mujoco model="point_maze">
  <compiler angle="radian" inertiafromgeom="true"/>
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <statistic extent="EXTENT"/>
  <visual>
    <headlight ambient="0.4 0.4 0.4" diffuse="0.8 0.8 0.8" specular="0.1 0.1 0.1"/>
    <map znear="0.01"/>
    <quality shadowsize="0"/>
  </visual>
  <default>
    <joint type="slide" damping="1" limited="false"/>
    <geom friction="0.5 0.1 0.1" density="1000" margin="0.001" condim="1" contype="2" conaffinity="1"/>
    <motor ctrllimited="true" ctrlrange="-1 1" gear="100"/>
  </default>
  <asset>
    <texture name="checks" type="2d" builtin="checker" rgb1="0.2 0.3 0.4" rgb2="0.1 0.2 0.3" width="100" height="100"/>
    <material name="checks" texture="checks" texrepeat="8 8"/>
    <material name="wall" rgba="0.7 0.5 0.3 1"/>
  </asset>
  <worldbody>
    <geom type="plane" size="16 16 32" pos="0 0 -0.1" contype="1" conaffinity="0" material="checks"/>
    <body name="ball" pos="{ORIGIN} {ORIGIN} 0">
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
      <geom type="sphere" size="0.1" contype="1" rgba="0 0 1 0"/>
      <site name="ball" size="0.2" rgba="0.3 0.6 0.3 1"/>
    </body>
    WALLS
  </worldbody>
  <actuator>
    <motor joint="x"/>
    <motor joint="y"/>
  </actuator>
</mujoco>
"""
WALL = '<geom type="box" size="0.5 0.5 0.2" pos="{x} {y} 0" material="wall"/>'


def maze_xml(maze: Maze) -> str:
    """The model in MuJoCo's own format (MJCF), without the correction that can only be made once it is loaded.

    Source: d4rl's mazes as DINO-WM uses them. The margin is half of the original's: since MuJoCo 3.5 two geoms
    touch within the sum of their margins, before it was the larger one.
    """
    walls = "\n    ".join(WALL.format(x=i + 1, y=j + 1) for i, j in maze.cells("#"))
    return TEMPLATE.replace("WALLS", walls).replace("EXTENT", str(maze.extent))


@functools.cache
def maze_model(maze: Maze) -> mujoco.MjModel:
    """The loaded model, one for all episodes of the process; nothing that steps or draws changes it.

    Without the two corrections contacts are wrong by metres within 60 steps, and nothing says so.

    Raises:
        RuntimeError: If the version of MuJoCo is one to which the corrections do not apply.
    """
    if mujoco.mj_version() < OLDEST_MUJOCO:
        raise RuntimeError(
            f"env {maze.name} needs mujoco 3.6 or newer, found {mujoco.__version__}, whose contacts differ; "
            "install the versions in requirements.lock"
        )
    if mujoco.get_mju_user_warning() is None:  # by default they are written to MUJOCO_LOG.TXT, wherever one is
        mujoco.set_mju_user_warning(_log_warning)
    model = mujoco.MjModel.from_xml_string(maze_xml(maze))
    # How softly a contact gives way depends on the ball's inverse mass, averaged over directions: 2 / (3 m) while
    # MuJoCo counted the direction in which it cannot move, 1 / m since 3.0.
    ball = model.body("ball").id
    model.body_invweight0[ball, 0] = 2 / (3 * model.body_mass[ball])
    return model


def varied_model(maze: Maze, size: float, damping: float) -> mujoco.MjModel:
    """A model of its own whose ball is ``size`` times as large, of the same mass, slowed by ``damping`` N s/m."""
    model = copy.copy(maze_model(maze))
    [ball] = [geom for geom in range(model.ngeom) if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_SPHERE]
    model.geom_size[ball, 0] *= size
    model.geom_rbound[ball] *= size
    model.geom_aabb[ball] *= size
    model.dof_damping[:] = damping
    return model


def _log_warning(message: str) -> None:
    log.warning("MuJoCo: %s", message)
