"""Learning while planning: gradient steps of the model on what an episode has just shown."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.adapted import Weights, adapted_model, plain_copy
from models.interfaces import Predictor
from models.latent import Latent
from models.world_model import WorldModel
from planning.cost import ENOUGH_GB
from utils.ranges import Positive, Small

log = logging.getLogger(__name__)

PARAMETERS = ("norms", "last", "all")


class Adaptation:
    """Plain gradient steps of the predictor after every MPC iteration, for each episode by itself.

    The loss is the prediction error at the frames that an iteration has shown, each predicted from the real frames and
    executed blocks before it. Encoders stay as they are, and so does the model that the episodes share.

    Source: AdaJEPA (one gradient step per replanning on the transition just observed); step sizes and the choice of
    weights are ours.

    Args:
        lr: Step size, > 0.
        steps: Gradient steps of an iteration, >= 1.
        parameters: Which weights of the predictor: "norms" (of normalisation layers), "last" (the last linear map) or
            "all". Every episode keeps its own, so "all" takes the size of the predictor for each.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    def __init__(self, lr: Positive, steps: Small = 1, parameters: str = "norms") -> None:
        if type(lr) not in (int, float) or not 0 < lr < math.inf:
            raise ValueError(f"planner.adapt.lr must be a finite number > 0, got {lr!r}")
        if type(steps) is not int or steps < 1:
            raise ValueError(f"planner.adapt.steps must be a whole number, at least 1, got {steps!r}")
        if parameters not in PARAMETERS:
            raise ValueError(f"planner.adapt.parameters must be one of {', '.join(PARAMETERS)}, got {parameters!r}")
        self.lr, self.steps, self.parameters = lr, steps, parameters
        self._said = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Adaptation:
        """Make one of ``planner.adapt``.

        Raises:
            ValueError: If a setting is missing or unknown.
        """
        if unknown := sorted(set(settings) - {"lr", "steps", "parameters"}):
            raise ValueError(f"planner.adapt.{unknown[0]}: there is no such setting; there are lr, steps, parameters")
        if "lr" not in settings:
            raise ValueError("planner.adapt.lr is missing: planner.adapt='{lr: 0.3, steps: 1, parameters: norms}'")
        return cls(**settings)

    def begin(self, model: WorldModel, episodes: int) -> Weights:
        """Give every episode the model's own weights.

        Raises:
            ValueError: If the predictor has none of the kind that is asked for.
        """
        predictor = model.require_predictor()
        own, names = dict(predictor.named_parameters()), self._names(predictor)
        if not names:
            raise ValueError(
                f"planner.adapt.parameters={self.parameters}: the predictor {type(predictor).__name__} has no such "
                f"weights; set one of {', '.join(PARAMETERS)}"
            )
        count = sum(own[name].numel() for name in names)
        log.log(
            logging.DEBUG if self._said else logging.INFO,
            "planner.adapt: every episode has %d weights of its own, %.1f MB in all; from the second iteration on the "
            "plain predictor plans: of speed.* only reuse_history has an effect on it",
            count, 4 * count * episodes / 1e6,
        )  # fmt: skip
        self._said = True  # online training begins again and again
        return {name: own[name].detach().repeat(episodes, *[1] * own[name].ndim) for name in names}

    def learn(
        self, model: WorldModel, weights: Weights, frames: Latent, actions: Tensor, new: int
    ) -> tuple[Weights, Tensor]:
        """Take the steps, for b episodes.

        Args:
            model: What they share.
            weights: (b, *shape) each.
            frames: (b, F + new) latents of real frames, oldest first.
            actions: (b, F + new - 1, A) z-scored blocks executed between them.
            new: Frames at the end whose prediction counts.

        Returns:
            The weights afterwards, and the losses (b,) before.
        """
        size = 4 * sum(value[0].numel() for value in weights.values())
        rows = max(1, int(ENOUGH_GB * 2**30 // (model.rollout_bytes(new, with_grad=True) + 3 * size)))
        learnt, losses, plain = [], [], plain_copy(model.require_predictor())
        for chunk in torch.arange(len(actions), device=actions.device).split(rows):
            own = {name: value[chunk] for name, value in weights.items()}
            found = [self._step(model, plain, own, frames[chunk], actions[chunk], new) for _ in range(self.steps)]
            learnt.append(own)
            losses.append(found[0])
        return {name: torch.cat([part[name] for part in learnt]) for name in weights}, torch.cat(losses)

    def _step(
        self, model: WorldModel, plain: Predictor, weights: Weights, frames: Latent, actions: Tensor, new: int
    ) -> Tensor:
        """Change ``weights`` of the ``plain`` copy of the predictor by one step; returns the losses (b,) before."""
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
            losses = prediction_errors(adapted_model(model, leaves, plain=plain), frames, actions, new)
            # a sum: an episode's loss depends on its own weights alone
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
        for name, gradient in zip(leaves, gradients, strict=True):
            step = self.lr * gradient.to(weights[name].dtype)
            weights[name] = weights[name] - step.nan_to_num(0, 0, 0)  # nothing is learnt from what is not finite
        return losses.detach()

    def _names(self, predictor: Predictor) -> list[str]:
        if self.parameters == "all":
            return [name for name, _ in predictor.named_parameters()]
        kind = nn.LayerNorm | nn.GroupNorm if self.parameters == "norms" else nn.Linear
        layers = [name for name, module in predictor.named_modules() if isinstance(module, kind)]
        chosen = layers if self.parameters == "norms" else layers[-1:]
        return [f"{name}.{key}" for name in chosen for key, _ in predictor.get_submodule(name).named_parameters()]


def prediction_errors(model: WorldModel, frames: Latent, actions: Tensor, new: int) -> Tensor:
    """Mean squared errors (b,) of the last ``new`` frames (b, F), each predicted from the real ones before it."""
    layout, predictor = model.layout, model.require_predictor()
    found, count = [], frames.num_frames
    for end in range(count - new, count):
        seen = slice(max(0, end - model.num_hist), end)
        tokens = model.tokens(frames[:, seen], actions[:, seen])
        predicted = predictor(tokens.flatten(1, 2)).view_as(tokens)[:, -1:]
        action = predicted.new_zeros(len(predicted), 1, layout.action_dim)
        wanted = layout.assemble(frames[:, end : end + 1], action)
        error = layout.state_part(predicted) - layout.state_part(wanted)
        found.append(error.float().square().flatten(1).mean(1))
    return torch.stack(found).mean(0)
