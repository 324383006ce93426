"""Losses that keep a trained encoder from collapsing to features that are easy to predict."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.ranges import NonNegative


class Regularizer:
    """No regulariser: the prediction loss alone decides about the features.

    Attributes:
        name: As in ``regularizer=<name>``.
        acts: Whether it adds anything to the loss.
    """

    name = "none"
    acts = False

    def losses(self, features: Tensor) -> dict[str, Tensor]:
        """Terms of a step by the name in the log: "regularizer_loss" is minimised, the others are parts of it.

        Args:
            features: (B, F, P, D) of the step's frames, with gradients.
        """
        return {}


class VICReg(Regularizer):
    """Every feature varies, features do not repeat each other, and they change slowly.

    ``v`` is the mean hinge ``max(0, 1 - std)`` over the entries of the patches, with the standard deviation over the
    B * F frames of the step. ``c`` is the sum of squared covariances between different features of a patch, divided by
    their number D; the mean over patches. ``t`` is the mean squared difference of features one model step apart.
    The loss is ``variance_weight v + covariance_weight c + slowness_weight t``. Gradients flow into all frames, while
    the targets of the prediction loss stay detached.

    A constant encoder makes both the prediction loss and t zero; v alone forbids it. t makes distances useful for
    planning: among all features of variance 1, the slowest are those that change over the whole range of the
    states, so latent distance goes on growing with the steps between two states.

    Source: Bardes et al. 2022, VICReg, arXiv 2105.04906, section 4.1 (v and c); Sobal et al. 2025, PLDM, arXiv
    2502.14819 (v, c and t for planning). Deviation: no invariance term between two views; the prediction is in its
    place, towards detached targets as everywhere here. Deviation: no inverse dynamics, which PLDM adds so that
    features tell actions; that needs a network of its own and was not needed here.

    Args:
        variance_weight: Of v, > 0.
        covariance_weight: Of c, >= 0.
        slowness_weight: Of t, >= 0.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    name = "vicreg"
    acts = True

    def __init__(
        self, variance_weight: NonNegative, covariance_weight: NonNegative, slowness_weight: NonNegative
    ) -> None:
        if not 0 < variance_weight < math.inf:
            raise ValueError(
                f"regularizer.variance_weight must be > 0 (it is what prevents collapse), got {variance_weight}"
            )
        for key, value in (("covariance_weight", covariance_weight), ("slowness_weight", slowness_weight)):
            if not 0 <= value < math.inf:
                raise ValueError(f"regularizer.{key} must be >= 0, got {value}")
        self.weights = (variance_weight, covariance_weight, slowness_weight)

    def losses(self, features: Tensor) -> dict[str, Tensor]:
        """See ``Regularizer.losses``; the parts are logged without their weights."""
        features = features.float()  # variances of half precision would be too rough
        by_patch = features.flatten(0, 1).transpose(0, 1)  # (P, n, D)
        terms = (variance_loss(by_patch), covariance_loss(by_patch), features.diff(dim=1).square().mean())
        total = sum(weight * term for weight, term in zip(self.weights, terms, strict=True))
        names = ("variance_loss", "covariance_loss", "slowness_loss")
        parts = {name: term.detach() for name, term in zip(names, terms, strict=True)}
        return {"regularizer_loss": torch.as_tensor(total), **parts}


def variance_loss(samples: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Mean over P and D of ``max(0, 1 - sqrt(var + epsilon))``; ``samples`` (P, n, D), n >= 2.

    Source: VICReg, equations 1 and 2. ``epsilon`` keeps the gradient finite where nothing varies.
    """
    return F.relu(1 - (samples.var(1) + epsilon).sqrt()).mean()


def covariance_loss(samples: Tensor) -> Tensor:
    """Sum of the squared off-diagonal covariances, divided by D, mean over P; ``samples`` (P, n, D), n >= 2.

    Source: VICReg, equations 3 and 4.
    """
    centred = samples - samples.mean(1, keepdim=True)
    covariance = centred.transpose(1, 2) @ centred / (samples.shape[1] - 1)  # (P, D, D)
    off_diagonal = covariance - torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
    return off_diagonal.square().sum((1, 2)).mean() / samples.shape[2]


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
