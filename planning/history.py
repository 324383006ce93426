"""What is kept of every MPC iteration for each of its episodes; ``planning.episode_record`` makes one file of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.latent import Latent
from planning.objectives import GoalDistance
from planning.planners.plan import Plan

Iteration = dict[str, Tensor]
"""Numbers of one iteration, by the names of ``episodes.npz``, (b, ...) for the b episodes planned for: ``rows`` (b,)
says which. On the CPU."""


def kept_of_plan(plan: Plan, rows: Tensor, raw_plans: Tensor) -> Iteration:
    """Keep what a planner found for episodes ``rows`` (b,): ``raw_plans`` (b, T * frameskip, env_action_dim)."""
    unknown = torch.full_like(plan.cost, torch.nan)
    traces = [cost for _, cost in plan.trace]
    return _on_cpu(
        {
            "rows": rows,
            "plans": raw_plans.float(),
            "cost_before": (unknown if plan.initial_cost is None else plan.initial_cost).float(),
            "cost_after": plan.cost.float(),
            "trace_steps": torch.tensor([step for step, _ in plan.trace], dtype=torch.long),
            "trace": torch.stack(traces, 1).float() if traces else unknown.float()[:, None][:, :0],
            "evaluations": plan.evaluations,
            "gradients": plan.gradient_evaluations,
        }
    )


def kept_of_execution(imagined: Latent, seen: Latent, goal: Latent, alpha: float) -> Iteration:
    """Keep how far from the goals (b, 1) the last executed frame is, as ``imagined`` (b, n) and as ``seen`` (b, m)."""
    distance = GoalDistance("last", alpha)
    return _on_cpu({"imagined_distance": distance(imagined, goal), "true_distance": distance(seen, goal)})


def kept_latents(imagined: Latent) -> Iteration:
    """Keep what the model imagines of a whole plan (b, T + 1), in half precision."""
    half = imagined.map(lambda part: part.to("cpu", torch.float16))
    return {"imagined_visual": half.visual, "imagined_proprio": half.proprio}


def reconstructed(records: Sequence[Mapping[str, Any]], solved_at: Tensor) -> list[Iteration]:
    """Make what can be made of iterations whose history was not kept yet when they were saved.

    Args:
        records: Their lines of the log.
        solved_at: (B,) see ``Episodes``.
    """
    found = []
    for number, record in enumerate(records, start=1):
        rows = ((solved_at == 0) | (solved_at >= number)).nonzero().squeeze(1)
        each = {"evaluations": record["model_evaluations"], "gradients": record["gradient_evaluations"]}
        entry = {name: torch.full((len(rows),), round(mean)) for name, mean in each.items()}
        entry |= timing(rows, record["planning_seconds"], record["simulation_seconds"])
        found.append(entry | {"rows": rows})
    return found


def timing(rows: Tensor, planning: float, simulation: float) -> Iteration:
    """Say how many seconds an iteration took: planning for each of ``rows`` (b,), simulation for all together."""
    shared = torch.full((len(rows),), planning / max(1, len(rows)), dtype=torch.float64)
    return {"planning_seconds": shared, "simulation_seconds": torch.tensor(simulation, dtype=torch.float64)}


def spread(
    history: Sequence[Iteration], name: str, num: int, missing: float, dtype: torch.dtype, sides: Sequence[int] = ()
) -> Tensor:
    """Put one name's numbers of all iterations in their places among all episodes.

    Args:
        history: I iterations.
        name: Of the numbers, (b, ...) each; iterations may lack it, and may have a shorter second side.
        num: B.
        missing: What stands where an iteration says nothing.
        dtype: Of the result.
        sides: Its sides after the first two.

    Returns:
        (B, I, *sides).
    """
    full = torch.full((num, len(history), *sides), missing, dtype=dtype)
    for number, entry in enumerate(history):
        if name in entry:
            values = entry[name]
            view = full[:, number] if not sides else full[:, number, : values.shape[1]]
            view[entry["rows"]] = values.to(dtype)
    return full


def _on_cpu(entry: Iteration) -> Iteration:
    return {name: value.detach().cpu() for name, value in entry.items()}
