"""The arithmetic that a piece of work needs, by formula: what a fraction of the machine's ceiling is taken of.

A multiply and an add count as two. Only matrix products and convolutions count. With depth blocks of width ``dim``,
attention of ``inner`` = heads x dim_head, and an MLP of ``mlp``, n tokens take

    layers:    2 n depth (4 dim inner + 2 dim mlp)     query, key, value, output; the MLP's two layers
    attention: 4 n^2 depth inner                       Q K^T and the weighted sum of V, over all pairs of tokens

forward. The backward towards the inputs takes the layers once more and the attention twice (each of its two products
has two factors); gradients of the weights take the layers a third time. Attention is counted over all pairs although
the predictor is causal from frame to frame, and a rollout as one whole call per step although much of it could be
kept: this is the arithmetic of the plain algorithm without its waste, the same number for every implementation, so
that a cleverer one shows as a higher fraction. What an implementation really executes is counted beside it.
A predictor that no formula is known for is counted while it runs, forward and backward.

Numbers of the full-size model (DINOv2 ViT-S/14, 196 patches; predictor depth 6, width 404, 16 heads of 64, MLP 2048),
GFLOP: encoder 9.2 a frame; predictor forward 8.7 / 19.3 / 31.8 with 1 / 2 / 3 frames of context, with the backward to
its inputs 18.4 / 42.5 / 72.2, with weight gradients 26.2 / 58.0 / 95.5; decoder 31.9 a frame.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.interfaces import Encoder, Predictor
from models.latent import Latent
from models.networks.dinov2 import DinoV2Encoder
from models.networks.residual import ResidualMLP, ResidualViT
from models.networks.vit import ViTPredictor
from models.speed.cpu_kernels.attention import Executed
from models.speed.onednn import ONEDNN_LINEAR
from models.world_model import WorldModel

Backward = Literal["none", "inputs", "weights"]


class PredictorFlops(Protocol):
    """Arithmetic of a predictor."""

    def total(self, tokens: int, backward: Backward = "none") -> float:
        """Forward of so many tokens, and the backward that is asked for."""
        ...


@dataclass(frozen=True)
class TransformerFlops:
    """Arithmetic of a stack of blocks.

    Attributes:
        depth, dim, inner, mlp: See above.
        around: Multiply-adds per token before and after the blocks.
    """

    depth: int
    dim: int
    inner: int
    mlp: int
    around: int = 0

    def layers(self, tokens: int) -> float:
        """Count all linear maps, one way."""
        return 2.0 * tokens * (self.around + self.depth * (4 * self.dim * self.inner + 2 * self.dim * self.mlp))

    def attention(self, tokens: int) -> float:
        """Count the two products, over all pairs of tokens."""
        return 4.0 * tokens**2 * self.depth * self.inner

    def total(self, tokens: int, backward: Backward = "none") -> float:
        """Forward, and the backward that is asked for."""
        layers, attention = {"none": (1, 1), "inputs": (2, 3), "weights": (3, 3)}[backward]
        return layers * self.layers(tokens) + attention * self.attention(tokens)


@dataclass(frozen=True)
class CountedFlops:
    """Arithmetic of a predictor without a formula: what torch counts while it runs, once for each length.

    Attributes:
        predictor: In eval mode.
        width: Of its tokens.
    """

    predictor: Predictor
    width: int
    known: dict[tuple[int, Backward], float] = field(default_factory=dict)

    def total(self, tokens: int, backward: Backward = "none") -> float:
        """Forward of so many tokens, and the backward that is asked for."""
        if (tokens, backward) not in self.known:
            self.known[tokens, backward] = self._count(tokens, backward)
        return self.known[tokens, backward]

    def _count(self, tokens: int, backward: Backward) -> float:
        predictor = copy.deepcopy(self.predictor).requires_grad_(backward == "weights")
        differs = backward != "none"  # the counter looks for the gradient of what requires one
        values = torch.zeros(1, tokens, self.width, device=_device(predictor), requires_grad=differs)

        def run() -> None:
            predicted = predictor(values)
            if differs:
                predicted.sum().backward()

        with torch.set_grad_enabled(differs):
            return count_flops(run)


@dataclass(frozen=True)
class ModelFlops:
    """Floating-point operations of a world model's parts, and of what is done with them.

    Attributes:
        encoder: Forward of one frame, projector included: no plan ever passes through either.
        predictor: Its blocks.
        patches: Tokens of a frame.
        history: H.
        proposal: Of one proposal; 0 if the model has none.
    """

    encoder: float
    predictor: PredictorFlops
    patches: int
    history: int
    proposal: float = 0.0

    @classmethod
    def of(cls, model: WorldModel, image_size: int | None = None) -> ModelFlops:
        """Read the sizes from a model in eval mode, and count a forward of what no formula is known for.

        Args:
            model: With a predictor.
            image_size: Side of the images, pixels; only needed if the encoder does not say.
        """
        predictor, layout = _predictor(model.require_predictor(), model.layout.token_dim), model.layout
        return cls(_features(model, image_size), predictor, layout.tokens_per_frame, model.num_hist, _proposal(model))

    def predict(self, frames: int, backward: Backward = "none") -> float:
        """One call of the predictor on ``frames`` frames of context."""
        return self.predictor.total(frames * self.patches, backward)

    def rollout(self, steps: int, context: int, backward: Backward = "none", given: int = 1) -> float:
        """``steps`` steps from ``given`` real frames, with up to ``context`` frames seen at each."""
        return sum(self.predict(min(context, given + step), backward) for step in range(steps))

    def gradient_plan(self, horizon: int, context: int, steps: int, closing: bool = True) -> float:
        """``steps`` gradient steps of one episode, and the evaluation that closes a plan."""
        once = self.rollout(horizon, context, "inputs")
        return steps * once + closing * self.rollout(horizon, context)

    def training_step(self, windows: int, samples: int, method: str) -> float:
        """One optimiser step without the decoder, each distinct frame of a sample of ``windows`` windows encoded once.

        Args:
            windows: N of a sample.
            samples: Of the batch.
            method: "offline", or "adversarial", which ascends once before.
        """
        ascent = {"offline": 0.0, "adversarial": self.predict(self.history, "inputs")}[method]
        each = self.predict(self.history, "weights") + ascent
        return samples * (windows * each + (windows + self.history) * self.encoder)


def _predictor(predictor: Predictor, width: int) -> PredictorFlops:
    if isinstance(predictor, ResidualViT):
        around = 2 * predictor.embed.in_features * predictor.embed.out_features
        return _blocks(predictor.vit, around)
    if isinstance(predictor, ViTPredictor):
        return _blocks(predictor)
    if isinstance(predictor, ResidualMLP):
        weights = sum(layer.weight.numel() for layer in predictor.net if isinstance(layer, nn.Linear))
        return TransformerFlops(0, 0, 0, 0, weights // predictor.num_patches)
    return CountedFlops(predictor, width)


def _blocks(vit: ViTPredictor, around: int = 0) -> TransformerFlops:
    """Sizes from the tensors whose names and shapes released checkpoints fix."""
    state = {name: tensor.shape for name, tensor in vit.state_dict().items()}
    out, widen = state["transformer.layers.0.0.to_out.0.weight"], state["transformer.layers.0.1.net.1.weight"]
    return TransformerFlops(len(vit.transformer.layers), out[0], out[1], widen[0], around)


def _features(model: WorldModel, image_size: int | None) -> float:
    """Count what the latent of one frame takes."""
    encoder, projector = model.encoder, model.projector
    if projector is None:
        return _encoder(encoder, image_size)
    return _encoder(encoder, image_size) + _forward(projector, 1, encoder.num_patches, encoder.emb_dim)


def _encoder(encoder: Encoder, image_size: int | None) -> float:
    """Count what encoding one frame takes: DINOv2 by formula, another encoder while it runs."""
    if isinstance(encoder, DinoV2Encoder):
        vit = encoder.base_model
        width, patches = encoder.emb_dim, encoder.num_patches
        mlp = len(vit.state_dict()["blocks.0.mlp.fc1.bias"])
        blocks = TransformerFlops(len(vit.blocks), width, width, mlp)
        embedding = 2.0 * patches * 3 * vit.patch_size**2 * width
        return embedding + blocks.total(patches + 1)  # and the class token
    if encoder.observes == "state":
        return 0.0
    side = getattr(encoder, "img_size", image_size)
    assert side is not None, "an encoder of images is counted on an image"
    return _forward(encoder, 1, 3, side, side)


@torch.no_grad()
def _proposal(model: WorldModel) -> float:
    if model.proposal is None:
        return 0.0
    layout, device = model.layout, _device(model)
    frame = Latent(
        torch.zeros(1, 1, layout.num_patches, layout.visual_dim, device=device),
        torch.zeros(1, 1, layout.proprio_dim, device=device),
    )
    return count_flops(lambda: model.propose(frame, frame))


@torch.no_grad()
def _forward(module: nn.Module, *sizes: int) -> float:
    """Count one forward of zeros of these ``sizes``."""
    values = torch.zeros(sizes, device=_device(module))
    return count_flops(lambda: module(values))


def _device(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def count_flops(run: Callable[[], object]) -> float:
    """Run it once; returns what torch counts, with linear maps of oneDNN and the attention of our own CPU kernels."""
    before = Executed.flops
    with FlopCounterMode(display=False, custom_mapping={ONEDNN_LINEAR: _linear} if ONEDNN_LINEAR else None) as counter:
        run()
    return float(counter.get_total_flops() + Executed.flops - before)


def _linear(values: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """Count a linear map, of shapes (..., K) and (N, K)."""
    return 2 * math.prod(values) * weight[0]
