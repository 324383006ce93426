"""Losses on the features themselves, where an encoder or a projector trains: spread, decorrelated, slow, straight."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.latent_geometry import curvature
from utils.ranges import NonNegative

POOLS = ("patch", "mean", "flatten", "mlp")
MLP_WIDTHS = (512, 512, 128)


class Regularizer(nn.Module):
    """No regulariser: the prediction loss alone decides about the features.

    A regulariser may have weights of its own. They are trained and saved with a run, and are no part of the model.

    Attributes:
        name: As in ``regularizer=<name>``.
        acts: Whether it adds anything to the loss.
        prevents_collapse: Whether features that are the same for every frame cost something.
    """

    name = "none"
    acts = False
    prevents_collapse = False

    def setup(self, num_frames: int, num_patches: int, dim: int) -> None:
        """Called once before training, with F, P and D of ``losses``.

        Raises:
            ValueError: If samples of so many frames do not do.
        """

    def losses(self, features: Tensor) -> dict[str, Tensor]:
        """Terms of a step by the name in the log: "regularizer_loss" is minimised, the others are parts of it.

        Args:
            features: (B, F, P, D) of the step's frames, with gradients.
        """
        return {}


class FeatureTerms(Regularizer):
    """Straight paths, features that vary, do not repeat each other, and change slowly: each by its weight.

    ``curvature`` is the mean of 1 - cos between consecutive steps of a path (``models.latent_geometry.curvature``).
    ``v`` is the mean hinge ``max(0, 1 - std)`` over the entries of the patches, with the standard deviation over the
    B * F frames of the step. ``c`` is the sum of squared covariances between different features of a patch, divided by
    their number D; the mean over patches. ``t`` is the mean squared difference of features one model step apart.
    Gradients flow into all frames, while the targets of the prediction loss stay detached.

    A constant encoder makes both the prediction loss and t zero; v alone forbids it. t makes distances useful for
    planning: among all features of variance 1, the slowest are those that change over the whole range of the
    states, so latent distance goes on growing with the steps between two states. Along a straight path it does so,
    too.

    Source: "Temporal Straightening for Latent Planning", arXiv 2603.12231 (curvature, its weight, its pools); Bardes
    et al. 2022, VICReg, arXiv 2105.04906, section 4.1 (v and c); Sobal et al. 2025, PLDM, arXiv 2502.14819 (v, c and
    t for planning). Deviation: no invariance term between two views; the prediction is in its place, towards detached
    targets as everywhere here. Deviation: no inverse dynamics, which PLDM adds so that features tell actions; that
    needs a network of its own and was not needed here.

    Args:
        curvature_weight: Of the curvature, >= 0.
        pool: Whose path is straightened: "patch", each patch's; or one for the frame, the "mean" of its patches, all
            of them, "flatten", or an "mlp" of all of them, which exists for this loss only.
        variance_weight: Of v, >= 0.
        covariance_weight: Of c, >= 0.
        slowness_weight: Of t, >= 0.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    name = "straighten"
    acts = True

    def __init__(
        self,
        curvature_weight: NonNegative = 0.0,
        pool: str = "patch",
        variance_weight: NonNegative = 0.0,
        covariance_weight: NonNegative = 0.0,
        slowness_weight: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.weights = {"curvature": curvature_weight, "variance": variance_weight, "covariance": covariance_weight,
                        "slowness": slowness_weight}  # fmt: skip
        for name, value in self.weights.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"regularizer.{name}_weight must be >= 0, got {value}")
        if not any(self.weights.values()):
            raise ValueError(f"regularizer={self.name}: all of its weights are 0; set regularizer=none")
        if pool not in POOLS:
            raise ValueError(f"regularizer.pool must be one of {', '.join(POOLS)}, got {pool!r}")
        self.pool, self.mlp = pool, nn.Sequential()
        self.prevents_collapse = variance_weight > 0

    def setup(self, num_frames: int, num_patches: int, dim: int) -> None:
        """See ``Regularizer.setup``: two steps make a bend."""
        if not self.weights["curvature"]:
            return
        if num_frames < 3:
            raise ValueError(
                f"regularizer.curvature_weight={self.weights['curvature']} needs samples of 3 frames, and N + num_hist "
                f"= {num_frames}; raise N by {3 - num_frames}"
            )
        if self.pool == "mlp":
            self.mlp = _mlp(num_patches * dim)

    def losses(self, features: Tensor) -> dict[str, Tensor]:
        """See ``Regularizer.losses``; the parts are logged without their weights."""
        features = features.float()  # variances of half precision would be too rough
        by_patch = features.flatten(0, 1).transpose(0, 1)  # (P, n, D)
        makers = {
            "curvature": lambda: curvature(self._paths(features)),
            "variance": lambda: variance_loss(by_patch),
            "covariance": lambda: covariance_loss(by_patch),
            "slowness": lambda: features.diff(dim=1).square().mean(),
        }
        terms = {name: makers[name]() for name, weight in self.weights.items() if weight}
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {"regularizer_loss": total, **{f"{name}_loss": term.detach() for name, term in terms.items()}}

    def _paths(self, features: Tensor) -> Tensor:
        """Points (B, F, n, d) of n paths a sample."""
        if self.pool == "patch":
            return features
        if self.pool == "mean":
            return features.mean(2, keepdim=True)
        whole = features.flatten(2)
        if self.pool == "mlp":
            with torch.autocast(whole.device.type, enabled=False):  # bf16 would round short steps away
                whole = self.mlp(whole)
        return whole[:, :, None]


class VICReg(FeatureTerms):
    """The terms of ``FeatureTerms`` without curvature: every feature varies, repeats no other, and changes slowly.

    Args:
        variance_weight: Of v, > 0.
        covariance_weight: Of c, >= 0.
        slowness_weight: Of t, >= 0.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    name = "vicreg"

    def __init__(
        self, variance_weight: NonNegative, covariance_weight: NonNegative, slowness_weight: NonNegative
    ) -> None:
        if not 0 < variance_weight < math.inf:
            raise ValueError(
                f"regularizer.variance_weight must be > 0 (it is what prevents collapse), got {variance_weight}"
            )
        super().__init__(0.0, "patch", variance_weight, covariance_weight, slowness_weight)


def _mlp(inside: int) -> nn.Sequential:
    """Linear maps to ``MLP_WIDTHS``, LayerNorm and ReLU between them."""
    first, second, last = MLP_WIDTHS
    hidden = ((inside, first), (first, second))
    layers = [layer for a, b in hidden for layer in (nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(second, last))


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
