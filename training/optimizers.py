"""The optimisers of the parts in training, and their common schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.world_model import WorldModel


def constant(progress: float) -> float:
    """Keep the rate: the factor is always 1."""
    return 1.0


def one_cycle(progress: float) -> float:
    """Rise from 1/25 over the first tenth, then fall to nearly zero, both along a cosine.

    Source: Smith 2018, "super-convergence".
    """
    warm_up, start, end = 0.1, 1 / 25, 1e-4
    if progress < warm_up:
        low, high, at = start, 1.0, progress / warm_up
    else:
        low, high, at = 1.0, end, (progress - warm_up) / (1 - warm_up)
    return high + (low - high) * (1 + math.cos(math.pi * at)) / 2


SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "one_cycle": one_cycle}
"""Progress of the whole training in [0, 1) -> factor on every learning rate."""


@dataclass(frozen=True)
class LearningRates:
    """Peak learning rates of the parts, and what the optimisers share.

    Attributes:
        encoder: Of the encoder, > 0.
        predictor: Of the predictor, > 0.
        action_encoder: Of the action and proprio encoders, > 0.
        decoder: Of the decoder, > 0.
        weight_decay: Of AdamW.
        schedule: See ``SCHEDULES``.
        proposal: Of the proposal, > 0.
        projector: Of the projector, > 0.
    """

    encoder: float
    predictor: float
    action_encoder: float
    decoder: float
    weight_decay: float = 0.01
    schedule: str = "constant"
    proposal: float = 1e-3
    projector: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse rates that cannot train."""
        for part in ("encoder", "predictor", "action_encoder", "decoder", "proposal", "projector"):
            if not getattr(self, part) > 0:
                raise ValueError(f"training.{part}_lr must be > 0, got {getattr(self, part)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"training.schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")


class Optimizers:
    """One optimiser per part that is trained: AdamW for dynamics and proposal, Adam for the others.

    Source: DINO-WM's training setup. The decoder only ever sees detached latents, so it has no say in the dynamics.

    Args:
        model: What is trained; parts that do not change take no gradients.
        rates: See ``LearningRates``.
        train_encoder: Whether the encoder changes.
        train_predictor: Whether the predictor changes, and with it the action and proprio encoders.
        train_decoder: Whether the decoder changes.
        train_proposal: Whether the proposal changes.
        train_projector: Whether the projector changes.
        loss_weights: What the loss alone has weights for, no part of the model; trained at the predictor's rate.
        fused: Whether an update is one operation on all weights of a part, instead of several on each.

    Raises:
        ValueError: If nothing is left to train, or a part that should be trained does not exist.
    """

    def __init__(
        self,
        model: WorldModel,
        rates: LearningRates,
        train_encoder: bool,
        train_predictor: bool,
        train_decoder: bool,
        train_proposal: bool = False,
        train_projector: bool = False,
        loss_weights: nn.Module | None = None,
        fused: bool = True,
    ) -> None:
        self.fused = fused
        wanted = {"encoder": train_encoder, "projector": train_projector, "predictor": train_predictor}
        for part, is_wanted in {**wanted, "decoder": train_decoder}.items():
            if is_wanted and not list(_parameters(getattr(model, part))):
                lacks = getattr(model, part) is None
                what = f"the model has no {part}" if lacks else f"the model's {part} has nothing to train"
                raise ValueError(f"model.train_{part}=true, but {what}")
        model.requires_grad_(False)
        self.schedule = SCHEDULES[rates.schedule]
        self._peaks: dict[str, float] = {}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._refused: Tensor | None = None  # a scalar, 1 or 0
        if train_encoder:
            self._add("encoder", [model.encoder], torch.optim.Adam, rates.encoder)
        decay = {"weight_decay": rates.weight_decay}
        if train_projector:
            self._add("projector", [model.projector], torch.optim.AdamW, rates.projector, **decay)
        if train_predictor:
            self._add("predictor", [model.predictor], torch.optim.AdamW, rates.predictor, **decay)
            small = [model.action_encoder, model.proprio_encoder]
            self._add("action_encoder", small, torch.optim.AdamW, rates.action_encoder, **decay)
        if train_decoder:
            self._add("decoder", [model.decoder], torch.optim.Adam, rates.decoder)
        if train_proposal:
            self._add("proposal", [model.proposal], torch.optim.AdamW, rates.proposal, **decay)
        if not self._optimizers and not train_proposal:  # one without weights only remembers
            raise ValueError(
                "nothing to train: model.train_encoder, train_projector, train_predictor and train_decoder are all "
                "false, or of parts that the model lacks (has_predictor, has_decoder); set one of them to true"
            )
        self._add("regularizer", [loss_weights], torch.optim.AdamW, rates.predictor, **decay)

    def _add(self, name: str, modules: Sequence[nn.Module | None], kind: Any, lr: float, **options: float) -> None:
        parameters = [p.requires_grad_() for module in modules for p in _parameters(module)]
        if parameters:
            self._optimizers[name] = kind(parameters, lr=lr, fused=self.fused, **options)
            self._peaks[name] = lr

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def refuse_if_not_finite(self, objective: Tensor) -> None:
        """Let ``step`` change nothing from a scalar that is not finite on.

        The decision is made where the scalar is, on its device: nobody has to wait for it.
        """
        refused = objective.detach().isfinite().logical_not().float()
        self._refused = refused if self._refused is None else torch.maximum(self._refused, refused)
        for optimizer in self._optimizers.values() if self.fused else ():
            optimizer.found_inf = self._refused  # type: ignore[attr-defined]  # fused optimisers look for it

    def step(self, progress: float) -> None:
        """Update every part at its rate for this ``progress`` in [0, 1), unless that is refused."""
        if not self.fused and self._refused is not None and self._refused:
            return  # plain optimisers must be kept from it
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._peaks[name] * self.schedule(progress)
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Collect the states of all optimisers."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``.

        Raises:
            ValueError: If other parts were trained.
        """
        if state.keys() != self._optimizers.keys():
            raise ValueError(
                f"cannot resume: the saved state trains {', '.join(state)}, this run {', '.join(self._optimizers)}"
            )
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])


def _parameters(module: nn.Module | None) -> list[nn.Parameter]:
    return [] if module is None else list(module.parameters())
