"""The predictor's transformer in planning on a CPU: all of it one call each way, on weights packed once."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interfaces import KVCache
from models.networks.vit import Attention, FeedForward, Transformer
from models.speed.cpu_kernels.attention import WIDTHS, Executed
from models.speed.cpu_kernels.build import call, can_load, has_tiles, load
from models.speed.linear import PreparedLinear


class PackedTransformer(nn.Module):
    """Computes what ``Transformer`` does of whole frames that reuse nothing; leaves to it what does.

    Its rows do not depend on each other but in attention, so that a thread takes a block of them through norm, maps and
    GELU without waiting for another one. Weights take no gradients; after they have changed, ``pack`` is called. Where
    they are in bf16, factors of the products with them are rounded to it; all else is in float32.

    Args:
        transformer: In eval mode.
    """

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.layers, self.norm, self._whole = transformer.layers, transformer.norm, [transformer]
        self._half = _dtypes(transformer) == {torch.bfloat16}
        self._panels: list[Tensor] = []
        self._places, self._shape = _array([]), tuple[int, ...]()
        self._free: list[Tensor] = []  # room of earlier calls: fresh memory would be touched page by page

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedTransformer:
        """Pack a copy of the weights: places in memory cannot be copied."""
        copied = PackedTransformer(copy.deepcopy(self._whole[0], memo))
        copied.pack()
        return copied

    @classmethod
    def takes(cls, module: nn.Module) -> bool:
        """Whether it can stand in for a transformer: plain maps of one type, one epsilon."""
        if not isinstance(module, Transformer):
            return False
        norms = [part for part in module.modules() if isinstance(part, nn.LayerNorm)]
        maps = [part for layer in module.layers for part in _maps(layer)]
        plain = all(isinstance(each, nn.Linear | PreparedLinear) and _is_whole(each) for each in maps)
        plain = plain and (_dtypes(module) == {torch.float32} or (_dtypes(module) == {torch.bfloat16} and has_tiles()))
        return plain and len({norm.eps for norm in norms}) == 1

    @torch.no_grad()
    def pack(self) -> None:
        """Take the weights as they are now."""
        self._panels, places = [], []
        for layer in self.layers:
            (attention, mlp), (_, out, widen, narrow) = _parts(layer), _maps(layer)
            joint, project = _folded(attention) if _folds(attention) else _whole_vectors(attention)
            places += [*self._vectors(attention.norm), *self._both(joint), *self._both(project), self._bias(out)]
            places += [*self._vectors(cast(nn.LayerNorm, mlp.net[0])), *self._both(widen.weight), self._bias(widen)]
            places += [*self._both(narrow.weight), self._bias(narrow)]
        places += self._vectors(self.norm)
        self._places = _array(places)
        attention, hidden = _parts(self.layers[0])[0], list(_maps(self.layers[0]))[2].out_features
        inner, dim, folds = attention.to_qkv.out_features // 3, attention.to_qkv.in_features, _folds(attention)
        width = _padded(dim if folds else inner // attention.heads)
        self._shape = (attention.tokens_per_frame, dim, attention.heads, width, hidden, len(self.layers), folds)

    def _keep(self, values: Tensor) -> int:
        self._panels.append(values)
        return values.data_ptr()

    def _vectors(self, norm: nn.LayerNorm) -> list[int]:
        return [self._keep(part.detach().contiguous()) for part in (norm.weight, norm.bias)]

    def _bias(self, linear: nn.Linear) -> int:
        bias = torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach().float()
        return self._keep(bias.contiguous())

    def _both(self, weight: Tensor) -> list[int]:
        """The panels of a map, and of the map back."""
        (rows, columns), found, weight = weight.shape, [], weight.float().contiguous()
        kernels, dtype = load(), torch.bfloat16 if self._half else torch.float32
        count, pack = (kernels.packed_half, kernels.pack_half) if self._half else (kernels.packed, kernels.pack)
        for deep, wide, down, along in ((columns, rows, 1, columns), (rows, columns, columns, 1)):
            panels = torch.empty(count(deep, wide), dtype=dtype)
            pack(weight.data_ptr(), down, along, deep, wide, panels.data_ptr())
            found.append(self._keep(panels))
        return found

    def forward(
        self, tokens: Tensor, cache: KVCache = (), wanted: int | None = None, keep: bool = False
    ) -> tuple[Tensor, KVCache]:
        """See ``Transformer.forward``."""
        reuses = cache or keep or wanted not in (None, tokens.shape[1])
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tokens.dtype
        fits = dtype == (torch.bfloat16 if self._half else torch.float32)
        if reuses or not fits or not tokens.numel():
            return self._whole[0](tokens, cache, wanted, keep)
        found: Tensor = _Run.apply(tokens.float(), self)
        return found, ()

    def run(self, sizes: list[int], given: Tensor, out: Tensor, room: Tensor, work: Tensor | None) -> None:
        """Forward, or with room to work in backward; ``Sizes``, ``Layer`` and the rest as in ``transformer.h``."""
        places = [each.data_ptr() for each in (given, out, room)] + [0 if work is None else work.data_ptr()]
        with call("transformer"):
            load().transformer(_array(sizes), self._places, self.norm.eps, *places, torch.get_num_threads())
        Executed.flops += _flops(sizes, work is not None)

    def sizes(self, tokens: Tensor, saves: bool) -> list[int]:
        """``Sizes`` of ``transformer.h``."""
        *shape, folds = self._shape
        return [*tokens.shape[:2], *shape, saves, folds, self._half]

    def room(self, sizes: list[int], backward: bool) -> _Room:
        """Memory, of an earlier call if there is some."""
        count = load().transformer_room(_array(sizes), backward)
        fits = [number for number, each in enumerate(self._free) if each.numel() == count]
        return _Room(self._free, self._free.pop(fits[0]) if fits else torch.empty(count))


class _Room:
    """Memory that goes back when nobody needs it any longer."""

    MOST = 16  # that are kept

    def __init__(self, free: list[Tensor], values: Tensor) -> None:
        self.values, self._free = values, free

    def __del__(self) -> None:
        self._free.append(self.values)
        del self._free[: -self.MOST]


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, packed: PackedTransformer) -> Tensor:
        tokens, out = tokens.contiguous(), torch.empty(tokens.shape)
        ctx.sizes, ctx.packed = packed.sizes(tokens, ctx.needs_input_grad[0]), packed
        ctx.room = packed.room(ctx.sizes, False)
        packed.run(ctx.sizes, tokens, out, ctx.room.values, None)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        upstream, gradient = upstream.contiguous(), torch.empty(upstream.shape)
        work = ctx.packed.room(ctx.sizes, True)
        ctx.packed.run(ctx.sizes, upstream, gradient, ctx.room.values, work.values)
        return gradient, None


def _parts(layer: nn.Module) -> tuple[Attention, FeedForward]:
    return cast(tuple[Attention, FeedForward], tuple(cast(nn.ModuleList, layer)))


def _maps(layer: nn.Module) -> Iterator[nn.Linear]:
    attention, mlp = _parts(layer)
    yield from cast(list[nn.Linear], [attention.to_qkv, attention.to_out[0], mlp.net[1], mlp.net[4]])


def _dtypes(transformer: nn.Module) -> set[torch.dtype]:
    return {part.weight.dtype for part in transformer.modules() if isinstance(part, nn.Linear | PreparedLinear)}


def _is_whole(linear: nn.Linear | PreparedLinear) -> bool:
    return linear.weight.shape == (linear.out_features, linear.in_features)  # not padded


def _padded(width: int) -> int:
    return -(-width // WIDTHS) * WIDTHS


def _folds(attention: Attention) -> bool:
    """Whether tokens are so narrow that their own products are cheaper than those of their queries, keys and values."""
    dim, inner = attention.to_qkv.in_features, attention.to_qkv.out_features // 3
    return _padded(dim) <= inner // attention.heads


def _folded(attention: Attention) -> tuple[Tensor, Tensor]:
    """Weights of maps to queries and from what was attended, for which tokens x are keys and values themselves.

    Scores (x Wq)(x Wk)^T are (x Wq Wk^T) x^T, and weights times (x Wv) Wo are (weights times x) Wv Wo, head by head.
    """
    (query, key, value), out = _by_head(attention)
    asked = key.mT.double() @ query.double()
    given = torch.einsum("hio,hij->hjo", out.double(), value.double())
    return _joined([asked.float()], given.float(), query.shape[1])


def _whole_vectors(attention: Attention) -> tuple[Tensor, Tensor]:
    """Weights of both maps, with heads of whole vectors."""
    parts, out = _by_head(attention)
    return _joined(list(parts), out, out.shape[1])


def _by_head(attention: Attention) -> tuple[Tensor, Tensor]:
    """Split both maps' weights: queries, keys and values (3, heads, d, dim); what was attended (heads, d, dim)."""
    out = cast(nn.Linear, attention.to_out[0]).weight
    joint = attention.to_qkv.weight.view(3, attention.heads, -1, out.shape[0])
    return joint.float(), out.float().mT.unflatten(0, (attention.heads, -1))


