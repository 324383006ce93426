"""How latents lie in their space: how straight paths are, what distances tell, how much of the space is used."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST_STEP = 1e-6
"""Below it a step has no direction."""


def curvature(points: Tensor) -> Tensor:
    """Mean of 1 - cos between consecutive steps: 0 on a straight line, 1 at right angles, 2 where a path turns back.

    Pairs with a step shorter than ``SHORTEST_STEP`` are left out; a batch without any other has curvature 0.

    Args:
        points: (B, F, n, d) of n paths in each sample, F >= 3.

    Source: "Temporal Straightening for Latent Planning", arXiv 2603.12231.
    """
    steps = points.diff(dim=1)
    directions = F.normalize(steps, dim=-1, eps=SHORTEST_STEP)
    moves = steps.norm(dim=-1) >= SHORTEST_STEP
    counted = moves[:, :-1] & moves[:, 1:]
    bends = 1 - (directions[:, :-1] * directions[:, 1:]).sum(-1)
    return (bends * counted).sum() / counted.sum().clamp_min(1)


def step_correlation(points: Tensor) -> Tensor:
    """Rank correlation of distance with the steps between two frames, over all pairs of frames of a sample.

    1 if a frame that is more steps away is always farther away. 0 also where all distances are equal.

    Args:
        points: (B, F, d), F >= 3.

    Returns:
        (B,) Spearman's coefficients.
    """
    first, second = frame_pairs(points)
    distance = torch.cdist(points, points)[:, first, second]
    return rank_correlation(distance, (second - first).expand_as(distance))


def frame_pairs(points: Tensor) -> tuple[Tensor, Tensor]:
    """Number the two frames of every pair of ``points`` (B, F, ...): (F (F - 1) / 2,) each, the earlier one first."""
    first, second = torch.triu_indices(points.shape[1], points.shape[1], 1, device=points.device)
    return first, second


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Correlate the ranks of two rows of numbers (B, n): (B,) Spearman's coefficients, 0 where a row is constant."""
    ranks = torch.stack([_ranks(first), _ranks(second)])
    centred = ranks - ranks.mean(-1, keepdim=True)
    spread = centred.square().sum(-1).prod(0).sqrt()
    return centred.prod(0).sum(-1) / spread.clamp_min(SHORTEST_STEP)


def _ranks(values: Tensor) -> Tensor:
    """Rank each row's values from 0; equal ones share the mean of their ranks."""
    below = (values[..., :, None] > values[..., None, :]).sum(-1)
    equal = (values[..., :, None] == values[..., None, :]).sum(-1)
    return below + (equal - 1) / 2


@torch.no_grad()
def feature_spread(features: Tensor) -> dict[str, float]:
    """How much of its space an encoder uses, for the log.

    ``feature_std`` is the mean standard deviation of an entry over frames. ``feature_rank`` is the exponential of the
    entropy of the normalised singular values of the features of whole frames: 1 where all frames look the same, at
    most min(n, P * D). The mean is not subtracted: it would leave the rounding noise of a collapsed encoder, which
    points everywhere and would look like a high rank.

    Args:
        features: (n, P, D) of different frames, n >= 2.

    Source: Roy & Vetterli 2007, "The effective rank"; Garrido et al. 2023, RankMe, arXiv 2210.02885, section 3.
    """
    flat = features.flatten(1).double()
    gram = flat @ flat.T if len(flat) < flat.shape[1] else flat.T @ flat  # the smaller one; same singular values
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = singular / singular.sum().clamp_min(1e-300)
    return {"feature_std": flat.std(0).mean().item(), "feature_rank": torch.special.entr(shares).sum().exp().item()}
