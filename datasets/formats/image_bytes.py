"""Images as they lie in tables, each a PNG or JPEG file."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.formats.rows import Array


def decoded(image: bytes) -> Tensor:
    """A PNG or JPEG file as (3, H, W) uint8."""
    with Image.open(io.BytesIO(image), formats=("PNG", "JPEG")) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)


def encoded(image: Array) -> bytes:
    """An image (H, W, 3) uint8 as a PNG file."""
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        return file.getvalue()
