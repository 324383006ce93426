"""The world model: encode frames, predict the next latent, imagine a rollout, decode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interfaces import Decoder, Encoder, Predictor, Projector, Proposal
from models.latent import Latent, cat_latents
from models.rollout import Imagination
from models.tokens import TokenLayout


@dataclass(frozen=True)
class Windows:
    """Teacher-forcing examples.

    Attributes:
        source: (W, H) latents of the frames seen.
        actions: (W, H, A) z-scored action blocks executed at them.
        target: (W, H) latents of the frames that followed, one model step later.
    """

    source: Latent
    actions: Tensor
    target: Latent

    def __len__(self) -> int:
        return len(self.actions)


class PredictionLoss(NamedTuple):
    """Mean squared errors of a prediction, scalars: over all entries, and over each part."""

    total: Tensor
    visual: Tensor
    proprio: Tensor


class WorldModel(nn.Module):
    """Latent dynamics over patch tokens.

    Source: Zhou et al., DINO-WM, arXiv 2411.04983, section 3.

    Attributes:
        encoder: Images -> visual features; frozen unless training says otherwise.
        proprio_encoder: Per-frame map of z-scored proprio.
        action_encoder: Per-frame map of z-scored action blocks.
        predictor: Block-causal map of tokens to the tokens one model step later; None if built without.
        decoder: Visual features -> images in [-1, 1]; None if built without. It never influences the dynamics.
        num_hist: H, frames the predictor was trained to see.
        projector: Map of the encoder's features, on top of which all others are; None: they are taken as they are.
        proposal: Start and goal latents -> proposed action blocks; None in most models. Only planners ask for it.
        reuse_history: Whether rollouts reuse what they have computed of earlier frames, see ``Imagination``.
    """

    reuse_history = True

    def __init__(
        self,
        encoder: Encoder,
        proprio_encoder: nn.Module,
        action_encoder: nn.Module,
        predictor: Predictor | None,
        decoder: Decoder | None,
        layout: TokenLayout,
        num_hist: int,
        proposal: Proposal | None = None,
        projector: Projector | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.proprio_encoder = proprio_encoder
        self.action_encoder = action_encoder
        self.predictor = predictor
        self.decoder = decoder
        self.layout = layout
        self.num_hist = num_hist
        self.proposal = proposal
        self.projector = projector

    def embed(self, features: Tensor, proprio: Tensor) -> Latent:
        """Latent of frames that the encoder gave features (B, T, P, D); ``proprio`` (B, T, E_in) is z-scored."""
        visual = features if self.projector is None else self.projector(features)
        return Latent(visual, self.layout.keep_proprio(self.proprio_encoder(proprio)))

    def encode(self, visual: Tensor, proprio: Tensor) -> Latent:
        """Encode frames (B, T, 3, S, S) in 0..255, or whatever the encoder observes, with proprio (B, T, E_in)."""
        return self.embed(self.encoder(visual), proprio)

    def tokens(self, latent: Latent, actions: Tensor) -> Tensor:
        """Predictor input (B, T, P', D') of latents (B, T) at which z-scored ``actions`` (B, T, A) are executed."""
        return self.layout.assemble(latent, self.action_encoder(actions))

    def predict_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens one model step after each frame of ``tokens`` (B, T <= H, P', D'), each seeing itself and the past."""
        return self.require_predictor()(tokens.flatten(1, 2)).view_as(tokens)

    def predict(self, latent: Latent, actions: Tensor) -> Latent:
        """Latents (B, T) one model step after ``latent`` (B, T <= H) under z-scored ``actions`` (B, T, A)."""
        return self.layout.split(self.predict_tokens(self.tokens(latent, actions)))

    def rollout(
        self, context: Latent, actions: Tensor, num_context: int | None = None, tiles_proprio: bool = False
    ) -> Latent:
        """Imagine the latents that follow from executing ``actions``.

        Args:
            context: (B, F0) latents of the real frames so far, oldest first.
            actions: (B, F0 - 1 + T, A) z-scored blocks; the first F0 - 1 were executed between the context frames.
            num_context: Frames the predictor sees at each step; None means ``num_hist`` (``rollout_type: regular``),
                1 is the cheaper last-frame-only rollout (``custom``).
            tiles_proprio: See ``models/rollout_type.py``.

        Returns:
            (B, F0 + T) latents that begin with ``context``; differentiable in ``actions``.

        Raises:
            ValueError: If there are fewer actions than the context needs, or ``num_context`` exceeds ``num_hist``.

        Source: DINO-WM rollout. Deviation: nothing is encoded or decoded here, so planning pays for neither.
        Deviation: an imagined frame goes back into the predictor as it was predicted, in either kind of rollout, so
        that both are the same for H = 1; the released ``custom`` one put its first patch's proprio into every patch,
        which ``tiles_proprio`` (``rollout_type: custom_as_released``) repeats.
        """
        past = context.num_frames - 1
        if actions.shape[1] <= past:
            raise ValueError(
                f"a rollout of {past + 1} context frames needs at least {past + 1} actions, got {actions.shape[1]}"
            )
        imagine = Imagination(self, context, actions[:, :past], num_context, tiles_proprio)
        return cat_latents([context, imagine(actions[:, past:])], 1)

    def windows(self, latent: Latent, actions: Tensor) -> Windows:
        """All windows of H + 1 consecutive frames of sequences (B, F), as (B * (F - H)) teacher-forcing examples.

        Args:
            latent: (B, F) latents; each distinct frame was encoded once.
            actions: (B, F, A) or (B, F - 1, A) z-scored blocks.
        """
        hist, count = self.num_hist, latent.num_frames - self.num_hist

        def stack(part: Tensor, offset: int) -> Tensor:
            return torch.stack([part[:, i : i + hist] for i in range(offset, offset + count)], 1).flatten(0, 1)

        source = latent.map(lambda part: stack(part, 0))
        target = latent.map(lambda part: stack(part.detach(), 1))
        return Windows(source, stack(actions, 0), target)

    def prediction_loss(self, predicted: Tensor, target: Latent) -> PredictionLoss:
        """Mean squared error of predicted tokens (W, H, P', D') to ``target`` (W, H); action entries are left out.

        Source: DINO-WM teacher forcing; the proprio embedding counts once per patch it is repeated in.
        """
        empty = predicted.new_zeros(*predicted.shape[:2], self.layout.action_dim)
        wanted = self.layout.assemble(target.detach(), empty)
        visual, proprio, _ = self.layout.parts(predicted)
        wanted_visual, wanted_proprio, _ = self.layout.parts(wanted)
        total = F.mse_loss(self.layout.state_part(predicted), self.layout.state_part(wanted))
        return PredictionLoss(
            total,
            F.mse_loss(visual.detach(), wanted_visual),
            F.mse_loss(proprio.detach(), wanted_proprio),
        )

    def teacher_forcing_loss(self, windows: Windows) -> PredictionLoss:
        """The prediction loss on windows of real frames and the actions in them."""
        return self.prediction_loss(self.predict_tokens(self.tokens(windows.source, windows.actions)), windows.target)

    def propose(self, start: Latent, goal: Latent, num: int = 1) -> Tensor:
        """z-scored action blocks (B, n, T, A), float32, that may lead from ``start`` (B, 1) to ``goal`` (B, 1).

        They are alternatives, as many as the proposal has and at most ``num``, the likeliest first.

        Raises:
            ValueError: If the model has no proposal.
        """
        found = self.require_proposal().candidates(start, goal, num)
        return found.float()  # planners go on from it, in small steps

    def require_predictor(self) -> Predictor:
        """Return the predictor, which planning needs.

        Raises:
            ValueError: If the model has none.
        """
        if self.predictor is None:
            raise ValueError("this world model was built with has_predictor=false: it cannot predict")
        return self.predictor

    def require_proposal(self) -> Proposal:
        """Return the proposal, where a planner begins with it.

        Raises:
            ValueError: If the model has none.
        """
        if self.proposal is None:
            raise ValueError(
                "planner.sample_type=proposal needs a model with a proposal (planner=policy, too); this one has none: "
                "train one with python train.py method=proposal ckpt_path=..., or use planner.sample_type=randn or zero"
            )
        return self.proposal

    def decode(self, latent: Latent) -> Tensor:
        """Images (B, T, 3, S, S) in [-1, 1] of latents (B, T).

        Raises:
            ValueError: If the model has no decoder.
        """
        if self.decoder is None:
            raise ValueError("this world model has no decoder (has_decoder=false): it cannot draw what it imagines")
        return self.decoder(latent.visual)

    def rollout_bytes(self, num_steps: int, with_grad: bool) -> int:
        """Rough float32 memory of one rollout row of ``num_steps``, for splitting batches to a budget.

        Without gradients only one predictor call is alive, plus the tokens of every step; with gradients all calls are.
        """
        tokens = self.layout.tokens_per_frame * self.num_hist
        per_call = tokens * (self.predictor.activations_per_token if self.predictor is not None else 0)
        kept = self.layout.tokens_per_frame * self.layout.token_dim * (num_steps + 1) * 3
        return 4 * int(kept + per_call * (num_steps if with_grad else 0.25))


@contextlib.contextmanager
def planning_mode(model: WorldModel) -> Iterator[WorldModel]:
    """The model as planners want it, for a while: no dropout, and weights that take no gradients."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with frozen(model):
            yield model
    finally:
        for module, mode in training.items():
            module.training = mode


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No weight of ``module`` takes gradients for a while: a compiled one would compute them even unasked."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
