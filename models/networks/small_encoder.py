"""An image encoder without learned weights, for world models that train in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from models.interfaces import Encoder

SCALES = (3.0, 6.0, 12.0, 24.0)  # standard deviations of the windows, in 65ths of the image side
SAMPLES = 8  # the windows sit on an 8 x 8 grid ...
TOKENS = 4  # ... of which 2 x 2 make one of the 4 x 4 tokens


class SmallEncoder(Encoder):
    """Gaussian windows of several widths over a few colour channels: a fixed, blurred pyramid.

    Because the widest windows reach across the picture, the distance between two latents keeps growing with the
    distance of the objects in them. That is what a goal-reaching objective needs, and what frozen random
    convolutions lack: there it is flat after a few pixels
    (``tests/models/networks/test_small_encoder.py`` measures it).

    ``calibrate`` must see some frames of the data once, before training; its result is saved with the model.

    Args:
        img_size: Side of the images, pixels.
        colours: Which of the palettes shows the moving things.
        palettes: Channels by name. A channel is a weight of red, of green and of blue, and a constant; colours are in
            0..1. It should show one thing that moves, and little else.

    Attributes:
        emb_dim: Channels x 4 widths x 2 x 2 windows, so 32 for two channels.
        num_patches: 16 = 4 x 4.
        observes: "visual", i.e. it wants images.

    Raises:
        ValueError: If ``colours`` is unknown, or its channels are no lists of four numbers.
    """

    windows: Tensor
    mean: Tensor
    scale: Tensor
    calibrated: Tensor
    colours: Tensor

    def __init__(self, img_size: int, colours: str, palettes: Mapping[str, Sequence[Sequence[float]]]) -> None:
        super().__init__()
        if colours not in palettes:
            raise ValueError(
                f"encoder.colours must be one of {', '.join(palettes)}, got {colours!r}; give it channels of its own: "
                f"+encoder.palettes.{colours}=[[red,green,blue,constant]], one list for each thing that moves"
            )
        channels = len(palettes[colours])
        if not channels or any(len(channel) != 4 for channel in palettes[colours]):
            raise ValueError(f"encoder.palettes.{colours} must be lists of four numbers, got {palettes[colours]}")
        self.register_buffer("colours", torch.tensor(palettes[colours], dtype=torch.float32), persistent=False)
        per_token = SAMPLES // TOKENS
        self.img_size = img_size
        self.emb_dim = channels * len(SCALES) * per_token**2
        self.grid = (TOKENS, TOKENS)
        self.num_patches = TOKENS * TOKENS
        self.register_buffer("windows", self._gaussian_windows(img_size), persistent=False)  # (4, 8, S)
        shape = (channels, len(SCALES), SAMPLES, SAMPLES)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(len(SCALES)))
        self.register_buffer("calibrated", torch.tensor(False))

    @staticmethod
    def _gaussian_windows(img_size: int) -> Tensor:
        """(4, 8, S): each row a Gaussian of sum 1 along one image axis."""
        pixel = torch.arange(img_size, dtype=torch.float64)
        centre = (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) * img_size / SAMPLES - 0.5
        sigma = torch.tensor(SCALES, dtype=torch.float64)[:, None, None] * img_size / 65
        window = torch.exp(-((pixel - centre[:, None]) ** 2) / (2 * sigma**2))
        return (window / window.sum(-1, keepdim=True)).float()

    def _responses(self, visual: Tensor) -> Tensor:
        """(n, 3, S, S) in 0..255 -> (n, c, 4, 8, 8)."""
        image = visual.to(self.windows.dtype) / 255
        channels = torch.einsum("nkyx,ck->ncyx", image, self.colours[:, :3]) + self.colours[:, 3, None, None]
        rows = torch.einsum("ncyx,lgx->nclyg", channels, self.windows)
        return torch.einsum("nclyg,lhy->nclhg", rows, self.windows)

    @torch.no_grad()
    def calibrate(self, frames: Tensor) -> None:
        """Measure the mean response and each width's spread on ``frames`` (n, 3, S, S) of the training data."""
        responses = self._responses(frames)
        self.mean.copy_(responses.mean(0))
        spread = (responses - self.mean).square().mean((0, 1, 3, 4)).sqrt()
        self.scale.copy_(1 / spread.clamp_min(1e-6))
        self.calibrated.fill_(True)

    def forward(self, visual: Tensor) -> Tensor:
        """Images (..., 3, S, S), uint8 or float in 0..255 -> features (..., 16, emb_dim).

        Raises:
            ValueError: If the images have another side than the encoder was built for.
        """
        self.refuse_other_sides(visual, self.img_size, "small")
        leading = visual.shape[:-3]
        responses = (self._responses(visual.flatten(0, -4)) - self.mean) * self.scale[:, None, None]
        per_token = SAMPLES // TOKENS
        blocks = responses.unflatten(-1, (TOKENS, per_token)).unflatten(-3, (TOKENS, per_token))
        tokens = blocks.permute(0, 3, 5, 1, 2, 4, 6).reshape(-1, self.num_patches, self.emb_dim)
        return tokens.reshape(*leading, self.num_patches, self.emb_dim)
