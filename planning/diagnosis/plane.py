"""The objective in a plane of action space, under the model and in the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from planning.diagnosis.numbers import known
from planning.diagnosis.subject import Subject

GRID = 15  # points along either axis
MARGIN = 0.35  # of the points' extent, around them
SMALLEST = 1e-3  # below it two points are one, in z-scored units


def plane(subject: Subject, row: int, plans: Mapping[str, Tensor], num: int = GRID) -> dict[str, Any]:
    """Evaluate the objective of episode ``row``'s first plan on a grid of ``num`` x ``num`` points of a plane.

    Args:
        subject: What is diagnosed.
        row: The episode.
        plans: Two or three z-scored plans (T, A) by name; the first is the origin, the plane goes through all.
        num: Points along either axis.

    Returns:
        See docs/why.md: ``model[i][j]`` is the cost at ``y[i]`` and ``x[j]``; axes are in z-scored units of actions.
    """
    names, points = list(plans), torch.stack(list(plans.values())).float()
    axes = _axes(points.flatten(1))
    places = (points.flatten(1) - points[0].flatten()) @ axes.T  # (n, 2)
    low, high = places.min(0).values, places.max(0).values
    extent = (high - low).max().clamp_min(1.0)
    middle = (low + high) / 2
    half = (high - low).clamp_min(0.5 * extent) / 2 + MARGIN * extent
    x, y = (torch.linspace(float(m - h), float(m + h), num) for m, h in zip(middle, half, strict=True))
    grid = torch.stack([x.repeat(num), y.repeat_interleave(num)], 1).to(points.device)
    candidates = (points[0].flatten() + grid @ axes).view(1, -1, *points.shape[1:])
    rows, found = torch.tensor([row]), {}
    for name, simulated in (("model", False), ("simulator", True)):
        with torch.no_grad():
            costs = subject.request(0, rows, simulated).cost(candidates)[0].view(num, num)
        found[name] = [[known(value) for value in line] for line in costs.tolist()]
    return {
        "episode": row,
        "x": x.tolist(),
        "y": y.tolist(),
        **found,
        "points": [{"name": name, "x": at[0], "y": at[1]} for name, at in zip(names, places.tolist(), strict=True)],
    }


def _axes(points: Tensor) -> Tensor:
    """Two orthonormal directions (2, d) that span the plane of points (n, d); drawn where the points do not say."""
    drawn = torch.randn(2, points.shape[1], generator=torch.Generator().manual_seed(0)).to(points.device)
    axes: list[Tensor] = []
    for direction in [*(points[1:] - points[0]), *drawn]:
        for axis in axes:
            direction = direction - (direction @ axis) * axis
        if direction.norm() > SMALLEST and len(axes) < 2:
            axes.append(direction / direction.norm())
    return torch.stack(axes)
