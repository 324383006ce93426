"""The frozen image encoder of DINO-WM: DINOv2 patch features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.foreign.dinov2_weights import ARCHITECTURES, check_official, find_weights, read_weights
from models.interfaces import Encoder
from models.networks.dinov2_vit import POSITION_OFFSET, DinoVisionTransformer
from utils.files import sha256
from utils.ranges import EmbeddingSize, Small

FEATURE_KEYS = ("x_norm_patchtokens",)
DECODER_PATCH = 16  # the decoder draws 16 x 16 pixels per patch, so the encoder has to see that many patches
PIXELS = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Means and standard deviations that colours in [0, 1] are normalised with."""
POSITIONS = {"official": POSITION_OFFSET, "transformers": 0.0}
"""What is added to a grid's size before the learned positions are resized to it, by whose features are wanted."""
RANDOM = "random"


class DinoV2Encoder(Encoder):
    """Images to DINOv2 patch tokens after the final norm.

    Images are scaled to [-1, 1] and resized to ``img_size // 16`` patches a side, here: 224 -> 196 pixels, 14 x 14.
    Models of other programs see colours, patches and positions in other ways, which the last three arguments choose.

    Args:
        name: "dinov2_vits14" is what all released DINO-WM models use; "dinov2_vitb14" and "dinov2_vitl14" also work.
        feature_key: Only "x_norm_patchtokens".
        img_size: Side of the images, pixels.
        weights: Path of the official state dict (.pth or .safetensors). None: the torch hub's cache, else a download
            into it. "random": weights drawn from ``seed``, for benchmarks and for loading a trained encoder into.
        download: Whether None may download.
        embed_dim: D, if it differs from that of ``name``.
        depth: Number of blocks, if it differs.
        num_heads: Heads of the attention, if they differ.
        patch_size: Side of a patch, pixels.
        mlp_ratio: Hidden width of the MLPs over D.
        seed: Of ``weights="random"``.
        max_frames: Images per forward of the network; more are split, to bound the memory.
        pixels: How colours are normalised: "half" to [-1, 1], "imagenet" with its mean and standard deviation.
        pixels_per_patch: Pixels of the image, a side, that become one patch; 14 takes the image as it is.
        positions: Whose way of resizing the learned positions: "official" or "transformers".

    Attributes:
        emb_dim: D.
        grid: (h, w) patches.
        num_patches: P = h * w.
        observes: "visual", i.e. it wants images.
        weights_sha256: Of the file read; None for random weights.
        saved_with_model: False, the official file is enough to get the weights again.
        base_model: The network; its tensors have the official names.

    Raises:
        ValueError: If an argument has a value that is not supported.
        WeightsError: If the weights cannot be found or do not fit (see ``models/foreign/dinov2_weights.py``).

    Source: Oquab et al., DINOv2, arXiv 2304.07193; Zhou et al., DINO-WM, arXiv 2411.04983.
    """

    observes = "visual"
    saved_with_model = False

    def __init__(
        self,
        name: str = "dinov2_vits14",
        feature_key: str = "x_norm_patchtokens",
        img_size: int = 224,
        weights: str | None = None,
        download: bool = True,
        embed_dim: EmbeddingSize | None = None,
        depth: Small | None = None,
        num_heads: Small | None = None,
        patch_size: int = 14,
        mlp_ratio: float = 4.0,
        seed: int = 0,
        max_frames: int = 256,
        pixels: str = "half",
        pixels_per_patch: Small = DECODER_PATCH,
        positions: str = "official",
    ) -> None:
        super().__init__()
        _require("name", name, tuple(ARCHITECTURES))
        _require("feature_key", feature_key, FEATURE_KEYS)
        _require("pixels", pixels, tuple(PIXELS))
        _require("positions", positions, tuple(POSITIONS))
        if img_size < pixels_per_patch or max_frames < 1:
            raise ValueError(
                f"encoder.img_size must be at least {pixels_per_patch} and max_frames positive: {img_size=}, "
                f"{max_frames=}"
            )
        sizes = ARCHITECTURES[name]
        side = img_size // pixels_per_patch
        self.pixels = pixels
        self.name = name
        self.latent_key = feature_key
        self.img_size = img_size
        self.input_size = side * patch_size
        self.emb_dim = embed_dim or sizes.embed_dim
        self.grid = (side, side)
        self.num_patches = side * side
        self.max_frames = max_frames
        self.weights_sha256: str | None = None
        with torch.device("meta"):  # no memory and no initialisation for weights that are about to be replaced
            self.base_model = DinoVisionTransformer(
                self.emb_dim,
                depth or sizes.depth,
                _heads(name, self.emb_dim, num_heads),
                patch_size,
                mlp_ratio,
                POSITIONS[positions],
            )
        if weights == RANDOM:
            self._draw_weights(seed)
        else:
            self._load_weights(weights, download)

    def _load_weights(self, weights: str | None, download: bool) -> None:
        path = find_weights(self.name, weights, download)
        state = read_weights(path, self.name, self.base_model.state_dict())
        self.base_model.load_state_dict(state, assign=True)
        self.weights_sha256 = sha256(path)
        check_official(path, self.name, self.weights_sha256)

    @torch.no_grad()
    def _draw_weights(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.base_model.to_empty(device="cpu")
        for key, parameter in self.base_model.named_parameters():
            if key.endswith(("gamma", "norm.weight", "norm1.weight", "norm2.weight")):
                parameter.fill_(1.0)
            elif key.endswith("bias"):
                parameter.zero_()
            else:
                parameter.normal_(std=0.02, generator=generator)

    def preprocess(self, visual: Tensor) -> Tensor:
        """Images (n, 3, S, S) in 0..255 -> the network's input (n, 3, input_size, input_size), normalised."""
        mean, std = (visual.new_tensor(each, dtype=torch.float32)[:, None, None] for each in PIXELS[self.pixels])
        images = (visual.float() / 255 - mean) / std
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return images.to(self.base_model.cls_token.dtype)

    def forward(self, visual: Tensor) -> Tensor:
        """Images (..., 3, img_size, img_size), uint8 or float in 0..255 -> patch features (..., P, D).

        Raises:
            ValueError: If the images have another size.
        """
        if visual.shape[-3:] != (3, self.img_size, self.img_size):
            raise ValueError(
                f"encoder {self.name} takes images (..., 3, {self.img_size}, {self.img_size}), got "
                f"{tuple(visual.shape)}: img_size must be the side of the images"
            )
        leading = visual.shape[:-3]
        frames = visual.reshape(-1, *visual.shape[-3:])
        features = [self.base_model(self.preprocess(chunk)) for chunk in frames.split(self.max_frames)]
        return torch.cat(features).reshape(*leading, self.num_patches, self.emb_dim)


def _require(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"encoder.{key} must be one of {', '.join(allowed)}; got {value!r}")


def _heads(name: str, embed_dim: int, num_heads: int | None) -> int:
    """Settle the number of attention heads; weights fit any number that divides the width, but mean something else."""
    official = ARCHITECTURES[name]
    if num_heads is None and embed_dim != official.embed_dim:
        raise ValueError(
            f"encoder.num_heads must be given with encoder.embed_dim={embed_dim}: {name} has "
            f"{official.num_heads}, and is {official.embed_dim} wide"
        )
    heads = official.num_heads if num_heads is None else num_heads
    if embed_dim < 1 or heads < 1 or embed_dim % heads:
        raise ValueError(f"encoder.num_heads must divide encoder.embed_dim={embed_dim}; got {heads}")
    if embed_dim == official.embed_dim and heads != official.num_heads:
        raise ValueError(f"encoder.num_heads of {name} is {official.num_heads}; got {heads}, leave it out")
    return heads
