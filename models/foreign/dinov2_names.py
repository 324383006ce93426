"""DINOv2's tensors by the names that other libraries give them, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")

FROM_TRANSFORMERS = {
    r"embeddings\.(cls_token|mask_token)": r"\1",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection\.(\w+)": r"patch_embed.proj.\1",
    r"encoder\.layer\.(\d+)\.(norm[12]|mlp\.fc[12])\.(\w+)": r"blocks.\1.\2.\3",
    r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
    r"encoder\.layer\.(\d+)\.attention\.(?:output\.dense|o_proj)\.(\w+)": r"blocks.\1.attn.proj.\2",
    r"layernorm\.(\w+)": r"norm.\1",
}
"""Names in transformers 4 and 5, and the official ones; queries, keys and values stand by themselves there."""
WORDS = {"q": "query", "k": "key", "v": "value"}
PART = r"encoder\.layer\.(\d+)\.attention\.(?:attention\.(query|key|value)|([qkv])_proj)\.(weight|bias)"


def is_transformers(names: Collection[str]) -> bool:
    """Whether tensors have the names of transformers' Dinov2Model."""
    return "embeddings.cls_token" in names


def from_transformers(tensors: Mapping[str, T], join: Callable[[list[T]], T]) -> dict[str, T]:
    """Give the tensors of transformers' Dinov2Model, of either generation, the official names.

    Names that are not of it stay as they are.

    Args:
        tensors: Or what stands for them.
        join: Puts the tensors of queries, keys and values below each other.
    """
    found: dict[str, T] = {}
    thirds: dict[str, dict[str, T]] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(PART, name):
            letter = match[3] or match[2][0]
            thirds.setdefault(f"blocks.{match[1]}.attn.qkv.{match[4]}", {})[letter] = tensor
            continue
        match = next((m for pattern in FROM_TRANSFORMERS if (m := re.fullmatch(pattern, name))), None)
        found[match.expand(FROM_TRANSFORMERS[match.re.pattern]) if match else name] = tensor
    for name, parts in thirds.items():
        if parts.keys() == {"q", "k", "v"}:
            found[name] = join([parts[letter] for letter in "qkv"])
    return found


def to_transformers(tensors: Mapping[str, Tensor], generation: int = 5) -> dict[str, Tensor]:
    """Give official tensors the names of transformers, of a ``generation`` up to 4 or from 5 on."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name):
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                part = f"{letter}_proj" if generation >= 5 else f"attention.{WORDS[letter]}"
                found[f"encoder.layer.{match[1]}.attention.{part}.{match[2]}"] = third.contiguous()
            continue
        theirs = _to_transformers(name)
        found[theirs if generation >= 5 else theirs.replace("attention.o_proj", "attention.output.dense")] = tensor
    return found


def _to_transformers(name: str) -> str:
    for pattern, theirs in {
        r"(cls_token|mask_token)": r"embeddings.\1",
        r"pos_embed": "embeddings.position_embeddings",
        r"patch_embed\.proj\.(\w+)": r"embeddings.patch_embeddings.projection.\1",
        r"blocks\.(\d+)\.ls([12])\.gamma": r"encoder.layer.\1.layer_scale\2.lambda1",
        r"blocks\.(\d+)\.attn\.proj\.(\w+)": r"encoder.layer.\1.attention.o_proj.\2",
        r"blocks\.(\d+)\.(.+)": r"encoder.layer.\1.\2",
        r"norm\.(\w+)": r"layernorm.\1",
    }.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(theirs)
    return name
