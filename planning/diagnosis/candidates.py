"""What a search visits: whether the model ranks its candidates as the simulator does, and where its gradients are."""

from __future__ import annotations

import torch
from torch import Tensor

from models.latent_geometry import rank_correlation
from planning.diagnosis.numbers import Mean, means
from planning.diagnosis.subject import Subject
from planning.planners.plan import CostFn
from planning.planners.search import no_nan

MOMENTS = ("start", "middle", "end")
COMPARED = 24  # candidates of a moment that are executed
FEWEST = 3  # whose ranks can be correlated
SPREAD = 1e-6  # relative; where costs differ by no more, float32 has no order


class Visited:
    """A cost function that keeps the best candidates of every call.

    Args:
        cost: What is asked.
        num_problems: B.
    """

    def __init__(self, cost: CostFn, num_problems: int) -> None:
        self.cost, self.num_problems = cost, num_problems
        self._calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, actions: Tensor, problems: Tensor | None = None) -> Tensor:
        """Ask for the cost (b, N) of candidates (b, N, T, A) in ``problems`` (b,), see ``CostFn``."""
        values = self.cost(actions, problems)
        rows = torch.arange(len(actions), device=actions.device) if problems is None else problems
        costs, best = no_nan(values.detach()).topk(min(COMPARED, actions.shape[1]), 1, largest=False)
        chosen = actions.detach().gather(1, best[:, :, None, None].expand(-1, -1, *actions.shape[2:]))
        everyone = chosen.new_zeros(self.num_problems, *chosen.shape[1:]).index_copy(0, rows, chosen)
        all_costs = costs.new_full((self.num_problems, costs.shape[1]), torch.inf).index_copy(0, rows, costs)
        self._calls.append((everyone, all_costs))
        return values

    def at(self, moment: str) -> tuple[Tensor, Tensor]:
        """Candidates (B, n, T, A) at the start, in the middle or at the end of the search, and their costs (B, n).

        They come from neighbouring calls, as few as hold ``COMPARED`` of them, and are the best of these. No two
        moments share a call, unless there are fewer calls than moments.
        """
        place = MOMENTS.index(moment) / (len(MOMENTS) - 1) * (len(self._calls) - 1)
        most = max(1, len(self._calls) // len(MOMENTS))
        calls: list[tuple[Tensor, Tensor]] = []
        for call in sorted(range(len(self._calls)), key=lambda number: abs(number - place)):
            if len(calls) < most and sum(costs.shape[1] for _, costs in calls) < COMPARED:
                calls.append(self._calls[call])
        actions, costs = torch.cat([call[0] for call in calls], 1), torch.cat([call[1] for call in calls], 1)
        costs, best = costs.topk(min(COMPARED, costs.shape[1]), 1, largest=False)
        return actions.gather(1, best[:, :, None, None].expand(-1, -1, *actions.shape[2:])), costs


def rank_correlations(subject: Subject, rows: Tensor) -> dict[str, Mean]:
    """Search for the first plans of ``rows`` (n,) again, and rank what was visited by its true cost as well.

    Returns:
        By moment, the mean over episodes of Spearman's coefficient of the costs as imagined and as they come true.
    """
    request, simulated = subject.request(0, rows), subject.request(0, rows, simulated=True)
    visited = Visited(request.cost, len(rows))
    request.planner.optimize(visited, request.start(), request.noise, request.space)
    found = {}
    for moment in MOMENTS:
        actions, imagined = visited.at(moment)
        true = simulated.cost(actions)
        each = [_correlation(*pair) for pair in zip(imagined.cpu(), true.cpu(), strict=True)]
        found[moment] = means(torch.tensor(each))
    return found


def _correlation(imagined: Tensor, true: Tensor) -> float:
    """Spearman's coefficient of the costs (n,) of different candidates; NaN where too few differ."""
    kept = imagined.isfinite() & true.isfinite()
    imagined, true = imagined[kept], true[kept]
    if len(imagined) < FEWEST or imagined.max() - imagined.min() <= SPREAD * imagined.abs().max():
        return torch.nan
    return rank_correlation(imagined[None], true[None]).item()


def gradient_norms(subject: Subject, rows: Tensor) -> list[Mean]:
    """Norm of the cost's gradient by each block 1 ... T of the initial actions of the first plans of ``rows`` (n,)."""
    request = subject.request(0, rows)
    start = request.start()[:, None].detach().requires_grad_()
    with torch.enable_grad():
        gradients = torch.autograd.grad(request.cost(start).sum(), start)[0]
    norms = gradients[:, 0].norm(dim=2).cpu()
    return [means(norms[:, block]) for block in range(norms.shape[1])]
