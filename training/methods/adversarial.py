"""Adversarial World Modeling: train on inputs perturbed towards higher loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.world_model import PredictionLoss, Windows, frozen
from planning.planners.noise import EpisodeNoise
from training.methods.base import Method, TrainingContext
from training.numbered_windows import NumberedWindows
from utils import distributed
from utils.ranges import NonNegative, Share, Small

RADII_METHODS = ("fixed", "adaptive")
PERTURBATIONS = ("embedding", "action")
STEP_FACTOR = 1.25  # the one ascent step of FGSM, in units of the radius
PGD_REACH = 2.5  # what several ascent steps cover together, in units of the radius
STREAM = 2**64  # added to the seed, so that perturbations share no stream with plans


class Adversarial(Method):
    """FGSM on the latents and actions, then teacher forcing towards the clean targets.

    Source: Parthasarathy et al., arXiv 2512.09929, section 4.2; the step size of Wong et al. 2020 (fast FGSM), with
    several steps that of Madry et al. 2018 (2.5 radii over the number of steps).

    Args:
        radii_method: "fixed" measures the radii on the first batch, "adaptive" on every batch.
        visual_eps_factor: Radius of the visual features, >= 0, in units of the mean over samples of that part's
            standard deviation within a sample.
        proprio_eps_factor: The same of the proprio embedding.
        action_eps_factor: The same of the actions.
        perturbation: "embedding" perturbs the action entries of every token, independently per patch (as released);
            "action" perturbs the z-scored action block itself (the paper's formula).
        pgd_steps: Ascent steps, >= 1; 1 is FGSM.
        clean_weight: Share of the loss at the clean inputs in what is minimised, in [0, 1); 0 as released.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    name = "adversarial"
    finetunes = True

    def __init__(
        self,
        radii_method: str = "fixed",
        visual_eps_factor: NonNegative = 0.05,
        proprio_eps_factor: NonNegative = 0.02,
        action_eps_factor: NonNegative = 0.02,
        perturbation: str = "embedding",
        pgd_steps: Small = 1,
        clean_weight: Share = 0.0,
        **hooks: Any,
    ) -> None:
        super().__init__(**hooks)
        if radii_method not in RADII_METHODS:
            raise ValueError(f"radii_method must be one of {', '.join(RADII_METHODS)}, got {radii_method!r}")
        if perturbation not in PERTURBATIONS:
            raise ValueError(f"method.perturbation must be one of {', '.join(PERTURBATIONS)}, got {perturbation!r}")
        factors = (visual_eps_factor, proprio_eps_factor, action_eps_factor)
        self.radii_method, self.factors = radii_method, factors
        if clean_weight >= 1:
            raise ValueError(f"method.clean_weight must be below 1, got {clean_weight}; method=offline is all clean")
        self.perturbation, self.pgd_steps, self.clean_weight = perturbation, pgd_steps, clean_weight
        self.step_factor = STEP_FACTOR if pgd_steps == 1 else PGD_REACH / pgd_steps
        self.radii: Tensor | None = None  # (3,) of visual, proprio and action entries
        self._seed = self._ascents = 0

    def setup(self, context: TrainingContext) -> None:
        """See ``Method.setup``."""
        super().setup(context)
        self._seed = context.seed

    def loss(self, windows: Windows) -> PredictionLoss:
        """Ascend from a random start within the radii, then the loss at the perturbed inputs, clean targets."""
        model = self.context.model
        tokens = model.tokens(windows.source, windows.actions)
        parts = (*model.layout.parts(tokens)[:2], self._action_part(tokens, windows.actions))
        radii = self._current_radii([part.detach() for part in parts])
        noise = self._noise(windows)
        deltas = [eps * self._uniform(part, noise) for eps, part in zip(radii, parts, strict=True)]
        fixed, actions = tokens.detach(), windows.actions
        for _ in range(self.pgd_steps):
            deltas = [delta.detach().requires_grad_() for delta in deltas]
            with frozen(model.require_predictor()):
                predicted = model.predict_tokens(self._perturbed(fixed, actions, deltas))
                ascent = model.prediction_loss(predicted, windows.target)
            gradients = torch.autograd.grad(ascent.total, deltas)  # for the deltas only: the weights keep no .grad
            deltas = [
                (delta.detach() + self.step_factor * eps * gradient.sign()).clamp(-eps, eps)
                for eps, delta, gradient in zip(radii, deltas, gradients, strict=True)
            ]
        perturbed = self._perturbed(tokens, actions, deltas)
        loss = model.prediction_loss(model.predict_tokens(perturbed), windows.target)
        if not self.clean_weight:
            return loss
        clean = model.prediction_loss(model.predict_tokens(tokens), windows.target)
        return PredictionLoss(*(torch.lerp(p, c, self.clean_weight) for p, c in zip(loss, clean, strict=True)))

    def _action_part(self, tokens: Tensor, actions: Tensor) -> Tensor:
        return actions if self.perturbation == "action" else self.context.model.layout.parts(tokens)[2]

    def _perturbed(self, tokens: Tensor, actions: Tensor, deltas: list[Tensor]) -> Tensor:
        """``tokens`` (W, H, P', D') plus the perturbation of each part."""
        model = self.context.model
        if self.perturbation == "action":
            tokens = model.layout.with_action(tokens, model.action_encoder(actions + deltas[2]))
        action = deltas[2] if self.perturbation == "embedding" else torch.zeros_like(model.layout.parts(tokens)[2])
        return tokens + model.layout.join(deltas[0], deltas[1], action)

    def _current_radii(self, parts: list[Tensor]) -> list[float]:
        """Measure the radii of visual, proprio and action entries on all windows of all processes."""
        if self.radii is None or self.radii_method == "adaptive":
            sums = torch.stack([part.flatten(1).std(dim=1).sum() for part in parts]).tolist()
            *sums, count = distributed.add_up(dict(enumerate([*sums, len(parts[0])]))).values()
            self.radii = torch.tensor(sums) / count * torch.tensor(self.factors)
        return self.radii.tolist()

    def _noise(self, windows: Windows) -> EpisodeNoise:
        """Give each window a random stream of its own: its place in a batch, and its process, change nothing.

        At full size a step takes ten million numbers, 40 ms on a CPU: a GPU draws its own.
        """
        self._ascents += 1
        numbers, device = NumberedWindows.of(windows).numbers.tolist(), windows.actions.device
        return EpisodeNoise.derive(STREAM + self._seed, numbers, self._ascents, device, drawn_there=True)

    def _uniform(self, part: Tensor, noise: EpisodeNoise) -> Tensor:
        """Uniform in [-1, 1], of the shape of ``part``."""
        return noise.uniform(-1, 1, *part.shape[1:])

    def updated(self) -> dict[str, float]:
        """See ``Method.updated``."""
        names = ("visual_eps", "proprio_eps", "action_eps")
        radii = [] if self.radii is None else self.radii.tolist()
        return super().updated() | dict(zip(names, radii, strict=False))

    def state_dict(self) -> dict[str, Any]:
        """See ``Method.state_dict``."""
        return super().state_dict() | {"radii": self.radii, "ascents": [self._seed, self._ascents]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Method.load_state_dict``."""
        super().load_state_dict(state)
        self.radii = state["radii"]
        self._seed, self._ascents = state["ascents"]