def _joined(parts: list[Tensor], out: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Invert ``_by_head``, padded; scores are divided by the root of what a head is wide then, not of ``width``."""
    padded = [F.pad(part, (0, 0, 0, _padded(part.shape[1]) - part.shape[1])) for part in (*parts, out)]
    padded[0] = padded[0] * (padded[0].shape[1] / width) ** 0.5
    return torch.cat(padded[:-1]).flatten(0, 1), padded[-1].flatten(0, 1).mT.contiguous()


def _array(numbers: list[int]) -> ctypes.Array[ctypes.c_long]:
    return (ctypes.c_long * len(numbers))(*numbers)


def _flops(sizes: list[int], backward: bool) -> int:
    batch, tokens, frame, dim, heads, width, hidden, depth, _, folds, _ = sizes
    pairs = sum(range(frame, tokens + 1, frame)) * frame
    maps = batch * tokens * ((2 if folds else 4) * dim * heads * width + 2 * dim * hidden)
    return 2 * depth * (maps + (5 if backward else 2) * batch * heads * (dim if folds else width) * pairs)


def spent_in_transformers() -> dict[str, float]:
    """Shares of the time of all packed transformers since the last call, as their first thread saw them."""
    if not can_load():
        return {}
    seconds = (ctypes.c_double * 4)()
    load().transformer_spent(seconds)
    names = ("linear maps", "attention", "norm and residual", "GELU")
    return {name: each / (sum(seconds) or 1.0) for name, each in zip(names, seconds, strict=True)}
