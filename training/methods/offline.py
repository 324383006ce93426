"""Teacher forcing on the data set: how a base model is trained, and the control of every finetuning experiment."""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.batch import Batch
from models.latent import Latent
from training.methods.base import Method, TrainingContext
from utils.ranges import PositiveShare, Small


class Offline(Method):
    """Teacher forcing, plain or followed by imagined steps.

    With ``rollout_steps`` K > 1 every window that has K targets is rolled out for K steps over what the model itself
    predicts, and the errors of all steps count: ``(l_1 + d l_2 + ... + d^(K-1) l_K) / (1 + d + ... + d^(K-1))``, where
    l_1 is that of teacher forcing, over all windows and frames of context. Gradients pass through all steps.

    Source: the multi-step loss of latent dynamics models (latent overshooting, Hafner et al. 2019, arXiv 1811.04551,
    section 4, without its latent sampling).

    Args:
        rollout_steps: K, 1 <= K <= N; 1 is plain teacher forcing.
        rollout_discount: d, in (0, 1].

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    def __init__(self, rollout_steps: Small = 1, rollout_discount: PositiveShare = 1.0) -> None:
        super().__init__()
        if rollout_steps == 1 and rollout_discount != 1:
            raise ValueError(f"method.rollout_discount={rollout_discount} has no effect with method.rollout_steps=1")
        self.rollout_steps, self.discount = rollout_steps, rollout_discount

    def setup(self, context: TrainingContext) -> None:
        """See ``Method.setup``: with fewer windows than steps, the last step has no target."""
        super().setup(context)
        given = None if context.sample_frames is None else context.sample_frames - context.model.num_hist
        if given is not None and given < self.rollout_steps:
            raise ValueError(
                f"N={given}: method=offline looks {self.rollout_steps} steps ahead (method.rollout_steps); set N to at "
                f"least {self.rollout_steps}"
            )

    def losses(self, batch: Batch, latent: Latent, position: int) -> dict[str, Tensor]:
        """See ``Method.losses``; with several steps also the loss of the last one, as ``rollout_loss``."""
        if self.rollout_steps == 1:
            return super().losses(batch, latent, position)
        model, steps, hist = self.context.model, self.rollout_steps, self.context.model.num_hist
        starts = latent.num_frames - hist - steps + 1

        def spans(part: Tensor, offset: int, length: int) -> Tensor:
            """(B, F, ...) -> (B * starts, length, ...), the frames from ``offset`` after each start."""
            return torch.stack([part[:, s + offset : s + offset + length] for s in range(starts)], 1).flatten(0, 1)

        context = latent.map(lambda part: spans(part, 0, hist))
        target = latent.map(lambda part: spans(part.detach(), hist, steps))
        imagined = model.rollout(context, spans(batch.actions, 0, hist + steps - 1))[:, hist:]
        first = super().losses(batch, latent, position)
        total, weights, part = first["loss"], 1.0, self._share(batch).fraction
        for step in range(1, steps):
            now = slice(step, step + 1)
            no_action = imagined.proprio.new_zeros(len(imagined.proprio), 1, model.layout.action_dim)
            further = model.prediction_loss(model.layout.assemble(imagined[:, now], no_action), target[:, now])
            total = total + self.discount**step * further.total * part
            weights += self.discount**step
        return {**first, "loss": total / weights, "rollout_loss": further.total.detach() * part}
