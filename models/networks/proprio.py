"""Maps of proprioception and action blocks to the widths they have inside a token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.ranges import Seed, Small


class ProprioceptiveEmbedding(nn.Module):
    """A learned per-frame linear map.

    The weight is kept as the kernel of a width-1 convolution, (emb_dim, in_dim, 1), as in DINO-WM's checkpoints.

    Args:
        in_dim: Entries of a z-scored proprio reading or action block.
        emb_dim: Width of the embedding.
        num_frames: Only 1; released configs name it.
        tubelet_size: Only 1; likewise.
        use_3d_pos: Only False; likewise.
        use_layernorm: Whether a LayerNorm follows.

    Raises:
        ValueError: If one of these three has another value.
    """

    def __init__(
        self,
        in_dim: int,
        emb_dim: int,
        num_frames: Small = 1,
        tubelet_size: Small = 1,
        use_3d_pos: bool = False,
        use_layernorm: bool = False,
    ) -> None:
        super().__init__()
        given = {"num_frames": num_frames, "tubelet_size": tubelet_size, "use_3d_pos": use_3d_pos}
        allowed = {"num_frames": 1, "tubelet_size": 1, "use_3d_pos": False}
        if given != allowed:
            raise ValueError(f"proprio_encoder and action_encoder map single frames: need {allowed}, got {given}")
        self.in_dim = in_dim
        self.emb_dim = emb_dim
        self.patch_embed = nn.Conv1d(in_dim, emb_dim, kernel_size=1)
        self.norm = nn.LayerNorm(emb_dim) if use_layernorm else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., in_dim) to (..., emb_dim)."""
        return self.norm(F.linear(values, self.patch_embed.weight.squeeze(-1), self.patch_embed.bias))


class FixedProjection(nn.Module):
    """An orthonormal linear map that is drawn once and never trained: it keeps all distances.

    Args:
        in_dim: Entries of the input, at most ``emb_dim``.
        emb_dim: Width of the embedding.
        seed: Of the drawn map; the map is saved with the model, so a loaded model does not depend on it.

    Raises:
        ValueError: If ``in_dim`` exceeds ``emb_dim``.
    """

    weight: Tensor

    def __init__(self, in_dim: int, emb_dim: int, seed: Seed = 0) -> None:
        super().__init__()
        if in_dim > emb_dim:
            raise ValueError(
                f"proprio_emb_dim={emb_dim} (action_emb_dim for actions) must be at least the {in_dim} values that a "
                "fixed, distance-keeping map takes; raise it, or choose proprio_encoder=proprio"
            )
        self.in_dim = in_dim
        self.emb_dim = emb_dim
        drawn = torch.randn(emb_dim, in_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("weight", torch.linalg.qr(drawn).Q.float())  # (emb_dim, in_dim), orthonormal columns

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., in_dim) to (..., emb_dim), of the same length."""
        return F.linear(values, self.weight)
