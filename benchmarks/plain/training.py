"""Adversarial training as an earlier release did it: frames encoded window by window in both phases, and decoded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.plain.model import PlainModel
from datasets.batch import Batch
from models.latent import Latent


class PlainAdversarial:
    """FGSM on the tokens, then a training step; every window pays for its own frames, twice.

    Args:
        model: ``in_training``.
        factors: Radii of the visual, proprio and action entries, see ``Adversarial``.
        step_factor: Of the ascent, in units of the radius.
        lr: Of all parts; only the time of a step matters here.
        decodes: Whether the decoder is part of both phases, as it was.
        generator: Of the random starts within the radii.
    """

    def __init__(
        self,
        model: PlainModel,
        generator: torch.Generator,
        factors: Sequence[float] = (0.05, 0.02, 0.02),
        step_factor: float = 1.25,
        lr: float = 1e-5,
        decodes: bool = True,
    ) -> None:
        self.model, self.generator, self.factors, self.step_factor = model, generator, factors, step_factor
        self.decodes = decodes
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=lr)

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step; returns the prediction loss at the perturbed inputs."""
        prediction, decoding = self.losses(batch)
        self.optimizer.zero_grad()
        (prediction + decoding).backward()
        self.optimizer.step()
        return prediction.detach()

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The prediction loss at the perturbed inputs, and that of the decoder."""
        visual, proprio, actions = self._windows(batch)
        latent, tokens = self._inputs(visual, proprio, actions)
        starts, radii = self._random_starts(tokens.detach())
        deltas = [delta.requires_grad_() for delta in starts]
        ascent, _ = self._outcome(visual, latent, tokens, deltas)
        gradients = torch.autograd.grad(ascent, deltas)
        ascended = [
            (delta.detach() + self.step_factor * eps * gradient.sign()).clamp(-eps, eps)
            for eps, delta, gradient in zip(radii, deltas, gradients, strict=True)
        ]
        latent, tokens = self._inputs(visual, proprio, actions)  # the same frames, encoded again
        return self._outcome(visual, latent, tokens, ascended)

    def _windows(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Images, proprio (W, H + 1) and actions (W, H) of all windows, overlapping as they do."""
        hist = self.model.world.num_hist
        assert batch.visual is not None, "the plain way has no cache of latents"
        starts = range(batch.visual.shape[1] - hist)

        def cut(part: Tensor, length: int) -> Tensor:
            return torch.stack([part[:, start : start + length] for start in starts], 1).flatten(0, 1)

        return cut(batch.visual, hist + 1), cut(batch.proprio, hist + 1), cut(batch.actions, hist)

    def _inputs(self, visual: Tensor, proprio: Tensor, actions: Tensor) -> tuple[Latent, Tensor]:
        """Latents (W, H + 1) of whole windows, and the tokens (W, H, P, D') of what the predictor sees of them."""
        latent = self.model.encode(visual, proprio)
        return latent, self.model.tokens(latent[:, : self.model.world.num_hist], actions)

    def _random_starts(self, tokens: Tensor) -> tuple[list[Tensor], list[float]]:
        """Uniform perturbations within the radii of each part of the tokens, and these radii."""
        parts = self.model.world.layout.parts(tokens)
        spread = [part.flatten(1).std(dim=1).mean().item() for part in parts]
        radii = [factor * each for factor, each in zip(self.factors, spread, strict=True)]
        drawn = [torch.empty(part.shape).uniform_(-1, 1, generator=self.generator).to(part.device) for part in parts]
        return [eps * delta for eps, delta in zip(radii, drawn, strict=True)], radii

    def _outcome(
        self, visual: Tensor, latent: Latent, tokens: Tensor, deltas: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Prediction loss and decoder loss of perturbed windows."""
        layout = self.model.world.layout
        predicted = self.model.predict(tokens + layout.join(deltas[0], deltas[1], deltas[2]))
        wanted = layout.assemble(latent[:, 1:].detach(), predicted.new_zeros(*predicted.shape[:2], layout.action_dim))
        loss = F.mse_loss(layout.state_part(predicted), layout.state_part(wanted))
        if not self.decodes:
            return loss, loss.new_zeros(())
        return loss, self._decoder_loss(visual, latent, layout.split(predicted))

    def _decoder_loss(self, visual: Tensor, latent: Latent, predicted: Latent) -> Tensor:
        """Loss of the reconstructed H + 1 frames and of the H predicted ones; it never reaches the dynamics."""
        images = visual.float() / 127.5 - 1
        drawn = self.model.world.decode(latent.detach())
        imagined = self.model.world.decode(predicted.detach())
        return F.mse_loss(drawn, images) + F.mse_loss(imagined, images[:, 1:])
